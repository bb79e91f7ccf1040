/** Writing: what allocations promise to planners, order in the file, failures. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { CACHE_MODES } from "../../../lib/block/mode.ts";
import type { Allocation } from "../../../lib/block/plan.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { loadCodec } from "../../../lib/codec/mod.ts";
import type { MemoryNode, MemoryRequest } from "../../_memory_node.ts";
import { context, create, open } from "./_image.ts";
import { createInside, wordAt } from "./_session.ts";

const K = 1024;
const M = 1024 * K;

async function opened(
  options: Readonly<Record<string, string>> = {},
  mode: Parameters<typeof context>[0] = {},
): Promise<{ node: BlockNode; file: MemoryNode }> {
  const file = await create({ cluster_size: "4k", size: "1M", ...options });
  return { node: await open(file, context({ writable: true, unmap: true, ...mode })), file };
}

async function read(node: BlockNode, offset: number, length: number): Promise<string> {
  const bytes = new Uint8Array(length);
  await node.read(offset, bytes);
  return bytes.toHex();
}

async function allocate(node: BlockNode, offset: number, length: number): Promise<Allocation> {
  const allocation = await node.allocator!.allocate(offset, length);
  assert(allocation !== null);
  return allocation;
}

async function fill({ file, offset, length }: Allocation, byte: number): Promise<void> {
  await file.write(offset, new Uint8Array(length).fill(byte));
}

async function assertSound(file: MemoryNode): Promise<void> {
  await using node = await open(file.copy(), context({ checking: true }));
  const lines: string[] = [];
  await node.checker!.check("none", (line) => void lines.push(line));
  assertEquals(lines, []);
}

Deno.test("a new range reads as before until it is published", async () => {
  const { node } = await opened();
  await using _ = node;
  const allocation = await allocate(node, 100, 10);
  await fill(allocation, 7);
  assertEquals(await read(node, 99, 12), "00".repeat(12));
  await allocation.publish();
  assertEquals(await read(node, 99, 12), `00${"07".repeat(10)}00`);
});

Deno.test("two ranges in one cluster share it, whichever is published first", async () => {
  for (const order of [[0, 1], [1, 0]]) {
    const { node, file } = await opened();
    const parts = [await allocate(node, 0, 100), await allocate(node, 3000, 100)];
    assertEquals(parts[1]!.offset, parts[0]!.offset + 3000);
    await fill(parts[0]!, 1);
    await fill(parts[1]!, 2);
    for (const index of order) await parts[index]!.publish();
    assertEquals(await read(node, 99, 2), "0100");
    assertEquals(await read(node, 2999, 2), "0002");
    await node[Symbol.asyncDispose]();
    await assertSound(file);
  }
});

Deno.test("a later range may end a run of clusters and begin another", async () => {
  const { node } = await opened();
  await using _ = node;
  const first = await allocate(node, 0, 5000);
  const second = await allocate(node, 6000, 20 * K);
  // The rest of the second cluster is the first run's; what follows is contiguous to it.
  assertEquals([second.offset, second.length], [first.offset + 6000, 20 * K]);
  await fill(first, 1);
  await fill(second, 2);
  await second.publish();
  await first.publish();
  assertEquals(await read(node, 4999, 2), "0100");
  assertEquals(await read(node, 5999, 2), "0002");
});

Deno.test("a range that is given up gives its clusters back", async () => {
  const { node, file } = await opened();
  const first = await allocate(node, 0, 64 * K);
  await first.abandon();
  const second = await allocate(node, 512 * K, 64 * K);
  assertEquals(second.offset, first.offset);
  await second.abandon();
  await node[Symbol.asyncDispose]();
  await assertSound(file);
});

Deno.test("what is given up beside what is published reads as before", async () => {
  const { node, file } = await opened();
  await node.write(0, new Uint8Array(4 * K).fill(9));
  await node.writeZeroes(0, 4 * K, { unmap: false });
  const lost = await allocate(node, 0, 100);
  const kept = await allocate(node, 200, 100);
  await fill(lost, 1);
  await fill(kept, 2);
  await kept.publish();
  await lost.abandon();
  assertEquals(await read(node, 0, 100), "00".repeat(100));
  assertEquals(await read(node, 199, 2), "0002");
  await node[Symbol.asyncDispose]();
  await assertSound(file);
});

Deno.test("a range that was given up by one and written by another is the other's", async () => {
  const { node } = await opened();
  await using _ = node;
  const lost = await allocate(node, 0, 300);
  const kept = await allocate(node, 100, 100);
  await fill(lost, 1);
  await fill(kept, 2);
  await lost.abandon();
  await kept.publish();
  assertEquals(await read(node, 98, 4), "00000202");
  assertEquals(await read(node, 198, 4), "02020000");
});

Deno.test("an allocation ends once", async () => {
  const { node } = await opened();
  await using _ = node;
  const allocation = await allocate(node, 0, 512);
  await allocation.publish();
  await assertRejects(() => allocation.abandon(), Error, "an allocation ends once");
});

Deno.test("requests at the same time in one cluster all arrive", async () => {
  const { node, file } = await opened();
  const writes = Array.from(
    { length: 64 },
    (_, i) => node.write(i * 300, new Uint8Array(300).fill(i + 1)),
  );
  await Promise.all(writes);
  for (let i = 0; i < 64; i++) {
    assertEquals(await read(node, i * 300, 300), (i + 1).toString(16).padStart(2, "0").repeat(300));
  }
  await node[Symbol.asyncDispose]();
  await assertSound(file);
});

Deno.test("a zero write beside bytes that are on their way keeps both", async () => {
  for (const options of [{}, { cluster_size: "16k", extended_l2: "on" }]) {
    const { node, file } = await opened(options);
    await node.write(0, new Uint8Array(64 * K).fill(9));
    await node.writeZeroes(0, 32 * K, { unmap: true });
    const allocation = await allocate(node, 100, 200);
    await node.writeZeroes(1000, 12 * K, { unmap: false });
    await fill(allocation, 1);
    await allocation.publish();
    assertEquals(await read(node, 99, 2), "0001");
    assertEquals(await read(node, 299, 14 * K), `01${"00".repeat(14 * K - 1)}`);
    assertEquals(await read(node, 32 * K, 2), "0909");
    await node[Symbol.asyncDispose]();
    await assertSound(file);
  }
});

Deno.test("a compressed cluster waits for bytes that are on their way, and is refused then", async () => {
  const { node } = await opened();
  await using _ = node;
  const allocation = await allocate(node, 0, 4096);
  await fill(allocation, 1);
  const packed = pack(node, 2);
  const writing = assertRejects(async () => await node.packer!.writePacked(0, await packed));
  await allocation.publish();
  assertEquals(ImageError.from(await writing).errno, "EIO");
  assertEquals(await read(node, 0, 2), "0101");
});

async function pack(node: BlockNode, byte: number): Promise<Uint8Array> {
  const { codec, clusterSize } = node.packer!;
  const out = new Uint8Array(clusterSize);
  const length = (await loadCodec(codec)).pack(new Uint8Array(clusterSize).fill(byte), out);
  return out.slice(0, length!);
}

Deno.test("a stored cluster is not compressed over, and keeps what it has", async () => {
  const { node, file } = await opened();
  await node.packer!.writePacked(4096, await pack(node, 5));
  for (const offset of [4096, 8192]) {
    await node.write(8192, new Uint8Array(512).fill(6));
    const packed = await pack(node, 7);
    const error = await assertRejects(() => node.packer!.writePacked(offset, packed), ImageError);
    assertEquals(error.errno, "EIO");
  }
  assertEquals(await read(node, 4096, 2), "0505");
  assertEquals(await read(node, 8192, 2), "0606");
  await node[Symbol.asyncDispose]();
  await assertSound(file);
});

Deno.test("a compressed cluster that replaces another is read anew", async () => {
  const { node } = await opened();
  await using _ = node;
  await node.packer!.writePacked(0, await pack(node, 5));
  assertEquals(await read(node, 100, 2), "0505");
  await node.discard(0, 4096);
  await node.packer!.writePacked(0, await pack(node, 6));
  assertEquals(await read(node, 100, 2), "0606");
});

Deno.test("a stream that is damaged is an error of its own", async () => {
  const { node, file } = await opened();
  await using _ = node;
  await node.packer!.writePacked(0, await pack(node, 5));
  const { packed } = await node.extent(0, 4096);
  await file.write(packed!.offset, new Uint8Array(packed!.length).fill(0xff));
  const error = await assertRejects(() => read(node, 0, 512), ImageError);
  assertEquals([error.errno, error.field], ["EIO", "compressed cluster"]);
});

Deno.test("finishing compressed writes rounds the file up to sectors", async () => {
  const { node, file } = await opened();
  await using _ = node;
  await node.packer!.writePacked(0, await pack(node, 5));
  assert(file.exactLength % 512 !== 0);
  await node.packer!.finish();
  assertEquals(file.exactLength % 512, 0);
});

/** Fails the n-th writing request, and all later ones. */
function failFrom(file: MemoryNode, n: number): void {
  let count = 0;
  file.onRequest(({ kind }) => {
    if (kind !== "read" && kind !== "flush" && ++count >= n) throw ImageError.fromErrno("ENOSPC");
  });
}

