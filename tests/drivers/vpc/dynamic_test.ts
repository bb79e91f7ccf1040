import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { CACHE_MODES } from "../../../lib/block/mode.ts";
import type { Allocation } from "../../../lib/block/plan.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { DYNAMIC, handMade, open, sectorsOf } from "./_images.ts";

const BLOCK = 4096;
const ZEROS = Array<number>(8).fill(0);

/** Three blocks of eight sectors, of which none is there. */
function empty(): MemoryNode {
  return new MemoryNode({ bytes: handMade({ type: DYNAMIC, length: 3 * BLOCK }) });
}

/** Gives out space for a range and fills it. */
async function fill(
  node: Awaited<ReturnType<typeof open>>,
  offset: number,
  length: number,
  byte: number,
): Promise<Allocation> {
  const allocation = (await node.allocator!.allocate(offset, length))!;
  await allocation.file.write(allocation.offset, new Uint8Array(allocation.length).fill(byte));
  return allocation;
}

Deno.test("sector bitmaps do not count when a dynamic image is read", async () => {
  const bytes = handMade({
    type: DYNAMIC,
    length: 2 * BLOCK,
    blocks: new Map([[1, { sectors: [0, 7], fill: 1 }]]),
  });
  await using node = await open(new MemoryNode({ bytes }));
  assertEquals(await sectorsOf(node), [...ZEROS, 1, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 1]);
});

Deno.test("what is written makes all sectors of its block count", async () => {
  const bytes = handMade({
    type: DYNAMIC,
    length: 2 * BLOCK,
    blocks: new Map([[1, { sectors: [0, 7], fill: 1 }]]),
  });
  const file = new MemoryNode({ bytes });
  await using node = await open(file, { writable: true });
  assertEquals(file.slice(2048, 2).toHex(), "8100");
  await node.write(BLOCK + 1000, new Uint8Array(10));
  assert(file.slice(2048, 512).every((byte) => byte === 0xff));
});

Deno.test("a footer stands behind the last block as soon as blocks are safe", async () => {
  const file = empty();
  const front = file.slice(0, 512);
  await using node = await open(file, { writable: true });
  for (const index of [2, 0]) {
    await node.write(index * BLOCK, new Uint8Array(512).fill(1));
    await node.flush();
    assertEquals(file.slice(file.length - 512, 512), front);
  }
  assertEquals(file.length, 2048 + 2 * (512 + BLOCK) + 512);
});

Deno.test("an entry is written after what it names is on the disk", async () => {
  const file = empty();
  await using node = await open(file, { writable: true });
  file.logging = true;
  await node.write(100, new Uint8Array(1000).fill(1));
  await node.flush();
  const log = file.log.map(({ kind, offset, length }) => `${kind} ${offset} ${length}`);
  assertEquals(log, [
    "write 2660 1000",
    "write 2048 512",
    `write ${2048 + 512 + BLOCK} 512`,
    "flush 0 0",
    "write 1536 12",
    "flush 0 0",
  ]);
});

Deno.test("with writethrough every write is on the disk when it ends", async () => {
  const file = empty();
  await using node = await open(file, { writable: true, cache: CACHE_MODES["writethrough"]! });
  await node.write(0, new Uint8Array(512).fill(3));
  await using other = await open(file.copy());
  assertEquals((await sectorsOf(other)).slice(0, 2), [3, 0]);
});

Deno.test("two ranges of a block that is new share its room, in either order", async () => {
  for (const order of [[0, 1], [1, 0]]) {
    const file = empty();
    {
      await using node = await open(file, { writable: true });
      const runs = [await fill(node, BLOCK, 1024, 1), await fill(node, BLOCK + 2048, 512, 2)];
      assertEquals(runs[1]!.offset - runs[0]!.offset, 2048);
      for (const i of order) await runs[i]!.publish();
    }
    await using node = await open(file.copy());
    assertEquals(await sectorsOf(node), [...ZEROS, 1, 1, 0, 0, 2, 0, 0, 0, ...ZEROS]);
  }
});

Deno.test("room that was given back is used again, and shows nothing of what it held", async () => {
  const file = empty();
  {
    await using node = await open(file, { writable: true });
    const first = await fill(node, 0, BLOCK, 1);
    await first.abandon();
    assertEquals((await node.extent(0, BLOCK)).state, "zero");
    const second = await fill(node, BLOCK + 512, 512, 2);
    assertEquals(second.offset, first.offset + 512);
    await second.publish();
  }
  await using node = await open(file.copy());
  assertEquals(await sectorsOf(node), [...ZEROS, 0, 2, 0, 0, 0, 0, 0, 0, ...ZEROS]);
});

