import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context, create, open, patch } from "./_image.ts";

const CLUSTER = 4096;

async function image(options: Readonly<Record<string, string>> = {}): Promise<MemoryNode> {
  return await create({ size: "1M", cluster_size: String(CLUSTER), ...options });
}

async function openWritable(file: MemoryNode): Promise<BlockNode> {
  return await open(file, context({ writable: true, resizing: true }));
}

async function byteAt(node: BlockNode, offset: number): Promise<number> {
  const bytes = new Uint8Array(1);
  await node.read(offset, bytes);
  return bytes[0]!;
}

Deno.test("a snapshot is made after the writes that have begun, and none gets into it later", async () => {
  const file = await image();
  await using node = await openWritable(file);
  await node.write(0, new Uint8Array(CLUSTER).fill(1));
  const allocation = await node.allocator!.allocate(CLUSTER, CLUSTER);
  let made = false;
  const making = node.snapshots!.create!("one", 0).then(() => made = true);
  await node.flush();
  assert(!made, "the cluster that is being written would be missing");
  await allocation!.file.write(allocation!.offset, new Uint8Array(CLUSTER).fill(2));
  await allocation!.publish();
  await making;
  await node.write(0, new Uint8Array(2 * CLUSTER).fill(3));
  assertEquals([await byteAt(node, 0), await byteAt(node, CLUSTER)], [3, 3]);
  await node.snapshots!.apply!(node.snapshots!.list()[0]!);
  assertEquals([await byteAt(node, 0), await byteAt(node, CLUSTER)], [1, 2]);
});

Deno.test("one opening may make, apply and remove snapshots and write in between", async () => {
  const file = await image({ lazy_refcounts: "on" });
  const used = file.copy();
  {
    await using node = await openWritable(used);
    const { snapshots: store } = node;
    for (const tag of [1, 2, 3]) {
      await node.write(tag * CLUSTER, new Uint8Array(3 * CLUSTER).fill(tag));
      await store!.create!(`s${tag}`, 0);
    }
    await store!.apply!(store!.list()[0]!);
    assertEquals(await byteAt(node, 3 * CLUSTER), 1);
    await node.write(3 * CLUSTER, new Uint8Array(CLUSTER).fill(9));
    await store!.remove!(store!.list()[0]!);
    await store!.apply!(store!.list()[0]!);
    assertEquals(await byteAt(node, 3 * CLUSTER), 2);
    await store!.remove!(store!.list()[1]!);
    assertEquals(store!.list().map(({ name }) => name), ["s2"]);
  }
  await using node = await open(used.copy());
  const result = await node.checker!.check("none", (line) => assert(false, line));
  assertEquals([result.corruptions, result.leaks, result.checkErrors], [0, 0, 0]);
});

Deno.test("a snapshot of another list is none of this image", async () => {
  await using node = await openWritable(await image());
  await node.snapshots!.create!("one", 0);
  const stranger = { ...node.snapshots!.list()[0]! };
  for (const act of [node.snapshots!.apply!, node.snapshots!.remove!]) {
    const error = await assertRejects(() => act(stranger), ImageError);
    assertEquals(error.errno, "ENOENT");
  }
});

Deno.test("an image that is open for reading shows a snapshot, and can do nothing else", async () => {
  const file = await image();
  const used = file.copy();
  {
    await using node = await openWritable(used);
    await node.write(0, new Uint8Array(CLUSTER).fill(1));
    await node.snapshots!.create!("one", 0);
    await node.write(0, new Uint8Array(CLUSTER).fill(2));
  }
  await using node = await open(used.copy());
  const { create, apply, remove, select, list } = node.snapshots!;
  assertEquals([create, apply, remove], [undefined, undefined, undefined]);
  await select!(list()[0]!);
  assertEquals(await byteAt(node, 0), 1);
});

Deno.test("the date of a snapshot is kept to the microsecond", async () => {
  await using node = await openWritable(await image());
  await node.snapshots!.create!("one", 1700000000123.456);
  const { dateSeconds, dateNanoseconds } = node.snapshots!.list()[0]!;
  assertEquals(dateSeconds, 1700000000);
  assert(Math.abs(dateNanoseconds - 123456000) <= 1000);
  assertEquals(dateNanoseconds % 1000, 0);
});

Deno.test("images with a data file have no snapshots", async () => {
  const files = new Map<string, MemoryNode>();
  const file = await create({ size: "1M", data_file: "data" }, files);
  await using node = await open(file, context({ writable: true }, { files }));
  assertEquals(Object.keys(node.snapshots!), ["list"]);
});

Deno.test("there are 65536 snapshots at the most", async () => {
  const file = await image();
  const table = new Uint8Array(65536 * 40);
  const at = 1 << 20;
  const bytes = new Uint8Array(at + table.length);
  bytes.set(file.bytes());
  bytes.set(table, at);
  patch(bytes, [60, 4, 65536], [64, 8, at]);
  const used = new MemoryNode({ bytes });
  await using node = await openWritable(used);
  const error = await assertRejects(() => node.snapshots!.create!("one too many", 0), ImageError);
  assertEquals(error.errno, "EFBIG");
});
