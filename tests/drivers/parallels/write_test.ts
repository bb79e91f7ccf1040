/** Writing: places, what they held, and what there is to fall back on. */
import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { open, parallelsImage, tableOf } from "./_images.ts";

const SECTOR = 512;
const CLUSTER = 8 * SECTOR;
const EMPTY = { table: [0, 0, 0, 0, 0, 0] };

for (const mode of ["falloc", "truncate"]) {
  Deno.test(`nothing of what was in a place before is shown: ${mode}`, async () => {
    const bytes = parallelsImage({ table: [1, 2, 0, 0], fileLength: 5 * CLUSTER });
    bytes.fill(0x77, CLUSTER);
    const file = new MemoryNode({ bytes });
    await using image = await open(file, {
      writable: true,
      unmap: true,
      options: { "prealloc-mode": mode },
    });
    // The file that gives nothing back.
    file.discard = () => Promise.resolve();
    await image.discard(0, CLUSTER);
    // Into the hole, and then behind the data, where something was left lying.
    await image.write(2 * CLUSTER, new Uint8Array(SECTOR).fill(1));
    await image.write(3 * CLUSTER, new Uint8Array(SECTOR).fill(2));
    const disk = new Uint8Array(2 * CLUSTER);
    await image.read(2 * CLUSTER, disk);
    const expected = new Uint8Array(2 * CLUSTER);
    expected.fill(1, 0, SECTOR);
    expected.fill(2, CLUSTER, CLUSTER + SECTOR);
    assertEquals(disk, expected);
  });
}

Deno.test("where there is no room for space in advance, there may be enough", async () => {
  const file = new MemoryNode({ bytes: parallelsImage(EMPTY) });
  const full = ({ kind, offset, length }: { kind: string; offset: number; length: number }) => {
    if (kind !== "flush" && offset + length > 4 * CLUSTER) throw ImageError.fromErrno("ENOSPC");
  };
  {
    await using image = await open(file, { writable: true });
    file.onRequest(full);
    await image.write(0, new Uint8Array(3 * CLUSTER).fill(1));
    await assertRejects(() => image.write(3 * CLUSTER, new Uint8Array(SECTOR)), Error, "No space");
  }
  assertEquals(tableOf(file.bytes()), [1, 2, 3, 0, 0, 0]);
});

Deno.test("a file that can reserve space does so for the places in use, once, and ends behind them", async () => {
  const kinds: string[] = [];
  const reserved: number[][] = [];
  const file = Object.assign(new MemoryNode({ bytes: parallelsImage(EMPTY) }), {
    reserve(offset: number, length: number) {
      reserved.push([offset, length]);
      return Promise.resolve();
    },
  });
  {
    await using image = await open(file, { writable: true });
    file.onRequest(({ kind }) => void kinds.push(kind));
    await image.write(0, new Uint8Array(SECTOR).fill(1));
    assertEquals(reserved, []);
    await image.flush();
    assertEquals(reserved, [[CLUSTER, CLUSTER]]);
    await image.write(CLUSTER, new Uint8Array(2 * CLUSTER).fill(2));
    await image.flush();
    await image.flush();
  }
  assertEquals(reserved, [[CLUSTER, CLUSTER], [2 * CLUSTER, 2 * CLUSTER]]);
  assertEquals(kinds.includes("zero"), false);
  assertEquals(tableOf(file.bytes()), [1, 2, 3, 0, 0, 0]);
  assertEquals(file.bytes().length, 4 * CLUSTER);
});

Deno.test("what was written stays where space for the rest of a cluster is not to be had", async () => {
  const fileWithout = (errno: "ENOSPC" | "EIO") =>
    Object.assign(new MemoryNode({ bytes: parallelsImage(EMPTY) }), {
      reserve: () => Promise.reject(ImageError.fromErrno(errno)),
    });
  const file = fileWithout("ENOSPC");
  {
    await using image = await open(file, { writable: true });
    await image.write(SECTOR, new Uint8Array(SECTOR).fill(1));
  }
  assertEquals(tableOf(file.bytes()), [1, 0, 0, 0, 0, 0]);
  assertEquals([...file.bytes().subarray(CLUSTER + SECTOR - 1, CLUSTER + SECTOR + 1)], [0, 1]);
  const image = await open(fileWithout("EIO"), { writable: true });
  await image.write(0, new Uint8Array(SECTOR));
  await assertRejects(() => image.flush(), ImageError, "Input/output error");
  await assertRejects(() => image[Symbol.asyncDispose](), ImageError, "Input/output error");
});

