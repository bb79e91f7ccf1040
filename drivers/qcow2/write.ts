/**
 * The write path (section 7): where guest bytes go, and the entries that lead
 * there once they are written.
 *
 * @module
 */
import type { BlockNode } from "../../lib/block/node.ts";
import type { Allocation } from "../../lib/block/plan.ts";
import { freeEntries, Kind, kindOf, offsetOf } from "./cluster_entry.ts";
import { copyToHost, fillAround, fillBounds } from "./copy_on_write.ts";
import { DamagedEntry, hex, signalCorruption } from "./corruption.ts";
import type { HostRange, Qcow2Image } from "./image.ts";
import type { L2Table } from "./l2_tables.ts";
import { markDirty } from "./lazy.ts";
import { findRun, hasValidBitmap, place } from "./mapping.ts";
import { PendingRange, PendingRun, type RangeBounds } from "./pending.ts";
import { subclusterBits } from "./subclusters.ts";
import { COPIED_HIGH } from "./table.ts";

/** Most bytes of one allocation: the reference's limit for a request, in whole clusters of any size. */
const MAX_ALLOCATION = 2 ** 31 - 2 ** 21;

/** A part of an allocation with one kind of bookkeeping. */
interface Piece {
  /** Bytes. */
  readonly length: number;
  /** Host offset of its first byte. */
  readonly host: number;
  /** What is to be linked afterwards; absent where data is overwritten in place. */
  readonly run?: PendingRun;
  /** Its part of `run`. */
  readonly range?: PendingRange;
}

/**
 * Host space for a prefix of a guest range: see `Allocator`. `planned`: for a
 * planner, who may keep it open while it waits for other requests.
 *
 * @throws {ImageError} of the file, or `EIO` for damaged tables.
 */
export async function allocateGuest(
  image: Qcow2Image,
  offset: number,
  length: number,
  planned = false,
): Promise<GuestAllocation> {
  image.assertUsable();
  const pieces = await image.lock.run(() => planPieces(image, { offset, length, planned }));
  const allocation = new GuestAllocation(image, pieces);
  try {
    for (const piece of pieces) await prepare(image, piece);
  } catch (error) {
    // Those who joined fail with it, in their own time.
    for (const { range } of pieces) range?.prepare(error);
    await allocation.abandon();
    throw error;
  }
  return allocation;
}

/** An allocation that knows its image. */
export class GuestAllocation implements Allocation {
  readonly length: number;
  readonly file: BlockNode;
  readonly offset: number;
  readonly #image: Qcow2Image;
  readonly #pieces: readonly Piece[];

  /** An allocation of host-contiguous pieces, at least one. */
  constructor(image: Qcow2Image, pieces: readonly Piece[]) {
    this.#image = image;
    this.#pieces = pieces;
    this.file = image.dataFile;
    this.offset = pieces[0]!.host;
    this.length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  }

  publish(): Promise<void> {
    return this.#end("published");
  }

  abandon(): Promise<void> {
    return this.#end("abandoned");
  }

  /**
   * Resolves when the published range is reachable: others that write to the
   * same clusters may keep it back. Planners are not waited for, they may be
   * waiting for this.
   */
  async settled(): Promise<void> {
    for (const { run } of this.#pieces) {
      if (run !== undefined && !run.waitsForPlanner) await run.settled;
    }
  }

  async #end(state: "published" | "abandoned"): Promise<void> {
    const complete: PendingRun[] = [];
    for (const { run, range } of this.#pieces) {
      if (run === undefined || range === undefined) continue;
      if (range.state !== "open") throw new Error("an allocation ends once");
      range.state = state;
      if (!run.open) complete.push(run);
    }
    await completeRuns(this.#image, complete);
  }
}

