/** Checks and repairs without the reference tool: images of this driver, in memory. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { CheckResult, RepairMode } from "../../../lib/block/capabilities.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context, create, open, patch } from "./_image.ts";

const K = 1024;
const COPIED = 1n << 63n;

/** Clusters of 4 KiB: table 0x1000, block 0x2000, L1 0x3000, L2 0x4000, data from 0x5000 on. */
async function image(options: Readonly<Record<string, string>> = {}): Promise<MemoryNode> {
  const file = await create({ size: "1M", cluster_size: "4096", ...options });
  const node = await open(file, context({ writable: true }));
  await node.write(0, new Uint8Array(16 * K).fill(0xaa));
  await node[Symbol.asyncDispose]();
  return file.copy();
}

function damaged(file: MemoryNode, ...fields: Parameters<typeof patch>[1][]): MemoryNode {
  return new MemoryNode({ bytes: patch(file.bytes(), ...fields) });
}

interface Outcome extends CheckResult {
  readonly lines: string[];
  /** The file afterwards. */
  readonly file: MemoryNode;
}

async function check(file: MemoryNode, repair: RepairMode = "none"): Promise<Outcome> {
  const copy = file.copy();
  const node = await open(copy, context({ writable: repair !== "none", checking: true }));
  const lines: string[] = [];
  const result = await node.checker!.check(repair, (line) => void lines.push(line));
  await node[Symbol.asyncDispose]();
  return { ...result, lines, file: copy.copy() };
}

async function assertSound(file: MemoryNode): Promise<void> {
  const { lines, corruptions, leaks, checkErrors } = await check(file);
  assertEquals({ lines, corruptions, leaks, checkErrors }, {
    lines: [],
    corruptions: 0,
    leaks: 0,
    checkErrors: 0,
  });
  const node = await open(file.copy());
  const bytes = new Uint8Array(16 * K);
  await node.read(0, bytes);
  assert(bytes.every((byte) => byte === 0xaa));
  await node[Symbol.asyncDispose]();
}

Deno.test("a check counts clusters", async () => {
  const { lines, file: _, ...counts } = await check(await image());
  assertEquals(lines, []);
  assertEquals(counts, {
    checkErrors: 0,
    corruptions: 0,
    corruptionsFixed: 0,
    leaks: 0,
    leaksFixed: 0,
    imageEndOffset: 0x9000,
    totalClusters: 256,
    allocatedClusters: 4,
    fragmentedClusters: 0,
    compressedClusters: 0,
  });
});

Deno.test("a check without repair writes nothing, whatever it finds", async () => {
  const file = damaged(await image(), [0x2002, 2, 9], [0x200a, 2, 0], [0x4000, 8, 0x5000]);
  const { corruptions, leaks, file: after } = await check(file);
  assert(corruptions > 0 && leaks > 0);
  assertEquals(after.bytes(), file.bytes());
});

Deno.test("repairing leaks leaves corruptions alone", async () => {
  const file = damaged(await image(), [0x2002, 2, 9], [0x4000, 8, COPIED | 0x5200n]);
  const { corruptions, leaks, leaksFixed, corruptionsFixed } = await check(file, "leaks");
  assertEquals({ corruptions, leaks, leaksFixed, corruptionsFixed }, {
    corruptions: 2,
    leaks: 0,
    leaksFixed: 1,
    corruptionsFixed: 0,
  });
});

Deno.test("a leaked cluster is deallocated", async () => {
  const file = damaged(await image(), [0x4018, 8, 0]);
  const { leaksFixed, file: after } = await check(file, "leaks");
  assertEquals(leaksFixed, 1);
  assert(after.slice(0x8000, 0x1000).every((byte) => byte === 0));
});

Deno.test("COPIED flags follow the refcounts", async () => {
  const file = damaged(await image(), [0x3000, 8, 0x4000], [0x4008, 8, 0x6000]);
  const { lines, corruptionsFixed, file: after } = await check(file, "all");
  assertEquals(lines, [
    "Repairing OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=4000 refcount=1",
    "Repairing OFLAG_COPIED data cluster: l2_entry=6000 refcount=1",
  ]);
  assertEquals(corruptionsFixed, 2);
  await assertSound(after);
});

for (const bits of [1, 2, 4, 8, 16, 32, 64]) {
  Deno.test(`the refcount structure is built anew with ${bits}-bit refcounts`, async () => {
    const file = damaged(await image({ refcount_bits: String(bits) }), [0x1000, 8, 0]);
    const { lines, corruptions, corruptionsFixed, file: after } = await check(file, "all");
    assert(lines.includes("Rebuilding refcount structure"));
    assertEquals([corruptions, corruptionsFixed], [0, 8]);
    await assertSound(after);
  });
}

