/**
 * The header: 512 bytes, of which what is not known here is kept (section 1 of the format's reference).
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignUp, isAligned } from "../../lib/bytes/align.ts";
import { readU32LE, readU64LE, writeU32LE, writeU64LE } from "../../lib/bytes/endian.ts";
import { SIGNATURE, SIGNATURE_OFFSET } from "./probe.ts";

/** Unit of the tables, bytes. */
export const SECTOR = 512;

/** Bytes of a block: all images have blocks of this size. */
export const BLOCK_SIZE = 1 << 20;

/** Longest disk, bytes. */
export const MAX_DISK = 0x1fffff8000000n;

/** Entries that are no block's number: what was never written, and what was discarded. */
export const [DISCARDED, UNALLOCATED] = [0xfffffffe, 0xffffffff];

const MAX_BLOCKS = 536870784;
const VERSION = 0x00010001;
const TYPE_STATIC = 2;
const TEXT = "<<< QEMU VM Virtual Disk Image >>>\n";
/** Bytes of the map that an image may have that nobody vouches for. */
const MAX_MAP_UNTRUSTED = 16 << 20;

const AT = {
  version: 0x44,
  headerSize: 0x48,
  type: 0x4c,
  mapOffset: 0x154,
  dataOffset: 0x158,
  sectorSize: 0x168,
  diskSize: 0x170,
  blockSize: 0x178,
  blocks: 0x180,
  allocated: 0x184,
  uuid: 0x188,
  modifyUuid: 0x198,
  linkUuid: 0x1a8,
  parentUuid: 0x1b8,
} as const;

/** What a header says. All in bytes, except where it counts. */
export interface VdiHeader {
  /** The sector as it is in the file. */
  readonly bytes: Uint8Array;
  /** Bytes of the disk, whole sectors. */
  readonly length: number;
  /** All blocks lie in the file, in their order. */
  readonly isStatic: boolean;
  /** Where the map begins. */
  readonly mapOffset: number;
  /** Where block number 0 begins. */
  readonly dataOffset: number;
  /** How many entries the map has. */
  readonly blocks: number;
  /** How many blocks there are in the file: the number of the next one. */
  readonly allocated: number;
}

/** The error for a size that no image can have. */
export function tooLarge(size: bigint): ImageError {
  return new ImageError(
    `Unsupported VDI image size (size is 0x${size.toString(16)}, ` +
      `max supported is 0x${MAX_DISK.toString(16)})`,
    { errno: "ENOTSUP", field: "disk size" },
  );
}

/** @throws {ImageError} for the checks of section 1, in their order. */
export async function readHeader(file: BlockNode, context: DriverContext): Promise<VdiHeader> {
  const bytes = new Uint8Array(SECTOR);
  await readPadded(file, 0, bytes);
  const u32 = (at: number) => readU32LE(bytes, at);
  const refuse = (what: string, field: string) =>
    new ImageError(`unsupported VDI image (${what})`, {
      errno: "ENOTSUP",
      file: context.filename,
      field,
    });
  const hex = (value: number) => `0x${value.toString(16)}`;

  const diskSize = readU64LE(bytes, AT.diskSize);
  if (diskSize > MAX_DISK) throw tooLarge(diskSize);
  const signature = u32(SIGNATURE_OFFSET);
  if (signature !== SIGNATURE) {
    throw new ImageError(
      `Image not in VDI format (bad signature ${signature.toString(16).padStart(8, "0")})`,
      { errno: "EINVAL", file: context.filename, field: "signature" },
    );
  }
  const version = u32(AT.version);
  if (version !== VERSION) {
    throw refuse(`version ${version >>> 16}.${version & 0xffff}`, "version");
  }
  const [mapOffset, dataOffset] = [u32(AT.mapOffset), u32(AT.dataOffset)];
  if (!isAligned(mapOffset, SECTOR)) {
    throw refuse(`unaligned block map offset ${hex(mapOffset)}`, "map offset");
  }
  if (!isAligned(dataOffset, SECTOR)) {
    throw refuse(`unaligned data offset ${hex(dataOffset)}`, "data offset");
  }
  if (u32(AT.sectorSize) !== SECTOR) {
    throw refuse(`sector size ${u32(AT.sectorSize)} is not 512`, "sector size");
  }
  if (u32(AT.blockSize) !== BLOCK_SIZE) {
    throw refuse(`block size ${u32(AT.blockSize)} is not 1048576`, "block size");
  }
  const blocks = u32(AT.blocks);
  const length = alignUp(Number(diskSize), SECTOR);
  if (length > blocks * BLOCK_SIZE) {
    throw refuse(
      `disk size ${length}, image bitmap has room for ${blocks * BLOCK_SIZE}`,
      "blocks in image",
    );
  }
  const isNull = (at: number) => bytes.subarray(at, at + 16).every((byte) => byte === 0);
  if (!isNull(AT.linkUuid)) throw refuse("non-NULL link UUID", "link UUID");
  if (!isNull(AT.parentUuid)) throw refuse("non-NULL parent UUID", "parent UUID");
  if (blocks > MAX_BLOCKS) {
    throw refuse(`too many blocks ${blocks}, max is ${MAX_BLOCKS}`, "blocks in image");
  }
  if (context.untrusted && blocks * 4 > MAX_MAP_UNTRUSTED) {
    throw refuse(`block map of ${blocks} entries in an untrusted image`, "blocks in image");
  }
  return {
    bytes,
    length,
    isStatic: u32(AT.type) === TYPE_STATIC,
    mapOffset,
    dataOffset,
    blocks,
    allocated: u32(AT.allocated),
  };
}

/** The header's sector with another number of blocks in the file. */
export function withAllocated({ bytes, length }: VdiHeader, allocated: number): Uint8Array {
  const changed = bytes.slice();
  writeU64LE(changed, AT.diskSize, length);
  writeU32LE(changed, AT.allocated, allocated);
  return changed;
}

/** Bytes of a map of so many entries in its file: whole sectors. */
export function mapSize(blocks: number): number {
  return alignUp(blocks * 4, SECTOR);
}

/** The sector of a new image's header. */
export function newHeader(length: number, blocks: number, isStatic: boolean): Uint8Array {
  const bytes = new Uint8Array(SECTOR);
  new TextEncoder().encodeInto(TEXT, bytes);
  const put = (at: number, value: number) => writeU32LE(bytes, at, value);
  put(SIGNATURE_OFFSET, SIGNATURE);
  put(AT.version, VERSION);
  put(AT.headerSize, 0x180);
  put(AT.type, isStatic ? TYPE_STATIC : 1);
  put(AT.mapOffset, SECTOR);
  put(AT.dataOffset, SECTOR + mapSize(blocks));
  put(AT.sectorSize, SECTOR);
  writeU64LE(bytes, AT.diskSize, length);
  put(AT.blockSize, BLOCK_SIZE);
  put(AT.blocks, blocks);
  put(AT.allocated, isStatic ? blocks : 0);
  bytes.set(randomUuid(), AT.uuid);
  bytes.set(randomUuid(), AT.modifyUuid);
  return bytes;
}

/** A random UUID in the order of the format: the first three of its groups are little-endian. */
function randomUuid(): Uint8Array {
  const bytes = Uint8Array.from(
    crypto.randomUUID().replaceAll("-", "").match(/../g)!,
    (byte) => parseInt(byte, 16),
  );
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}
