/**
 * From guest offsets to the places of their bytes (section 5).
 *
 * @module
 */
import { readPadded } from "./_read.ts";
import { Kind, kindOf, offsetOf, packedRange } from "./cluster_entry.ts";
import { DamagedEntry, hex, signalCorruption } from "./corruption.ts";
import type { Qcow2Image } from "./image.ts";
import type { L2Table } from "./l2_tables.ts";
import { bitRun } from "./subclusters.ts";

/** What a run of guest bytes is, by the table entries alone. */
export type RunState =
  | "unallocated"
  /** Unallocated subclusters of an allocated cluster. */
  | "unallocated-reserved"
  | "zero"
  /** Reads as zeros, host cluster reserved. */
  | "zero-reserved"
  | "data"
  | "compressed";

/** A run of guest bytes with one state, and contiguous in the file where it has a place there. */
export interface Run {
  /** What it is. */
  readonly state: RunState;
  /** Bytes. */
  readonly length: number;
  /** Host offset of its first byte; -1 where it has none, and for compressed clusters. */
  readonly host: number;
  /** Compressed clusters: host offset of the stream, else 0. */
  readonly packedOffset: number;
  /** Compressed clusters: bytes of the stream at most, else 0. */
  readonly packedLength: number;
}

/**
 * The first run at `offset`, at most `length` bytes. Runs of compressed bytes
 * end with their cluster, others where the state changes or the place jumps.
 *
 * @throws {ImageError} `EIO` for damaged tables, which is reported.
 */
export async function findRun(image: Qcow2Image, offset: number, length: number): Promise<Run> {
  const { l2Span } = image.geometry;
  const first = runNow(image, offset, length) ?? await runLater(image, offset, length);
  let total = first.length;
  while (
    total < length && first.state !== "compressed" && (offset + total) % l2Span === 0
  ) {
    const at = offset + total;
    let next: Run;
    try {
      next = runNow(image, at, length - total) ?? await runLater(image, at, length - total);
    } catch (error) {
      // What comes before a damaged table is known, and whoever asks for the table itself meets the damage.
      if (image.broken) throw error;
      break;
    }
    if (next.state !== first.state) break;
    if (first.host >= 0 && next.host !== first.host + total) break;
    total += next.length;
  }
  return total === first.length ? first : { ...first, length: total };
}

/** The run at `offset`, up to the end of its L2 table at most; `undefined` if that table is not in memory. */
export function runNow(image: Qcow2Image, offset: number, length: number): Run | undefined {
  const { geometry: { l2Span, clusterSize }, l1 } = image;
  const index = Math.floor(offset / l2Span);
  const table = index < l1.length ? l1.offset(index) : 0;
  if (table === 0) return plainRun("unallocated", emptyLength(image, index, offset, length));
  if (table % clusterSize !== 0) return undefined;
  const l2 = image.l2.peek(table);
  if (l2 === undefined || image.broken) return undefined;
  try {
    return runInTable(image, l2, offset, length);
  } catch (error) {
    // Reporting takes time: `runLater` meets the damage again and has it.
    if (error instanceof DamagedEntry) return undefined;
    throw error;
  }
}

async function runLater(image: Qcow2Image, offset: number, length: number): Promise<Run> {
  image.assertUsable();
  const { geometry: { l2Span, clusterSize }, l1 } = image;
  const index = Math.floor(offset / l2Span);
  const table = l1.offset(index);
  if (table % clusterSize !== 0) {
    throw await signalCorruption(
      image,
      `L2 table offset ${hex(table)} unaligned (L1 index: ${hex(index)})`,
    );
  }
  const l2 = await image.l2.load(table);
  try {
    return runInTable(image, l2, offset, length);
  } catch (error) {
    if (error instanceof DamagedEntry) throw await signalCorruption(image, error.message);
    throw error;
  }
}

/** How far the disk is empty from `offset` on, whose L1 entry is; an empty disk costs one step. */
function emptyLength(image: Qcow2Image, index: number, offset: number, length: number): number {
  const { geometry: { l2Span }, l1 } = image;
  const end = offset + length;
  let next = index + 1;
  while (next * l2Span < end && next < l1.length && l1.offset(next) === 0) next++;
  if (next >= l1.length) return length;
  return Math.min(next * l2Span, end) - offset;
}

