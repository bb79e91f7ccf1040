/**
 * Random requests through the reference and through this driver: equal bytes.
 * A failure prints its seed; `QIMG_SEED` runs that one alone.
 *
 * Left out, because this driver differs on purpose: a guest discard where no
 * L2 table is (the reference makes one), compressed clusters after others were
 * freed (the reference may put two clusters in one place), and zeroing a part
 * of a compressed cluster with subclusters (the reference writes all of a
 * request as zeros then).
 */
import { Random } from "../../_random.ts";
import { reference, useReference, writeWithReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { assertClean, assertEqualBytes, type Request } from "./_equal.ts";

const K = 1024;
const M = 1024 * K;

interface Shape {
  readonly name: string;
  readonly options: string;
  readonly size: number;
  readonly backing?: boolean;
  readonly snapshot?: boolean;
  /** Writes compressed clusters, and frees none. */
  readonly packs?: boolean;
  readonly others?: readonly string[];
}

const SHAPES: readonly Shape[] = [
  { name: "512", options: "cluster_size=512", size: 4 * M },
  { name: "4k", options: "cluster_size=4k", size: 8 * M },
  { name: "64k", options: "cluster_size=64k", size: 8 * M },
  { name: "a part of a cluster at the end", options: "cluster_size=64k", size: 4 * M + 5 * 512 },
  {
    name: "a part of a cluster of subclusters at the end",
    options: "cluster_size=64k,extended_l2=on",
    size: 4 * M + 13 * K + 512,
  },
  {
    name: "whole subclusters in the cluster at the end",
    options: "cluster_size=64k,extended_l2=on",
    size: 4 * M + 14 * K,
  },
  { name: "2M", options: "cluster_size=2M", size: 40 * M },
  { name: "version 2", options: "compat=0.10,cluster_size=4k", size: 8 * M },
  { name: "1-bit refcounts", options: "cluster_size=512,refcount_bits=1", size: 6 * M },
  { name: "64-bit refcounts", options: "cluster_size=512,refcount_bits=64", size: 6 * M },
  { name: "a snapshot", options: "cluster_size=4k", size: 8 * M, snapshot: true },
  { name: "a backing file", options: "cluster_size=4k", size: 8 * M, backing: true },
  { name: "subclusters", options: "cluster_size=16k,extended_l2=on", size: 8 * M },
  {
    name: "subclusters, a snapshot and a backing file",
    options: "cluster_size=16k,extended_l2=on",
    size: 8 * M,
    backing: true,
    snapshot: true,
  },
  { name: "compressed clusters", options: "cluster_size=4k", size: 8 * M, packs: true },
  {
    name: "compressed clusters, 2-bit refcounts",
    options: "cluster_size=4k,refcount_bits=2",
    size: 8 * M,
    packs: true,
  },
  {
    name: "a data file",
    options: "cluster_size=4k,data_file=data.raw",
    size: 8 * M,
    others: ["data.raw"],
  },
  {
    name: "preallocated subclusters",
    options: "cluster_size=16k,extended_l2=on,preallocation=metadata",
    size: 4 * M,
  },
];

function seeds(count: number): number[] {
  const only = Deno.env.get("QIMG_SEED");
  return only === undefined ? Array.from({ length: count }, (_, i) => i + 1) : [Number(only)];
}

function session(random: Random, shape: Shape, clusterSize: number): Request[] {
  const requests: Request[] = [];
  const used = new Set<number>();
  for (let i = random.between(3, 14); i > 0; i--) {
    let offset = random.below(shape.size);
    if (random.oneIn(2)) offset -= offset % clusterSize;
    const longest = random.pick([600, clusterSize, clusterSize * 6, 1 * M]);
    let length = Math.min(random.between(1, longest), shape.size - offset);
    if (random.oneIn(8)) length = Math.min(shape.size - offset, 1 * M);
    if (random.oneIn(8)) offset = shape.size - length;
    if (random.oneIn(3)) {
      length = Math.min(Math.ceil(length / clusterSize) * clusterSize, shape.size - offset);
    }
    const kind = random.pick(
      shape.packs
        ? ["write", "compressed", "compressed", "zero"] as const
        : ["write", "write", "write", "zero", "unmap", "discard"] as const,
    );
    const pattern = random.between(1, 255);
    if (kind === "write") requests.push({ kind, offset, length, pattern });
    else if (kind !== "compressed") {
      // Whoever zeroes nothing but parts of clusters tests writing once more.
      requests.push({ kind, offset, length });
    } else {
      // Where the second half of the disk was not written to yet.
      const start = shape.size / 2 + random.below(shape.size / 2 / clusterSize) * clusterSize;
      if (used.has(start)) continue;
      used.add(start);
      requests.push({ kind, offset: start, length: clusterSize, pattern });
    }
  }
  return requests;
}

for (const shape of SHAPES) {
  Deno.test({
    name: `same bytes as the reference after random requests: ${shape.name}`,
    ignore: reference.ignore,
    async fn() {
      for (const seed of seeds(2)) {
        await using dir = await tempDir();
        const cwd = dir.path;
        const random = new Random(seed);
        const clusterSize = Number.parseInt(/cluster_size=(\d+)/.exec(shape.options)![1]!) *
          (shape.options.includes("2M") ? M : shape.options.includes("512") ? 1 : K);
        if (shape.backing) {
          await useReference(["create", "-q", "-f", "raw", "base", "5M"], { cwd });
          await writeWithReference("base", ["write -P 9 100k 1M", "write -P 8 3M 1M"], {
            cwd,
            format: "raw",
          });
        }
        await useReference([
          ...["create", "-q", "-f", "qcow2", "-o", shape.options],
          ...(shape.backing ? ["-b", "base", "-F", "raw"] : []),
          ...["a.qcow2", String(shape.size)],
        ], { cwd });
        // Every L2 table is there, or discards would make a difference.
        const touch = Array.from(
          { length: Math.ceil(shape.size / (32 * K)) },
          (_, i) => `write -q -P 1 ${i * 32 * K} 512`,
        );
        if (!shape.packs) await writeWithReference("a.qcow2", touch, { cwd, format: "qcow2" });
        if (shape.snapshot) await useReference(["snapshot", "-c", "one", "a.qcow2"], { cwd });
        const sessions: Request[][] = [];
        // The first half is for plain writes, so that compressed clusters stay where they are.
        for (let i = 0; i < 4; i++) {
          sessions.push(
            session(random, shape, clusterSize).filter((request) =>
              !shape.packs || request.kind === "compressed" ||
              request.offset + request.length <= shape.size / 2
            ),
          );
        }
        if (shape.packs) removeRepeated(sessions);
        try {
          await assertEqualBytes(dir, "a.qcow2", sessions, {
            mode: { unmap: true },
            ...(shape.others === undefined ? {} : { others: shape.others }),
          });
          await assertClean(dir.file("ours/a.qcow2"));
        } catch (error) {
          throw new Error(`with QIMG_SEED=${seed}: ${JSON.stringify(sessions)}`, { cause: error });
        }
      }
    },
  });
}

/** A compressed cluster is written once. */
function removeRepeated(sessions: Request[][]): void {
  const seen = new Set<number>();
  for (const [index, requests] of sessions.entries()) {
    sessions[index] = requests.filter(({ kind, offset }) =>
      kind !== "compressed" || (!seen.has(offset) && seen.add(offset))
    );
  }
}