/** Plans an allocation: pieces that follow each other in the guest and in the file. The lock is held. */
async function planPieces(
  image: Qcow2Image,
  { offset, length, planned }: { offset: number; length: number; planned: boolean },
): Promise<Piece[]> {
  const pieces: Piece[] = [];
  let left = Math.min(length, MAX_ALLOCATION);
  let at = offset;
  let host = -1;
  try {
    while (left > 0) {
      const piece = await planPiece(image, { guest: at, length: left, host, planned });
      if (piece === undefined) break;
      pieces.push(piece);
      at += piece.length;
      left -= piece.length;
      host = piece.host + piece.length;
    }
  } catch (error) {
    for (const { run, range } of pieces) {
      if (range !== undefined) range.state = "abandoned";
      if (run !== undefined && !run.open) await giveUp(image, run);
    }
    if (error instanceof DamagedEntry) throw await signalCorruption(image, error.message);
    throw error;
  }
  return pieces;
}

/** One piece, at `host` unless that is negative; `undefined` if there is none at that place. */
async function planPiece(
  image: Qcow2Image,
  { guest, length, host, planned }: Wish,
): Promise<Piece | undefined> {
  const { clusterSize, l2Entries } = image.geometry;
  const inside = guest % clusterSize;
  const pending = image.pending.first(guest - inside, inside + length);
  if (pending !== undefined) {
    if (pending.guest <= guest) return joinRun(image, pending, { guest, length, host, planned });
    length = pending.guest - guest;
  }
  const table = await image.l2.own(guest);
  const index = Math.floor(guest / clusterSize) % l2Entries;
  const clusters = Math.min(
    Math.ceil((inside + length) / clusterSize),
    image.l2.entriesForRun(guest),
  );
  const request: PieceRequest = { guest, length, host, planned, inside, index, clusters };
  return ownsCluster(image, table, index)
    ? await overwrite(image, table, request)
    : await allocateNew(image, table, request);
}

/** A piece that is wanted. */
interface Wish {
  /** First guest byte. */
  readonly guest: number;
  /** Most bytes. */
  readonly length: number;
  /** Where the piece has to begin; negative: anywhere. */
  readonly host: number;
  /** For a planner. */
  readonly planned: boolean;
}

/** A wish that no pending run grants. */
interface PieceRequest extends Wish {
  /** `guest` within its cluster. */
  readonly inside: number;
  /** L2 index of the first cluster. */
  readonly index: number;
  /** Clusters that may be looked at, all in one L2 table. */
  readonly clusters: number;
}

/** A part of a run that somebody else is filling: the same host clusters. */
function joinRun(
  image: Qcow2Image,
  run: PendingRun,
  { guest, length, host, planned }: Wish,
): Piece | undefined {
  const dataFrom = guest - run.guest;
  const place = run.host + dataFrom;
  if (host >= 0 && host !== place) return undefined;
  const dataTo = Math.min(dataFrom + length, run.length);
  const { subclusterSize, subclusters } = image.geometry;
  // Without subclusters the run is filled to its borders by the first who came.
  const range = new PendingRange({
    dataFrom,
    dataTo,
    from: subclusters === 1 ? dataFrom : dataFrom - dataFrom % subclusterSize,
    to: subclusters === 1 ? dataTo : Math.ceil(dataTo / subclusterSize) * subclusterSize,
  }, planned);
  run.ranges.push(range);
  return { length: dataTo - dataFrom, host: place, run, range };
}

/** Whether a cluster may be written in place: the active L2 table alone refers to it. */
function ownsCluster(image: Qcow2Image, table: L2Table, index: number): boolean {
  const word = index * image.geometry.entrySize / 8;
  const high = table.entries.high(word);
  if ((high & COPIED_HIGH) === 0) return false;
  const kind = kindOf(image, high, table.entries.low(word));
  return kind === Kind.data || kind === Kind.zeroReserved;
}

