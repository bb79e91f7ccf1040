/**
 * The header of sparse extents of hosted products, `KDMV` (section 3 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { readU32LE } from "../../lib/bytes/endian.ts";
import {
  COMPRESSION_DEFLATE,
  DESCRIPTOR_AREA,
  DIRECTORY_AT_END,
  Flag,
  KDMV_MAGIC,
  Marker,
  MAX_DIRECTORY,
  MAX_GRAIN_SECTORS,
  SECTOR,
} from "./_layout.ts";

/** Fields as they are on disk: sectors, except where it says otherwise. */
export interface SparseHeader {
  /** 1 to 3. */
  readonly version: number;
  /** Bits of {@linkcode Flag}. */
  readonly flags: number;
  /** Size of the disk. */
  readonly capacity: bigint;
  /** Size of a grain. */
  readonly grainSectors: bigint;
  /** Where the descriptor lies, 0 for nowhere. */
  readonly descriptorAt: bigint;
  /** Its space. */
  readonly descriptorSectors: bigint;
  /** Entries of a grain table. */
  readonly tableEntries: number;
  /** The redundant grain directory. */
  readonly redundantAt: bigint;
  /** The grain directory, or {@linkcode DIRECTORY_AT_END}. */
  readonly directoryAt: bigint;
  /** Where grains may begin. */
  readonly overhead: bigint;
  /** How grains are compressed: {@linkcode COMPRESSION_DEFLATE}, or not at all. */
  readonly compression: number;
}

/** Decodes a header sector. The magic is the caller's to look at. */
export function decodeHeader(bytes: Uint8Array): SparseHeader {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return {
    version: view.getUint32(4, true),
    flags: view.getUint32(8, true),
    capacity: view.getBigUint64(12, true),
    grainSectors: view.getBigUint64(20, true),
    descriptorAt: view.getBigUint64(28, true),
    descriptorSectors: view.getBigUint64(36, true),
    tableEntries: view.getUint32(44, true),
    redundantAt: view.getBigUint64(48, true),
    directoryAt: view.getBigUint64(56, true),
    overhead: view.getBigUint64(64, true),
    compression: view.getUint16(77, true),
  };
}

/** The sector of a header. */
export function encodeHeader(header: SparseHeader): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SECTOR);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, KDMV_MAGIC, true);
  view.setUint32(4, header.version, true);
  view.setUint32(8, header.flags, true);
  view.setBigUint64(12, header.capacity, true);
  view.setBigUint64(20, header.grainSectors, true);
  view.setBigUint64(28, header.descriptorAt, true);
  view.setBigUint64(36, header.descriptorSectors, true);
  view.setUint32(44, header.tableEntries, true);
  view.setBigUint64(48, header.redundantAt, true);
  view.setBigUint64(56, header.directoryAt, true);
  view.setBigUint64(64, header.overhead, true);
  // What transfers that take it for text would change.
  bytes.set([0x0a, 0x20, 0x0d, 0x0a], 73);
  view.setUint16(77, header.compression, true);
  return bytes;
}

/** Whether the directory is named by a footer. */
export function hasFooter(header: SparseHeader): boolean {
  return header.directoryAt === DIRECTORY_AT_END;
}

/** Whether grains are deflated. */
export function isCompressed(header: SparseHeader): boolean {
  return header.compression === COMPRESSION_DEFLATE;
}

/** Bytes of footer marker, footer and end-of-stream marker. */
export const FOOTER_LENGTH = 3 * SECTOR;

/** Where the footer of a file begins, bytes. */
export function footerPosition(file: BlockNode): number {
  return file.length - FOOTER_LENGTH;
}

/**
 * The header in the footer of a file.
 *
 * @throws {ImageError} `Invalid footer`
 */
export async function readFooter(file: BlockNode): Promise<SparseHeader> {
  const position = footerPosition(file);
  const bytes = new Uint8Array(FOOTER_LENGTH);
  if (position >= 0) await readPadded(file, position, bytes);
  const end = 2 * SECTOR;
  const isFooter = readU32LE(bytes, 8) === 0 && readU32LE(bytes, 12) === Marker.footer &&
    readU32LE(bytes, SECTOR) === KDMV_MAGIC &&
    bytes.subarray(end, end + 16).every((byte) => byte === 0);
  if (!isFooter) {
    throw new ImageError("Invalid footer", {
      errno: "EINVAL",
      file: file.filename,
      field: "footer",
    });
  }
  return decodeHeader(bytes.subarray(SECTOR, end));
}

/** Sizes of a sparse extent that were found to be possible. All in bytes or counts. */
export interface SparseGeometry {
  /** Bytes of the disk. */
  readonly length: number;
  /** Bytes of a grain. */
  readonly grainSize: number;
  /** Where the directory lies, bytes. */
  readonly directoryAt: number;
  /** Where the redundant one lies, bytes. */
  readonly redundantAt: number | undefined;
  /** Entries of the directory. */
  readonly directoryEntries: number;
}

/**
 * Checks a header, in the order of the reference.
 *
 * @throws {ImageError}
 */