Deno.test("a structure that has to be built anew is no leak that could be repaired", async () => {
  const file = damaged(await image(), [0x1000, 8, 0]);
  const error = await assertRejects(() => check(file, "leaks"), ImageError);
  assertEquals(error.errno, "EIO");
});

Deno.test("the header names the new refcount structure only when that is in the file", async () => {
  const file = damaged(await image(), [0x1000, 8, 0]);
  file.logging = true;
  const node = await open(file, context({ writable: true, checking: true }));
  await node.checker!.check("all", () => {});
  await node[Symbol.asyncDispose]();
  const header = file.log.findIndex(({ kind, offset }) => kind === "write" && offset === 48);
  assert(header > 0);
  assertEquals(file.log[header - 1]!.kind, "flush");
  assertEquals(file.log[header + 1]!.kind, "flush");
});

Deno.test("a repair that cannot write leaves the old refcount structure in place", async () => {
  for (let allowed = 0; allowed < 3; allowed++) {
    const file = damaged(await image(), [0x1000, 8, 0]);
    let writes = 0;
    file.onRequest(({ kind }) => {
      if (kind === "write" && writes++ >= allowed) throw ImageError.fromErrno("ENOSPC");
    });
    const node = await open(file, context({ writable: true, checking: true }));
    await assertRejects(() => node.checker!.check("all", () => {}), ImageError);
    assertEquals(file.slice(48, 12), patch(new Uint8Array(12), [0, 8, 0x1000], [8, 4, 1]));
    file.onRequest(undefined);
    await node[Symbol.asyncDispose]();
  }
});

Deno.test("a table that cannot be read ends the check", async () => {
  const file = await image();
  const node = await open(file, context({ checking: true }));
  file.onRequest(({ kind, offset }) => {
    if (kind === "read" && offset === 0x4000) throw ImageError.fromErrno("EIO");
  });
  const lines: string[] = [];
  const error = await assertRejects(
    () => node.checker!.check("none", (line) => void lines.push(line)),
    ImageError,
  );
  assertEquals(error.errno, "EIO");
  assertEquals(lines, ["ERROR: I/O error in check_refcounts_l2"]);
  file.onRequest(undefined);
  await node[Symbol.asyncDispose]();
});

Deno.test("a refcount block that cannot be read makes the check incomplete", async () => {
  const file = await image();
  const node = await open(file, context({ checking: true }));
  file.onRequest(({ kind, offset }) => {
    if (kind === "read" && offset === 0x2000) throw ImageError.fromErrno("EIO");
  });
  const lines: string[] = [];
  const { checkErrors } = await node.checker!.check("none", (line) => void lines.push(line));
  assertEquals(checkErrors, 9);
  assertEquals(lines[0], "Can't get refcount for cluster 0: Input/output error");
  file.onRequest(undefined);
  await node[Symbol.asyncDispose]();
});

Deno.test("an open image that was written to is checked as it is in memory", async () => {
  const node = await open(await image({ lazy_refcounts: "on" }), context({ writable: true }));
  await node.write(64 * K, new Uint8Array(32 * K).fill(1));
  const lines: string[] = [];
  const { allocatedClusters } = await node.checker!.check("none", (line) => void lines.push(line));
  assertEquals(lines, []);
  assertEquals(allocatedClusters, 12);
  await node.write(128 * K, new Uint8Array(32 * K).fill(1));
  const again = await node.checker!.check("leaks", (line) => void lines.push(line));
  assertEquals(lines, []);
  assertEquals(again.allocatedClusters, 20);
  await node[Symbol.asyncDispose]();
});

Deno.test("a file of 2^31 clusters is too large to be checked", async () => {
  const file = await create({ size: "1M", cluster_size: "512" });
  await file.resize(2 ** 40, "off");
  const node = await open(file, context({ checking: true }));
  const error = await assertRejects(() => node.checker!.check("none", () => {}), ImageError);
  assertEquals(error.errno, "EFBIG");
  await node[Symbol.asyncDispose]();
});

Deno.test("a sparse file of a billion clusters is checked in no time", async () => {
  const file = await create({ size: "1M", cluster_size: "512" });
  await file.resize(2 ** 39, "off");
  const { lines, imageEndOffset } = await check(file);
  assertEquals(lines, []);
  assert(imageEndOffset < 1024 * K);
});
