/** Refcounts and the allocator: section 6 of the format's reference, step by step. */
import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { refcountStructures } from "../../../drivers/qcow2/refcount_table.ts";
import { createInside, wordAt } from "./_session.ts";

const M = 1024 * 1024;
const SMALL = { cluster_size: "512", size: "1M" };

Deno.test("clusters are taken where they are free first, also where others were freed", async () => {
  const { image: { refcounts } } = await createInside({ cluster_size: "4k", size: "1M" });
  // Header, refcount table, block and L1 table come first.
  assertEquals(await refcounts.allocate(4096 * 3), 4 * 4096);
  assertEquals(await refcounts.allocate(1), 7 * 4096);
  await refcounts.free(5 * 4096, 4096, "never");
  assertEquals(await refcounts.allocate(4096), 5 * 4096);
  assertEquals(await refcounts.allocate(4096), 8 * 4096);
});

Deno.test("a run that does not fit between used clusters goes behind them", async () => {
  const { image: { refcounts } } = await createInside({ cluster_size: "4k", size: "1M" });
  await refcounts.allocate(4096 * 4);
  await refcounts.free(5 * 4096, 2 * 4096, "never");
  assertEquals(await refcounts.allocate(4096 * 3), 8 * 4096);
  // The search goes on from there: the gap waits for the next process, or the next freed cluster.
  assertEquals(await refcounts.allocate(4096), 11 * 4096);
  await refcounts.free(4 * 4096, 4096, "never");
  assertEquals(await refcounts.allocate(4096 * 3), 4 * 4096);
});

Deno.test("a run at a place is as long as its clusters are free", async () => {
  const { image: { refcounts } } = await createInside({ cluster_size: "4k", size: "1M" });
  assertEquals(await refcounts.allocateAt(6 * 4096, 2), 2);
  assertEquals(await refcounts.allocateAt(4 * 4096, 9), 2);
  assertEquals(await refcounts.allocateAt(4 * 4096, 1), 0);
  assertEquals(await refcounts.get(7), 1);
});

Deno.test("a refcount that would overflow changes none of its run", async () => {
  const { image: { refcounts } } = await createInside({
    cluster_size: "4k",
    size: "1M",
    refcount_bits: "2",
  });
  await refcounts.allocate(4096 * 3);
  await refcounts.add(6 * 4096, 4096, 2);
  const error = await assertRejects(() => refcounts.add(4 * 4096, 4096 * 3, 1), ImageError);
  assertEquals(error.errno, "EINVAL");
  assertEquals([await refcounts.get(4), await refcounts.get(5), await refcounts.get(6)], [1, 1, 3]);
});

Deno.test("freeing what nobody holds is told, not thrown", async () => {
  const { image: { refcounts }, reports } = await createInside({ cluster_size: "4k", size: "1M" });
  await refcounts.free(100 * 4096, 4096, "always");
  assertEquals(reports, ["qcow2_free_clusters failed: Invalid argument"]);
});

Deno.test("a run of which nobody holds a part keeps its bytes and its refcounts", async () => {
  const { image: { refcounts, file }, reports } = await createInside({
    cluster_size: "4k",
    size: "1M",
  });
  const offset = await refcounts.allocate(2 * 4096);
  await file.write(offset, new Uint8Array(2 * 4096).fill(7));
  // The third of them is not in use, which shows when the others are gone already.
  await refcounts.free(offset, 3 * 4096, "always");
  assertEquals(reports, ["qcow2_free_clusters failed: Invalid argument"]);
  assertEquals([await refcounts.get(4), await refcounts.get(5)], [1, 1]);
  const bytes = new Uint8Array(2 * 4096);
  await file.read(offset, bytes);
  assertEquals(bytes, new Uint8Array(2 * 4096).fill(7));
});

Deno.test("a block that is missing is put behind the clusters that need it", async () => {
  const { image: { refcounts } } = await createInside(SMALL);
  // 256 refcounts of 16 bits in a block; the image uses less.
  const first = await refcounts.allocate(512 * 300);
  const cluster = first / 512;
  assertEquals(refcounts.table.offset(1), first + 512 * 300);
  assertEquals(await refcounts.get(cluster + 300), 1);
  assertEquals(await refcounts.get(cluster + 301), 0);
});

Deno.test("the refcount table grows as the reference's does", async () => {
  const { image, file } = await createInside({
    cluster_size: "512",
    size: "64M",
    refcount_bits: "64",
  });
  const { refcounts } = image;
  // Clusters 0 to 0xffd in use, of the 0x1000 that the table's 64 blocks of 64 count.
  while (await refcounts.get(0xffd) === 0) await refcounts.allocate(512);
  assertEquals(await refcounts.get(0xffe), 0);
  const data = await refcounts.allocate(40 * 512);
  assertEquals(data, 0xffe * 512);
  assertEquals(refcounts.table.offset(64), 0x1026 * 512);
  assertEquals([65, 66].map((index) => refcounts.table.offset(index) / 512), [0x1040, 0x1041]);
  assertEquals(image.header.refcountTableOffset, 0x1042 * 512);
  assertEquals(image.header.refcountTableClusters, 2);
  assertEquals(wordAt(file, 48), BigInt(0x1042 * 512));
  // The old table's cluster is free: the next process, which begins to search at 0, takes it.
  assertEquals(await refcounts.get(1), 0);
  await refcounts.flush();
  await refcounts.reset();
  assertEquals(await refcounts.allocate(512), 512);
});