function plainRun(state: RunState, length: number, host = -1): Run {
  return { state, length, host, packedOffset: 0, packedLength: 0 };
}

function runInTable(image: Qcow2Image, table: L2Table, offset: number, length: number): Run {
  return image.geometry.subclusters === 1
    ? standardRun(image, table, offset, length)
    : extendedRun(image, table, offset, length);
}

const STATES: Readonly<Record<number, RunState>> = {
  [Kind.unallocated]: "unallocated",
  [Kind.zero]: "zero",
  [Kind.zeroReserved]: "zero-reserved",
  [Kind.data]: "data",
  [Kind.compressed]: "compressed",
};

function standardRun(image: Qcow2Image, table: L2Table, offset: number, length: number): Run {
  const { clusterSize, l2Entries } = image.geometry;
  const { entries } = table;
  const inside = offset % clusterSize;
  const index = (offset - inside) / clusterSize % l2Entries;
  const high = entries.high(index);
  const low = entries.low(index);
  const kind = kindOf(image, high, low);
  if (image.header.version < 3 && (kind === Kind.zero || kind === Kind.zeroReserved)) {
    throw new DamagedEntry(`Zero cluster entry found in pre-v3 image ${place(table, index)}`);
  }
  if (kind === Kind.compressed) {
    return packedRun(image, table, { index, high, low, inside, length });
  }

  const wanted = Math.ceil((inside + length) / clusterSize);
  const end = Math.min(index + wanted, l2Entries);
  let next = index + 1;
  let host = -1;
  if (kind === Kind.data || kind === Kind.zeroReserved) {
    host = offsetOf(high, low);
    checkHost(image, table, { index, host, guest: offset - inside });
    // Hot: most entries are their predecessor plus a cluster, flags included.
    let wantedHigh = high;
    let wantedLow = low;
    for (; next < end; next++) {
      wantedLow += clusterSize;
      if (wantedLow >= 2 ** 32) {
        wantedLow -= 2 ** 32;
        wantedHigh++;
      }
      const nextHigh = entries.high(next);
      const nextLow = entries.low(next);
      if (nextHigh === wantedHigh && nextLow === wantedLow) continue;
      // Or the flags differ.
      if (
        offsetOf(nextHigh, nextLow) !== host + (next - index) * clusterSize ||
        kindOf(image, nextHigh, nextLow) !== kind
      ) break;
      wantedHigh = nextHigh;
      wantedLow = nextLow;
    }
    host += inside;
  } else {
    for (; next < end; next++) {
      const nextHigh = entries.high(next);
      const nextLow = entries.low(next);
      if (nextHigh === high && nextLow === low) continue;
      if (kindOf(image, nextHigh, nextLow) !== kind) break;
    }
  }
  return plainRun(STATES[kind]!, Math.min((next - index) * clusterSize - inside, length), host);
}

function extendedRun(image: Qcow2Image, table: L2Table, offset: number, length: number): Run {
  const { clusterSize, subclusterSize, l2Entries } = image.geometry;
  const { entries } = table;
  const inside = offset % clusterSize;
  let index = (offset - inside) / clusterSize % l2Entries;
  const high = entries.high(index * 2);
  const low = entries.low(index * 2);
  const kind = kindOf(image, high, low);
  if (kind === Kind.compressed) {
    return packedRun(image, table, { index, high, low, inside, length });
  }

  const first = Math.floor(inside / subclusterSize);
  const state = subclusterState(image, table, index, first);
  let host = -1;
  if (kind === Kind.data) {
    host = offsetOf(high, low);
    checkHost(image, table, { index, host, guest: offset - inside });
  }
  let total = bitRun(stateBits(image, table, index, state), first) * subclusterSize -
    inside % subclusterSize;
  let expected = host;
  while (total < length && (inside + total) % clusterSize === 0 && ++index < l2Entries) {
    const nextHigh = entries.high(index * 2);
    const nextLow = entries.low(index * 2);
    if (kindOf(image, nextHigh, nextLow) !== kind) break;
    if (kind === Kind.data) {
      expected += clusterSize;
      if (offsetOf(nextHigh, nextLow) !== expected) break;
    }
    const more = bitRun(stateBits(image, table, index, state), 0);
    if (more === 0) break;
    total += more * subclusterSize;
  }
  return plainRun(state, Math.min(total, length), host < 0 ? -1 : host + inside);
}

