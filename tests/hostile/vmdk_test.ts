/** VMDKs made to do harm: an answer after a bounded number of requests, and no file opened that was not asked for. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import {
  assertBytes,
  create,
  descriptor,
  fileOf,
  type Files,
  GRAIN,
  hostedHeader,
  NAME,
  open,
  SECTOR,
  stream,
  u32,
  u64,
} from "../drivers/vmdk/_images.ts";
import { MemoryNode } from "../_memory_node.ts";
import { runQimg } from "../_reference.ts";
import { tempDir } from "../_temp.ts";

/** Requests to files that everything that is done with an image may take. */
const MOST_REQUESTS = 3000;
/** Bytes that may be asked of files at a time. */
const MOST_BYTES = 2 ** 22;
const END = 2n ** 64n - 1n;

interface Evil {
  readonly name: string;
  readonly bytes: () => Uint8Array<ArrayBuffer>;
  /** What is said when it is opened; absent if it can be. */
  readonly refusal?: string;
}

/** A sparse file of 64 KiB with this header, a descriptor, and more. */
function sparse(
  header: Parameters<typeof hostedHeader>[0],
  pieces: readonly (readonly [number, Uint8Array])[] = [],
): Uint8Array<ArrayBuffer> {
  return fileOf(64 * 1024, [
    [0, hostedHeader(header)],
    [SECTOR, descriptor("monolithicSparse", "")],
    ...pieces,
  ]);
}

const COMPRESSED = { version: 3, flags: 0x30001, compression: 1 } as const;
const IN_PLACE = 21 * SECTOR;

const IMAGES: readonly Evil[] = [
  {
    name: "a disk of 8 EiB",
    bytes: () => sparse({ capacity: 2n ** 54n, grain: 0x200000 }),
    refusal: "Disks of 2^53 bytes and more are not supported",
  },
  {
    name: "a capacity whose sum with a table's span runs over",
    bytes: () => sparse({ capacity: END }),
    refusal: "Disks of 2^53 bytes and more are not supported",
  },
  {
    name: "as many directory entries as there may be, all behind the file's end",
    bytes: () => sparse({ capacity: 2 ** 25 * 65536, directoryAt: 2 ** 30 }),
  },
  {
    name: "the same, read from the file's end on",
    bytes: () => sparse({ capacity: 2 ** 25 * 65536, directoryAt: 120 }),
  },
  {
    name: "one entry more",
    bytes: () => sparse({ capacity: 2 ** 25 * 65536 + 1 }),
    refusal: "L1 size too big",
  },
  {
    name: "grains of 1 GiB that lie nowhere",
    bytes: () =>
      sparse({ grain: 0x200000, capacity: 0x400000, tableEntries: 1 }, [
        [IN_PLACE, u32(24, 0xffffffff)],
        [24 * SECTOR, u32(0xffffffff)],
      ]),
  },
  {
    name: "compressed grains of 1 GiB",
    bytes: () =>
      sparse({ ...COMPRESSED, grain: 0x200000, capacity: 0x400000, tableEntries: 1 }, [
        [IN_PLACE, u32(24, 24)],
        [24 * SECTOR, u32(30)],
        [30 * SECTOR, u64(0)],
        [30 * SECTOR + 8, u32(0x3fffffff)],
      ]),
  },
  {
    name: "a compressed grain that says it is longer than its file",
    bytes: () =>
      sparse({ ...COMPRESSED, capacity: 256 }, [
        [IN_PLACE, u32(24)],
        [24 * SECTOR, u32(127, 30)],
        [127 * SECTOR + 8, u32(0x20000)],
        [30 * SECTOR + 8, u32(0xffffffff)],
      ]),
  },
  {
    name: "a directory that is its own table, and its own grains",
    bytes: () => sparse({ capacity: 2 ** 16 * 8 }, [[IN_PLACE, u32(21, 21, 21, 21, 21, 21)]]),
  },
  {
    name: "a redundant directory in the header",
    bytes: () => sparse({ flags: 3, redundantAt: 0 }),
  },
  {
    name: "a redundant directory that no file reaches",
    bytes: () => sparse({ flags: 3, redundantAt: 2n ** 60n }),
    refusal: `Could not read l1 backup table from extent '${NAME}'`,
  },
  {
    name: "a directory that no file reaches",
    bytes: () => sparse({ directoryAt: 2n ** 60n }),
    refusal: `Could not read l1 table from extent '${NAME}'`,
  },
  {
    name: "grains of nothing",
    bytes: () => sparse({ grain: 0 }),
    refusal: "L1 entry size is invalid",
  },
  {
    name: "tables of nothing",
    bytes: () => sparse({ tableEntries: 0 }),
    refusal: "L1 entry size is invalid",
  },
  {
    name: "a footer that refers to a footer",
    bytes: () => {
      const bytes = stream();
      // The directory's sector in the footer's header.
      bytes.set(u64(END), bytes.length - 2 * SECTOR + 56);
      return bytes;
    },
    refusal: `Could not read l1 table from extent '${NAME}'`,
  },
  {
    name: "a stream of nothing but its header",
    bytes: () => fileOf(SECTOR, [[0, hostedHeader({ ...COMPRESSED, directoryAt: END })]]),
    refusal: "Invalid footer",
  },
];

/** Everything that can be done with a disk: failures are errors with a reason. */
async function useAll(node: BlockNode): Promise<void> {
  const attempt = async (act: () => Promise<unknown>) => {
    try {
      await act();
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
    }
  };
  await attempt(async () => {
    for (let at = 0, n = 0; at < node.length && n < 1000; n++) {
      const { length } = await node.extent(at, node.length - at);
      assert(length > 0 && length <= node.length - at);
      at += length;
    }
  });
  await attempt(() => node.checker!.check("none", () => {}));
  const piece = new Uint8Array(Math.min(node.length, 64 * 1024));
  for (const at of [0, node.length - piece.length]) await attempt(() => node.read(at, piece));
  if (node.readOnly) return;
  for (const at of [512, node.length - 1024]) {
    await attempt(() => node.write(at, new Uint8Array(512).fill(1)));
  }
  await attempt(() => node.flush());
}

