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
import {
  readU32BE,
  readU64BE,
  readU8,
  viewOf,
  writeU32BE,
  writeU64BE,
} from "../../lib/bytes/endian.ts";
import { MAX_BACKING_NAME } from "./options.ts";
import { MAGIC } from "./probe.ts";

/** Unit of disks and files, bytes. */
export const SECTOR = 512;

const HEADER = 48;
const VERSION = 1;
/** Entries of the longest table that has a place in the reference's memory. */
const MAX_L1 = BigInt(Math.floor((2 ** 31 - 1) / 8));
/** Entries of that of an image that nobody vouches for. */
const MAX_L1_UNTRUSTED = BigInt((16 << 20) / 8);

/** What a header says. All in bytes, except where it counts. */
export interface QcowHeader {
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

/** What {@linkcode readHeader} says of a header. */
export interface FoundHeader {
  readonly header: QcowHeader;
  /** Reads the backing file's name, `""` if there is none: what is wrong with it comes last. */
  backingName(): Promise<string>;
}

/** @throws {ImageError} for the checks of section 2 up to that of the encryption, in their order. */
export async function readHeader(file: BlockNode, context: DriverContext): Promise<FoundHeader> {
  const refuse = (message: string, field: string, errno: ImageError["errno"] = "EINVAL") =>
    new ImageError(message, { errno, file: context.filename, field });
  const bytes = new Uint8Array(HEADER);
  await readPadded(file, 0, bytes);
  if (readU32BE(bytes, 0) !== MAGIC) throw refuse("Image not in qcow format", "magic");
  const version = readU32BE(bytes, 4);
  if (version !== VERSION) {
    throw new ImageError(`qcow (v1) does not support qcow version ${version}`, {
      errno: "ENOTSUP",
      file: context.filename,
      field: "version",
      hint: version === 2 || version === 3 ? "Try the 'qcow2' driver instead." : undefined,
    });
  }
  const size = readU64BE(bytes, 24);
  if (size <= 1n) throw refuse("Image size is too small (must be at least 2 bytes)", "size");
  const clusterBits = readU8(bytes, 32);
  if (clusterBits < 9 || clusterBits > 16) {
    throw refuse("Cluster size must be between 512 and 64k", "cluster_bits");
  }
  const l2Bits = readU8(bytes, 33);
  if (l2Bits < 6 || l2Bits > 13) {
    throw refuse("L2 table size must be between 512 and 64k", "l2_bits");
  }
  const method = readU32BE(bytes, 36);
  if (method > 1) throw refuse("invalid encryption method in qcow header", "crypt_method");
  const span = 1n << BigInt(clusterBits + l2Bits);
  const l1Entries = (size + span - 1n) / span;
  const l1Offset = readU64BE(bytes, 40);
  return {
    header: {
      length: Number(size / 512n) * SECTOR,
      clusterBits,
      clusterSize: 2 ** clusterBits,
      l2Entries: 2 ** l2Bits,
      l1Offset: Number(l1Offset),
      l1Entries: Number(l1Entries),
      isEncrypted: method === 1,
    },
    async backingName() {
      const limit = context.untrusted ? MAX_L1_UNTRUSTED : MAX_L1;
      if (l1Entries > limit || size > BigInt(Number.MAX_SAFE_INTEGER)) {
        throw refuse("Image too large", "size");
      }
      // Where no file has anything the table is not either.
      if (l1Offset + l1Entries * 8n >= 2n ** 63n) {
        throw ImageError.fromErrno("EIO", { file: context.filename, field: "l1_table_offset" });
      }
      const offset = readU64BE(bytes, 8);
      if (offset === 0n) return "";
      const length = readU32BE(bytes, 16);
      if (length > MAX_BACKING_NAME) {
        throw refuse("Backing file name too long", "backing_file_size");
      }
      const name = new Uint8Array(length);
      await readPadded(file, Number(offset), name);
      const end = name.indexOf(0);
      return new TextDecoder().decode(end < 0 ? name : name.subarray(0, end));
    },
  };
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
  const [clusterBits, l2Bits] = hasBacking ? [9, 12] : [12, 9];
  const l1Entries = Math.ceil(size / 2 ** (clusterBits + l2Bits));
  if (BigInt(l1Entries) > MAX_L1) throw ImageError.fromErrno("EFBIG", { field: "size" });
  const name = new TextEncoder().encode(backingFile);
  if (name.length > MAX_BACKING_NAME) {
    throw new ImageError("Backing file name too long", { errno: "EINVAL", field: "backing_file" });
  }
  const head = new Uint8Array(alignUp(HEADER + name.length, 8));
  writeU32BE(head, 0, MAGIC);
  writeU32BE(head, 4, VERSION);
  if (name.length > 0) {
    writeU64BE(head, 8, HEADER);
    writeU32BE(head, 16, name.length);
    head.set(name, HEADER);
  }
  writeU64BE(head, 24, size);
  viewOf(head).setUint8(32, clusterBits);
  viewOf(head).setUint8(33, l2Bits);
  writeU32BE(head, 36, isEncrypted ? 1 : 0);
  writeU64BE(head, 40, head.length);
  return { head, tableSize: alignUp(l1Entries * 8, SECTOR) };
}