Deno.test("a write that fails at any request leaves the old content and a sound image", async () => {
  const old = "09".repeat(12 * K);
  for (let n = 1; n < 40; n++) {
    const { node, file } = await opened();
    await node.write(8 * K, new Uint8Array(12 * K).fill(9));
    await node.flush();
    failFrom(file, n);
    let failed: unknown;
    try {
      await node.write(300 * K + 5, new Uint8Array(300 * K).fill(1));
      await node.flush();
    } catch (error) {
      failed = error;
    }
    file.onRequest(undefined);
    if (failed === undefined) {
      assert(n > 3);
      await node[Symbol.asyncDispose]();
      return;
    }
    assertEquals(ImageError.from(failed).errno, "ENOSPC");
    assertEquals(await read(node, 8 * K, 12 * K), old);
    // What was given back can be written to again.
    await node.write(600 * K, new Uint8Array(64 * K).fill(2));
    assertEquals(await read(node, 600 * K, 2), "0202");
    await node[Symbol.asyncDispose]();
    const lines = await checkLines(file);
    assertEquals(lines.filter((line) => !line.startsWith("Leaked")), []);
  }
  throw new Error("the last request was not reached");
});

async function checkLines(file: MemoryNode): Promise<string[]> {
  await using node = await open(file.copy(), context({ checking: true }));
  const lines: string[] = [];
  await node.checker!.check("none", (line) => void lines.push(line));
  return lines;
}

