import { assert, assertEquals, assertRejects } from "@std/assert";
import { raw } from "../../drivers/raw.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { READ_ONLY } from "../../lib/block/mode.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { type OptionPair, OptionSet } from "../../lib/block/options.ts";
import { driverContext } from "../../lib/graph/context.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import { MemoryNode } from "../_memory_node.ts";

/** Opens a raw image in `file`, with what a probed one is told if `looksForeign` is there. */
function openRaw(
  file: BlockNode,
  { pairs = [], looksForeign, lines, unmap = true }: {
    readonly unmap?: boolean;
    readonly pairs?: readonly OptionPair[];
    readonly looksForeign?: (head: Uint8Array) => boolean;
    readonly lines?: string[];
  } = {},
): Promise<BlockNode> {
  const mode = { ...READ_ONLY, writable: !file.readOnly, unmap };
  const environment = { ...QUIET, report: (line: string) => void lines?.push(line) };
  const context: DriverContext = driverContext(file.filename, mode, environment, { looksForeign });
  return raw.open(file, new OptionSet(raw.openOptions, pairs), context);
}

/** Bytes that count up and so tell where they come from. */
function counting(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i % 251);
}

Deno.test("a raw image is its file", async () => {
  const file = new MemoryNode({ filename: "a.raw", bytes: counting(3000) });
  const node = await openRaw(file);
  assertEquals([node.driver, node.filename, node.length], ["raw", "a.raw", 3072]);
  assertEquals(node.children, [{ name: "file", node: file }]);
  const bytes = new Uint8Array(100);
  await node.read(1000, bytes);
  assertEquals(bytes, counting(3000).subarray(1000, 1100));
  await node.write(5, new Uint8Array([0xaa]));
  assertEquals(file.slice(5, 1), new Uint8Array([0xaa]));
  const { file: where, ...extent } = await node.extent(0, 1024);
  assertEquals(extent, { length: 1024, state: "data", compressed: false, offset: 0 });
  assert(where === file);
  await node[Symbol.asyncDispose]();
  assert(file.closed);
});

Deno.test("a window moves every request by its offset", async () => {
  const file = new MemoryNode({ filename: "a.raw", bytes: counting(4096) });
  const node = await openRaw(file, { pairs: [["offset", "1001"], ["size", "1k"]] });
  assertEquals(node.length, 1024);
  const bytes = new Uint8Array(1024);
  await node.read(0, bytes);
  assertEquals(bytes, counting(4096).subarray(1001, 2025));
  assertEquals((await node.extent(10, 20)).offset, 1011);
  file.logging = true;
  await node.write(1, new Uint8Array([9]));
  await node.writeZeroes(2, 3, { unmap: false });
  await node.discard(4, 5);
  assertEquals(file.log.map(({ kind, offset, length }) => [kind, offset, length]), [
    ["write", 1002, 1],
    ["zero", 1003, 3],
    ["discard", 1005, 5],
  ]);
  const allocation = await node.allocator!.allocate(7, 100);
  assertEquals([allocation?.offset, allocation?.length], [1008, 100]);
  assert(allocation?.file === file);
});

Deno.test("discards end here unless the image was opened for them", async () => {
  const file = new MemoryNode({ bytes: counting(4096) });
  const node = await openRaw(file, { unmap: false });
  file.logging = true;
  await node.discard(0, 4096);
  assertEquals(file.log, []);
});

Deno.test("without a size a window ends with its file, and grows with it", async () => {
  const file = new MemoryNode({ bytes: counting(4096) });
  const node = await openRaw(file, { pairs: [["offset", "512"]] });
  assertEquals(node.length, 3584);
  await node.resize(8192, "off");
  assertEquals([node.length, file.length], [8192, 8704]);
});

Deno.test("a window that is not in its file is refused", async () => {
  const message = async (...pairs: OptionPair[]) =>
    (await assertRejects(
      () => openRaw(new MemoryNode({ bytes: counting(1000) }), { pairs }),
      ImageError,
    )).message;
  assertEquals(
    await message(["offset", "1025"]),
    "Offset (1025) cannot be greater than size of the containing file (1024)",
  );
  assertEquals(
    await message(["offset", "512"], ["size", "1k"]),
    "The sum of offset (512) and size (1024) has to be smaller or equal to the  actual size of " +
      "the containing file (1024)",
  );
  assertEquals(await message(["size", "1000"]), "Specified size is not multiple of 512");
});

