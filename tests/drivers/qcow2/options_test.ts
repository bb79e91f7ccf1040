import { assertEquals, assertThrows } from "@std/assert";
import { CREATE_OPTIONS, createParameters } from "../../../drivers/qcow2/options.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { reference, runReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { createOptions } from "./_image.ts";

type Options = Readonly<Record<string, string>>;

/** Options that do not go together, and what is said about them. */
const REFUSED: readonly (readonly [options: Options, text: string])[] = [
  ...["0", "1", "256", "1000", "4M"].map((cluster_size) =>
    [{ cluster_size }, "Cluster size must be a power of two between 512 and 2048k"] as const
  ),
  [
    { extended_l2: "on", cluster_size: "8k" },
    "Extended L2 entries are only supported with cluster sizes of at least 16384 bytes",
  ],
  [
    { extended_l2: "on", compat: "0.10" },
    "Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)",
  ],
  [
    { lazy_refcounts: "on", compat: "v2" },
    "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)",
  ],
  ...["0", "3", "128"].map((refcount_bits) =>
    [{ refcount_bits }, "Refcount width must be a power of two and may not exceed 64 bits"] as const
  ),
  [
    { refcount_bits: "8", compat: "0.10" },
    "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)",
  ],
  [
    { compression_type: "zstd", compat: "0.10" },
    "Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)",
  ],
  [
    { data_file: "d", compat: "0.10" },
    "External data files are only supported with compatibility level 1.1 and above (use version=v3 or greater)",
  ],
  [{ data_file_raw: "on" }, "data-file-raw requires data-file"],
  [
    { data_file: "d", data_file_raw: "on", backing_file: "b", backing_fmt: "raw" },
    "Backing file and data-file-raw cannot be used at the same time",
  ],
  [
    { preallocation: "metadata", backing_file: "b", backing_fmt: "raw" },
    "Backing file and preallocation can only be used at the same time if extended_l2 is on",
  ],
  [{ backing_fmt: "raw" }, "Backing format cannot be used without backing file"],
  [{ compression_type: "lz4" }, "Parameter 'compression-type' does not accept value 'lz4'"],
  [{ compat: "2" }, "Parameter 'version' does not accept value '2'"],
  [{ preallocation: "all" }, "Parameter 'preallocation' does not accept value 'all'"],
  [
    { backing_file: "b", backing_fmt: "frob" },
    "Parameter 'backing-fmt' does not accept value 'frob'",
  ],
  [{ "encrypt.format": "rot13" }, "Parameter 'format' does not accept value 'rot13'"],
  [{ "encrypt.iter-time": "10" }, "Parameter 'encrypt.format' is missing"],
  [
    { "encrypt.format": "aes", "encrypt.iter-time": "10" },
    "Parameter 'encrypt.iter-time' is unexpected",
  ],
  [
    { "encrypt.format": "luks", "encrypt.cipher-alg": "rot13" },
    "Parameter 'cipher-alg' does not accept value 'rot13'",
  ],
  [
    { encryption: "on", "encrypt.format": "aes" },
    "'encrypt.format' and its alias 'encryption' can't be used at the same time",
  ],
  // Of two faults the one that the reference names.
  [
    { cluster_size: "1000", compression_type: "zstd", compat: "0.10" },
    "Cluster size must be a power of two between 512 and 2048k",
  ],
  [
    { data_file_raw: "on", lazy_refcounts: "on", compat: "0.10" },
    "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)",
  ],
  [
    { "encrypt.format": "aes", refcount_bits: "5" },
    "Refcount width must be a power of two and may not exceed 64 bits",
  ],
];

for (const [options, text] of REFUSED) {
  const list = Object.entries(options).map((pair) => pair.join("=")).join(",");
  Deno.test(`createParameters() refuses ${list}`, () => {
    const error = assertThrows(
      () => createParameters(createOptions({ size: "1M", ...options })),
      ImageError,
    );
    assertEquals([error.message, error.errno], [text, "EINVAL"]);
  });
}

Deno.test({
  name: "create refuses options with the reference's words",
  ignore: reference.ignore,
  fn: async (t) => {
    await using dir = await tempDir();
    for (const [options, text] of REFUSED) {
      const list = Object.entries(options).map((pair) => pair.join("=")).join(",");
      await t.step(list, async () => {
        const { stderr } = await runReference(
          ["create", "-q", "-u", "-f", "qcow2", "-o", list, "x.qcow2", "1M"],
          { cwd: dir.path },
        );
        assertEquals(stderr, `qemu-img: x.qcow2: ${text}\n`);
      });
    }
  },
});

Deno.test("createParameters() has the reference's defaults", () => {
  assertEquals(createParameters(createOptions({ size: "1M" })), {
    version: 3,
    size: 1048576,
    clusterBits: 16,
    extendedL2: false,
    preallocation: "off",
    compressionType: 0,
    backingFile: "",
    backingFormat: undefined,
    dataFile: undefined,
    dataFileRaw: false,
    lazyRefcounts: false,
    refcountOrder: 4,
    encryption: undefined,
  });
});

Deno.test("createParameters() rounds the size up to sectors", () => {
  assertEquals(createParameters(createOptions({ size: "1" })).size, 512);
});

Deno.test("createParameters() says EFBIG for a size above 2^53", () => {
  const error = assertThrows(
    () => createParameters(createOptions({ size: "9007199254740992" })),
    ImageError,
  );
  assertEquals(error.errno, "EFBIG");
});

Deno.test("createParameters() preallocates tables for a raw data file", () => {
  const parameters = createParameters(
    createOptions({ size: "1M", data_file: "d", data_file_raw: "on" }),
  );
  assertEquals(parameters.preallocation, "metadata");
});

Deno.test("only five create options are always on the Formatting line", () => {
  assertEquals(
    CREATE_OPTIONS.filter((option) => option.default !== undefined)
      .map((option) => `${option.name}=${option.default}`),
    [
      "cluster_size=65536",
      "extended_l2=off",
      "compression_type=zlib",
      "lazy_refcounts=off",
      "refcount_bits=16",
    ],
  );
});

Deno.test("no help text is the reference's", { ignore: reference.ignore }, async () => {
  await using dir = await tempDir();
  const { stdout } = await runReference(["create", "-f", "qcow2", "-o", "help"], { cwd: dir.path });
  for (const { name, help } of CREATE_OPTIONS) {
    assertEquals(stdout.includes(`${name}=<`), true, `the reference has ${name}`);
    assertEquals(stdout.includes(`- ${help}\n`), false, `${name}: ${help}`);
  }
});