/** Where the log has a request that overlaps a range. */
function indexOf(log: readonly MemoryRequest[], kind: string, offset: number): number {
  return log.findLastIndex((request) =>
    request.kind === kind && request.offset <= offset && offset < request.offset + request.length
  );
}

Deno.test("refcounts are on disk before the entries that count on them, tables before the L1 entry", async () => {
  const { node, file } = await opened();
  file.logging = true;
  await node.write(0, new Uint8Array(4 * K).fill(1));
  await node.flush();
  // A header, a table, a block (2), the L1 table (3); then the L2 table (4) and the data (5).
  const log = file.log;
  const l1 = indexOf(log, "write", 3 * 4 * K);
  const firstTable = log.findIndex(({ kind, offset }) => kind === "write" && offset === 4 * 4 * K);
  const firstCounts = log.findIndex(({ kind, offset }) => kind === "write" && offset === 2 * 4 * K);
  const lastTable = indexOf(log, "write", 4 * 4 * K);
  const lastCounts = indexOf(log, "write", 2 * 4 * K);
  assert(firstCounts < firstTable && firstTable < l1 && l1 < lastTable);
  assert(lastCounts < lastTable);
  for (const [from, to] of [[firstCounts, firstTable], [firstTable, l1], [lastCounts, lastTable]]) {
    assert(log.slice(from, to).some(({ kind }) => kind === "flush"), "a flush between");
  }
  assertEquals(log.at(-1)?.kind, "flush");
  await node[Symbol.asyncDispose]();
});

