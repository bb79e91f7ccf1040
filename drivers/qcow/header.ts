/**
 * The header: 48 bytes (sections 1 and 2 of the format's reference).
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import { readU32BE, readU64BE, readU8, writeU32BE, writeU64BE } from "../../lib/bytes/endian.ts";
import { MAX_BACKING_NAME } from "./options.ts";
import { MAGIC } from "./probe.ts";

/** Unit of disks and files, bytes. */
export const SECTOR = 512;

const HEADER = 48;
const VERSION = 1;
/** Entries of the longest table that has a place in the reference's memory. */
const MAX_L1 = Math.floor((2 ** 31 - 1) / 8);
/** Entries of that of an image that nobody vouches for. */
const MAX_L1_UNTRUSTED = (16 << 20) / 8;

/** Where the fields are. */
const AT = {
  magic: 0,
  version: 4,
  backingOffset: 8,
  backingSize: 16,
  size: 24,
  clusterBits: 32,
  l2Bits: 33,
  cryptMethod: 36,
  l1Offset: 40,
} as const;

/** What a header says. All in bytes, except where it counts. */
export interface QcowHeader {
  /** The header as it is in the file. */
  readonly bytes: Uint8Array;
  /** Bytes of the disk, whole sectors. */
  readonly length: number;
  /** log2 of the bytes of a cluster. */
  readonly clusterBits: number;
  /** Bytes of a cluster. */
  readonly clusterSize: number;
  /** Entries of an L2 table. */
  readonly l2Entries: number;
  /** Where the L1 table begins. */
  readonly l1Offset: number;
  /** How many entries it has. */
  readonly l1Entries: number;
  /** Guest data are encrypted. */
  readonly isEncrypted: boolean;
}

/**
 * Reads the header of an image. Whether its numbers go together is for {@linkcode requireTable}, after the
 * encryption has been looked at.
 *
 * @throws {ImageError} for the checks of section 2 in their order, up to that of the encryption.
 */
export async function readHeader(file: BlockNode, context: DriverContext): Promise<QcowHeader> {
  const refuse = (message: string, field: string) => refusal(context, message, field);
  const bytes = new Uint8Array(HEADER);
  await readPadded(file, 0, bytes);
  if (readU32BE(bytes, AT.magic) !== MAGIC) throw refuse("Image not in qcow format", "magic");
  const version = readU32BE(bytes, AT.version);
  if (version !== VERSION) {
    throw new ImageError(`qcow (v1) does not support qcow version ${version}`, {
      errno: "ENOTSUP",
      file: context.filename,
      field: "version",
      hint: version === 2 || version === 3 ? "Try the 'qcow2' driver instead." : undefined,
    });
  }
  const size = readU64BE(bytes, AT.size);
  if (size <= 1n) throw refuse("Image size is too small (must be at least 2 bytes)", "size");
  const clusterBits = readU8(bytes, AT.clusterBits);
  if (clusterBits < 9 || clusterBits > 16) {
    throw refuse("Cluster size must be between 512 and 64k", "cluster_bits");
  }
  const l2Bits = readU8(bytes, AT.l2Bits);
  if (l2Bits < 6 || l2Bits > 13) {
    throw refuse("L2 table size must be between 512 and 64k", "l2_bits");
  }
  const method = readU32BE(bytes, AT.cryptMethod);
  if (method > 1) throw refuse("invalid encryption method in qcow header", "crypt_method");
  const span = 1n << BigInt(clusterBits + l2Bits);
  return {
    bytes,
    length: Number(size / BigInt(SECTOR)) * SECTOR,
    clusterBits,
    clusterSize: 2 ** clusterBits,
    l2Entries: 2 ** l2Bits,
    l1Offset: Number(readU64BE(bytes, AT.l1Offset)),
    l1Entries: Number((size + span - 1n) / span),
    isEncrypted: method === 1,
  };
}

/**
 * Checks that a disk has a length that tables and numbers can have.
 *
 * @throws {ImageError} `Image too large`, and `EIO` for a table that lies where no file has anything.
 */
export function requireTable(
  { bytes, l1Entries }: QcowHeader,
  context: DriverContext,
): void {
  const isExact = readU64BE(bytes, AT.size) <= BigInt(Number.MAX_SAFE_INTEGER);
  if (!isExact || l1Entries > (context.untrusted ? MAX_L1_UNTRUSTED : MAX_L1)) {
    throw refusal(context, "Image too large", "size");
  }
  if (readU64BE(bytes, AT.l1Offset) + BigInt(l1Entries * 8) >= 2n ** 63n) {
    throw ImageError.fromErrno("EIO", { file: context.filename, field: "l1_table_offset" });
  }
}

/**
 * Reads the name of the backing file, `""` if there is none.
 *
 * @throws {ImageError} `Backing file name too long`, and `EIO` for one that lies where no file has anything.
 */
export async function readBackingName(
  file: BlockNode,
  { bytes }: QcowHeader,
  context: DriverContext,
): Promise<string> {
  const offset = readU64BE(bytes, AT.backingOffset);
  if (offset === 0n) return "";
  const length = readU32BE(bytes, AT.backingSize);
  if (length > MAX_BACKING_NAME) {
    throw refusal(context, "Backing file name too long", "backing_file_size");
  }
  const name = new Uint8Array(length);
  await readPadded(file, Number(offset), name);
  const end = name.indexOf(0);
  return new TextDecoder().decode(end < 0 ? name : name.subarray(0, end));
}

function refusal({ filename }: DriverContext, message: string, field: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", file: filename, field });
}

/** How a new image is laid out. */
export interface NewImage {
  /** Header and name of the backing file, up to the L1 table. */
  readonly head: Uint8Array;
  /** Bytes of the L1 table, in whole sectors; all zeros. */
  readonly tableSize: number;
}

/**
 * The beginning of a new image (section 5). An image in front of another one has small clusters, so that no
 * write to it has to read what is behind.
 *
 * @throws {ImageError} `EFBIG` for a disk that nobody could open.
 */
export function newImage(
  size: number,
  backingFile: string,
  { hasBacking, isEncrypted }: { readonly hasBacking: boolean; readonly isEncrypted: boolean },
): NewImage {
  const [clusterBits, l2Bits] = hasBacking ? [9, 12] as const : [12, 9] as const;
  const l1Entries = Math.ceil(size / 2 ** (clusterBits + l2Bits));
  if (l1Entries > MAX_L1) throw ImageError.fromErrno("EFBIG", { field: "size" });
  const name = new TextEncoder().encode(backingFile);
  if (name.length > MAX_BACKING_NAME) {
    throw new ImageError("Backing file name too long", { errno: "EINVAL", field: "backing_file" });
  }
  const head = new Uint8Array(alignUp(HEADER + name.length, 8));
  writeU32BE(head, AT.magic, MAGIC);
  writeU32BE(head, AT.version, VERSION);
  if (name.length > 0) {
    writeU64BE(head, AT.backingOffset, HEADER);
    writeU32BE(head, AT.backingSize, name.length);
    head.set(name, HEADER);
  }
  writeU64BE(head, AT.size, size);
  head[AT.clusterBits] = clusterBits;
  head[AT.l2Bits] = l2Bits;
  writeU32BE(head, AT.cryptMethod, isEncrypted ? 1 : 0);
  writeU64BE(head, AT.l1Offset, head.length);
  return { head, tableSize: alignUp(l1Entries * 8, SECTOR) };
}
