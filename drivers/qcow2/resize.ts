/**
 * Changing the size of the virtual disk (section 10 of the format's reference).
 *
 * @module
 */
import { during, ImageError, reasonText } from "../../lib/block/error.ts";
import type { Preallocation } from "../../lib/block/node.ts";
import { isZero } from "../../lib/bytes/zero_scan.ts";
import { Autoclear } from "./_layout.ts";
import type { Bitmaps } from "./bitmaps.ts";
import { discardHost } from "./cluster_entry.ts";
import { signalCorruption } from "./corruption.ts";
import type { Qcow2Image } from "./image.ts";
import { growL1 } from "./l1_table.ts";
import { flushImage } from "./lazy.ts";
import { preallocateData, preallocateMetadata } from "./preallocation.ts";
import { writeAt } from "./write.ts";
import { discardAt, writeZeroesAt } from "./zero.ts";

/** Where the header says the virtual size. */
const SIZE_FIELD = 24;

/**
 * Sets the virtual size in bytes. New space reads as zeros and is provided as
 * `how` says; what a smaller disk loses is discarded and the file cut.
 *
 * @throws {ImageError} with the reference's texts.
 */
export async function resizeImage(
  image: Qcow2Image,
  length: number,
  how: Preallocation,
  bitmaps?: Bitmaps,
): Promise<void> {
  const { header } = image;
  assertResizable(image, length, bitmaps);
  image.assertUsable();

  if (length < header.size) {
    if (how !== "off") {
      throw refuse(image, "Preallocation can't be used for shrinking an image", "EINVAL");
    }
    await shrink(image, length);
  } else {
    // A data file that is a faithful raw image needs tables that say so.
    const raw = (header.autoclear & BigInt(Autoclear.dataFileRaw)) !== 0n;
    await grow(image, length, raw && how === "off" ? "metadata" : how);
  }
  await storeSize(image, length);
  bitmaps?.resize(length);
}

/**
 * Whether an image may have a virtual size of `length` bytes, as far as can be
 * known before it is tried; `version` is that of the format by then.
 *
 * @throws {ImageError} with the reference's texts.
 */
export function assertResizable(
  image: Qcow2Image,
  length: number,
  bitmaps?: Bitmaps,
  version: number = image.header.version,
): void {
  if (length % 512 !== 0) throw refuse(image, "The new size must be a multiple of 512", "EINVAL");
  if (image.header.snapshotCount > 0 && version < 3) {
    throw refuse(image, "Can't resize a v2 image which has snapshots", "ENOTSUP");
  }
  bitmaps?.assertResizable();
}

function refuse(image: Qcow2Image, message: string, errno: "EINVAL" | "ENOTSUP"): ImageError {
  return new ImageError(message, { errno, file: image.context.filename, field: "size" });
}

async function storeSize(image: Qcow2Image, length: number): Promise<void> {
  const field = new DataView(new ArrayBuffer(8));
  field.setBigUint64(0, BigInt(length));
  await during("Failed to update the image size", async () => {
    await image.file.write(SIZE_FIELD, new Uint8Array(field.buffer));
    await image.barrier();
  });
  image.header.size = length;
}

async function grow(image: Qcow2Image, length: number, how: Preallocation): Promise<void> {
  const { header, geometry, backing } = image;
  const entries = Math.ceil(length / geometry.l2Span);
  await during(
    "Failed to grow the L1 table",
    () => image.lock.run(() => growL1(image, entries, "exact")),
  );
  const area = { start: header.size, end: length };
  // What the backing file has there must not come to light.
  const shows = backing !== null && backing.length > header.size && length > header.size;
  if (how === "off") {
    if (image.hasDataFile) await image.dataFile.resize(length, "off");
    if (!shows) return;
    await coverBacking(image, area);
  } else if (how === "metadata" || image.hasDataFile) {
    await preallocateMetadata(image, area, how);
    if (shows) await coverBacking(image, area);
  } else {
    await preallocateData(image, area, how, shows);
  }
  // The header's size, which comes next, must not show the area before it is what it should be.
  await flushImage(image);
}

