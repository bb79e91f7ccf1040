/** copy-on-read and compress, over images. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { QUIET } from "../../../lib/graph/environment.ts";
import { openImage } from "../../../lib/graph/open.ts";
import { loadNative } from "../../../lib/io/native.ts";
import { createImage } from "../../../lib/ops/create.ts";
import { convertImage } from "../../../lib/ops/convert.ts";
import { Random } from "../../_random.ts";
import { type TempDir, tempDir } from "../../_temp.ts";

loadNative();

const CLUSTER = 65536;
const SIZE = 16 * CLUSTER;

type Options = Readonly<Record<string, unknown>>;

function open(options: Options): Promise<BlockNode> {
  const mode = { ...READ_ONLY, writable: true, unmap: true };
  return openImage({ filename: `json:${JSON.stringify(options)}` }, mode, QUIET);
}

/** An image of 1 MiB, with data in the clusters of these numbers. */
async function make(
  dir: TempDir,
  name: string,
  backing: string | undefined,
  clusters: readonly number[],
): Promise<string> {
  const filename = dir.file(name);
  await createImage({
    filename,
    format: "qcow2",
    size: SIZE,
    ...(backing === undefined ? {} : { backing, backingFormat: "qcow2" }),
  });
  await using image = await open({ driver: "qcow2", file: { driver: "file", filename } });
  for (const cluster of clusters) {
    await image.write(cluster * CLUSTER, new Uint8Array(CLUSTER).fill(cluster + 1));
  }
  return filename;
}

/** `A` for what is stored in the image itself, `.` for what is not; a character a cluster. */
async function stored(filename: string): Promise<string> {
  await using image = await openImage({ filename }, { ...READ_ONLY, noBacking: true }, QUIET);
  let text = "";
  for (let at = 0; at < SIZE; at += CLUSTER) {
    const { state } = await image.extent(at, CLUSTER);
    text += state === "data" ? "A" : state === "zero" ? "0" : ".";
  }
  return text;
}

function overlay(filename: string, more: Options = {}): Options {
  return { driver: "qcow2", file: { driver: "file", filename }, ...more };
}

Deno.test("what is read is stored, in whole clusters, and nothing else", async () => {
  await using dir = await tempDir();
  await make(dir, "a", undefined, [0, 1, 5]);
  const b = await make(dir, "b", "a", [1]);
  {
    await using node = await open({ driver: "copy-on-read", file: overlay(b) });
    const bytes = new Uint8Array(100);
    await node.read(5 * CLUSTER + 7, bytes);
    assertEquals(bytes, new Uint8Array(100).fill(6));
    await node.read(CLUSTER - 50, bytes);
    assertEquals(bytes.subarray(49, 51), new Uint8Array([1, 2]));
    // What is nowhere is stored as zeros.
    await node.read(8 * CLUSTER, bytes);
    assertEquals(bytes, new Uint8Array(100));
  }
  assertEquals(await stored(b), "AA...A..0.......");
  assertEquals(await stored(dir.file("a")), "AA...A..........");
});

Deno.test("reads and writes at the same time lose nothing", async () => {
  await using dir = await tempDir();
  const all = Array.from({ length: 16 }, (_, i) => i);
  await make(dir, "a", undefined, all);
  const b = await make(dir, "b", "a", []);
  const seed = 20_261_121;
  const random = new Random(seed);
  const model = new Uint8Array(SIZE);
  for (const i of all) model.fill(i + 1, i * CLUSTER, (i + 1) * CLUSTER);
  await using node = await open({ driver: "copy-on-read", file: overlay(b) });
  for (let round = 0; round < 20; round++) {
    const writes = Array.from({ length: 4 }, (_, i) => {
      // Each in a quarter of its own: what the others do to the same cluster counts as well.
      const offset = random.below(15) * CLUSTER + i * (CLUSTER / 4);
      const bytes = random.bytes(random.between(1, CLUSTER / 4));
      return { offset, bytes };
    });
    const reads = Array.from({ length: 4 }, () => random.below(SIZE - 5000));
    await Promise.all([
      ...reads.map((offset) => node.read(offset, new Uint8Array(5000))),
      ...writes.map(({ offset, bytes }) => node.write(offset, bytes)),
    ]);
    for (const { offset, bytes } of writes) model.set(bytes, offset);
    const now = new Uint8Array(SIZE);
    await node.read(0, now);
    assertEquals(now.findIndex((byte, i) => byte !== model[i]), -1, `seed ${seed}, ${round}`);
  }
});

