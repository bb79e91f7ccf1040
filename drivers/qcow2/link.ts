/**
 * The entries that lead to guest bytes, once these are written (section 7).
 *
 * @module
 */
import { freeEntries } from "./cluster_entry.ts";
import { copyToHost } from "./copy_on_write.ts";
import type { Qcow2Image } from "./image.ts";
import { markDirty } from "./lazy.ts";
import type { PendingRange, PendingRun } from "./pending.ts";
import { subclusterBits } from "./subclusters.ts";
import { COPIED_HIGH } from "./table.ts";

/** Links runs that all callers are through with, or gives them up. */
export async function completeRuns(image: Qcow2Image, runs: readonly PendingRun[]): Promise<void> {
  if (runs.length === 0) return;
  await image.lock.run(async () => {
    let failure: { readonly error: unknown } | undefined;
    for (const run of runs) {
      // Somebody may have joined, or completed it, while this waited for its turn.
      if (run.open || !image.pending.has(run)) continue;
      try {
        if (run.ranges.some(({ state }) => state === "published")) {
          await restoreAbandoned(image, run);
          await linkRun(image, run);
        } else {
          await giveUp(image, run);
        }
      } catch (error) {
        failure ??= { error };
        await giveUp(image, run, error);
      }
    }
    if (failure !== undefined) throw failure.error;
  });
}

/** Gives up whatever is still open, when an image is closed under its users. */
export async function abandonAll(image: Qcow2Image): Promise<void> {
  const runs = image.pending.all;
  for (const run of runs) {
    for (const range of run.ranges) if (range.state === "open") range.state = "abandoned";
  }
  await completeRuns(image, runs);
}

/** Where one caller gave up but another wrote to the same clusters, the guest keeps its old bytes. */
async function restoreAbandoned(image: Qcow2Image, run: PendingRun): Promise<void> {
  const kept = run.ranges.filter(({ state }) => state === "published")
    .sort((a, b) => a.dataFrom - b.dataFrom);
  for (const range of run.ranges) {
    if (range.state !== "abandoned") continue;
    // In place and with data there already, nothing tells old bytes from new ones; that is how disks fail.
    let at = range.dataFrom;
    for (const { dataFrom, dataTo } of kept) {
      if (dataTo <= at) continue;
      await copyToHost(image, run, at, Math.min(dataFrom, range.dataTo));
      at = Math.max(at, dataTo);
    }
    await copyToHost(image, run, at, range.dataTo);
    image.l2.cache.afterBarrier();
  }
}

/** Frees what was allocated for a run that is not linked. The lock is held. */
export async function giveUp(image: Qcow2Image, run: PendingRun, error?: unknown): Promise<void> {
  if (!image.pending.has(run)) return;
  image.pending.remove(run);
  if (run.fresh && !image.hasDataFile && !image.broken) {
    await image.refcounts.free(run.host, run.length, "never");
  }
  run.settle(error);
}

/** Lets the L2 entries of a run point to its clusters. The lock is held. */
export async function linkRun(
  image: Qcow2Image,
  run: PendingRun,
  ranges: readonly PendingRange[] = run.ranges,
): Promise<void> {
  const old = await linkClusters(image, run, ranges);
  image.pending.remove(run);
  if (run.fresh) await freeEntries(image, old, "never");
  run.settle();
}

/**
 * Sets the L2 entries of clusters within one table, and, with extended L2
 * entries, the bits of what `ranges` filled (`undefined`: of nothing). Answers
 * with the halves of the old descriptors.
 */
export async function linkClusters(
  image: Qcow2Image,
  { guest, host, clusters, fresh }: Pick<PendingRun, "guest" | "host" | "clusters" | "fresh">,
  ranges: readonly { readonly from: number; readonly to: number }[],
): Promise<number[]> {
  const { clusterSize, subclusterSize, subclusters, entrySize, l2Entries } = image.geometry;
  const { l2, refcounts } = image;
  if (image.lazyRefcounts) await markDirty(image);
  // The guest's bytes come before the entries that show them: else a crash shows what was there before.
  // Of a dirty image refcounts may come late: they are counted anew if they do not come at all.
  if (fresh && !image.hasDataFile && !image.lazyRefcounts) await l2.cache.after(refcounts.cache);
  else l2.cache.afterBarrier();
  const table = await l2.own(guest);
  const { entries } = table;
  const words = entrySize / 8;
  const index = guest / clusterSize % l2Entries;
  const old: number[] = [];
  for (let i = 0; i < clusters; i++) {
    const word = (index + i) * words;
    old.push(entries.high(word), entries.low(word));
    entries.setOffset(word, host + i * clusterSize, COPIED_HIGH);
    if (subclusters === 1) continue;
    let stored = entries.low(word + 1);
    let zero = entries.high(word + 1);
    for (const { from, to } of ranges) {
      const first = Math.max(from - i * clusterSize, 0);
      const end = Math.min(to - i * clusterSize, clusterSize);
      if (first >= end) continue;
      const bits = subclusterBits(
        Math.floor(first / subclusterSize),
        Math.ceil(end / subclusterSize),
      );
      stored |= bits;
      zero &= ~bits;
    }
    entries.set(word + 1, zero >>> 0, stored >>> 0);
  }
  l2.touch(table);
  return old;
}
