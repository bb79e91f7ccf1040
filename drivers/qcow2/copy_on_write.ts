/**
 * What a cluster holds beside the bytes that are written to it (section 7,
 * copy on write).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { Kind, kindOf } from "./cluster_entry.ts";
import type { Qcow2Image } from "./image.ts";
import type { L2Table } from "./l2_tables.ts";
import { findRun, readAt } from "./mapping.ts";
import type { PendingRange, PendingRun } from "./pending.ts";
import { SUBCLUSTERS, trailingZeros } from "./subclusters.ts";

/** Bytes from a run's beginning that are written by the guest. */
export interface WrittenBytes {
  /** First byte. */
  readonly dataFrom: number;
  /** End. */
  readonly dataTo: number;
}

/**
 * How far around written bytes a run has to be filled, bytes from its
 * beginning. `index` is the L2 index of its first cluster; `fresh`: its host
 * clusters are new, else the guest writes in place.
 */
export function fillBounds(
  image: Qcow2Image,
  table: L2Table,
  run: { readonly index: number; readonly fresh: boolean },
  { dataFrom, dataTo }: WrittenBytes,
): { from: number; to: number } {
  const { clusterSize, subclusterSize } = image.geometry;
  const down = (value: number, unit: number) => value - value % unit;
  const up = (value: number, unit: number) => Math.ceil(value / unit) * unit;
  const last = run.index + Math.ceil(dataTo / clusterSize) - 1;
  const kindAt = (index: number) => {
    const word = index * image.geometry.entrySize / 8;
    return kindOf(image, table.entries.high(word), table.entries.low(word));
  };
  if (image.geometry.subclusters === 1) {
    // A cluster that holds data already needs nothing else.
    const filled = (index: number) => !run.fresh && kindAt(index) === Kind.data;
    return {
      from: filled(run.index) ? dataFrom : 0,
      to: filled(last) ? dataTo : up(dataTo, clusterSize),
    };
  }

  const firstSubcluster = Math.floor(dataFrom / subclusterSize);
  const lastSubcluster = Math.floor((dataTo - 1) % clusterSize / subclusterSize);
  const storedAt = (index: number) => table.entries.low(index * 2 + 1);
  let from = firstSubcluster * subclusterSize;
  let to = up(dataTo, subclusterSize);
  if (!run.fresh) {
    if (bitSet(storedAt(run.index), firstSubcluster)) from = dataFrom;
    if (bitSet(storedAt(last), lastSubcluster)) to = dataTo;
    return { from, to };
  }
  // All that the old cluster stores moves along: from its first subcluster to its last.
  const firstKind = kindAt(run.index);
  if (firstKind === Kind.compressed) from = 0;
  else if (firstKind === Kind.data) {
    from = Math.min(firstSubcluster, trailingZeros(storedAt(run.index))) * subclusterSize;
  }
  const lastKind = kindAt(last);
  if (lastKind === Kind.compressed) to = up(dataTo, clusterSize);
  else if (lastKind === Kind.data) {
    const unused = Math.min(SUBCLUSTERS - lastSubcluster - 1, Math.clz32(storedAt(last)));
    to = up(dataTo, clusterSize) - unused * subclusterSize;
  }
  return { from: down(from, subclusterSize), to };
}

function bitSet(bits: number, index: number): boolean {
  return (bits & 1 << index) !== 0;
}

/**
 * Fills a run's host bytes around a range with what the guest reads there:
 * `[from, dataFrom)` and `[dataTo, to)`. Known zeros are not written but
 * provided by the file, in new clusters together with the place of the range
 * itself: not so without `written`, where nothing will be written there.
 */