Deno.test("below the bottom nothing is copied", async () => {
  await using dir = await tempDir();
  await make(dir, "a", undefined, [0]);
  await make(dir, "b", "a", [1]);
  const c = await make(dir, "c", "b", []);
  const behind = overlay(dir.file("b"), { "node-name": "middle" });
  {
    await using node = await open({
      driver: "copy-on-read",
      bottom: "middle",
      file: overlay(c, { backing: behind }),
    });
    const bytes = new Uint8Array(3 * CLUSTER);
    await node.read(0, bytes);
    assertEquals([bytes[0], bytes[CLUSTER], bytes[2 * CLUSTER]], [1, 2, 0]);
  }
  assertEquals(await stored(c), ".A..............");
  const none = () => open({ driver: "copy-on-read", bottom: "none", file: overlay(c) });
  await assertRejects(none, ImageError, "Bottom node 'none' not found");
});

Deno.test("a copy of an image stores in it what it reads from behind", async () => {
  await using dir = await tempDir();
  await make(dir, "a", undefined, [0, 3]);
  const b = await make(dir, "b", "a", [1]);
  const options = { driver: "copy-on-read", file: { ...overlay(b), "read-only": false } };
  await convertImage({
    sources: [{ filename: `json:${JSON.stringify(options)}` }],
    target: dir.file("t"),
    targetFormat: "raw",
  });
  assertEquals(await stored(b), "AA.A............");
  const copy = await Deno.readFile(dir.file("t"));
  assertEquals([copy[0], copy[CLUSTER], copy[2 * CLUSTER], copy[3 * CLUSTER]], [1, 2, 0, 4]);
});

function compressing(filename: string): Options {
  return { driver: "compress", file: overlay(filename) };
}

Deno.test("what is written is compressed, cluster by cluster", async () => {
  await using dir = await tempDir();
  await make(dir, "a", undefined, [0, 4]);
  const b = await make(dir, "b", "a", []);
  const noise = new Random(5).bytes(CLUSTER);
  {
    await using node = await open(compressing(b));
    // A part of a cluster: the rest comes from behind.
    await node.write(4 * CLUSTER + 10, new Uint8Array(10).fill(99));
    await node.write(CLUSTER, new Uint8Array(2 * CLUSTER).fill(7));
    await node.write(8 * CLUSTER, noise);
    const bytes = new Uint8Array(SIZE);
    await node.read(0, bytes);
    assertEquals([bytes[0], bytes[CLUSTER], bytes[3 * CLUSTER - 1]], [1, 7, 7]);
    assertEquals(
      [bytes[4 * CLUSTER], bytes[4 * CLUSTER + 10], bytes[4 * CLUSTER + 20]],
      [5, 99, 5],
    );
    assertEquals(bytes.subarray(8 * CLUSTER, 9 * CLUSTER), noise);
  }
  await using image = await openImage({ filename: b }, READ_ONLY, QUIET);
  const kinds = [];
  for (const cluster of [0, 1, 2, 4, 8]) {
    const { state, compressed } = await image.extent(cluster * CLUSTER, CLUSTER);
    kinds.push(compressed ? "compressed" : state);
  }
  // What does not shrink is stored as it is.
  assertEquals(kinds, ["unallocated", "compressed", "compressed", "compressed", "data"]);
});

Deno.test("a compressed cluster can be written once", async () => {
  await using dir = await tempDir();
  const a = await make(dir, "a", undefined, []);
  await using node = await open(compressing(a));
  await node.write(0, new Uint8Array(CLUSTER).fill(1));
  const again = await assertRejects(() => node.write(5, new Uint8Array(5).fill(2)), ImageError);
  assertEquals(again.errno, "EIO");
  const bytes = new Uint8Array(CLUSTER);
  await node.read(0, bytes);
  assertEquals(bytes, new Uint8Array(CLUSTER).fill(1));
});

Deno.test("parts of one cluster that are written at the same time do not mix", async () => {
  await using dir = await tempDir();
  const a = await make(dir, "a", undefined, []);
  await using node = await open(compressing(a));
  const results = await Promise.allSettled(
    [0, 1].map((i) => node.write(i * 512, new Uint8Array(512).fill(i + 1))),
  );
  // Only the first finds the cluster free.
  assertEquals(results.map(({ status }) => status), ["fulfilled", "rejected"]);
});

Deno.test("a copy onto the filter is compressed without being told", async () => {
  await using dir = await tempDir();
  const a = await make(dir, "a", undefined, [0, 1, 7]);
  const b = await make(dir, "b", undefined, []);
  await convertImage({
    sources: [{ filename: a }],
    target: `driver=compress,file.driver=qcow2,file.file.filename=${b}`,
    targetImageOptions: true,
    noCreate: true,
  });
  await using image = await openImage({ filename: b }, READ_ONLY, QUIET);
  for (const cluster of [0, 1, 7]) {
    assert((await image.extent(cluster * CLUSTER, CLUSTER)).compressed, `cluster ${cluster}`);
  }
});
