import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { create, DYNAMIC, FIXED, handMade, open, patchFooters, sectorsOf } from "./_images.ts";

Deno.test("a footer that lacks its last byte is one", async () => {
  const bytes = handMade({ type: FIXED, length: 2048, id: 3 }).slice(0, -1);
  const file = new MemoryNode({ bytes });
  await using node = await open(file, { writable: true });
  await node.write(1536, new Uint8Array(512).fill(4));
  assertEquals(await sectorsOf(node), [3, 3, 3, 4]);
  assertEquals(file.slice(2048, 511), bytes.slice(2048));
  assertEquals(file.exactLength, 2559);
});

Deno.test("what a fixed image stores lies where it lies on the disk, holes too", async () => {
  const file = await create({ size: "1M", subformat: "fixed", force_size: "on" });
  await using node = await open(file, { writable: true });
  await node.write(65536, new Uint8Array(4096).fill(1));
  const { state, hole, offset, length } = await node.extent(0, 2 ** 20);
  assertEquals([state, hole, offset, length], ["data", true, 0, 65536]);
  const next = await node.extent(65536, 2 ** 20 - 65536);
  assertEquals([next.hole, next.offset, next.length, next.file], [false, 65536, 4096, file]);
});

Deno.test("the footer of a fixed image is no part of a disk that claims to be longer", async () => {
  const file = await create({ size: "1M", subformat: "fixed", force_size: "on" });
  const bytes = file.bytes();
  patchFooters(
    bytes,
    (footer) => new DataView(footer.buffer, footer.byteOffset).setUint32(52, 2 ** 21),
  );
  const longer = new MemoryNode({ bytes });
  await using node = await open(longer, { writable: true });
  assertEquals(node.length, 2 ** 21);
  await node.write(2 ** 20 - 512, new Uint8Array(512).fill(1));
  for (const offset of [2 ** 20 - 1, 2 ** 20, 2 ** 20 + 4096]) {
    await assertRejects(() => node.write(offset, new Uint8Array(512)), ImageError);
  }
  assertEquals(longer.slice(2 ** 20, 512), bytes.slice(2 ** 20));
});

Deno.test("an image with headers that calls itself fixed is not written", async () => {
  const bytes = handMade({ type: DYNAMIC, length: 8192 });
  patchFooters(bytes, (footer) => footer[63] = 2);
  await assertRejects(() => open(new MemoryNode({ bytes }), { writable: true }), ImageError);
  await using node = await open(new MemoryNode({ bytes }));
  const head = new Uint8Array(512);
  await node.read(0, head);
  assertEquals(head, bytes.slice(0, 512));
});
