import { assert, assertEquals, assertRejects } from "@std/assert";
import { AMEND_OPTIONS } from "../../../drivers/qcow2/amend_options.ts";
import { AmendProgress } from "../../../drivers/qcow2/amend_progress.ts";
import { ImageError } from "../../../lib/block/error.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context, create, open, patch } from "./_image.ts";

const CLUSTER = 4096;

/** Opens for writing, amends (`key=value` separated by commas), closes. */
async function amend(
  file: MemoryNode,
  changes: string,
  options: { onProgress?: (fraction: number) => void; files?: Map<string, MemoryNode> } = {},
): Promise<void> {
  const { files } = options;
  await using node = await open(
    file,
    context({ writable: true, unmap: true }, files ? { files } : {}),
  );
  await amendNode(node, changes, options.onProgress);
}

async function amendNode(
  node: BlockNode,
  changes: string,
  onProgress?: (fraction: number) => void,
): Promise<void> {
  const pairs = changes.split(",").map((pair) => pair.split("=") as [string, string]);
  await node.amender!.amend(new OptionSet(AMEND_OPTIONS, pairs), { force: false, onProgress });
}

async function assertClean(file: MemoryNode): Promise<void> {
  await using node = await open(file.copy());
  const lines: string[] = [];
  const result = await node.checker!.check("none", (line) => void lines.push(line));
  const { corruptions, leaks, checkErrors } = result;
  assertEquals([corruptions, leaks, checkErrors], [0, 0, 0], lines.join("\n"));
}

async function content(file: MemoryNode): Promise<Uint8Array> {
  await using node = await open(file.copy());
  const bytes = new Uint8Array(node.length);
  await node.read(0, bytes);
  return bytes;
}

/** A disk of 1 MiB with data, zeros of both kinds and holes. */
async function used(options: Readonly<Record<string, string>> = {}): Promise<MemoryNode> {
  const file = await create({ size: "1M", cluster_size: `${CLUSTER}`, ...options });
  const copy = file.copy();
  {
    await using node = await open(file, context({ writable: true, unmap: true }));
    await node.write(0, new Uint8Array(300_000).fill(7));
    await node.writeZeroes(CLUSTER, 3 * CLUSTER, { unmap: false });
    await node.writeZeroes(20 * CLUSTER, 3 * CLUSTER, { unmap: true });
    await node.discard(40 * CLUSTER, 10 * CLUSTER);
  }
  const bytes = file.bytes();
  assert(bytes.length > copy.exactLength);
  return new MemoryNode({ bytes });
}

const header = (file: MemoryNode) => new DataView(file.slice(0, 112).buffer);
/** A file can be opened once; this is what the last opening left. */
const after = (file: MemoryNode) => new MemoryNode({ bytes: file.bytes() });

for (const bits of [1, 2, 4, 8, 32, 64]) {
  Deno.test(`refcounts get ${bits} bits and 16 again: nothing leaks, nothing changes`, async () => {
    const file = await used();
    const before = await content(file);
    let now = file;
    for (const wanted of [bits, 16]) {
      await amend(now, `refcount_bits=${wanted}`);
      now = after(now);
      assertEquals(2 ** header(now).getUint32(96), wanted);
      await assertClean(now);
      assertEquals(await content(now), before);
    }
  });
}

Deno.test("a refcount that a width cannot hold is named, and the image stays as it was", async () => {
  const file = await used();
  const bytes = patch(file.bytes(), [2 * CLUSTER + 2 * 9, 2, 300]);
  const damaged = new MemoryNode({ bytes });
  const error = await assertRejects(() => amend(damaged, "refcount_bits=8"), ImageError);
  assertEquals(
    error.message,
    "Cannot decrease refcount entry width to 8 bits: Cluster at offset 0x9000 has a refcount of 300",
  );
  assertEquals(after(damaged).bytes().subarray(0, bytes.length), bytes);
});

Deno.test("two entries of a refcount table for one block are refused", async () => {
  const file = await used();
  const bytes = patch(file.bytes(), [CLUSTER + 8, 8, 2 * CLUSTER]);
  await assertRejects(
    () => amend(new MemoryNode({ bytes }), "refcount_bits=8"),
    ImageError,
    "Refcount table entry 1 leads to the same block as another one",
  );
});

