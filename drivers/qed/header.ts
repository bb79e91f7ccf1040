/**
 * The header (sections 1 and 2 of the format's reference).
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { Errno } from "../../lib/io/errno.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignDown, isPowerOfTwo } from "../../lib/bytes/align.ts";
import { readU32LE, readU64LE, writeU32LE, writeU64LE } from "../../lib/bytes/endian.ts";
import { MAGIC } from "./probe.ts";

/** Bytes of the header's fields; the name of the backing file comes behind them. */
export const HEADER_BYTES = 64;

/** Unit of disk sizes, and what a disk writes as a whole or not at all, bytes. */
export const SECTOR = 512;

/** Bits of the field `features`. */
export const Feature = {
  /** There is a backing file. */
  backingFile: 1n,
  /** The image was not closed, and has to be checked before it is written. */
  needCheck: 2n,
  /** The backing file is raw, whatever it looks like. */
  backingIsRaw: 4n,
} as const;

const KNOWN_FEATURES = 7n;

/** Longest name of a backing file, bytes: the reference opens no image with a longer one. */
export const MAX_BACKING_NAME = 4095;

/** Bounds of the cluster size, bytes, and of the tables' size, clusters. */
export const [MIN_CLUSTER, MAX_CLUSTER, MAX_TABLE] = [4096, 64 << 20, 16];

/** What the header says. All in bytes, except where it counts. */
export interface QedHeader {
  /** Bytes of a cluster. */
  readonly clusterSize: number;
  /** Clusters of a table. */
  readonly tableClusters: number;
  /** Clusters before the first one that can be data or a table. */
  readonly headerClusters: number;
  /** What nobody may ignore. */
  features: bigint;
  /** What anybody may ignore. */
  readonly compatFeatures: bigint;
  /** What everybody clears who does not know it and writes. */
  autoclearFeatures: bigint;
  /** Where the L1 table lies. */
  readonly l1Offset: number;
  /** Bytes of the disk. */
  imageSize: number;
  /** Where the name of the backing file lies. */
  backingNameOffset: number;
  /** Bytes of that name. */
  backingNameSize: number;
}

/** Whether a size, in bytes, can be that of a cluster. */
export function isClusterSize(size: number): boolean {
  return isPowerOfTwo(size) && size >= MIN_CLUSTER && size <= MAX_CLUSTER;
}

/** Whether a number of clusters can be that of a table. */
export function isTableSize(clusters: number): boolean {
  return isPowerOfTwo(clusters) && clusters <= MAX_TABLE;
}

/** Entries of a table. */
export function tableEntries(clusterSize: number, tableClusters: number): number {
  return clusterSize * tableClusters / 8;
}

/**
 * Longest disk, bytes, as the reference computes it: in 64 bits, which for clusters from 4 MiB on leave
 * nothing of it. No image with a larger one could be opened there.
 */
export function maxImageSize(clusterSize: number, tableClusters: number): bigint {
  const entries = BigInt(tableEntries(clusterSize, tableClusters));
  return BigInt.asUintN(64, entries * entries * BigInt(clusterSize));
}

/** Whether a disk can have a size, in bytes. */
export function isImageSize(size: bigint, clusterSize: number, tableClusters: number): boolean {
  return size % BigInt(SECTOR) === 0n && size <= maxImageSize(clusterSize, tableClusters);
}

/** Where clusters can lie in a file. */
export class Bounds {
  readonly #first: number;
  readonly #clusterSize: number;
  readonly #tableSize: number;
  /** Behind the last cluster of the file, bytes. New clusters begin here. */
  end: number;

  /** Bounds for an image; what is left of a last cluster that is not whole is none of it. */
  constructor(
    header: Pick<QedHeader, "clusterSize" | "tableClusters" | "headerClusters">,
    length: number,
  ) {
    this.#clusterSize = header.clusterSize;
    this.#tableSize = header.clusterSize * header.tableClusters;
    this.#first = header.clusterSize * header.headerClusters;
    this.end = alignDown(length, header.clusterSize);
  }

  /** Whether data can lie at an offset. */
  hasCluster(offset: number): boolean {
    return offset >= this.#first && offset < this.end && offset % this.#clusterSize === 0;
  }