export function checkHeader(
  header: SparseHeader,
  file: BlockNode,
  writable: boolean,
): SparseGeometry {
  const { version, flags, capacity, grainSectors, tableEntries, overhead } = header;
  const refuse = (message: string, field: string, errno: ImageError["errno"] = "EINVAL") =>
    new ImageError(message, { errno, file: file.filename, field });
  if (version > 3) throw refuse(`Unsupported VMDK version ${version}`, "version", "ENOTSUP");
  if (version === 3 && writable && !isCompressed(header)) {
    // Others keep track of changes in it, which this would miss.
    throw refuse("VMDK version 3 must be read only", "version");
  }
  if (tableEntries > 512) throw refuse("L2 table size too big", "grain table");
  // 32 bits, as in the reference.
  const span = BigInt.asUintN(32, BigInt(tableEntries) * grainSectors);
  if (span === 0n) throw refuse("L1 entry size is invalid", "grain table");
  if (BigInt(file.length / SECTOR) < overhead) {
    const expected = BigInt.asIntN(64, overhead * BigInt(SECTOR));
    throw refuse(`File truncated, expecting at least ${expected} bytes`, "overhead");
  }
  const entries = BigInt.asUintN(32, BigInt.asUintN(64, capacity + span - 1n) / span);
  const sizes = checkSizes(capacity, grainSectors, entries, file);
  const hasCopy = (flags & Flag.redundantDirectory) !== 0;
  return {
    ...sizes,
    directoryAt: bytesOf(header.directoryAt, file, "l1 table"),
    redundantAt: hasCopy ? bytesOf(header.redundantAt, file, "l1 backup table") : undefined,
  };
}

/**
 * Checks the sizes that all kinds of grain extents have, in sectors.
 *
 * @throws {ImageError} `Invalid granularity, image may be corrupt`, `L1 size too big`, and for disks of
 * more than 2^53 - 1 bytes.
 */
export function checkSizes(
  capacity: bigint,
  grainSectors: bigint,
  directoryEntries: bigint,
  file: BlockNode,
): Pick<SparseGeometry, "length" | "grainSize" | "directoryEntries"> {
  const refuse = (message: string, field: string) =>
    new ImageError(message, { errno: "EFBIG", file: file.filename, field });
  if (grainSectors > BigInt(MAX_GRAIN_SECTORS)) {
    throw refuse("Invalid granularity, image may be corrupt", "grain size");
  }
  if (directoryEntries > BigInt(MAX_DIRECTORY)) throw refuse("L1 size too big", "grain directory");
  if (capacity * BigInt(SECTOR) > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw refuse("Disks of 2^53 bytes and more are not supported", "capacity");
  }
  return {
    length: Number(capacity) * SECTOR,
    grainSize: Number(grainSectors) * SECTOR,
    directoryEntries: Number(directoryEntries),
  };
}

function bytesOf(sectors: bigint, file: BlockNode, what: string): number {
  const bytes = sectors * BigInt(SECTOR);
  if (bytes <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(bytes);
  throw new ImageError(`Could not read ${what} from extent '${file.filename}'`, {
    errno: "EINVAL",
    file: file.filename,
    field: what,
  });
}

/** Where tables and grains of a new extent lie, sectors. */
export interface SparsePlan {
  /** The header. */
  readonly header: SparseHeader;
  /** Entries of the grain directory. */
  readonly tables: number;
  /** Sectors of a grain table. */
  readonly tableSectors: number;
  /** The first table of the redundant directory. */
  readonly redundantTables: number;
  /** The first table of the directory. */
  readonly firstTable: number;
}

/** Lays a new extent out (section 8): header, descriptor, two directories with all their tables. */
export function planSparse(
  capacity: number,
  { grainSectors, tableEntries, stream, zeroGrains }: {
    readonly grainSectors: number;
    readonly tableEntries: number;
    readonly stream: boolean;
    readonly zeroGrains: boolean;
  },
): SparsePlan {
  const tables = Math.ceil(Math.ceil(capacity / grainSectors) / tableEntries);
  const tableSectors = Math.ceil(tableEntries * 4 / SECTOR);
  const directorySectors = Math.ceil(tables * 4 / SECTOR);
  const redundantAt = 1 + DESCRIPTOR_AREA / SECTOR;
  const redundantTables = redundantAt + directorySectors;
  const directoryAt = redundantTables + tables * tableSectors;
  const firstTable = directoryAt + directorySectors;
  const end = firstTable + tables * tableSectors;
  const flags = Flag.newlineCheck | Flag.redundantDirectory |
    (zeroGrains ? Flag.zeroGrains : 0) | (stream ? Flag.compressed | Flag.markers : 0);
  return {
    header: {
      version: stream ? 3 : zeroGrains ? 2 : 1,
      flags,
      capacity: BigInt(capacity),
      grainSectors: BigInt(grainSectors),
      descriptorAt: 1n,
      descriptorSectors: BigInt(DESCRIPTOR_AREA / SECTOR),
      tableEntries,
      redundantAt: BigInt(redundantAt),
      directoryAt: BigInt(directoryAt),
      overhead: BigInt(Math.ceil(end / grainSectors) * grainSectors),
      compression: stream ? COMPRESSION_DEFLATE : 0,
    },
    tables,
    tableSectors,
    redundantTables,
    firstTable,
  };
}
