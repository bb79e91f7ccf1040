import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import type { BlockNode, Extent } from "../../../lib/block/node.ts";
import { reference, useReference, writeWithReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { openFile } from "./_equal.ts";
import { context, create, open, patch } from "./_image.ts";
import { createInside } from "./_session.ts";
import { findRun } from "../../../drivers/qcow2/mapping.ts";

const K = 1024;
const M = 1024 * K;
const T = 1024 * 1024 * M;

/** Runs of a disk, without what is the same for all. */
async function runs(node: BlockNode, length = node.length): Promise<unknown[]> {
  const found: unknown[] = [];
  for (let offset = 0; offset < length;) {
    const extent = await node.extent(offset, length - offset);
    found.push([offset, extent.length, extent.state, extent.offset ?? -1]);
    offset += extent.length;
  }
  return found;
}

Deno.test("an empty disk of 8 TiB is one run, found without reading anything", async () => {
  const file = await create({ size: String(8 * T) });
  await using node = await open(file);
  let reads = 0;
  file.onRequest(({ kind }) => void (kind === "read" && reads++));
  assertEquals(await node.extent(0, 8 * T), {
    length: 8 * T,
    state: "unallocated",
    compressed: false,
  });
  assertEquals(reads, 0);
});

Deno.test("runs go on across L2 tables where their place in the file does", async () => {
  const file = await create({ size: "8M", cluster_size: "4k", preallocation: "metadata" });
  await using node = await open(file);
  // A table of 512 entries maps 2 MiB; the next table lies between the runs.
  const [first] = await runs(node) as [number, number][];
  assertEquals(first?.[1], 2 * M);

  const moved = await createInside({ size: "8M", cluster_size: "4k", preallocation: "falloc" });
  const run = await findRun(moved.image, 5, 8 * M - 5);
  assertEquals([run.state, run.length], ["data", 8 * M - 5]);
});

Deno.test("runs end where the state changes or the place jumps", async () => {
  const { image } = await createInside({ size: "1M", cluster_size: "4k" });
  const { writeAt } = await import("../../../drivers/qcow2/write.ts");
  const { writeZeroesAt } = await import("../../../drivers/qcow2/zero.ts");
  await writeAt(image, 0, new Uint8Array(8 * K).fill(1));
  await writeAt(image, 16 * K, new Uint8Array(4 * K).fill(1));
  await writeAt(image, 12 * K, new Uint8Array(4 * K).fill(1));
  await writeZeroesAt(image, 4 * K, 4 * K, { unmap: false });
  const found: unknown[] = [];
  for (let offset = 0; offset < 32 * K;) {
    const run = await findRun(image, offset, 32 * K - offset);
    found.push([offset / K, run.length / K, run.state, run.host < 0 ? -1 : run.host / 4096]);
    offset += run.length;
  }
  assertEquals(found, [
    [0, 4, "data", 5],
    [4, 4, "zero-reserved", 6],
    [8, 4, "unallocated", -1],
    [12, 4, "data", 8],
    [16, 4, "data", 7],
    [20, 12, "unallocated", -1],
  ]);
});

Deno.test("what is asked for bounds a run", async () => {
  const file = await create({ size: "8M", preallocation: "metadata" });
  await using node = await open(file);
  assertEquals((await node.extent(65536 + 7, 3)).length, 3);
  assertEquals((await node.extent(7, 65536)).length, 65536);
});

Deno.test("requests beyond the disk are refused", async () => {
  await using node = await open(await create({ size: "1M" }), context({ writable: true }));
  for (
    const request of [
      () => node.read(M - 511, new Uint8Array(512)),
      () => node.write(M, new Uint8Array(1)),
      () => node.writeZeroes(-1, 1, { unmap: false }),
      () => node.extent(0, M + 1),
      () => node.allocator!.allocate(M - 1, 2),
      () => node.discard(0, 2 * M),
    ]
  ) assertEquals((await assertRejects(request, ImageError)).errno, "EIO");
});

Deno.test("a disk larger than its tables can say reads as nothing there", async () => {
  // One L1 entry more than the header counts would be needed: checked when it is opened.
  const file = await create({ size: "1M", cluster_size: "4k" });
  await file.write(24, patch(new Uint8Array(8), [0, 8, 2 * M]));
  await using node = await open(file);
  assertEquals(node.length, 2 * M);
  const bytes = new Uint8Array(512).fill(9);
  await node.read(2 * M - 512, bytes);
  assertEquals(bytes, new Uint8Array(512));
});

interface MapLine {
  start: number;
  length: number;
  present: boolean;
  zero: boolean;
  data: boolean;
  compressed: boolean;
  offset?: number;
}

/** The lines that `map` prints of an image without a backing file. */
function mapLine(start: number, extent: Extent): MapLine {
  const hole = extent.hole === true;
  return {
    start,
    length: extent.length,
    present: extent.state !== "unallocated",
    zero: extent.state !== "data" || hole,
    data: extent.state === "data",
    compressed: extent.compressed,
    ...(extent.offset === undefined ? {} : { offset: extent.offset }),
  };
}

async function mapOf(node: BlockNode): Promise<MapLine[]> {
  const lines: MapLine[] = [];
  for (let offset = 0; offset < node.length;) {
    const line = mapLine(offset, await node.extent(offset, node.length - offset));
    offset += line.length;
    const last = lines.at(-1);
    const goesOn = last !== undefined && last.present === line.present &&
      last.zero === line.zero && last.data === line.data && last.compressed === line.compressed &&
      (last.offset === undefined) === (line.offset === undefined) &&
      (last.offset === undefined || last.offset + last.length === line.offset);
    if (goesOn) last.length += line.length;
    else lines.push(line);
  }
  return lines;
}

const MAPPED: readonly {
  readonly name: string;
  readonly options: string;
  readonly commands: readonly string[];
}[] = [
  { name: "nothing", options: "cluster_size=64k", commands: [] },
  {
    name: "data, zeros and compressed clusters",
    options: "cluster_size=4k",
    commands: [
      ...["write 0 64k", "write -z 8k 8k", "write -zu 20k 8k", "write -c 128k 4k"],
      ...["write -c 132k 4k", "write 1M 4M", "write -z 6M 1M"],
    ],
  },
  { name: "preallocated metadata", options: "preallocation=metadata", commands: [] },
  {
    name: "preallocated metadata with some data",
    options: "preallocation=metadata",
    commands: ["write 1M 64k", "write 1200k 1k", "write -z 3M 128k"],
  },
  {
    name: "preallocated metadata and subclusters",
    options: "preallocation=metadata,extended_l2=on",
    commands: ["write 1M 64k", "write 1200k 1k", "write -z 3M 128k"],
  },
  { name: "reserved space", options: "preallocation=falloc", commands: ["write 1M 64k"] },
  {
    name: "subclusters",
    options: "extended_l2=on,cluster_size=16k",
    commands: ["write 1000k 3k", "write 4M 64k", "write -z 4100k 2k", "write -z 5M 3k"],
  },
  {
    name: "a data file",
    options: "data_file=data.raw",
    commands: ["write 0 3M", "write -z 1M 64k"],
  },
  {
    name: "a raw data file",
    options: "data_file=data.raw,data_file_raw=on",
    commands: ["write 0 3M", "write -z 1M 64k"],
  },
];

for (const { name, options, commands } of MAPPED) {
  Deno.test({
    name: `runs are those that the reference maps: ${name}`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const cwd = dir.path;
      await useReference(["create", "-q", "-f", "qcow2", "-o", options, "a.qcow2", "8M"], { cwd });
      if (commands.length > 0) {
        await writeWithReference("a.qcow2", commands, { cwd, format: "qcow2" });
      }
      const text = await useReference(["map", "--output=json", "-f", "qcow2", "a.qcow2"], { cwd });
      const expected = (JSON.parse(text) as (MapLine & { depth?: number })[]).map(
        ({ depth: _, ...line }) => line,
      );
      await using node = await openFile(dir.file("a.qcow2"));
      assertEquals(await mapOf(node), expected);
    },
  });
}