Deno.test("a window of no size is an empty disk", async () => {
  const node = await openRaw(new MemoryNode({ bytes: counting(1000) }), { pairs: [["size", "0"]] });
  assertEquals(node.length, 0);
  const error = await assertRejects(() => node.resize(512, "off"), ImageError);
  assertEquals(error.message, "Cannot resize fixed-size raw disks");
});

Deno.test("requests that reach past the end fail", async () => {
  const node = await openRaw(new MemoryNode({ bytes: counting(1024) }));
  const requests: (() => Promise<unknown>)[] = [
    () => node.read(1000, new Uint8Array(25)),
    () => node.write(1024, new Uint8Array(1)),
    () => node.writeZeroes(0, 1025, { unmap: false }),
    () => node.discard(1000, 25),
    () => node.extent(1000, 25),
    () => node.allocator!.allocate(1000, 25),
  ];
  for (const request of requests) {
    const error = await assertRejects(request, ImageError);
    assertEquals(error.errno, "EIO");
  }
});

Deno.test("an image opened for reading refuses writes", async () => {
  const node = await openRaw(new MemoryNode({ bytes: counting(1024), readOnly: true }));
  const requests: (() => Promise<unknown>)[] = [
    () => node.write(0, new Uint8Array(1)),
    () => node.resize(512, "off"),
    () => node.allocator!.allocate(0, 512),
  ];
  for (const request of requests) {
    assertEquals((await assertRejects(request, ImageError)).errno, "EPERM");
  }
});

const startsWithX = (head: Uint8Array) => head[0] === 0x58;

Deno.test("a probed image warns when it is opened for writing, and only then", async () => {
  const lines: string[] = [];
  const bytes = counting(1024);
  await openRaw(new MemoryNode({ filename: "a.raw", bytes, readOnly: true }), {
    looksForeign: startsWithX,
    lines,
  });
  await openRaw(new MemoryNode({ filename: "a.raw", bytes }), { lines });
  assertEquals(lines, []);
  await openRaw(new MemoryNode({ filename: "a.raw", bytes }), { looksForeign: startsWithX, lines });
  assertEquals(lines, [
    "WARNING: Image format was not specified for 'a.raw' and probing guessed raw.",
    "         Automatically detecting the format is dangerous for raw images, write operations on " +
    "block 0 will be restricted.",
    "         Specify the 'raw' format explicitly to remove the restrictions.",
  ]);
});

Deno.test("a probed image does not become another format", async () => {
  const file = new MemoryNode({ bytes: counting(1024) });
  const node = await openRaw(file, { looksForeign: startsWithX });
  for (const length of [1, 511, 512, 1024]) {
    const evil = new Uint8Array(length).fill(0x58);
    const error = await assertRejects(() => node.write(0, evil), ImageError);
    assertEquals(error.errno, "EPERM");
  }
  assertEquals(file.bytes(), counting(1024));
  // Elsewhere, and what does not change how the file is read, goes through.
  await node.write(1, new Uint8Array(600).fill(0x58));
  await node.write(0, new Uint8Array([0x57]));
  assertEquals(file.slice(0, 3), new Uint8Array([0x57, 0x58, 0x58]));
  // Bytes that others move are not seen here.
  assertEquals(await node.allocator!.allocate(511, 10), null);
  assert(await node.allocator!.allocate(512, 10) !== null);
});

Deno.test("a part of the head is judged together with the rest of it", async () => {
  const isXY = (head: Uint8Array) => head[0] === 0x58 && head[511] === 0x59;
  const bytes = counting(1024);
  bytes[0] = 0x58;
  const file = new MemoryNode({ bytes });
  const node = await openRaw(file, { looksForeign: isXY });
  const error = await assertRejects(() => node.write(511, new Uint8Array([0x59, 1])), ImageError);
  assertEquals(error.errno, "EPERM");
  await node.write(510, new Uint8Array([0x59, 1]));
});

Deno.test("measuring rounds a size up to a sector and takes a source as it is", async () => {
  const options = (...pairs: OptionPair[]) => new OptionSet(raw.createOptions!, pairs);
  const noSecret = () => {
    throw new Error("raw images have no secrets");
  };
  assertEquals(await raw.measure!(options(["size", "1000"]), undefined, noSecret), {
    required: 1024,
    fullyAllocated: 1024,
  });
  assertEquals(
    await raw.measure!(options(["size", "9"]), new MemoryNode({ bytes: counting(600) }), noSecret),
    {
      required: 1024,
      fullyAllocated: 1024,
    },
  );
});
