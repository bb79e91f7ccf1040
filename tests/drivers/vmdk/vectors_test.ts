/** The test vectors of the format's reference, and what tables are that were not there. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { sha256 } from "../qcow2/_image.ts";
import {
  assertBytes,
  contentOf,
  copyOf,
  create,
  descriptor,
  fileOf,
  type Files,
  FOLDER,
  hostedHeader,
  NAME,
  open,
  pattern,
  SECTOR,
  u32,
} from "./_images.ts";

const K = 1024;

/** The reference's mask: the embedded descriptor gone. */
async function maskedHash(files: Files, name = NAME): Promise<string> {
  return await sha256(files.get(name)!.bytes().fill(0, 0x200, 0x2a00));
}

const fill = (node: BlockNode, byte: number, offset: number, length: number) =>
  node.write(offset, new Uint8Array(length).fill(byte));

Deno.test("vmdk vector: a new sparse image, and two writes", async () => {
  const files = await create({ size: "1M" });
  assertEquals(
    await maskedHash(files),
    "f4b9816360099664effb4e8ef690f093a09eca9fd58577136c8d913cb0249946",
  );
  {
    await using node = await open(files, { writable: true });
    await fill(node, 0x5a, 66 * K, 4 * K);
    await fill(node, 0x11, 0, 64 * K);
  }
  assertEquals(
    await maskedHash(copyOf(files)),
    "69ef1508d0ef9147806ba97a15de4d7ecddce83679c36ef383f4cb4529820771",
  );
});

Deno.test("vmdk vector: zeroed grains", async () => {
  const files = await create({ size: "1M", zeroed_grain: "on" });
  assertEquals(
    await maskedHash(files),
    "523e7b8ff013922cf7eb4e6489238895552809ca03f512c74c9892f5cdd2464b",
  );
  {
    await using node = await open(files, { writable: true });
    await fill(node, 0x5a, 64 * K, 64 * K);
    await node.writeZeroes(128 * K, 64 * K, { unmap: false });
    await node.writeZeroes(64 * K, 64 * K, { unmap: false });
    await node.writeZeroes(196 * K, 32 * K, { unmap: false });
  }
  assertEquals(
    await maskedHash(copyOf(files)),
    "0d37a2feee1eba17449b2d1d10e159049118900e76466551824ec9630fcc564e",
  );
});

Deno.test("vmdk vector: a new stream", async () => {
  assertEquals(
    await maskedHash(await create({ size: "1M", subformat: "streamOptimized" })),
    "81964be421ad89ab090373dfd34b9d378d9c78f8b2bb3dd2196c3685004ffb47",
  );
});

Deno.test("vmdk vector: extents of a split image", async () => {
  const files = await create({
    size: "3G",
    subformat: "twoGbMaxExtentSparse",
    adapter_type: "lsilogic",
    hwversion: "8",
  });
  for (
    const [part, hash] of [
      ["test-s001.vmdk", "ba6506dd8ba08a1b0395fb2dd983727111918adbd6f615627bf45bf112120d0b"],
      ["test-s002.vmdk", "8bf10d8a06e6b43a6335668f78d4866c58b0a1ae670fe8c9083d65811991dea9"],
    ] as const
  ) {
    assertEquals(await sha256(files.get(FOLDER + part)!.bytes()), hash, part);
  }
});

Deno.test("vmdk vector: a header with more than can be", async () => {
  const header = hostedHeader({ capacity: 0x1efffffc1b000001n, tableEntries: 506, overhead: 1 });
  const bytes = fileOf(64 * K, [[0, header]]);
  const error = await assertRejects(
    () => open(new Map([[NAME, new MemoryNode({ filename: NAME, bytes })]])),
    ImageError,
  );
  assertEquals(error.message, "L1 size too big");
});

Deno.test("vmdk: more changed tables than are kept otherwise", async () => {
  // A redo log in grains of one sector: a table leads to 2 MiB.
  const tables = 150;
  const header = fileOf(4 * SECTOR, [
    [0, "COWD"],
    [4, u32(1, 3, tables * 4096, 1, 4, tables, 8)],
  ]);
  const files: Files = new Map(
    Object.entries({
      [NAME]: new TextEncoder().encode(
        descriptor("vmfsSparse", `RW ${tables * 4096} VMFSSPARSE "e"`),
      ),
      [`${FOLDER}e`]: fileOf(8 * SECTOR, [[0, header]]),
    }).map(([name, bytes]) => [name, new MemoryNode({ filename: name, bytes })]),
  );
  const at = (table: number) => table * 4096 * SECTOR + table * SECTOR;
  {
    await using node = await open(files, { writable: true });
    for (const round of [0, 1]) {
      for (let table = 0; table < tables; table++) {
        await node.write(at(table) + round * SECTOR, pattern(table + round, SECTOR));
      }
    }
    assertEquals(node.checker !== undefined, true);
  }
  await using node = await open(copyOf(files));
  const bytes = new Uint8Array(2 * SECTOR);
  for (let table = 0; table < tables; table++) {
    await node.read(at(table), bytes);
    assertEquals(bytes.subarray(0, SECTOR), pattern(table, SECTOR), `table ${table}`);
    assertEquals(bytes.subarray(SECTOR), pattern(table + 1, SECTOR), `table ${table}`);
  }
});

Deno.test("vmdk: requests at the same time to one table that is not there make one", async () => {
  const bytes = fileOf(24 * SECTOR, [
    [0, hostedHeader({ flags: 3, capacity: 1024, grain: 8, tableEntries: 16, redundantAt: 22 })],
    [SECTOR, descriptor("monolithicSparse", "")],
  ]);
  const files: Files = new Map([[NAME, new MemoryNode({ filename: NAME, bytes })]]);
  const expected = new Uint8Array(1024 * SECTOR);
  {
    await using node = await open(files, { writable: true });
    await Promise.all(Array.from({ length: 40 }, (_, n) => {
      const part = pattern(n, 3 * SECTOR);
      expected.set(part, n * 5 * SECTOR);
      return node.write(n * 5 * SECTOR, part);
    }));
  }
  await using node = await open(copyOf(files));
  assertBytes(await contentOf(node), expected);
  // 200 sectors are 25 grains in 2 tables of a sector, which lie in a grain of both copies.
  assert(copyOf(files).get(NAME)!.length <= (24 + 25 * 8 + 2 * 8) * SECTOR);
});

Deno.test("vmdk: a content id changes with the first write and not before", async () => {
  const files = await create({ size: "1M" });
  const cidOf = async (files: Files) => {
    await using node = await open(copyOf(files));
    return (await node.details!()).specific!.data["cid"];
  };
  const before = await cidOf(files);
  {
    const opened = copyOf(files);
    const node = await open(opened, { writable: true });
    await node[Symbol.asyncDispose]();
    assertEquals(await cidOf(opened), before, "opened and closed");
  }
  const opened = copyOf(files);
  await using node = await open(opened, { writable: true });
  await fill(node, 1, 0, 512);
  const after = await cidOf(opened);
  assert(after !== before, "written to");
  await fill(node, 2, 0, 512);
  assertEquals(await cidOf(opened), after, "once for each opening");
});