Deno.test("space that was given out and not filled is used again", async () => {
  const file = new MemoryNode({ bytes: parallelsImage(EMPTY) });
  {
    await using image = await open(file, { writable: true });
    const first = await image.allocator!.allocate(0, 3 * CLUSTER);
    assertEquals([first!.length, first!.offset], [3 * CLUSTER, CLUSTER]);
    await first!.abandon();
    await image.write(5 * CLUSTER, new Uint8Array(SECTOR).fill(1));
  }
  assertEquals(tableOf(file.bytes()), [0, 0, 0, 0, 0, 1]);
  assertEquals(file.bytes().length, 2 * CLUSTER);
});

Deno.test("two who fill one cluster get the same place, whichever ends first", async () => {
  const file = new MemoryNode({ bytes: parallelsImage(EMPTY) });
  {
    await using image = await open(file, { writable: true });
    const long = await image.allocator!.allocate(CLUSTER, 2 * CLUSTER);
    const short = await image.allocator!.allocate(2 * CLUSTER + SECTOR, CLUSTER);
    assertEquals(short!.offset, long!.offset + CLUSTER + SECTOR);
    assertEquals(short!.length, CLUSTER - SECTOR);
    await short!.publish();
    await long!.abandon();
  }
  assertEquals(tableOf(file.bytes()), [0, 0, 2, 0, 0, 0]);
});

Deno.test("a cluster that is being filled is not given up", async () => {
  const file = new MemoryNode({ bytes: parallelsImage(EMPTY) });
  {
    await using image = await open(file, { writable: true, unmap: true });
    const first = await image.allocator!.allocate(0, SECTOR);
    const second = await image.allocator!.allocate(SECTOR, SECTOR);
    await first!.publish();
    await image.discard(0, CLUSTER);
    await second!.publish();
    await image.write(CLUSTER, new Uint8Array(SECTOR).fill(1));
  }
  assertEquals(tableOf(file.bytes()), [1, 2, 0, 0, 0, 0]);
});

Deno.test("a place is not used again before the table in the file has forgotten it", async () => {
  const file = new MemoryNode({ bytes: parallelsImage({ table: [1, 2, 0, 0] }) });
  await using image = await open(file, { writable: true, unmap: true });
  await image.discard(0, CLUSTER);
  assertEquals(tableOf(file.bytes()), [1, 2, 0, 0]);
  const allocation = await image.allocator!.allocate(2 * CLUSTER, CLUSTER);
  assertEquals(allocation!.offset, CLUSTER);
  assertEquals(tableOf(file.bytes()), [0, 2, 0, 0]);
  await allocation!.abandon();
});

Deno.test("nothing is forgotten in front of a backing file", async () => {
  const file = new MemoryNode({ bytes: parallelsImage(EMPTY) });
  await using image = await open(file, { writable: true, unmap: true });
  image.backing!.attach(
    new MemoryNode({ bytes: new Uint8Array(3 * CLUSTER).fill(9), readOnly: true }),
  );
  await image.write(CLUSTER + SECTOR, new Uint8Array(SECTOR).fill(1));
  await image.writeZeroes(2 * CLUSTER, CLUSTER, { unmap: true });
  await image.discard(CLUSTER, CLUSTER);
  const disk = new Uint8Array(image.length);
  await image.read(0, disk);
  const expected = new Uint8Array(image.length);
  expected.fill(9, 0, 2 * CLUSTER);
  expected.fill(1, CLUSTER + SECTOR, CLUSTER + 2 * SECTOR);
  assertEquals(disk, expected);
});
