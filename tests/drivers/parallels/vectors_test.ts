/** Images whose bytes are known. */
import { assertEquals } from "@std/assert";
import { parallels } from "../../../drivers/parallels/driver.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context, sha256 } from "../qcow2/_image.ts";
import { open, tableOf } from "./_images.ts";

const [K, M] = [1024, 1024 * 1024];

async function create(options: Readonly<Record<string, string>>): Promise<MemoryNode> {
  const file = new MemoryNode();
  await parallels.create!({
    filename: "test.hdd",
    options: new OptionSet(parallels.createOptions!, Object.entries(options)),
    createBase: () => Promise.resolve(file),
    context: context({ writable: true }),
  });
  return file.copy();
}

async function written(
  file: MemoryNode,
  ...writes: readonly (readonly [byte: number, offset: number, length: number])[]
): Promise<Uint8Array<ArrayBuffer>> {
  const copy = file.copy();
  {
    await using node = await open(copy, { writable: true });
    for (const [byte, offset, length] of writes) {
      await node.write(offset, new Uint8Array(length).fill(byte));
    }
  }
  return copy.bytes();
}

Deno.test("a new image with clusters of 1 MiB, and what is written to it", async () => {
  const file = await create({ size: "5M" });
  assertEquals(
    await sha256(file.bytes()),
    "625e56753ca6579f9f9a39b227c4d9293a86e8c1aab29809fd66c22f9438fb19",
  );
  assertEquals(
    await sha256(await written(file, [0x5a, 2 * M, 4 * K])),
    "f9b41082e8383f58d0f2f40805d7201ea99b81ac9f927444e834ca10728d33a5",
  );
});

Deno.test("a new image with clusters of 64 KiB, and what is written to it", async () => {
  const file = await create({ size: "1M", cluster_size: "64k" });
  assertEquals(
    await sha256(file.bytes()),
    "ffaac08aeb9e749dd6d2390d8b6f99dad325e86f8da3dc5137b22db99b8fcc21",
  );
  assertEquals(
    await sha256(await written(file, [1, 0, 64 * K], [2, 256 * K, 64 * K])),
    "10fd887f90d348e844dd6e663c36348f70ab39342db84afb6b916a94651aca1d",
  );
});

for (
  const [clusterSize, length, fields] of [
    ["512", 82432, [0x5000, 0xa1]],
    ["1000", 41984, [0x2800, 0x52]],
    ["3M", 3145728, [4, 0x1800]],
  ] as const
) {
  Deno.test(`a new image with clusters of ${clusterSize}`, async () => {
    const bytes = (await create({ size: "10M", cluster_size: clusterSize })).bytes();
    const view = new DataView(bytes.buffer);
    assertEquals(bytes.length, length);
    assertEquals<readonly number[]>([view.getUint32(32, true), view.getUint32(48, true)], fields);
  });
}

Deno.test("discarded clusters are used again, the lowest first", async () => {
  const file = await create({ size: "1M", cluster_size: "64k" });
  const before = await written(file, [1, 0, 256 * K]);
  assertEquals(tableOf(before).slice(0, 5), [1, 2, 3, 4, 0]);
  const image = new MemoryNode({ bytes: before });
  {
    await using node = await open(image, { writable: true, unmap: true });
    await node.discard(64 * K, 128 * K);
    await node.write(512 * K, new Uint8Array(192 * K).fill(7));
  }
  const table = tableOf(image.bytes());
  assertEquals(table.slice(0, 4), [1, 0, 0, 4]);
  assertEquals(table.slice(8, 11), [2, 3, 5]);
  assertEquals(image.bytes().length, 393216);
});