  /**
   * Whether a table can lie at an offset. The reference takes no table of a single cluster, so that an
   * image that has such tables is opened by nobody.
   */
  hasTable(offset: number): boolean {
    return this.#tableSize > this.#clusterSize && this.hasCluster(offset) &&
      this.hasCluster(offset + this.#tableSize - this.#clusterSize);
  }
}

/**
 * Reads the header, and the name of the backing file.
 *
 * @throws {ImageError} for the checks of section 2, in their order.
 */
export async function readHeader(
  file: BlockNode,
  { filename }: DriverContext,
): Promise<{ header: QedHeader; backingName: string }> {
  const bytes = new Uint8Array(HEADER_BYTES);
  await readPadded(file, 0, bytes);
  const u32 = (at: number) => readU32LE(bytes, at);
  const u64 = (at: number) => readU64LE(bytes, at);
  const refuse = (message: string, field: string, errno: Errno = "EINVAL") =>
    new ImageError(message, { errno, file: filename, field });

  if (u32(0) !== MAGIC) throw refuse("Image not in QED format", "magic");
  const features = u64(16);
  const unknown = features & ~KNOWN_FEATURES;
  if (unknown !== 0n) {
    throw refuse(`Unsupported QED features: ${unknown.toString(16)}`, "features", "ENOTSUP");
  }
  const [clusterSize, tableClusters, headerClusters] = [u32(4), u32(8), u32(12)];
  if (!isClusterSize(clusterSize)) throw refuse("QED cluster size is invalid", "cluster_size");
  if (!isTableSize(tableClusters)) throw refuse("QED table size is invalid", "table_size");
  const imageSize = u64(48);
  if (!isImageSize(imageSize, clusterSize, tableClusters)) {
    throw refuse("QED image size is invalid", "image_size");
  }
  const bounds = new Bounds({ clusterSize, tableClusters, headerClusters }, file.length);
  // Above 2^53 it is not exact, and beyond the end of any file.
  const l1Offset = Number(u64(40));
  if (!bounds.hasTable(l1Offset)) throw refuse("QED table offset is invalid", "l1_table_offset");
  if (headerClusters > Math.floor((2 ** 32 - 1) / clusterSize)) {
    throw refuse("QED header size is too large", "header_size");
  }
  const [backingNameOffset, backingNameSize] = [u32(56), u32(60)];
  let backingName = "";
  if ((features & Feature.backingFile) !== 0n) {
    if (backingNameOffset + backingNameSize > headerClusters * clusterSize) {
      throw refuse("QED backing filename offset is invalid", "backing_filename_offset");
    }
    if (backingNameSize > MAX_BACKING_NAME) {
      throw refuse("Failed to read backing filename", "backing_filename_size");
    }
    const name = new Uint8Array(backingNameSize);
    await readPadded(file, backingNameOffset, name);
    const end = name.indexOf(0);
    backingName = new TextDecoder().decode(end < 0 ? name : name.subarray(0, end));
  }
  requireNumber(imageSize, refuse);
  const header: QedHeader = {
    clusterSize,
    tableClusters,
    headerClusters,
    features,
    compatFeatures: u64(24),
    autoclearFeatures: u64(32),
    l1Offset,
    imageSize: Number(imageSize),
    backingNameOffset,
    backingNameSize,
  };
  return { header, backingName };
}

/** @throws {ImageError} `EFBIG` for a disk that is longer than a number can say. */
function requireNumber(
  imageSize: bigint,
  refuse: (message: string, field: string, errno: Errno) => ImageError,
): void {
  if (imageSize >= 1n << 63n) {
    const message = "Could not refresh total sector count: File too large";
    throw refuse(message, "image_size", "EFBIG");
  }
  if (imageSize > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw refuse(
      `Image size ${imageSize} exceeds the supported maximum of ${Number.MAX_SAFE_INTEGER} bytes`,
      "image_size",
      "EFBIG",
    );
  }
}

/** The header's fields as they are in the file. */
export function encodeHeader(header: QedHeader): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_BYTES);
  writeU32LE(bytes, 0, MAGIC);
  writeU32LE(bytes, 4, header.clusterSize);
  writeU32LE(bytes, 8, header.tableClusters);
  writeU32LE(bytes, 12, header.headerClusters);
  writeU64LE(bytes, 16, header.features);
  writeU64LE(bytes, 24, header.compatFeatures);
  writeU64LE(bytes, 32, header.autoclearFeatures);
  writeU64LE(bytes, 40, header.l1Offset);
  writeU64LE(bytes, 48, header.imageSize);
  writeU32LE(bytes, 56, header.backingNameOffset);
  writeU32LE(bytes, 60, header.backingNameSize);
  return bytes;
}