Deno.test("what a crash has left behind the last block does not show in a new one", async () => {
  const bytes = new Uint8Array(20000).fill(0xdd);
  bytes.set(empty().bytes());
  const file = new MemoryNode({ bytes });
  {
    await using node = await open(file, { writable: true });
    await node.write(1024, new Uint8Array(512).fill(1));
  }
  await using node = await open(file.copy());
  assertEquals(await sectorsOf(node), [0, 0, 1, 0, 0, 0, 0, 0, ...ZEROS, ...ZEROS]);
});

Deno.test("blocks are not laid over a header that lies behind all others", async () => {
  const bytes = handMade({
    type: DYNAMIC,
    length: 3 * BLOCK,
    blocks: new Map([[0, { sectors: [0, 1, 2, 3, 4, 5, 6, 7], fill: 1 }]]),
    headerLast: true,
  });
  const file = new MemoryNode({ bytes });
  {
    await using node = await open(file, { writable: true });
    await node.write(2 * BLOCK, new Uint8Array(BLOCK).fill(2));
  }
  await using node = await open(file.copy());
  const filled = (byte: number) => Array<number>(8).fill(byte);
  assertEquals(await sectorsOf(node), [...filled(1), ...ZEROS, ...filled(2)]);
});

Deno.test("a block on top of the headers can be read, and is not written", async () => {
  const bytes = empty().bytes();
  for (const entry of [0, 1, 2, 3]) {
    new DataView(bytes.buffer).setUint32(1536, entry);
    const longer = new Uint8Array(16384);
    longer.set(bytes);
    const file = new MemoryNode({ bytes: longer });
    await using node = await open(file, { writable: true });
    await node.read(0, new Uint8Array(512));
    await assertRejects(() => node.write(0, new Uint8Array(512)), ImageError);
    assertEquals(file.slice(0, 2048), longer.slice(0, 2048), `entry ${entry}`);
  }
});

Deno.test("a write that fails leaves the disk as it was", async () => {
  for (let failing = 0; failing < 4; failing++) {
    const file = empty();
    {
      await using node = await open(file, { writable: true });
      await node.write(0, new Uint8Array(512).fill(1));
      await node.flush();
      let count = 0;
      file.onRequest((request) => {
        if (request.kind === "write" && count++ === failing) throw ImageError.fromErrno("ENOSPC");
      });
      await assertRejects(async () => {
        await node.write(BLOCK, new Uint8Array(512).fill(2));
        await node.flush();
      }, ImageError);
      file.onRequest(undefined);
      const now = await sectorsOf(node);
      assert(now[8] === 0 || now[8] === 2, `sector 8 holds ${now[8]}`);
      // Once there is room again nothing is in the way.
      await node.write(2 * BLOCK, new Uint8Array(512).fill(3));
    }
    await using node = await open(file.copy());
    const found = await sectorsOf(node);
    assertEquals([found[0], found[16]], [1, 3], `write ${failing} failed`);
  }
});

Deno.test("zeros are written where somebody writes them, and nothing is discarded", async () => {
  const file = empty();
  await using node = await open(file, { writable: true });
  await node.writeZeroes(BLOCK, 512, { unmap: true });
  assertEquals((await node.extent(BLOCK, BLOCK)).state, "data");
  await assertRejects(
    () => node.writeZeroes(0, 512, { unmap: true, noFallback: true }),
    ImageError,
    "Operation not supported",
  );
  await node.write(0, new Uint8Array(512).fill(1));
  await node.discard(0, 512);
  assertEquals((await sectorsOf(node))[0], 1);
});

Deno.test("a node that was opened for reading refuses everything else", async () => {
  await using node = await open(empty());
  assertEquals(node.allocator, undefined);
  await assertRejects(() => node.write(0, new Uint8Array(1)), ImageError);
  await assertRejects(() => node.writeZeroes(0, 1, { unmap: false }), ImageError);
  await assertRejects(() => node.read(3 * BLOCK - 1, new Uint8Array(2)), ImageError);
  await assertRejects(() => node.extent(3 * BLOCK, 1), ImageError);
});
