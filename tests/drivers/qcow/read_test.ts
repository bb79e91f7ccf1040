/** Reading qcow images that are made by hand: what the reference cannot write. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { probeQcow } from "../../../drivers/qcow/probe.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { filled, handMade, type Layout, open, readOf, secretly } from "./_image.ts";

const STREAM = Uint8Array.fromHex("edc1010d000000c2a09eef1fc41e0e28000000e0dd00");
const PACKED = 1n << 63n;
const reading = { using: secretly({}) };

/** Opens a disk of 64 KiB whose L2 table lies at 4096, with these entries. */
function withEntries(entries: readonly (number | bigint)[], more: Partial<Layout> = {}) {
  const words: Record<number, number | bigint> = { 48: 4096, ...more.words };
  for (const [i, entry] of entries.entries()) words[4096 + i * 8] = entry;
  const { bytes = {}, ...layout } = more;
  return open(
    handMade({ size: 65536, length: 32768, bytes, ...layout, words }),
    reading,
  );
}

Deno.test("clusters lie anywhere at whole sectors", async () => {
  await using node = await withEntries([0x2200, 0, 0x4600], {
    bytes: { 0x2200: filled(4096, 1), 0x4600: filled(4096, 3) },
  });
  assertEquals(await readOf(node, 0, 4096), filled(4096, 1));
  assertEquals(await readOf(node, 4096, 4096), filled(4096, 0));
  assertEquals(await readOf(node, 8191, 4096), Uint8Array.of(0, ...filled(4095, 3)));
});

Deno.test("clusters one behind the other are one extent, and so is what is not stored", async () => {
  await using node = await withEntries([0x3000, 0x4000, 0x5000, 0, 0, 0x6000]);
  const extent = async (offset: number) => {
    const { length, state, offset: host } = await node.extent(offset, 65536 - offset);
    return { length, state, host };
  };
  assertEquals(await extent(512), { length: 11776, state: "data", host: 0x3200 });
  assertEquals(await extent(12288), { length: 8192, state: "unallocated", host: undefined });
  assertEquals(await extent(20480), { length: 4096, state: "data", host: 0x6000 });
  assertEquals(await extent(24576), { length: 40960, state: "unallocated", host: undefined });
});

Deno.test("an entry whose upper half goes on is another place", async () => {
  await using node = await withEntries([
    0xfffff000n,
    0x1_0000_0000n,
    0x1_0000_1000n,
    0x1_0000_1000n,
  ]);
  const { length, offset } = await node.extent(0, 65536);
  assertEquals([length, offset], [3 * 4096, 0xfffff000]);
});

Deno.test("a stream begins at any byte, and may have more room than it needs", async () => {
  for (const length of [STREAM.length, 4095]) {
    const entry = PACKED | BigInt(length) << 51n | 0x3001n;
    await using node = await withEntries([0, entry], { bytes: { 0x3001: STREAM } });
    assertEquals(await readOf(node, 4096, 4096), filled(4096, 0x5a));
    assertEquals(await readOf(node, 5000, 10), filled(10, 0x5a));
    const { packed, compressed, state } = await node.extent(5000, 100);
    assertEquals([compressed, state], [true, "data"]);
    assert(packed !== undefined);
    const { file: _, ...run } = packed;
    assertEquals(run, { offset: 0x3001, length, codec: "deflate", size: 4096, skip: 5000 - 4096 });
  }
});

Deno.test("the bits of a stream's length and place depend on the cluster size", async () => {
  // Stored blocks: a header of 5 bytes, then the bytes themselves; the second one is empty and the last.
  const stream = (size: number) => {
    const bytes = filled(size + 10, 0x77);
    bytes.set([0, size & 255, size >> 8, ~size & 255, ~size >> 8 & 255]);
    bytes.set([1, 0, 0, 255, 255], size + 5);
    return bytes;
  };
  const all = stream(512);
  // All but what one entry can say.
  const length = 511;
  await using small = await withEntries([PACKED | BigInt(length) << 54n | 0x3003n], {
    clusterBits: 9,
    l2Bits: 12,
    length: 65536,
    words: { 48: 4096 },
    bytes: { 0x3003: all },
  });
  // Cut off, so there are fewer bytes than a cluster has.
  const error = await assertRejects(() => readOf(small, 0, 512), ImageError);
  assertEquals([error.errno, error.field], ["EIO", "compressed cluster"]);
  const { packed } = await small.extent(0, 512);
  assertEquals([packed!.offset, packed!.length, packed!.size], [0x3003, length, 512]);

  await using large = await withEntries([PACKED | 22n << 47n | 0x3000n], {
    clusterBits: 16,
    size: 1 << 20,
    l2Bits: 6,
    bytes: { 0x3000: STREAM },
  });
  const { packed: run } = await large.extent(0, 65536);
  assertEquals([run!.offset, run!.length, run!.size], [0x3000, 22, 65536]);
});