Deno.test("when the header cannot be written nobody counts on either refcount structure", async () => {
  const file = await used();
  const before = await content(file);
  const bytes = file.bytes();
  const disk = new MemoryNode({ bytes });
  const node = await open(disk, context({ writable: true }));
  disk.onRequest(({ kind, offset }) => {
    if (kind === "write" && offset === 0) throw ImageError.fromErrno("EIO");
  });
  await assertRejects(
    () => amendNode(node, "refcount_bits=8"),
    ImageError,
    "Failed to update the image header: Input/output error",
  );
  await assertRejects(() => node.write(0, new Uint8Array(512)), ImageError);
  await node[Symbol.asyncDispose]();
  assertEquals(await content(after(disk)), before);
});

Deno.test("a downgrade leaves no zero clusters, and an upgrade brings back the header's length", async () => {
  const file = await used();
  const before = await content(file);
  await amend(file, "compat=0.10");
  const old = after(file);
  assertEquals(header(old).getUint32(4), 2);
  assertEquals(old.slice(72, 40), new Uint8Array(40));
  await assertClean(old);
  assertEquals(await content(old), before);
  await amend(old, "compat=1.1");
  const fresh = after(old);
  assertEquals([header(fresh).getUint32(4), header(fresh).getUint32(100)], [3, 112]);
  await assertClean(fresh);
  assertEquals(await content(fresh), before);
});

Deno.test("what is refused in the end is refused before anything is written", async () => {
  const file = await create({ size: "1M", extended_l2: "on" });
  file.logging = true;
  const changes = "refcount_bits=16,size=2M,lazy_refcounts=off,compat=0.10";
  await assertRejects(
    () => amend(file, changes),
    ImageError,
    "Cannot downgrade an image with incompatible features 0x10 set",
  );
  assertEquals(file.log.filter(({ kind }) => kind !== "flush"), []);
});

Deno.test("lazy refcounts that are switched off leave no dirty bit behind", async () => {
  const file = await create({ size: "1M", lazy_refcounts: "on" });
  await using node = await open(file, context({ writable: true }));
  await node.write(0, new Uint8Array(65536).fill(1));
  await node.flush();
  assertEquals(file.slice(79, 1)[0], 1, "dirty while it is written to");
  await amendNode(node, "lazy_refcounts=off");
  assertEquals([file.slice(79, 1)[0], file.slice(87, 1)[0]], [0, 0]);
  await node.write(65536, new Uint8Array(65536).fill(2));
  await node.flush();
  assertEquals(file.slice(79, 1)[0], 0, "and not any more");
});

Deno.test("the data file gets another name in the header", async () => {
  const files = new Map<string, MemoryNode>();
  const file = await create({ size: "1M", data_file: "data.raw" }, files);
  await amend(file, "data_file=other.raw", { files });
  files.set("other.raw", new MemoryNode({ filename: "other.raw" }));
  await using node = await open(after(file), context({}, { files }));
  assertEquals(node.children[0]!.name, "data-file");
  assertEquals(node.children[0]!.node.filename, "other.raw");
});

Deno.test("progress adds up what is done, with later operations as long as those so far", () => {
  const seen: number[] = [];
  const progress = new AmendProgress(2, (fraction) => void seen.push(fraction));
  const first = progress.operation();
  for (let done = 0; done <= 2; done++) first(done, 2);
  const second = progress.operation();
  second(0, 6);
  second(6, 6);
  assertEquals(seen, [0, 0.25, 0.5, 0.25, 1]);
});

Deno.test("an operation that reports nothing is not counted as one that is through", () => {
  const seen: number[] = [];
  const progress = new AmendProgress(2, (fraction) => void seen.push(fraction));
  progress.operation();
  progress.operation()(4, 4);
  assertEquals(seen, [0.5]);
});

Deno.test("progress of a real change goes from 0 to 1", async () => {
  const seen: number[] = [];
  await amend(await used(), "refcount_bits=8", {
    onProgress: (fraction) => void seen.push(fraction),
  });
  assertEquals([seen[0], seen.at(-1)], [0, 1]);
  assert(seen.every((fraction, i) => i === 0 || fraction >= seen[i - 1]!));
});