Deno.test("entries are gone from the disk before the refcounts of what they named", async () => {
  const { node, file } = await opened();
  await node.write(0, new Uint8Array(64 * K).fill(1));
  await node.flush();
  file.logging = true;
  await node.discard(0, 32 * K);
  await node.flush();
  const counts = indexOf(file.log, "write", 2 * 4 * K);
  const table = indexOf(file.log, "write", 4 * 4 * K);
  assert(table >= 0 && table < counts);
  assert(file.log.slice(table, counts).some(({ kind }) => kind === "flush"));
  await node[Symbol.asyncDispose]();
});

Deno.test("no flush reaches a file that is not to be flushed", async () => {
  const { node, file } = await opened({}, { cache: CACHE_MODES["unsafe"]! });
  file.logging = true;
  await node.write(0, new Uint8Array(300 * K).fill(1));
  await node.discard(0, 64 * K);
  await node.flush();
  await node[Symbol.asyncDispose]();
  assertEquals(file.log.filter(({ kind }) => kind === "flush"), []);
});

Deno.test("written through, every write ends with a flush", async () => {
  const { node, file } = await opened({}, { cache: CACHE_MODES["writethrough"]! });
  await using _ = node;
  await node.write(0, new Uint8Array(8 * K).fill(1));
  for (
    const request of [
      () => node.write(4 * K, new Uint8Array(512).fill(1)),
      () => node.writeZeroes(0, 4 * K, { unmap: false }),
      () => node.discard(0, 4 * K),
    ]
  ) {
    file.logging = true;
    file.log.length = 0;
    await request();
    assertEquals(file.log.at(-1)?.kind, "flush");
  }
});

Deno.test("lazy refcounts: the dirty bit is set before the first new cluster is linked, and cleared at the end", async () => {
  const { node, file } = await opened({ lazy_refcounts: "on" });
  assertEquals(wordAt(file, 72), 0n);
  await node.writeZeroes(0, 4 * K, { unmap: false });
  assertEquals(wordAt(file, 72), 0n);
  await node.write(8 * K, new Uint8Array(100 * K).fill(1));
  assertEquals(wordAt(file, 72), 1n);
  await node.flush();
  // Header, two refcount clusters, L1 and L2 table are counted; the data is not yet.
  assertEquals(file.slice(2 * 4 * K, 14).toHex(), "00010001000100010001" + "00000000");
  await node[Symbol.asyncDispose]();
  assertEquals(wordAt(file, 72), 0n);
  assertEquals(file.slice(2 * 4 * K, 14).toHex(), "0001".repeat(7));
});

Deno.test("the bytes of discarded clusters go only if the image may unmap", async () => {
  for (const unmap of [true, false]) {
    const { node, file } = await opened({}, { unmap });
    await node.write(0, new Uint8Array(8 * K).fill(1));
    const { offset } = await node.extent(0, 4 * K);
    await node.discard(0, 4 * K);
    await node.writeZeroes(4 * K, 4 * K, { unmap: true });
    const bytes = file.slice(offset!, 8 * K);
    assertEquals(bytes.some((byte) => byte !== 0), !unmap);
    assertEquals(await read(node, 0, 1), unmap ? "00" : "01");
    assertEquals(await read(node, 4 * K, 1), "00");
    await node[Symbol.asyncDispose]();
    await assertSound(file);
  }
});