Deno.test("tables lie anywhere, and what is behind the end of the file is zeros", async () => {
  const file = handMade({
    size: 4 << 20,
    l1Offset: 1003,
    length: 12288,
    words: { 1003: 5555, 1011: 1 << 30, 5555: 0x2000, 5563: 1 << 30 },
    bytes: { 0x2000: filled(4096, 9) },
  });
  await using node = await open(file, reading);
  assertEquals(await readOf(node, 0, 4096), filled(4096, 9));
  assertEquals(await readOf(node, 4096, 4096), filled(4096, 0));
  assertEquals((await node.extent(4096, 4096)).state, "data");
  assertEquals((await node.extent(2 << 20, 4096)).state, "unallocated");
});

Deno.test("reads go through to the backing file, and behind its end there are zeros", async () => {
  const file = handMade({
    size: 65536,
    length: 16384,
    backing: new TextEncoder().encode("the base\0 and more"),
    words: { 48: 4096, [4096 + 8]: 0x2000 },
    bytes: { 0x2000: filled(4096, 1) },
  });
  const backing = new MemoryNode({ bytes: filled(6000, 0xbb) });
  await using node = await open(file, { ...reading, backing });
  assertEquals([node.backing!.name, node.backing!.format], ["the base", undefined]);
  const expected = new Uint8Array(65536);
  expected.fill(0xbb, 0, 4096).fill(1, 4096, 8192);
  assertEquals(await readOf(node, 0, 65536), expected);
});

Deno.test("a backing file's part behind the image's cluster shows", async () => {
  const backing = new MemoryNode({ bytes: filled(6144, 0xbb) });
  await using node = await open(handMade({ size: 65536, length: 4096 }), { ...reading, backing });
  assertEquals(await readOf(node, 6140, 8), Uint8Array.of(0xbb, 0xbb, 0xbb, 0xbb, 0, 0, 0, 0));
});

for (
  const [what, entry, errno] of [
    ["an entry within a sector", 0x3001, "EIO"],
    ["an entry that no file reaches", (1n << 63n) - 512n, "EIO"],
    ["a stream of nothing", PACKED | 0x3000n, "EIO"],
    ["a stream of zeros", PACKED | 22n << 51n | 0x3000n, "EIO"],
    ["a stream that ends too early", PACKED | 10n << 51n | 0x2000n, "EIO"],
    ["a stream that no file reaches", PACKED | (1n << 63n) - 1n, "EIO"],
  ] as const
) {
  Deno.test(`${what} is an error where it is read, and nowhere else`, async () => {
    await using node = await withEntries([entry, 0x4000], {
      bytes: { 0x2000: STREAM, 0x4000: filled(4096, 4) },
    });
    const error = await assertRejects(() => readOf(node, 4000, 200), ImageError);
    assertEquals(error.errno, errno);
    assertEquals(await readOf(node, 4096, 4096), filled(4096, 4));
    assertEquals((await node.extent(0, 65536)).state, "data");
  });
}

Deno.test("a disk has whole sectors", async () => {
  for (const [size, length] of [[2, 0], [511, 0], [512, 512], [1000, 512], [1024, 1024]]) {
    await using node = await open(handMade({ size: size!, length: 4096 }), reading);
    assertEquals(node.length, length);
  }
});

Deno.test("an L1 table that is not in the file takes neither memory nor time", async () => {
  await using node = await open(
    handMade({ size: 2 ** 48, clusterBits: 12, l2Bits: 9, length: 48 }),
    reading,
  );
  let [at, count] = [0, 0];
  for (; at < node.length; count++) {
    const { length, state } = await node.extent(at, node.length - at);
    assertEquals(state, "unallocated");
    at += length;
  }
  assert(count < 4, `${count} extents`);
});

for (
  const [what, layout, message] of [
    ["size", { size: 2 ** 50 }, "Image too large"],
    ["overflowing size", { size: 2n ** 64n - 5n }, "Image too large"],
    [
      "size beyond what is exact",
      { size: 2n ** 55n, clusterBits: 16, l2Bits: 13 },
      "Image too large",
    ],
    ["table", { size: 1 << 20, l1Offset: 2n ** 63n - 8n }, "Input/output error"],
    [
      "name",
      { size: 1 << 20, backing: filled(1024, 97), length: 4096 },
      "Backing file name too long",
    ],
  ] as const
) {
  Deno.test(`a ${what} that cannot be is refused`, async () => {
    await assertRejects(
      () => open(handMade({ length: 4096, ...layout }), reading),
      ImageError,
      message,
    );
  });
}

Deno.test("of images that nobody vouches for, large tables are refused", async () => {
  const image = () => handMade({ size: 2 ** 44, length: 4096 });
  await using _trusted = await open(image(), reading);
  await assertRejects(
    () => open(image(), { using: secretly({}, true) }),
    ImageError,
    "Image too large",
  );
});

Deno.test("a head is one of this format if its version is 1", () => {
  const head = (version: number) => {
    const bytes = new Uint8Array(512);
    bytes.set([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, version]);
    return bytes;
  };
  assertEquals([0, 1, 2, 3].map((version) => probeQcow(head(version))), [0, 100, 0, 0]);
  assertEquals(probeQcow(new Uint8Array(512)), 0);
});
