/**
 * What an L2 entry says (section 5).
 *
 * @module
 */
import type { BlockNode } from "../../lib/block/node.ts";
import { hex, signalCorruption } from "./corruption.ts";
import type { FreeReason } from "./allocation.ts";
import type { HostRange, Qcow2Image } from "./image.ts";
import { COMPRESSED_HIGH, COPIED_HIGH, OFFSET_HIGH, OFFSET_LOW, ZERO_LOW } from "./table.ts";

/** The types of clusters, by their descriptor alone. */
export const Kind = {
  /** The backing file shows. */
  unallocated: 0,
  /** Reads as zeros. */
  zero: 1,
  /** Reads as zeros, host cluster reserved. */
  zeroReserved: 2,
  /** Stored plainly; with extended L2 entries the bitmap says which subclusters. */
  data: 3,
  /** Stored compressed. */
  compressed: 4,
} as const;

/** Bytes of the unit in which lengths of compressed clusters are stored. */
const PACKED_SECTOR = 512;

/** The type of a cluster from its descriptor's halves. */
export function kindOf(image: Qcow2Image, high: number, low: number): number {
  if ((high & COMPRESSED_HIGH) !== 0) return Kind.compressed;
  const placed = (high & OFFSET_HIGH) !== 0 || (low & OFFSET_LOW) !== 0;
  if ((low & ZERO_LOW) !== 0 && image.geometry.subclusters === 1) {
    return placed ? Kind.zeroReserved : Kind.zero;
  }
  if (placed) return Kind.data;
  // In a data file, 0 is an offset like any other.
  return image.hasDataFile && (high & COPIED_HIGH) !== 0 ? Kind.data : Kind.unallocated;
}

/** The host offset in a descriptor's halves, bytes; above 2^53 near it, and beyond the end of any file. */
export function offsetOf(high: number, low: number): number {
  return (high & OFFSET_HIGH) * 2 ** 32 + ((low & OFFSET_LOW) >>> 0);
}

/** Where the stream of a compressed cluster lies, whole sectors; above 2^53 nearly. */
export function packedRange(clusterBits: number, high: number, low: number): HostRange {
  const offsetBits = 70 - clusterBits - 32;
  const offset = (high & (2 ** offsetBits - 1)) * 2 ** 32 + low;
  const sectors = (high & ~COMPRESSED_HIGH & ~COPIED_HIGH) >>> offsetBits;
  return { offset, length: (sectors + 1) * PACKED_SECTOR - offset % PACKED_SECTOR };
}

/** A descriptor's halves for a stream of `length` bytes at host offset `offset`. */
export function packedEntry(
  clusterBits: number,
  offset: number,
  length: number,
): [high: number, low: number] {
  const offsetBits = 70 - clusterBits - 32;
  const sectors = Math.floor((offset + length - 1) / PACKED_SECTOR) -
    Math.floor(offset / PACKED_SECTOR);
  const high = COMPRESSED_HIGH | sectors << offsetBits | Math.floor(offset / 2 ** 32);
  return [high >>> 0, offset % 2 ** 32];
}

/**
 * Takes a reference from whatever clusters replaced descriptors pointed to.
 * `words` holds their halves in turn. Runs of neighbours are freed in one go.
 */
export async function freeEntries(
  image: Qcow2Image,
  words: readonly number[],
  reason: FreeReason,
): Promise<void> {
  const { clusterBits, clusterSize } = image.geometry;
  let start = -1;
  let length = 0;
  let written = false;
  for (let i = 0; i < words.length; i += 2) {
    const high = words[i]!;
    const low = words[i + 1]!;
    const kind = kindOf(image, high, low);
    if (kind === Kind.unallocated || kind === Kind.zero) continue;
    if (kind === Kind.compressed) {
      image.packed.forget();
      if (image.hasDataFile) continue;
      if (!written && image.refcounts.passesDiscard(reason)) {
        // A stream of zeros is none: the entry has to be gone from the disk before its bytes are.
        await image.l2.flush();
        written = true;
      }
      const range = packedRange(clusterBits, high, low);
      await image.refcounts.free(range.offset, range.length, reason);
      continue;
    }
    const offset = offsetOf(high, low);
    if (offset % clusterSize !== 0) {
      await signalCorruption(image, `Cannot free unaligned cluster ${hex(offset)}`, false);
      continue;
    }
    if (offset !== start + length || length === 0) {
      if (length > 0) await freePlain(image, start, length, reason);
      start = offset;
      length = 0;
    }
    length += clusterSize;
  }
  if (length > 0) await freePlain(image, start, length, reason);
}

async function freePlain(
  image: Qcow2Image,
  offset: number,
  length: number,
  reason: FreeReason,
): Promise<void> {
  const { refcounts, geometry: { clusterSize } } = image;
  if (!image.hasDataFile) {
    try {
      return await refcounts.add(offset, length, -1, reason);
    } catch {
      // One cluster without a reference does not keep its neighbours.
      for (let at = offset; at < offset + length; at += clusterSize) {
        await refcounts.free(at, clusterSize, reason);
      }
      return;
    }
  }
  if (refcounts.passesDiscard(reason)) await discardHost(image.dataFile, offset, length);
}

/** Deallocates a range of a file, as far as the file reaches; that it may not work is nobody's loss. */
export async function discardHost(file: BlockNode, offset: number, length: number): Promise<void> {
  const end = Math.min(offset + length, file.length);
  if (end <= offset) return;
  try {
    await file.discard(offset, end - offset);
  } catch {
    // Advice only.
  }
}