/** Clusters that are there already and follow each other in the file. */
async function overwrite(
  image: Qcow2Image,
  table: L2Table,
  { guest, length, host, planned, inside, index, clusters }: PieceRequest,
): Promise<Piece | undefined> {
  const { clusterSize, entrySize } = image.geometry;
  const { entries } = table;
  const words = entrySize / 8;
  const offsetAt = (at: number) => offsetOf(entries.high(at * words), entries.low(at * words));
  const kindAt = (at: number) => kindOf(image, entries.high(at * words), entries.low(at * words));
  const cluster = offsetAt(index);
  if (cluster % clusterSize !== 0) {
    const what = kindAt(index) === Kind.zeroReserved ? "Preallocated zero" : "Data";
    throw new DamagedEntry(
      `${what} cluster offset ${hex(cluster)} unaligned (guest offset: ${hex(guest)})`,
    );
  }
  if (image.hasDataFile && cluster !== guest - inside) {
    throw new DamagedEntry(
      `External data file host cluster offset ${hex(cluster)} does not match guest cluster ` +
        `offset: ${hex(guest - inside)}, L2 index: ${hex(index)})`,
    );
  }
  if (host >= 0 && host !== cluster + inside) return undefined;
  let count = 1;
  while (
    count < clusters && ownsCluster(image, table, index + count) &&
    offsetAt(index + count) === cluster + count * clusterSize
  ) count++;
  const dataTo = Math.min(inside + length, count * clusterSize);
  const piece = { length: dataTo - inside, host: cluster + inside };
  if (!image.hasDataFile) await image.overlap.check(piece.host, piece.length);
  const used = Math.ceil(dataTo / clusterSize);
  if (holdsData(image, table, index, { dataFrom: inside, dataTo })) return piece;
  const bounds = fillBounds(image, table, { index, fresh: false }, { dataFrom: inside, dataTo });
  const run = new PendingRun({
    guest: guest - inside,
    host: cluster,
    clusters: used,
    clusterSize,
    fresh: false,
  });
  return {
    ...piece,
    run,
    range: begin(image, run, { dataFrom: inside, dataTo, ...bounds }, planned),
  };
}

/** Whether every subcluster that is written to stores data already, so that no entry changes. */
function holdsData(
  image: Qcow2Image,
  table: L2Table,
  index: number,
  { dataFrom, dataTo }: { dataFrom: number; dataTo: number },
): boolean {
  const { clusterSize, subclusterSize, subclusters } = image.geometry;
  const { entries } = table;
  let all = true;
  for (let at = 0; at * clusterSize < dataTo; at++) {
    if (subclusters === 1) {
      if (kindOf(image, entries.high(index + at), entries.low(index + at)) !== Kind.data) {
        return false;
      }
      continue;
    }
    // Finds damage, too: every cluster is looked at.
    assertBitmap(image, table, index + at);
    const first = Math.floor(Math.max(dataFrom - at * clusterSize, 0) / subclusterSize);
    const end = Math.ceil(Math.min(dataTo - at * clusterSize, clusterSize) / subclusterSize);
    const bits = subclusterBits(first, end);
    if (((entries.low((index + at) * 2 + 1) & bits) >>> 0) !== bits) all = false;
  }
  return all;
}

function assertBitmap(image: Qcow2Image, table: L2Table, index: number): void {
  if (hasValidBitmap(image, table, index)) return;
  throw new DamagedEntry(`Invalid cluster entry found ${place(table, index)}`);
}

/** New clusters for ones that are not there, or that others use too. */
async function allocateNew(
  image: Qcow2Image,
  table: L2Table,
  { guest, length, host, planned, inside, index, clusters }: PieceRequest,
): Promise<Piece | undefined> {
  const { clusterSize, subclusters } = image.geometry;
  let count = 1;
  while (count < clusters && !ownsCluster(image, table, index + count)) count++;
  if (subclusters > 1) {
    for (let at = index; at < index + count; at++) {
      const word = at * 2;
      const kind = kindOf(image, table.entries.high(word), table.entries.low(word));
      if (kind !== Kind.compressed) assertBitmap(image, table, at);
    }
  }
  let cluster: number;
  if (image.hasDataFile) {
    cluster = guest - inside;
    if (host >= 0 && host !== guest) return undefined;
  } else if (host < 0) {
    cluster = await image.refcounts.allocate(count * clusterSize);
  } else {
    cluster = host - inside;
    count = await image.refcounts.allocateAt(cluster, count);
    if (count === 0) return undefined;
  }
  if (!image.hasDataFile) await image.overlap.check(cluster, count * clusterSize);
  const dataTo = Math.min(inside + length, count * clusterSize);
  const bounds = fillBounds(image, table, { index, fresh: true }, { dataFrom: inside, dataTo });
  const run = new PendingRun({
    guest: guest - inside,
    host: cluster,
    clusters: count,
    clusterSize,
    fresh: true,
  });
  const range = begin(image, run, { dataFrom: inside, dataTo, ...bounds }, planned);
  return { length: dataTo - inside, host: cluster + inside, run, range };
}

