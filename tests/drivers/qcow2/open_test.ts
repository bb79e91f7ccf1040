import { assertEquals, assertRejects } from "@std/assert";
import type { Qcow2Image } from "../../../drivers/qcow2/image.ts";
import { openImage } from "../../../drivers/qcow2/open.ts";
import { openMetadata } from "../../../drivers/qcow2/open_metadata.ts";
import type { ImageDetails } from "../../../lib/block/capabilities.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { reference, useReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { context, create, hex, patch } from "./_image.ts";

const repair = () => Promise.reject(new Error("not dirty"));

/** A plain image of 1 MiB whose header is changed. */
async function image(
  ...fields: (readonly [offset: number, width: 1 | 2 | 4 | 8, value: number | bigint])[]
): Promise<MemoryNode> {
  const bytes = (await create({ size: "1M" })).bytes();
  patch(bytes, ...fields);
  return new MemoryNode({ bytes });
}

Deno.test("opening read-only writes nothing, whatever the autoclear bits", async () => {
  const file = await image([88, 8, 0xf0]);
  file.logging = true;
  const opened = await openImage(file, context(), repair);
  assertEquals(opened.image.header.autoclear, 0xf0n);
  assertEquals(file.log, []);
});

Deno.test("opening for writing clears unknown autoclear bits and keeps unknown compatible ones", async () => {
  const file = await image([80, 8, 0xf1], [88, 8, 0xf0]);
  file.logging = true;
  await openImage(file, context({ writable: true }), repair);
  assertEquals(file.log.map(({ kind, offset, length }) => [kind, offset, length]), [
    ["write", 0, 512],
    ["flush", 0, 0],
  ]);
  assertEquals(file.slice(72, 24), hex("0000000000000000 00000000000000f1 0000000000000000"));
});

Deno.test("opening a plain image for writing writes nothing", async () => {
  const file = await image();
  file.logging = true;
  await openImage(file, context({ writable: true }), repair);
  assertEquals(file.log, []);
});

Deno.test("opening for writing drops bitmaps that nobody kept up to date", async () => {
  const file = await image();
  const bitmaps = hex("23852875 00000018 00000001 00000000 0000000000000020 0000000000050000");
  await file.write(0x70, new Uint8Array(1024));
  await file.write(0x70, bitmaps);
  await openImage(file, context({ writable: true }), repair);
  // The feature table is back in their place.
  assertEquals(file.slice(0x70, 8), hex("6803f857 00000180"));
  const again = context();
  await openImage(file.copy(), again, repair);
  assertEquals(again.warnings, []);
});

Deno.test("a dirty image is repaired before it is written to", async () => {
  const file = await image([72, 8, 1]);
  const repaired: Qcow2Image[] = [];
  const { image: opened } = await openImage(
    file,
    context({ writable: true }),
    (dirty) => Promise.resolve(void repaired.push(dirty)),
  );
  assertEquals(repaired, [opened]);
});

Deno.test("a dirty image is not repaired for reading or checking", async () => {
  for (const mode of [{}, { checking: true }, { checking: true, writable: true }]) {
    await openImage(await image([72, 8, 1]), context(mode), repair);
  }
});

Deno.test("a dirty image that cannot be repaired is refused", async () => {
  const file = await image([72, 8, 1]);
  const error = await assertRejects(
    () =>
      openImage(
        file,
        context({ writable: true }),
        () => Promise.reject(ImageError.fromErrno("EIO")),
      ),
    ImageError,
  );
  assertEquals(error.message, "Could not repair dirty image: Input/output error");
});

/** What an opening for metadata tells. */
async function detailsOf(file: MemoryNode): Promise<ImageDetails> {
  await using node = await openMetadata(file, context({ metadataOnly: true }));
  return await node.details!();
}

Deno.test("an image that is open for its metadata gives no data", async () => {
  const node = await openMetadata(await image(), context({ metadataOnly: true }));
  const error = await assertRejects(() => node.read(0, new Uint8Array(512)), ImageError);
  assertEquals([error.errno, node.length], ["ENOTSUP", 1 << 20]);
});

Deno.test("looking at metadata needs no data file", async () => {
  const file = await create({ size: "1M", data_file: "d.raw" });
  const details = await detailsOf(file);
  assertEquals(details.specific!.data["data-file"], "d.raw");
});

Deno.test("a data file that is missing is named", async () => {
  const file = await create({ size: "1M", data_file: "d.raw" });
  const error = await assertRejects(() => openImage(file, context(), repair), ImageError);
  assertEquals(error.message, "Could not open 'd.raw': No such file or directory");
});

