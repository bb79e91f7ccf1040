/**
 * Where guest bytes go: in place, or to clusters that are allocated for them
 * (section 7).
 *
 * @module
 */
import { Kind, kindOf, offsetOf } from "./cluster_entry.ts";
import { fillBounds } from "./copy_on_write.ts";
import { DamagedEntry, hex, signalCorruption } from "./corruption.ts";
import type { Qcow2Image } from "./image.ts";
import type { L2Table } from "./l2_tables.ts";
import { giveUp } from "./link.ts";
import { hasValidBitmap, place } from "./mapping.ts";
import { PendingRange, PendingRun, type RangeBounds } from "./pending.ts";
import { subclusterBits } from "./subclusters.ts";
import { COPIED_HIGH } from "./table.ts";

/** Most bytes of one allocation: the reference's limit for a request, in whole clusters of any size. */
const MAX_ALLOCATION = 2 ** 31 - 2 ** 21;

/** A part of an allocation with one kind of bookkeeping. */
export interface Piece {
  /** Bytes. */
  readonly length: number;
  /** Host offset of its first byte. */
  readonly host: number;
  /** What is to be linked afterwards; absent where data is overwritten in place. */
  readonly run?: PendingRun;
  /** Its part of `run`. */
  readonly range?: PendingRange;
}

/** Plans an allocation: pieces that follow each other in the guest and in the file. The lock is held. */
export async function planPieces(
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