for (const { name, bytes, refusal } of IMAGES) {
  Deno.test(`hostile vmdk: ${name}`, async () => {
    for (const writable of [false, true]) {
      let requests = 0;
      const file = new MemoryNode({
        filename: NAME,
        bytes: bytes(),
        before({ kind, length }) {
          requests++;
          if (kind === "read" || kind === "write") assert(length <= MOST_BYTES, `${length} bytes`);
        },
      });
      const files: Files = new Map([[NAME, file]]);
      if (refusal !== undefined) {
        const error = await assertRejects(() => open(files, { writable }), ImageError);
        assertEquals(error.message, refusal);
        assert(error.field !== undefined && error.file !== undefined, "names file and field");
      } else {
        const node = await open(files, { writable });
        await useAll(node);
        try {
          await node[Symbol.asyncDispose]();
        } catch (error) {
          assert(error instanceof ImageError);
        }
      }
      assert(requests <= MOST_REQUESTS, `${requests} requests`);
    }
  });
}

Deno.test("hostile vmdk: a grain behind the file's end is zeros, and a check says so", async () => {
  const files = await create({ size: "1M" });
  const bytes = files.get(NAME)!.bytes();
  // The first entry of the first table (section 10 of the format's reference).
  bytes.set(u32(0x10000), 0x3600);
  await using node = await open(new Map([[NAME, new MemoryNode({ filename: NAME, bytes })]]));
  const grain = new Uint8Array(GRAIN).fill(1);
  await node.read(0, grain);
  assertBytes(grain, new Uint8Array(GRAIN));
  const lines: string[] = [];
  await assertRejects(() => node.checker!.check("none", (line) => void lines.push(line)));
  assertEquals(lines, ["ERROR: cluster offset for sector 0 points after EOF"]);
});

/** Runs a command on a descriptor, beside a file with a secret. */
async function withDescriptor(
  text: string,
  args: readonly string[],
): Promise<{ code: number; stderr: string; shown: boolean }> {
  await using dir = await tempDir();
  await Deno.writeTextFile(dir.file("secret"), "the secret of this house".padEnd(1024));
  await Deno.writeTextFile(dir.file("a.vmdk"), text.replaceAll("DIR", dir.path));
  const { code, stdout, stderr } = await runQimg(args, { cwd: dir.path });
  let shown = stdout.includes("secret of");
  try {
    shown ||= (await Deno.readTextFile(dir.file("out"))).includes("secret of");
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return { code, stderr, shown };
}

for (const name of ["secret", "DIR/secret", "../x/../secret"]) {
  Deno.test(`hostile vmdk: an untrusted one may not name ${name} as its extent`, async () => {
    for (const command of ["convert -O raw a.vmdk out", "info a.vmdk", "map a.vmdk"]) {
      const { code, stderr, shown } = await withDescriptor(
        descriptor("vmfs", `RW 2 VMFS "${name}"`),
        [command.split(" ")[0]!, "--untrusted", ...command.split(" ").slice(1)],
      );
      assertEquals([code, shown], [1, false], command);
      assertStringIncludes(stderr, "as its extent, which is not opened for an untrusted image");
    }
  });
}

Deno.test("hostile vmdk: extents are paths, and name no protocol", async () => {
  for (const name of ["file:secret", 'json:{"driver":"file","filename":"secret"}', "nbd://x"]) {
    const line = `RW 2 VMFS "${name.replaceAll('"', "'")}"`;
    const { code, shown } = await withDescriptor(
      descriptor("vmfs", line),
      ["convert", "-O", "raw", "a.vmdk", "out"],
    );
    assertEquals([code, shown], [1, false], name);
  }
});

Deno.test("hostile vmdk: a descriptor that is its own extent is not written to", async () => {
  for (const line of ['RW 8 FLAT "a.vmdk" 0', 'RW 8 VMFS "./a.vmdk"', 'RW 8 SPARSE "a.vmdk"']) {
    const { code, stderr } = await withDescriptor(
      descriptor("vmfs", line),
      ["convert", "-n", "-f", "raw", "-O", "vmdk", "secret", "a.vmdk"],
    );
    assertEquals(code, 1, line);
    assert(stderr.length > 0 && !stderr.includes("internal error"), stderr);
  }
});

Deno.test("hostile vmdk: an image that is its own parent is refused", async () => {
  const { code, stderr } = await withDescriptor(
    descriptor("vmfs", 'RW 2 VMFS "secret"').replace(
      "# Extent",
      'parentFileNameHint="a.vmdk"\n# Extent',
    ),
    ["map", "a.vmdk"],
  );
  assertEquals(code, 1);
  assert(!stderr.includes("internal error"), stderr);
});

Deno.test("hostile vmdk: very many extents", async () => {
  const lines = Array.from({ length: 4097 }, () => 'RW 1 VMFS "secret"');
  const { code, stderr } = await withDescriptor(descriptor("vmfs", ...lines), ["info", "a.vmdk"]);
  assertEquals(code, 1);
  assertStringIncludes(stderr, "More than 4096 extents are not supported");
});

Deno.test("vmdk: split images have no more files than can be open", async () => {
  const error = await assertRejects(
    () => create({ subformat: "twoGbMaxExtentFlat", size: "8796093022720" }),
    ImageError,
  );
  assertEquals([error.errno, error.field], ["EFBIG", "size"]);
});
