/**
 * Searching refcounts, a block at a time.
 *
 * @module
 */
import type { RefcountFormat } from "./refcount_format.ts";

/** Where refcounts are read from. */
export interface RefcountReader {
  /** How they lie in a block. */
  readonly format: RefcountFormat;
  /** Blocks that there may be. */
  readonly blocks: number;
  /** Bytes of a block, valid until the next await; `undefined` where all its refcounts are 0. */
  block(index: number): Promise<Uint8Array | undefined>;
}

/** The first run of free clusters from cluster `from` on: its end, which is `clusters` behind its beginning. */
export async function findFreeRun(
  reader: RefcountReader,
  from: number,
  clusters: number,
): Promise<number> {
  const { format, blocks } = reader;
  const { perBlock } = format;
  let cluster = from;
  let found = 0;
  while (found < clusters) {
    const index = Math.floor(cluster / perBlock);
    const base = index * perBlock;
    // Behind the table everything is free.
    if (index >= blocks) return cluster + clusters - found;
    const block = await reader.block(index);
    let at = cluster - base;
    if (block === undefined) {
      const taken = Math.min(clusters - found, perBlock - at);
      found += taken;
      cluster += taken;
      continue;
    }
    if (found === 0) {
      at = format.firstFree(block, at, perBlock);
      if (at === perBlock) {
        cluster = base + at;
        continue;
      }
    }
    const end = Math.min(perBlock, at + clusters - found);
    const used = format.firstUsed(block, at, end);
    found += used - at;
    cluster = base + used;
    if (used < end) {
      found = 0;
      cluster++;
    }
  }
  return cluster;
}

/** How many of `clusters` clusters from `first` on are free, up to the first that is not. */
export async function countFree(
  reader: RefcountReader,
  first: number,
  clusters: number,
): Promise<number> {
  const { format, blocks } = reader;
  const { perBlock } = format;
  let cluster = first;
  while (cluster < first + clusters) {
    const index = Math.floor(cluster / perBlock);
    if (index >= blocks) return clusters;
    const base = index * perBlock;
    const end = Math.min(perBlock, first + clusters - base);
    const block = await reader.block(index);
    if (block === undefined) {
      cluster = base + end;
      continue;
    }
    const used = format.firstUsed(block, cluster - base, end);
    cluster = base + used;
    if (used < end) break;
  }
  return cluster - first;
}

/** Index of the last cluster below `clusters` with a refcount, -1 if there is none. */
export async function lastUsed(reader: RefcountReader, clusters: number): Promise<number> {
  const { format, blocks } = reader;
  const { perBlock } = format;
  const last = Math.min(Math.floor((clusters - 1) / perBlock), blocks - 1);
  for (let index = last; index >= 0; index--) {
    const block = await reader.block(index);
    if (block === undefined) continue;
    const base = index * perBlock;
    for (let at = Math.min(perBlock, clusters - base) - 1; at >= 0; at--) {
      if (format.get(block, at) !== 0) return base + at;
    }
  }
  return -1;
}

/** How many of the clusters below `clusters` have a refcount; stops counting at `limit`. */
export async function countUsed(
  reader: RefcountReader,
  clusters: number,
  limit: number,
): Promise<number> {
  const { format, blocks } = reader;
  const { perBlock } = format;
  let used = 0;
  for (let index = 0; index < blocks && used < limit; index++) {
    const base = index * perBlock;
    if (base >= clusters) break;
    const block = await reader.block(index);
    if (block === undefined) continue;
    const end = Math.min(perBlock, clusters - base);
    for (let at = 0; at < end && used < limit;) {
      const from = format.firstUsed(block, at, end);
      at = format.firstFree(block, from, end);
      used += at - from;
    }
  }
  return Math.min(used, limit);
}
