/**
 * Emptying an image whose content is in its backing file (section 17 of the format's reference).
 *
 * @module
 */
import type { BlockNode } from "../../lib/block/node.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import type { Bitmaps } from "./bitmaps.ts";
import type { Qcow2Image } from "./image.ts";
import { flushImage, markClean, markDirty } from "./lazy.ts";
import { EntryTable } from "./table.ts";
import { discardAt } from "./zero.ts";

/** Where the header holds offset of the L1 table (8 bytes), of the refcount table (8), and its clusters (4). */
const TABLES_FIELD = 40;

/** L2 tables that are emptied before what they named is deallocated. */
const TABLES = 64;

/** Zeros written at a time, bytes. */
const MAX_WRITE = 1 << 20;

/**
 * Forgets all guest data of an image, so that its backing file shows everywhere. At every moment on the way
 * each part of the disk is either still there or already gone.
 *
 * An image of nothing but guest data begins anew as a small file; in any other the clusters are freed one
 * by one.
 *
 * @throws {ImageError} of the file; the image cannot be used any more if it had begun anew.
 */
export async function emptyImage(image: Qcow2Image, bitmaps: Bitmaps): Promise<void> {
  image.assertUsable();
  const { header } = image;
  await image.pending.settled(0, header.size);
  await flushImage(image);
  if (canBeginAnew(image, bitmaps)) {
    await image.lock.run(() => beginAnew(image));
  } else {
    await freeClusters(image);
  }
  image.packed.forget();
  await flushImage(image);
}

/** Frees all clusters of the disk. Their bytes stay until nothing on disk leads to them any more. */
async function freeClusters(image: Qcow2Image): Promise<void> {
  const { header, geometry: { l2Span, clusterSize }, refcounts } = image;
  const end = alignUp(header.size, clusterSize);
  for (let at = 0; at < end; at += l2Span * TABLES) {
    const length = Math.min(l2Span * TABLES, end - at);
    await refcounts.holdingDiscards(async () => {
      await discardAt(image, at, length, "full");
      await image.lock.run(() => refcounts.deallocate());
    }, true);
  }
}

/** Clusters of the active L1 table. */
function l1Clusters({ header, geometry }: Qcow2Image): number {
  return Math.ceil(header.l1Size * 8 / geometry.clusterSize);
}

/** Header, refcount table, one refcount block and the L1 table are all that there will be. */
function canBeginAnew(image: Qcow2Image, bitmaps: Bitmaps): boolean {
  const { header, refcounts } = image;
  return header.version >= 3 && header.snapshotCount === 0 && bitmaps.list().length === 0 &&
    header.bitmaps === undefined && header.cryptMethod === 0 && header.cryptoHeader === undefined &&
    !image.hasDataFile && 3 + l1Clusters(image) <= refcounts.format.perBlock;
}

/**
 * Lays the image out as if it were new. The L1 table is emptied first: from then on nothing of the disk is
 * here, and the rest is bookkeeping that the dirty bit has mended should the program end on its way.
 */
async function beginAnew(image: Qcow2Image): Promise<void> {
  const { file, header, geometry: { clusterSize }, refcounts } = image;
  const l1Length = l1Clusters(image) * clusterSize;
  const end = 3 * clusterSize + l1Length;
  await markDirty(image);
  try {
    image.event("l1_update");
    await writeZeros(file, header.l1Offset, header.l1Size * 8);
    await image.barrier();
    image.event("empty_image_prepare");
    // Whatever was there: the old tables, or what nobody refers to any more.
    await writeZeros(file, clusterSize, end - clusterSize);
    await image.barrier();

    const tables = new DataView(new ArrayBuffer(20));
    tables.setBigUint64(0, BigInt(3 * clusterSize));
    tables.setBigUint64(8, BigInt(clusterSize));
    tables.setUint32(16, 1);
    await file.write(TABLES_FIELD, new Uint8Array(tables.buffer));
    await image.barrier();

    const block = new Uint8Array(clusterSize);
    for (let cluster = 0; cluster * clusterSize < end; cluster++) {
      refcounts.format.set(block, cluster, 1);
    }
    await file.write(2 * clusterSize, block);
    await image.barrier();
    const entry = new DataView(new ArrayBuffer(8));
    entry.setBigUint64(0, BigInt(2 * clusterSize));
    await file.write(clusterSize, new Uint8Array(entry.buffer));
    await image.barrier();

    header.l1Offset = 3 * clusterSize;
    header.refcountTableOffset = clusterSize;
    header.refcountTableClusters = 1;
    image.l1 = new EntryTable(new Uint8Array(header.l1Size * 8));
    image.l2.reset();
    await refcounts.reset();
    image.reservedSpace = undefined;
    await markClean(image);
    await file.resize(end, "off");
  } catch (error) {
    // What is in memory fits neither the old tables nor the new ones.
    image.broken = true;
    throw error;
  }
}

/** Writes zeros, also behind the end of the file. */
async function writeZeros(file: BlockNode, offset: number, length: number): Promise<void> {
  const zeros = new Uint8Array(Math.min(length, MAX_WRITE));
  for (let at = 0; at < length; at += zeros.length) {
    await file.write(offset + at, zeros.subarray(0, length - at));
  }
}