Deno.test("discard-no-unref keeps host clusters", async () => {
  const { image, file } = await createInside({ cluster_size: "4k", size: "1M" });
  const { writeAt } = await import("../../../drivers/qcow2/write.ts");
  const { discardAt, writeZeroesAt } = await import("../../../drivers/qcow2/zero.ts");
  const { flushImage } = await import("../../../drivers/qcow2/lazy.ts");
  image.discards.keepReferences = true;
  await writeAt(image, 0, new Uint8Array(8 * K).fill(1));
  await discardAt(image, 0, 4 * K, "guest");
  await writeZeroesAt(image, 4 * K, 4 * K, { unmap: true });
  await flushImage(image);
  assertEquals(wordAt(file, 0x4000), 0x8000000000005001n);
  assertEquals(wordAt(file, 0x4008), 0x8000000000006001n);
  assertEquals(file.slice(0x2000, 14).toHex(), "0001".repeat(7));
  assert(file.slice(0x5000, 8 * K).every((byte) => byte === 0));
});

Deno.test("zeros that would have to be written are refused if told so", async () => {
  const { node } = await opened();
  await using _ = node;
  await node.write(0, new Uint8Array(8 * K).fill(1));
  const zero = () => node.writeZeroes(100, 1000, { unmap: false, noFallback: true });
  assertEquals((await assertRejects(zero, ImageError)).errno, "ENOTSUP");
  await node.writeZeroes(4 * K, 4 * K, { unmap: false, noFallback: true });
  assertEquals(await read(node, 0, 2), "0101");
});

Deno.test("a read-only image takes no writes", async () => {
  const file = await create({ size: "1M" });
  await using node = await open(file);
  const error = await assertRejects(() => node.write(0, new Uint8Array(512)), ImageError);
  assertEquals(error.errno, "EPERM");
  assertEquals([node.allocator, node.packer], [undefined, undefined]);
});

Deno.test("an image that is only looked at is not written to", async () => {
  const file = await create({ size: "1M" });
  const node = await open(file, context({ writable: true }));
  file.logging = true;
  await node.read(0, new Uint8Array(512));
  await node[Symbol.asyncDispose]();
  assertEquals(file.log.filter(({ kind }) => kind !== "flush"), []);
});

Deno.test("memory for tables stays bounded however much is written", async () => {
  const { image } = await createInside({ cluster_size: "512", size: String(64 * M) }, {
    cache: CACHE_MODES["unsafe"]!,
  });
  const { allocateGuest } = await import("../../../drivers/qcow2/write.ts");
  let tables = 0;
  for (let offset = 0; offset < 64 * M; offset += 32 * K) {
    await (await allocateGuest(image, offset, 512)).publish();
    tables++;
  }
  assertEquals(tables, 2048);
  let cached = 0;
  for (let i = 0; i < image.l1.length; i++) {
    if (image.l2.peek(image.l1.offset(i)) !== undefined) cached++;
  }
  assert(cached <= 16 * M / 512);
});

Deno.test("what is still open when the image is closed is given back", async () => {
  const { node, file } = await opened();
  await allocate(node, 0, 100 * K);
  const kept = await allocate(node, 512 * K, 10);
  await allocate(node, 512 * K + 100, 10);
  await fill(kept, 1);
  await kept.publish();
  await node[Symbol.asyncDispose]();
  await assertSound(file);
  await using again = await open(file.copy());
  assertEquals(await read(again, 512 * K, 12), `${"01".repeat(10)}0000`);
  assertEquals(await read(again, 512 * K + 100, 10), "00".repeat(10));
});

Deno.test("closing closes all files, and tells the first failure", async () => {
  const { node, file } = await opened();
  const below = await create({ size: "1M" });
  node.backing!.attach(await open(below));
  await node.write(0, new Uint8Array(8 * K).fill(1));
  failFrom(file, 1);
  const error = await assertRejects(async () => await node[Symbol.asyncDispose](), ImageError);
  assertEquals(error.errno, "ENOSPC");
  assertEquals([file.closed, below.closed], [true, true]);
  // A second time there is nothing to do.
  await node[Symbol.asyncDispose]();
});
