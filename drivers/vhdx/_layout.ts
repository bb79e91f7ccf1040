/**
 * Where things are in an image, and how they are called (section 1 of the format's reference). All in
 * bytes.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { crc32c } from "../../lib/bytes/crc32c.ts";
import { readU32LE, writeU32LE } from "../../lib/bytes/endian.ts";

/** Unit of regions and blocks. */
export const MIB = 1 << 20;

/** Bytes of a header. */
export const HEADER_SIZE = 4096;

/** Where the two headers are. */
export const HEADERS_AT = [0x10000, 0x20000] as const;

/** Bytes of a region table. */
export const REGION_TABLE_SIZE = 0x10000;

/** Where the two region tables are. */
export const REGION_TABLES_AT = [0x30000, 0x40000] as const;

/** Bytes of the table that the metadata region begins with. */
export const METADATA_TABLE_SIZE = 0x10000;

/** Entries that a region table or the metadata table may have. */
export const MAX_ENTRIES = 2047;

/** Where the checksum is in everything that has one. */
const CHECKSUM_AT = 4;

/** Bytes that a table of blocks may take in an image that nobody vouches for. */
export const MAX_TABLE_UNTRUSTED = 16 << 20;

/** The smallest block. */
export const MIN_BLOCK = MIB;

/** The largest block. */
export const MAX_BLOCK = 256 * MIB;

/** Sectors that a sector bitmap has bits for. */
export const CHUNK_SECTORS = 2 ** 23;

/** Bits of the file parameters. */
export const Parameter = {
  /** Blocks stay where they are: a fixed image. */
  leaveBlocksAllocated: 1,
  /** A differencing image. */
  hasParent: 2,
} as const;

/** The lowest three bits of an entry of the block allocation table. */
export const BlockState = {
  notPresent: 0,
  undefined: 1,
  zero: 2,
  unmapped: 3,
  /** Unmapped, in a draft of the format. */
  unmappedDraft: 5,
  fullyPresent: 6,
  partiallyPresent: 7,
} as const;

/** The first bytes of `at` in a structure are those of `signature`. */
export function hasSignature(bytes: Uint8Array, signature: string, at = 0): boolean {
  for (let i = 0; i < signature.length; i++) {
    if (bytes[at + i] !== signature.charCodeAt(i)) return false;
  }
  return true;
}

/** Writes a signature. */
export function putSignature(bytes: Uint8Array, signature: string, at = 0): void {
  for (let i = 0; i < signature.length; i++) bytes[at + i] = signature.charCodeAt(i);
}

/** Whether a structure's checksum is right. */
export function isSummed(bytes: Uint8Array): boolean {
  const stored = readU32LE(bytes, CHECKSUM_AT);
  return structureSum(bytes.subarray(0, 8), bytes.subarray(8)) === stored;
}

/** Sets a structure's checksum. */
export function setSum(bytes: Uint8Array): void {
  writeU32LE(bytes, CHECKSUM_AT, structureSum(bytes.subarray(0, 8), bytes.subarray(8)));
}

/** The checksum of a structure: its first eight bytes, with the checksum taken for zero, and the rest. */
function structureSum(head: Uint8Array, rest: Uint8Array): number {
  return crc32c(rest, headSum(head));
}

/** The checksum of a structure's first bytes, in which its own is taken for zero. */
export function headSum(head: Uint8Array): number {
  const copy = head.slice();
  writeU32LE(copy, CHECKSUM_AT, 0);
  return crc32c(copy);
}

/** The error for a structure that is not as it has to be. It has the reference's words, which are few. */
export function invalid(file: BlockNode, field: string): ImageError {
  return ImageError.fromErrno("EINVAL", { file: file.filename, field });
}
