/** qcow images, version 1, made to do harm: an error or a disk, in bounded time and memory. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { loadCodec } from "../../lib/codec/mod.ts";
import { assertSound, filled, handMade, open, readOf, secretly } from "../drivers/qcow/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { reference, runQimg, runReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";

/** All extents of a disk; throws for one that is none, and when there are too many. */
async function mapped(node: BlockNode, most: number): Promise<number> {
  let count = 0;
  for (let at = 0; at < node.length; count++) {
    assert(count < most, `${count} extents up to ${at}`);
    const { length } = await node.extent(at, node.length - at);
    assert(length >= 1 && at + length <= node.length, `extent of ${length} bytes at ${at}`);
    at += length;
  }
  return count;
}

Deno.test("the largest L1 table, of which nothing is in the file, is walked by the page", async () => {
  for (const shape of [{ clusterBits: 9, l2Bits: 6 }, { clusterBits: 16, l2Bits: 8 }]) {
    const size = (2 ** 28 - 2) * 2 ** (shape.clusterBits + shape.l2Bits);
    const file = handMade({ size: Math.min(size, 2 ** 53 - 512), ...shape, length: 48 });
    await using node = await open(file, { using: secretly({}) });
    await mapped(node, 10);
    assertEquals(await readOf(node, node.length - 1024, 1024), filled(1024, 0));
  }
});

Deno.test("a large L1 table of nothing but zeros takes little memory", async () => {
  const file = handMade({ size: 2 ** 43, length: 4096 });
  // 32 MiB of table, and the file is a hole.
  await file.resize(48 + (32 << 20), "off");
  await using node = await open(file, { using: secretly({}) });
  await mapped(node, 1000);
});

Deno.test("tables that are all one table, and clusters that are all one cluster", async () => {
  const words: Record<number, number> = {};
  for (let i = 0; i < 64; i++) words[1024 + i * 8] = 8192;
  for (let i = 0; i < 64; i++) words[8192 + i * 8] = 16384;
  const file = handMade({
    size: 64 * 64 * 512,
    clusterBits: 9,
    l2Bits: 6,
    l1Offset: 1024,
    length: 32768,
    words,
    bytes: { 16384: filled(512, 5) },
  });
  await using node = await open(file, { using: secretly({}) });
  assertEquals(await mapped(node, 5000), 64 * 64);
  assertEquals(await readOf(node, 100_000, 5000), filled(5000, 5));
});

Deno.test("tables that lie in the header, in each other and in themselves", async () => {
  for (const [l1Offset, table] of [[0, 0], [24, 0], [48, 48], [48, 40], [1, 1]] as const) {
    const file = handMade({ size: 1 << 24, l1Offset, length: 4096, words: { 48: table } });
    try {
      await using node = await open(file, { using: secretly({ writable: true }) });
      await mapped(node, 100_000);
      await node.write(0, filled(70_000, 1)).catch((error) => assert(error instanceof ImageError));
    } catch (error) {
      assert(error instanceof ImageError, String(error));
    }
  }
});

Deno.test("an image without room for another cluster that an entry could name", async () => {
  const file = handMade({ size: 1 << 20, clusterBits: 16, length: 4096 });
  await file.resize(2 ** 48, "off");
  await using node = await open(file);
  const error = await assertRejects(() => node.packer!.writePacked(0, filled(100, 1)), ImageError);
  assertEquals(error.errno, "EFBIG");
  // What is not compressed has longer entries.
  await node.write(0, filled(512, 1));
  assertEquals(await readOf(node, 0, 512), filled(512, 1));
});

Deno.test("a name of a backing file far behind the end of the file is none", async () => {
  const bytes = handMade({ size: 1 << 20, length: 4096 }).bytes();
  const view = new DataView(bytes.buffer);
  view.setBigUint64(8, 2n ** 62n);
  view.setUint32(16, 1023);
  await using node = await open(new MemoryNode({ bytes }), { using: secretly({}) });
  assertEquals(node.backing!.name, "");
  view.setBigUint64(8, 2n ** 63n + 5n);
  const error = await assertRejects(
    () => open(new MemoryNode({ bytes }), { using: secretly({}) }),
    ImageError,
  );
  assertEquals(error.errno, "EIO");
});

Deno.test("of a huge disk any part can be written", async () => {
  const file = handMade({ size: 2 ** 48, l1Offset: 1024, length: 4096 });
  await file.resize(1024 + 2 ** 30, "off");
  await using node = await open(file);
  for (const at of [0, 2 ** 47 - 100, 2 ** 48 - 512]) await node.write(at, filled(300, 7));
  await node.flush();
  assertEquals(await readOf(node, 2 ** 47 - 200, 500), filled(500, 0).fill(7, 100, 400));
});

/** An image with all kinds of clusters, made by the reference's rules. */
async function written(): Promise<MemoryNode> {
  const file = handMade({ size: 200_000, clusterBits: 9, l2Bits: 6, l1Offset: 512, length: 1024 });
  const kept = file.copy();
  {
    await using node = await open(kept);
    await node.write(1000, filled(70_000, 3));
    await node.write(150_000, filled(20_000, 4));
    const packed = new Uint8Array(511);
    const length = (await loadCodec("deflate")).pack(filled(512, 5), packed);
    await node.packer!.writePacked(352 * 512, packed.subarray(0, length!));
  }
  assertSound(kept);
  return kept;
}

Deno.test({
  name: "damaged qcow images: the reference reads what we read, and refuses what we refuse",
  ignore: reference.ignore,
  async fn() {
    const image = (await written()).bytes();
    const only = Deno.env.get("QIMG_SEED");
    const count = Number(Deno.env.get("QIMG_MUTATIONS") ?? 25);
    const seeds = only === undefined ? Array.from({ length: count }, (_, i) => i) : [Number(only)];
    await using dir = await tempDir();
    let read = 0;
    for (const seed of seeds) {
      const random = new Random(seed);
      const bytes = random.oneIn(6) ? image.slice(0, random.below(image.length)) : image.slice();
      for (let left = random.below(4); left > 0; left--) {
        const at = random.below(random.pick([48, 640, 1024, 4096]));
        if (at >= bytes.length) continue;
        bytes[at] = random.oneIn(2) ? bytes[at]! ^ 1 << random.below(8) : random.pick([0, 1, 255]);
      }
      // Disks of more than a GiB would take the reference its time.
      if (bytes.length > 32) bytes.fill(0, 24, 28);
      await Deno.writeFile(dir.file("a"), bytes);
      const line = (to: string) => ["convert", "-q", "-f", "qcow", "-O", "raw", "a", to];
      const [theirs, ours] = [
        await runReference(line("theirs"), { cwd: dir.path }),
        await runQimg(line("ours"), { cwd: dir.path }),
      ];
      const what = `QIMG_SEED=${seed}: ${theirs.stderr}${ours.stderr}`;
      assertEquals(ours.code, theirs.code, what);
      if (ours.code !== 0) assert(ours.stderr !== "", what);
      else {
        read++;
        const compare = ["compare", "-q", "-s", "-f", "raw", "-F", "raw", "theirs", "ours"];
        assertEquals((await runReference(compare, { cwd: dir.path })).code, 0, what);
      }
      for (const name of ["theirs", "ours"]) await Deno.remove(dir.file(name)).catch(() => {});
    }
    if (only === undefined) {
      assert(read > count / 4 && read < count, `${read} of ${count} were read`);
    }
  },
});