Deno.test("a data file is closed when opening fails behind it", async () => {
  const files = new Map<string, MemoryNode>();
  const bytes = (await create({ size: "1M", data_file: "d.raw" }, files)).bytes();
  // A snapshot table with more extra data than there may be.
  patch(bytes, [60, 4, 1], [64, 8, 0x40000]);
  const file = new MemoryNode({ bytes });
  await file.write(0x40000 + 36, hex("00002000"));
  await assertRejects(() => openImage(file, context({}, { files }), repair), ImageError);
  assertEquals([files.get("d.raw")!.closed, file.closed], [true, false]);
});

Deno.test("details of a version 2 image lack what version 3 brought", async () => {
  const file = await create({ size: "1M", compat: "0.10" });
  assertEquals(await detailsOf(file), {
    clusterSize: 65536,
    encrypted: false,
    dirty: false,
    specific: {
      type: "qcow2",
      data: { compat: "0.10", "compression-type": "zlib", "refcount-bits": 16 },
    },
  });
});

Deno.test("details tell of the dirty and the corrupt bit", async () => {
  const details = await detailsOf(await image([72, 8, 3]));
  assertEquals([details.dirty, details.specific!.data["corrupt"]], [true, true]);
});

/** Images of the reference whose details are compared. */
const SHOWN: readonly (readonly [options: string, ...commands: string[][]])[] = [
  ["compat=0.10"],
  ["compat=1.1,lazy_refcounts=on,refcount_bits=1"],
  ["extended_l2=on,compression_type=zstd,cluster_size=2M"],
  ["data_file=d"],
  ["data_file=d,data_file_raw=on"],
  [
    "cluster_size=512",
    ["bitmap", "--add", "x", "a"],
    ["bitmap", "--add", "--disable", "-g", "1M", "x", "b"],
  ],
];

Deno.test({
  name: "details are what the reference shows",
  ignore: reference.ignore,
  fn: async (t) => {
    for (const [options, ...commands] of SHOWN) {
      await t.step(options, async () => {
        await using dir = await tempDir();
        const at = { cwd: dir.path };
        await useReference(["create", "-q", "-f", "qcow2", "-o", options, "x", "3M"], at);
        for (const command of commands) await useReference(command, at);
        const file = new MemoryNode({ bytes: await Deno.readFile(dir.file("x")) });
        const details = await detailsOf(file);
        const info = JSON.parse(await useReference(["info", "--output=json", "x"], at));
        assertEquals(details.specific, info["format-specific"]);
        assertEquals(
          Object.keys(details.specific!.data),
          Object.keys(info["format-specific"].data),
        );
        assertEquals([details.clusterSize, details.dirty], [
          info["cluster-size"],
          info["dirty-flag"],
        ]);
      });
    }
  },
});

Deno.test({
  name: "opening for writing rewrites a header as the reference does",
  ignore: reference.ignore,
  fn: async () => {
    await using dir = await tempDir();
    const file = await create({
      size: "1M",
      cluster_size: "8k",
      backing_file: "b",
      backing_fmt: "raw",
    });
    const bytes = file.bytes();
    // A longer header, three unknown extensions, a name behind them.
    bytes.fill(0, 0x60, 0x300);
    patch(bytes, [24, 8, 1048576 + 17], [80, 8, 0x11], [88, 8, 0x60], [96, 4, 4], [100, 4, 120]);
    patch(bytes, [112, 8, 0x0102030405060708n], [8, 8, 0x200], [16, 4, 1]);
    bytes.set(hex("11111111 00000003 aabbcc 0000000000"), 120);
    bytes.set(hex("22222222 00000000"), 136);
    bytes.set(hex("e2792aca 00000003 726177 0000000000"), 144);
    bytes.set(hex("33333333 00000009 010203040506070809 00000000000000"), 160);
    bytes[0x200] = 0x62;
    await Deno.writeFile(dir.file("x"), bytes);
    await Deno.writeFile(dir.file("b"), new Uint8Array(512));
    await useReference(["-f", "qcow2", "-c", "quit", "x"], { cwd: dir.path, tool: "qemu-io" });
    const ours = new MemoryNode({ bytes });
    await openImage(ours, context({ writable: true }), repair);
    assertEquals(ours.slice(0, 8192), (await Deno.readFile(dir.file("x"))).slice(0, 8192));
  },
});