export async function fillAround(
  image: Qcow2Image,
  run: PendingRun,
  { from, dataFrom, dataTo, to }: PendingRange,
  written = true,
): Promise<void> {
  if (from === dataFrom && to === dataTo) return;
  const { dataFile } = image;
  // What a backing file has behind the end of the disk moves along, as in the reference.
  const pastEnd = dataTo < to && run.guest + to > image.header.size;
  // The zeros of an encrypted image are none in its file.
  const zeros = written && !pastEnd && image.encryption === undefined &&
    await readsZero(image, run.guest + from, dataFrom - from) &&
    await readsZero(image, run.guest + dataTo, to - dataTo);
  let done = false;
  if (zeros) {
    try {
      // In clusters that are kept, the range may hold data: it stays until it is written over.
      const ranges = run.fresh ? [[from, to]] as const : [[from, dataFrom], [dataTo, to]] as const;
      for (const [start, end] of ranges) {
        if (start === end) continue;
        const flags = { unmap: false, noFallback: true };
        image.event("cluster_alloc_space");
        await dataFile.writeZeroes(run.host + start, end - start, flags);
      }
      done = true;
    } catch (error) {
      const { errno } = ImageError.from(error);
      if (errno !== "ENOTSUP" && errno !== "EAGAIN") throw error;
    }
  }
  if (!done) {
    await copyToHost(image, run, from, dataFrom);
    await copyToHost(image, run, dataTo, to);
  }
  // Or a crash could show what the host clusters held before.
  image.l2.cache.afterBarrier();
}

/** Fills the subclusters at the ends of a range that came later, unless another range or old data has. */
export async function fillJoined(
  image: Qcow2Image,
  run: PendingRun,
  range: PendingRange,
  earlier: readonly PendingRange[],
): Promise<void> {
  const { subclusterSize } = image.geometry;
  const isFilled = async (at: number) => {
    const subcluster = Math.floor(at / subclusterSize);
    for (const { from, to } of earlier) {
      const first = Math.floor(from / subclusterSize);
      if (subcluster >= first && subcluster < Math.ceil(to / subclusterSize)) return true;
    }
    if (run.fresh) return false;
    return (await findRun(image, run.guest + subcluster * subclusterSize, 1)).state === "data";
  };
  if (range.from < range.dataFrom && !await isFilled(range.from)) {
    await copyToHost(image, run, range.from, range.dataFrom);
  }
  if (range.dataTo < range.to && !await isFilled(range.dataTo)) {
    await copyToHost(image, run, range.dataTo, range.to);
  }
  image.l2.cache.afterBarrier();
}

/** Copies what the guest reads in `[from, to)` of a run to its host bytes. */
export async function copyToHost(
  image: Qcow2Image,
  run: PendingRun,
  from: number,
  to: number,
): Promise<void> {
  if (from >= to) return;
  const bytes = new Uint8Array(to - from);
  image.event("cow_read");
  // The disk's last cluster may reach past its end: what is there moves along.
  await readAt(image, run.guest + from, bytes);
  const place = { host: run.host + from, guest: run.guest + from };
  image.event("cow_write");
  if (image.encryption === undefined) await image.dataFile.write(place.host, bytes);
  else await image.encryption.write(image.dataFile, place, bytes);
}

/** Whether a guest range is known to read as zeros without looking at data. Past the end of the disk it does. */
export async function readsZero(
  image: Qcow2Image,
  offset: number,
  length: number,
): Promise<boolean> {
  const end = Math.min(offset + length, image.header.size);
  for (let at = offset; at < end;) {
    const run = await findRun(image, at, end - at);
    if (run.state === "data" || run.state === "compressed") return false;
    if (
      run.state.startsWith("unallocated") && image.backing !== null &&
      !await nodeReadsZero(image.backing, at, run.length)
    ) return false;
    at += run.length;
  }
  return true;
}

/** Whether a range of a node, through its backing files, is known to read as zeros. */
async function nodeReadsZero(node: BlockNode, offset: number, length: number): Promise<boolean> {
  const end = Math.min(offset + length, node.length);
  for (let at = offset; at < end;) {
    const extent = await node.extent(at, end - at);
    const below = node.backing?.node ?? null;
    if (extent.state === "data" && extent.hole !== true) return false;
    if (
      extent.state === "unallocated" && below !== null &&
      !await nodeReadsZero(below, at, extent.length)
    ) return false;
    at += extent.length;
  }
  return true;
}
