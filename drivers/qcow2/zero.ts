/**
 * Zero writes and discards (section 7).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { ZeroFlags } from "../../lib/block/node.ts";
import { Autoclear } from "./_layout.ts";
import type { FreeReason } from "./allocation.ts";
import { discardHost, freeEntries, Kind, kindOf, offsetOf } from "./cluster_entry.ts";
import { readsZero } from "./copy_on_write.ts";
import type { Qcow2Image } from "./image.ts";
import type { L2Table } from "./l2_tables.ts";
import { findRun } from "./mapping.ts";
import { ALL_SUBCLUSTERS, subclusterBits } from "./subclusters.ts";
import { writeAt, writeGuest } from "./write.ts";

/** Most zeros written in one allocation, as the reference does. */
const MAX_ZERO_WRITE = 16 * 1024 * 1024;
/** Zeros to write from. */
const ZEROS = new Uint8Array(256 * 1024);

/**
 * Makes a guest range read as zeros (section 7, zero write): by entries for
 * whole (sub)clusters, by written zeros where entries cannot say it.
 *
 * @throws {ImageError} `ENOTSUP` with `flags.noFallback` where zeros would have to be written.
 */
export async function writeZeroesAt(
  image: Qcow2Image,
  offset: number,
  length: number,
  flags: ZeroFlags,
): Promise<void> {
  image.assertUsable();
  const unit = image.geometry.subclusterSize;
  const end = offset + length;
  for (let at = offset; at < end;) {
    const inside = at % unit;
    const rest = end - at;
    // An unaligned head, then whole units, then a tail.
    const part = inside > 0
      ? Math.min(rest, unit - inside)
      : rest > unit
      ? rest - end % unit
      : rest;
    await zeroPart(image, at, part, flags);
    at += part;
  }
}

/** Zeros whole units, or a range within one. */
async function zeroPart(
  image: Qcow2Image,
  offset: number,
  length: number,
  flags: ZeroFlags,
): Promise<void> {
  const { clusterSize, subclusterSize } = image.geometry;
  const { size } = image.header;
  let start = offset;
  let end = offset + length;
  if (end === size) {
    // The last cluster counts as a whole one, from its beginning; a part of it to its last subcluster.
    const unit = start > size - 1 - (size - 1) % clusterSize ? subclusterSize : clusterSize;
    end = Math.ceil(end / unit) * unit;
  }
  if (start % subclusterSize !== 0 || end % subclusterSize !== 0) {
    // The rest of the unit may be zero, too: then all of it can be.
    start -= start % subclusterSize;
    end = start + subclusterSize;
    if (!await isZeroUnit(image, start, { from: offset, to: offset + length })) {
      return await writeZeros(image, offset, length, flags);
    }
  }
  for (let at = start; at < end;) {
    const done = await image.lock.run(() => zeroEntries(image, at, end - at, flags));
    if (done > 0) {
      at += done;
      continue;
    }
    // By written zeros, as far as entries cannot say it: old versions, compressed or pending clusters.
    const stop = image.header.version < 3
      ? end
      : Math.min(at - at % clusterSize + clusterSize, end);
    const from = Math.max(at, offset);
    await writeZeros(image, from, Math.min(stop, offset + length) - from, flags);
    at = stop;
  }
}

/** Whether a unit reads as zeros outside of a range in it, and stores no data. */
async function isZeroUnit(
  image: Qcow2Image,
  start: number,
  written: { from: number; to: number },
): Promise<boolean> {
  const end = Math.min(start + image.geometry.subclusterSize, image.header.size);
  if (
    !await readsZero(image, start, written.from - start) ||
    !await readsZero(image, written.to, end - written.to)
  ) return false;
  const { state } = await findRun(image, start, end - start);
  return state !== "data" && state !== "compressed";
}

async function writeZeros(
  image: Qcow2Image,
  offset: number,
  length: number,
  flags: ZeroFlags,
): Promise<void> {
  if (flags.noFallback) {
    throw ImageError.fromErrno("ENOTSUP", { file: image.context.filename });
  }
  for (let done = 0; done < length; done += MAX_ZERO_WRITE) {
    const part = Math.min(length - done, MAX_ZERO_WRITE);
    if (image.encryption !== undefined) {
      await writeAt(image, offset + done, new Uint8Array(part));
      continue;
    }
    await writeGuest(image, offset + done, part, async (file, host, _, bytes) => {
      for (let at = 0; at < bytes; at += ZEROS.length) {
        await file.write(host + at, ZEROS.subarray(0, Math.min(bytes - at, ZEROS.length)));
      }
    });
  }
}