/** The state of one subcluster of a cluster that is not compressed. */
function subclusterState(
  image: Qcow2Image,
  table: L2Table,
  index: number,
  subcluster: number,
): RunState {
  const { entries } = table;
  const reserved = kindOf(image, entries.high(index * 2), entries.low(index * 2)) === Kind.data;
  if (!hasValidBitmap(image, table, index)) {
    throw new DamagedEntry(`Invalid cluster entry found  ${place(table, index)}`);
  }
  const stored = entries.low(index * 2 + 1);
  const zero = entries.high(index * 2 + 1);
  const bit = 1 << subcluster;
  if ((zero & bit) !== 0) return reserved ? "zero-reserved" : "zero";
  if ((stored & bit) !== 0) return "data";
  return reserved ? "unallocated-reserved" : "unallocated";
}

/** Whether the bitmap of an extended entry that is not compressed says one thing of each subcluster. */
export function hasValidBitmap(image: Qcow2Image, table: L2Table, index: number): boolean {
  const { entries } = table;
  const stored = entries.low(index * 2 + 1);
  const zero = entries.high(index * 2 + 1);
  const reserved = kindOf(image, entries.high(index * 2), entries.low(index * 2)) === Kind.data;
  return (reserved ? stored & zero : stored) === 0;
}

/** Where an entry is, for messages. */
export function place(table: L2Table, index: number): string {
  return `(L2 offset: ${hex(table.offset)}, L2 index: ${hex(index)})`;
}

/** The bits of a cluster's subclusters in a state. */
function stateBits(image: Qcow2Image, table: L2Table, index: number, state: RunState): number {
  const stored = table.entries.low(index * 2 + 1);
  const zero = table.entries.high(index * 2 + 1);
  // Damage in a later cluster ends the run like another state, and is met when its turn comes.
  if (!hasValidBitmap(image, table, index)) return 0;
  if (state === "data") return stored;
  return state === "zero" || state === "zero-reserved" ? zero : ~(stored | zero);
}

function packedRun(
  image: Qcow2Image,
  table: L2Table,
  entry: { index: number; high: number; low: number; inside: number; length: number },
): Run {
  if (image.hasDataFile) {
    throw new DamagedEntry(
      `Compressed cluster entry found in image with external data file ${
        place(table, entry.index)
      }`,
    );
  }
  const { clusterBits, clusterSize } = image.geometry;
  const range = packedRange(clusterBits, entry.high, entry.low);
  return {
    state: "compressed",
    length: Math.min(clusterSize - entry.inside, entry.length),
    host: -1,
    packedOffset: range.offset,
    packedLength: range.length,
  };
}

function checkHost(
  image: Qcow2Image,
  table: L2Table,
  { index, host, guest }: { index: number; host: number; guest: number },
): void {
  if (host % image.geometry.clusterSize !== 0) {
    throw new DamagedEntry(
      `Cluster allocation offset ${hex(host)} unaligned ${place(table, index)}`,
    );
  }
  if (image.hasDataFile && host !== guest) {
    throw new DamagedEntry(
      `External data file host cluster offset ${hex(host)} does not match guest cluster offset: ` +
        `${hex(guest)}, L2 index: ${hex(index)})`,
    );
  }
}

/**
 * Reads guest bytes, through the backing file.
 *
 * @throws {ImageError} `EIO` for damaged tables and compressed data.
 */
export async function readAt(image: Qcow2Image, offset: number, into: Uint8Array): Promise<void> {
  let done = 0;
  while (done < into.length) {
    const at = offset + done;
    const run = await findRun(image, at, into.length - done);
    const part = into.subarray(done, done + run.length);
    switch (run.state) {
      case "data":
        image.event("read_aio");
        if (image.encryption === undefined) await readPadded(image.dataFile, run.host, part);
        else await image.encryption.read(image.dataFile, { host: run.host, guest: at }, part);
        break;
      case "compressed":
        await image.packed.read(run, at % image.geometry.clusterSize, part);
        break;
      case "unallocated":
      case "unallocated-reserved":
        if (image.backing === null) part.fill(0);
        else {
          image.event("read_backing_aio");
          await readPadded(image.backing, at, part);
        }
        break;
      default:
        part.fill(0);
    }
    done += run.length;
  }
}