function begin(
  image: Qcow2Image,
  run: PendingRun,
  bounds: RangeBounds,
  planned: boolean,
): PendingRange {
  const range = new PendingRange(bounds, planned);
  run.ranges.push(range);
  image.pending.add(run);
  return range;
}

/** Fills a run around a piece, after all who came before. */
async function prepare(image: Qcow2Image, { run, range }: Piece): Promise<void> {
  if (run === undefined || range === undefined) return;
  const earlier = run.ranges.slice(0, run.ranges.indexOf(range));
  for (const { prepared } of earlier) await prepared;
  if (earlier.length === 0) await fillAround(image, run, range);
  else if (image.geometry.subclusters > 1) await fillJoined(image, run, range, earlier);
  range.prepare();
}

/** Fills the subclusters at the ends of a range that came later, unless another range or old data has. */
async function fillJoined(
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

/** Links runs that all callers are through with, or gives them up. */
async function completeRuns(image: Qcow2Image, runs: readonly PendingRun[]): Promise<void> {
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
async function giveUp(image: Qcow2Image, run: PendingRun, error?: unknown): Promise<void> {
  if (!image.pending.has(run)) return;
  image.pending.remove(run);
  if (run.fresh && !image.hasDataFile && !image.broken) {
    await image.refcounts.free(run.host, run.length, "never");
  }
  run.settle(error);
}

/** Lets the L2 entries of a run point to its clusters. The lock is held. */
async function linkRun(
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
async function linkClusters(
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

/**
 * Writes guest bytes.
 *
 * @throws {ImageError} of the file, or `EIO` for damaged tables.
 */
export async function writeAt(image: Qcow2Image, offset: number, from: Uint8Array): Promise<void> {
  await writeGuest(
    image,
    offset,
    from.length,
    (file, host, done, length) => file.write(host, from.subarray(done, done + length)),
  );
}

/** Allocates a guest range, lets `fill` write each part of it to its file, and links it. */
export async function writeGuest(
  image: Qcow2Image,
  offset: number,
  length: number,
  fill: (file: BlockNode, host: number, done: number, length: number) => Promise<void>,
): Promise<void> {
  for (let done = 0; done < length;) {
    const allocation = await allocateGuest(image, offset + done, length - done);
    try {
      await fill(allocation.file, allocation.offset, done, allocation.length);
    } catch (error) {
      await allocation.abandon();
      throw error;
    }
    await allocation.publish();
    await allocation.settled();
    done += allocation.length;
  }
}

/**
 * Allocates and links clusters for a prefix of a guest range without writing
 * data (metadata preallocation, section 11): where the bytes of that prefix lie.
 */
export async function preallocateGuest(
  image: Qcow2Image,
  offset: number,
  length: number,
): Promise<HostRange> {
  const pieces = await image.lock.run(() => planPieces(image, { offset, length, planned: false }));
  for (const piece of pieces) await prepare(image, piece);
  await image.lock.run(async () => {
    for (const { run } of pieces) {
      if (run === undefined) continue;
      await linkRun(image, run, []);
    }
  });
  return {
    offset: pieces[0]!.host,
    length: pieces.reduce((sum, piece) => sum + piece.length, 0),
  };
}

/**
 * Links guest clusters from `offset` on to host clusters that are allocated
 * already (section 11, falloc and full). What the first `filled` bytes of them
 * hold is the guest's; with extended L2 entries the rest is as it was before.
 */
export async function linkGuest(
  image: Qcow2Image,
  offset: number,
  host: number,
  clusters: number,
  filled = 0,
): Promise<void> {
  const { clusterSize } = image.geometry;
  await image.lock.run(async () => {
    for (let done = 0; done < clusters;) {
      const guest = offset + done * clusterSize;
      const count = Math.min(clusters - done, image.l2.entriesForRun(guest));
      const place = { guest, host: host + done * clusterSize, clusters: count, fresh: true };
      const ranges = [{ from: 0, to: filled - done * clusterSize }];
      await freeEntries(image, await linkClusters(image, place, ranges), "never");
      done += count;
    }
  });
}