/** Makes a new part of the disk read as zeros, whatever the backing file has there. */
async function coverBacking(
  image: Qcow2Image,
  { start, end }: { start: number; end: number },
): Promise<void> {
  const { clusterSize, subclusterSize } = image.geometry;
  const aligned = Math.min(Math.ceil(start / subclusterSize) * subclusterSize, end);
  await during("Failed to zero out new clusters", async () => {
    if (aligned >= end) return;
    // Nobody sees the rest of the last cluster, which lies behind the disk.
    const length = Math.ceil(end / clusterSize) * clusterSize - aligned;
    await writeZeroesAt(image, aligned, length, { unmap: false, noFallback: true });
  });
  // The old last subcluster may show the backing file behind its part of the disk.
  if (aligned > start) {
    await during(
      "Failed to zero out the new area",
      () => writeAt(image, start, new Uint8Array(aligned - start)),
    );
  }
}

async function shrink(image: Qcow2Image, length: number): Promise<void> {
  const { header, geometry, file } = image;
  const { clusterSize } = geometry;
  const from = Math.ceil(length / clusterSize) * clusterSize;
  await during("Failed to discard cropped clusters", async () => {
    if (from < header.size) await discardAt(image, from, header.size - from, "full");
  });
  await image.lock.run(async () => {
    await during(
      "Failed to reduce the number of L2 tables",
      () => dropL2Tables(image, Math.ceil(length / geometry.l2Span)),
    );
    await during("Failed to discard unused refblocks", () => dropRefcountBlocks(image));
  });
  if (image.hasDataFile) await image.dataFile.resize(length, "off");

  const oldLength = file.length;
  const last = await during(
    "Failed to find the last cluster",
    async () => {
      const clusters = Math.ceil(oldLength / clusterSize);
      const last = await image.lock.run(() => image.refcounts.lastUsed(clusters));
      if (last >= 0) return last;
      throw await signalCorruption(image, "There are no references in the refcount table.");
    },
  );
  const end = (last + 1) * clusterSize;
  if (end < oldLength) {
    try {
      await file.resize(end, "off");
    } catch (error) {
      // The image is whole, it only keeps its tail.
      image.context.warn(`Failed to truncate the tail of the image: ${reasonText(error)}`);
    }
  }
}

/** Clears the L1 table behind `entries` and frees the L2 tables that it named. The L1 table keeps its size. */
async function dropL2Tables(image: Qcow2Image, entries: number): Promise<void> {
  const { header, geometry, l1, l2, refcounts } = image;
  if (entries >= header.l1Size) return;
  await l2.flush();
  await image.file.writeZeroes(header.l1Offset + entries * 8, (header.l1Size - entries) * 8, {
    unmap: false,
  });
  const dropped: number[] = [];
  for (let index = header.l1Size - 1; index >= entries; index--) {
    const offset = l1.offset(index);
    if (offset === 0) continue;
    l1.set(index, 0, 0);
    dropped.push(offset);
  }
  await image.barrier();
  for (const offset of dropped) {
    l2.forget(offset);
    await refcounts.free(offset, geometry.clusterSize, "always");
  }
}

/**
 * Drops refcount blocks that count nothing, or only themselves. What would
 * become so by the dropping of others stays, as it does in the reference.
 */
async function dropRefcountBlocks(image: Qcow2Image): Promise<void> {
  const { refcounts, geometry: { clusterSize } } = image;
  const { perBlock } = refcounts.format;
  await refcounts.flush();
  const unused: { index: number; offset: number; own: boolean }[] = [];
  for (let index = 0; index < refcounts.table.length; index++) {
    const offset = refcounts.table.offset(index);
    if (offset === 0) continue;
    const cluster = offset / clusterSize;
    const own = Math.floor(cluster / perBlock) === index;
    if (await countsNothing(image, index, own ? cluster % perBlock : -1)) {
      unused.push({ index, offset, own });
    }
  }
  for (const { index, offset, own } of unused) {
    await refcounts.setTableEntry(index, 0);
    // A block that counted itself is gone with its count.
    if (own) await discardHost(image.file, offset, clusterSize);
    else await refcounts.free(offset, clusterSize, "always");
  }
}

async function countsNothing(image: Qcow2Image, index: number, own: number): Promise<boolean> {
  const { refcounts } = image;
  const bytes = await refcounts.block(index);
  if (bytes === undefined) return false;
  if (own < 0) return isZero(bytes);
  const { firstUsed, perBlock } = refcounts.format;
  return firstUsed.call(refcounts.format, bytes, 0, perBlock) === own &&
    firstUsed.call(refcounts.format, bytes, own + 1, perBlock) === perBlock;
}