Deno.test("refcount structures count themselves", () => {
  const sizes = { clusterSize: 65536, perBlock: 32768 };
  assertEquals(refcountStructures(32766, sizes), { blocks: 1, tableClusters: 1 });
  assertEquals(refcountStructures(32767, sizes), { blocks: 2, tableClusters: 1 });
  assertEquals(refcountStructures(0, sizes), { blocks: 0, tableClusters: 0 });
});

Deno.test("compressed bytes follow each other, across clusters that do", async () => {
  const { image: { refcounts } } = await createInside({ cluster_size: "4k", size: "1M" });
  assertEquals(await refcounts.allocateBytes(3000), 4 * 4096);
  assertEquals(await refcounts.allocateBytes(3000), 4 * 4096 + 3000);
  assertEquals([await refcounts.get(4), await refcounts.get(5)], [2, 1]);
  // Something else takes the next cluster: what does not fit begins behind it.
  assertEquals(await refcounts.allocate(4096), 6 * 4096);
  assertEquals(await refcounts.allocateBytes(3000), 7 * 4096);
  assertEquals(await refcounts.get(5), 1);
  assertEquals(await refcounts.allocateBytes(1096), 7 * 4096 + 3000);
  assertEquals(await refcounts.allocateBytes(1), 8 * 4096);
});

Deno.test("compressed bytes do not share a cluster whose refcount is full", async () => {
  const { image: { refcounts } } = await createInside({
    cluster_size: "4k",
    size: "1M",
    refcount_bits: "1",
  });
  assertEquals(await refcounts.allocateBytes(100), 4 * 4096);
  assertEquals(await refcounts.allocateBytes(100), 5 * 4096);
});

Deno.test("compressed bytes do not go on in a cluster that was freed", async () => {
  const { image: { refcounts } } = await createInside({ cluster_size: "4k", size: "1M" });
  const packed = await refcounts.allocateBytes(100);
  await refcounts.free(packed, 100, "never");
  assertEquals(await refcounts.allocate(4096), packed);
  assertEquals(await refcounts.allocateBytes(100), packed + 4096);
});

Deno.test("freed clusters lose their bytes for some reasons only", async () => {
  const { image: { refcounts }, file } = await createInside({ cluster_size: "4k", size: "1M" });
  const reasons = ["always", "snapshot", "request", "other", "never"] as const;
  const offset = await refcounts.allocate(4096 * reasons.length);
  await file.write(offset, new Uint8Array(4096 * reasons.length).fill(1));
  for (const [i, reason] of reasons.entries()) {
    await refcounts.free(offset + i * 4096, 4096, reason);
  }
  const left = reasons.filter((_, i) => file.slice(offset + i * 4096, 4096).some((byte) => byte));
  assertEquals(left, ["other", "never"]);
});

Deno.test("neighbours that are freed together are deallocated in one go", async () => {
  const { image: { refcounts }, file } = await createInside({ cluster_size: "4k", size: "1M" });
  const offset = await refcounts.allocate(4096 * 4);
  await file.write(offset, new Uint8Array(4096 * 4).fill(1));
  file.logging = true;
  await refcounts.holdingDiscards(async () => {
    for (let i = 0; i < 4; i++) await refcounts.free(offset + i * 4096, 4096, "always");
  });
  assertEquals(file.log.filter(({ kind }) => kind === "discard"), [
    { kind: "discard", offset, length: 4 * 4096 },
  ]);
});

Deno.test("used clusters are counted up to a limit, and the last one is found", async () => {
  const { image: { refcounts } } = await createInside(SMALL);
  const used = await refcounts.lastUsed(2000) + 1;
  assertEquals(await refcounts.countUsed(2000, 10_000), used);
  assertEquals(await refcounts.countUsed(2000, 3), 3);
  await refcounts.allocateAt(1000 * 512, 1);
  assertEquals(await refcounts.lastUsed(2000), 1000);
  assertEquals(await refcounts.lastUsed(1000) < 1000, true);
});

Deno.test("a file that would get too long is refused", async () => {
  const { image: { refcounts } } = await createInside({ size: "1M" });
  const error = await assertRejects(
    () => refcounts.findFree(1, 2 * 65536),
    ImageError,
  );
  assertEquals(error.errno, "EFBIG");
});

Deno.test("refcounts reach the file when they are written, and are read from there", async () => {
  const { image: { refcounts }, file } = await createInside({ size: String(M) });
  const offset = await refcounts.allocate(65536);
  assertEquals(file.slice(2 * 65536 + 2 * offset / 65536, 2).toHex(), "0000");
  await refcounts.flush();
  assertEquals(file.slice(2 * 65536 + 2 * offset / 65536, 2).toHex(), "0001");
  await refcounts.reset();
  assertEquals(await refcounts.get(offset / 65536), 1);
});
