/**
 * The header of dynamic and differencing images (sections 1 and 2 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignUp, isPowerOfTwo } from "../../lib/bytes/align.ts";
import { readU32BE, readU64BE, writeU32BE, writeU64BE } from "../../lib/bytes/endian.ts";
import { checksum, HEADER_SIZE, SECTOR } from "./_layout.ts";
import type { Footer } from "./footer.ts";

const COOKIE = "cxsparse";

/** Entries of the table that a signed count of bytes has room for. */
const MAX_ENTRIES = 536870911;

/** Nothing of a file lies beyond. */
const MAX_OFFSET = 1n << 62n;

const AT = {
  next: 8,
  table: 16,
  version: 24,
  entries: 28,
  blockSize: 32,
  checksum: 36,
} as const;

/** What a header says. All in bytes, except where it counts. */
export interface DynamicHeader {
  /** All of it. */
  readonly bytes: Uint8Array;
  /** Where it begins. */
  readonly offset: number;
  /** Where the block allocation table begins. */
  readonly tableOffset: number;
  /** How many entries that has. */
  readonly entries: number;
  /** Bytes of the disk that a block holds, a power of two. */
  readonly blockSize: number;
  /** Bytes of the sector bitmap in front of a block. */
  readonly bitmapSize: number;
}

/** Bytes of a sector bitmap. */
export function bitmapSizeOf(blockSize: number): number {
  return alignUp(Math.ceil(blockSize / SECTOR / 8), SECTOR);
}

/**
 * Reads the header to which a footer leads; `length` is the disk's, bytes.
 *
 * @throws {ImageError} for the checks of section 2, in their order.
 */
export async function readDynamicHeader(
  file: BlockNode,
  { dataOffset }: Footer,
  length: number,
): Promise<DynamicHeader> {
  const refuse = (message: string, field: string, errno: ImageError["errno"] = "EINVAL") =>
    new ImageError(message, { errno, file: file.filename, field });
  const bytes = new Uint8Array(HEADER_SIZE);
  if (dataOffset >= MAX_OFFSET) {
    throw refuse("Error reading dynamic VHD header", "data offset", "EIO");
  }
  const offset = Number(dataOffset);
  await readPadded(file, offset, bytes);
  if (String.fromCharCode(...bytes.subarray(0, COOKIE.length)) !== COOKIE) {
    throw refuse("Invalid header magic", "dynamic header");
  }
  const blockSize = readU32BE(bytes, AT.blockSize);
  if (!isPowerOfTwo(blockSize) || blockSize < SECTOR) {
    throw refuse(`Invalid block size ${blockSize}`, "block size");
  }
  const entries = readU32BE(bytes, AT.entries);
  if (entries * blockSize < length) throw refuse("Page table too small", "max table entries");
  if (entries > MAX_ENTRIES) {
    throw refuse(`Max Table Entries too large (${entries | 0})`, "max table entries");
  }
  const tableOffset = readU64BE(bytes, AT.table);
  if (tableOffset >= MAX_OFFSET) throw refuse("Error reading pagetable", "table offset", "EIO");
  return {
    bytes,
    offset,
    tableOffset: Number(tableOffset),
    entries,
    blockSize,
    bitmapSize: bitmapSizeOf(blockSize),
  };
}

/** The header of a new image. All in bytes, except where it counts. */
export function newDynamicHeader(
  { tableOffset, entries, blockSize }: Pick<
    DynamicHeader,
    "tableOffset" | "entries" | "blockSize"
  >,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_SIZE);
  new TextEncoder().encodeInto(COOKIE, bytes);
  writeU64BE(bytes, AT.next, 0xffffffffffffffffn);
  writeU64BE(bytes, AT.table, tableOffset);
  writeU32BE(bytes, AT.version, 0x00010000);
  writeU32BE(bytes, AT.entries, entries);
  writeU32BE(bytes, AT.blockSize, blockSize);
  writeU32BE(bytes, AT.checksum, checksum(bytes, AT.checksum));
  return bytes;
}