/**
 * Zeros a prefix of a range of whole subclusters by entries, within one L2
 * table: how many bytes, 0 if that cannot be done. The lock is held.
 */
async function zeroEntries(
  image: Qcow2Image,
  offset: number,
  length: number,
  flags: ZeroFlags,
): Promise<number> {
  const { header, geometry: { clusterSize } } = image;
  // A table entry would be overwritten when the bytes that are on their way arrive.
  const inside = offset % clusterSize;
  const pending = image.pending.first(offset - inside, inside + length);
  if (pending !== undefined) {
    if (pending.guest <= offset) return 0;
    length = pending.guest - offset;
  }
  if (header.version < 3) {
    if (image.backing !== null) return 0;
    return await discardEntries(image, offset, length, "guest");
  }
  const unmap = flags.unmap && image.context.mode.unmap;
  if (inside !== 0 || length < clusterSize) {
    const part = Math.min(length, clusterSize - inside);
    await zeroDataFile(image, offset, part, unmap);
    return await zeroSubclusters(image, offset, part) ? part : 0;
  }
  const clusters = Math.min(Math.floor(length / clusterSize), image.l2.entriesForRun(offset));
  await zeroDataFile(image, offset, clusters * clusterSize, unmap);
  await zeroClusters(image, offset, clusters, unmap);
  return clusters * clusterSize;
}

/** A data file that is a faithful raw image says zeros itself. */
async function zeroDataFile(
  image: Qcow2Image,
  offset: number,
  length: number,
  unmap: boolean,
): Promise<void> {
  if (!image.hasDataFile) return;
  if ((image.header.autoclear & BigInt(Autoclear.dataFileRaw)) === 0n) return;
  const end = Math.min(offset + length, image.header.size);
  if (end > offset) await image.dataFile.writeZeroes(offset, end - offset, { unmap });
}

/** Clusters of one L2 table whose entries change, and what that frees. */
class EntryChanges {
  /** Halves of the old descriptors whose clusters lose a reference. */
  readonly freed: number[] = [];
  /** Host clusters that are kept but may lose their bytes. */
  readonly emptied: number[] = [];
  readonly #image: Qcow2Image;
  readonly #table: L2Table;
  #changed = false;

  constructor(image: Qcow2Image, table: L2Table) {
    this.#image = image;
    this.#table = table;
  }

  /** Sets a descriptor and, with extended L2 entries, the zero half of its bitmap; nothing else is stored then. */
  set(index: number, high: number, low: number, zeroBits: number): boolean {
    const { entries } = this.#table;
    const { entrySize } = this.#image.geometry;
    const word = index * entrySize / 8;
    const extended = entrySize === 16;
    const same = entries.high(word) === high && entries.low(word) === low &&
      (!extended || (entries.high(word + 1) === zeroBits && entries.low(word + 1) === 0));
    if (same) return false;
    entries.set(word, high, low);
    if (extended) entries.set(word + 1, zeroBits, 0);
    this.#changed = true;
    return true;
  }

  /** Says that the entries are as they should be: what they no longer name is freed. */
  async finish(reason: FreeReason = "request"): Promise<void> {
    const { refcounts, dataFile, geometry: { clusterSize } } = this.#image;
    if (this.#changed) this.#image.l2.touch(this.#table);
    await refcounts.holdingDiscards(() => freeEntries(this.#image, this.freed, reason));
    if (refcounts.passesDiscard(reason)) {
      for (const offset of this.emptied) await discardHost(dataFile, offset, clusterSize);
    }
  }
}

async function zeroClusters(
  image: Qcow2Image,
  offset: number,
  clusters: number,
  unmap: boolean,
): Promise<void> {
  const { clusterSize, l2Entries, entrySize, subclusters } = image.geometry;
  const table = await image.l2.own(offset);
  const { entries } = table;
  const changes = new EntryChanges(image, table);
  const first = offset / clusterSize % l2Entries;
  for (let index = first; index < first + clusters; index++) {
    const word = index * entrySize / 8;
    const high = entries.high(word);
    const low = entries.low(word);
    const kind = kindOf(image, high, low);
    const stored = kind === Kind.data || kind === Kind.zeroReserved;
    const drop = kind === Kind.compressed || (unmap && stored);
    const keep = image.discards.keepReferences && kind !== Kind.compressed;
    const gone = drop && !keep;
    const zeroFlag = subclusters === 1 ? 1 : 0;
    const changed = changes.set(
      index,
      gone ? 0 : high,
      ((gone ? 0 : low) | zeroFlag) >>> 0,
      ALL_SUBCLUSTERS,
    );
    if (!changed || !drop) continue;
    if (gone) changes.freed.push(high, low);
    else changes.emptied.push(offsetOf(high, low));
  }
  await changes.finish();
}

/** Zeros some subclusters of one cluster. `false`: it is compressed, which allows for no part. */
async function zeroSubclusters(
  image: Qcow2Image,
  offset: number,
  length: number,
): Promise<boolean> {
  const { clusterSize, subclusterSize, l2Entries } = image.geometry;
  const table = await image.l2.own(offset);
  const { entries } = table;
  const word = Math.floor(offset / clusterSize) % l2Entries * 2;
  if (kindOf(image, entries.high(word), entries.low(word)) === Kind.compressed) return false;
  const first = offset % clusterSize / subclusterSize;
  const bits = subclusterBits(first, first + Math.ceil(length / subclusterSize));
  const zero = (entries.high(word + 1) | bits) >>> 0;
  const stored = (entries.low(word + 1) & ~bits) >>> 0;
  if (zero !== entries.high(word + 1) || stored !== entries.low(word + 1)) {
    entries.set(word + 1, zero, stored);
    image.l2.touch(table);
  }
  return true;
}

/**
 * Discards the whole clusters of a guest range; the one at the end of the disk
 * counts as whole. Other parts are left alone. `full`: the backing file shows
 * through afterwards; `guest`: the range reads as zeros.
 *
 * @throws {ImageError} `ENOTSUP` for a guest discard where the image can say neither.
 */
export async function discardAt(
  image: Qcow2Image,
  offset: number,
  length: number,
  how: "guest" | "full",
): Promise<void> {
  image.assertUsable();
  const { clusterSize } = image.geometry;
  if (how === "guest" && image.header.version < 3 && image.backing !== null) {
    throw ImageError.fromErrno("ENOTSUP", { file: image.context.filename });
  }
  const start = Math.ceil(offset / clusterSize) * clusterSize;
  const atEnd = offset + length >= image.header.size;
  const end = (atEnd ? Math.ceil : Math.floor)((offset + length) / clusterSize) * clusterSize;
  if (how === "full") await image.pending.settled(start, Math.max(end - start, 0));
  for (let at = start; at < end;) {
    at += await image.lock.run(async () => {
      // Bytes that are on their way have nothing to discard yet.
      const pending = image.pending.first(at, end - at);
      if (pending === undefined) return await discardEntries(image, at, end - at, how);
      if (pending.guest > at) return await discardEntries(image, at, pending.guest - at, how);
      return pending.guest + pending.length - at;
    });
  }
}

/** Discards clusters of one L2 table: how many bytes. The lock is held. */
async function discardEntries(
  image: Qcow2Image,
  offset: number,
  length: number,
  how: "guest" | "full",
): Promise<number> {
  const { clusterSize, l2Entries, l2Span, entrySize, subclusters } = image.geometry;
  const { header, l1 } = image;
  const full = how === "full";
  const l1Index = Math.floor(offset / l2Span);
  if ((full || image.backing === null) && (l1Index >= l1.length || l1.offset(l1Index) === 0)) {
    // There is nothing to discard. (The reference makes a table for it.)
    return Math.min(length, (l1Index + 1) * l2Span - offset);
  }
  const clusters = Math.min(Math.ceil(length / clusterSize), image.l2.entriesForRun(offset));
  const table = await image.l2.own(offset);
  const { entries } = table;
  const changes = new EntryChanges(image, table);
  const first = offset / clusterSize % l2Entries;
  for (let index = first; index < first + clusters; index++) {
    const word = index * entrySize / 8;
    const high = entries.high(word);
    const low = entries.low(word);
    const kind = kindOf(image, high, low);
    const stored = kind === Kind.data || kind === Kind.zeroReserved;
    const keep = !full && stored && image.discards.keepReferences;
    if (!full && image.backing === null && !stored && kind !== Kind.compressed) continue;
    // Versions before 3 have no zero flag, and no backing file here.
    const zeroFlag = !full && subclusters === 1 && header.version >= 3 ? 1 : 0;
    const zeroBits = full ? 0 : ALL_SUBCLUSTERS;
    const changed = keep
      ? changes.set(index, high, (low | zeroFlag) >>> 0, zeroBits)
      : changes.set(index, 0, zeroFlag, zeroBits);
    if (!changed) continue;
    if (keep) changes.emptied.push(offsetOf(high, low));
    else changes.freed.push(high, low);
  }
  // What is cut off a disk is gone for good, whatever the guest may discard.
  await changes.finish(full ? "always" : "request");
  return clusters * clusterSize;
}
