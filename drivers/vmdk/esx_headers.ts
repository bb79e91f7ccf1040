/**
 * The headers of extents that ESX writes: redo logs, `COWD`, and space-efficient snapshots, seSparse
 * (section 4 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { MAX_DIRECTORY, SECTOR } from "./_layout.ts";
import { checkSizes } from "./sparse_header.ts";
import { type TableLayout, UNALLOCATED, ZERO } from "./tables.ts";

/** What is known of an extent once its header is read. */
export interface GrainGeometry {
  /** Bytes of the disk. */
  readonly length: number;
  /** Bytes of a grain. */
  readonly grainSize: number;
  /** Its tables. */
  readonly layout: TableLayout;
}

/** Where a redo log notes its first free sector, bytes. */
export const COWD_FREE_SECTOR_AT = 28;

/** Entries of a grain table of both kinds. */
const TABLE_ENTRIES = 4096;

/**
 * Reads the header of a redo log.
 *
 * @throws {ImageError}
 */
export async function readCowdHeader(file: BlockNode): Promise<GrainGeometry> {
  const view = await readView(file, 0);
  const word = (at: number) => view.getUint32(at, true);
  const grainSectors = BigInt(word(16));
  if (grainSectors === 0n) {
    throw new ImageError("L1 entry size is invalid", {
      errno: "EINVAL",
      file: file.filename,
      field: "grain size",
    });
  }
  const sizes = checkSizes(BigInt(word(12)), grainSectors, BigInt(word(24)), file);
  return {
    ...sizes,
    layout: {
      entrySize: 4,
      directoryAt: word(20) * SECTOR,
      redundantAt: undefined,
      directoryEntries: sizes.directoryEntries,
      tableEntries: TABLE_ENTRIES,
      tablePosition: (view, at) => view.getUint32(at, true) * SECTOR,
      grainPosition: (view, at) => view.getUint32(at, true) * SECTOR,
    },
  };
}

const CONST_MAGIC = 0xcafebaben;
const VOLATILE_MAGIC = 0xcafecafen;
const SE_VERSION = 0x2_0000_0001n;
const SE_GRAIN_SECTORS = 8n;
const SE_TABLE_SECTORS = 64n;

/**
 * Reads the headers of a space-efficient snapshot.
 *
 * @throws {ImageError}
 */
export async function readSeSparseHeaders(
  file: BlockNode,
  writable: boolean,
): Promise<GrainGeometry> {
  const refuse = (message: string, field: string, errno: ImageError["errno"] = "ENOTSUP") =>
    new ImageError(message, { errno, file: file.filename, field });
  if (writable) {
    throw refuse("No write support for seSparse images available", "seSparse", "EACCES");
  }
  const view = await readView(file, 0);
  const field = (at: number) => view.getBigUint64(at, true);
  if (field(0) !== CONST_MAGIC) {
    throw refuse(`Bad const header magic: ${hex(field(0))}`, "magic");
  }
  if (field(8) !== SE_VERSION) throw refuse(`Unsupported version: ${hex(field(8))}`, "version");
  if (field(24) !== SE_GRAIN_SECTORS) {
    throw refuse(`Unsupported grain size: ${field(24)}`, "grain size");
  }
  if (field(32) !== SE_TABLE_SECTORS) {
    throw refuse(`Unsupported grain table size: ${field(32)}`, "grain table size");
  }
  if (field(40) !== 0n) throw refuse(`Unsupported flags: ${hex(field(40))}`, "flags");
  const reserved = [48, 56, 64, 72].map(field);
  if (reserved.some((value) => value !== 0n)) {
    throw refuse(`Unsupported reserved bits: ${reserved.map(hex).join(" ")}`, "reserved");
  }
  if (!isZero(view, 208)) throw refuse("Unsupported non-zero const header padding", "padding");
  await checkVolatileHeader(file, field(80), refuse);
  // Bounded before anything is multiplied with it.
  const entries = field(136) > BigInt(MAX_DIRECTORY) ? field(136) : field(136) * 64n;
  const sizes = checkSizes(field(16), SE_GRAIN_SECTORS, entries, file);
  const directoryAt = possible(Number(field(128)) * SECTOR);
  if (Number.isNaN(directoryAt)) {
    throw refuse(`Could not read l1 table from extent '${file.filename}'`, "l1 table", "EINVAL");
  }
  const tablesAt = Number(field(144));
  const grainsAt = Number(field(192));
  return {
    ...sizes,
    layout: {
      entrySize: 8,
      directoryAt,
      redundantAt: undefined,
      directoryEntries: sizes.directoryEntries,
      tableEntries: TABLE_ENTRIES,
      tablePosition(view, at) {
        const low = view.getUint32(at, true);
        const high = view.getUint32(at + 4, true);
        if (low === 0 && high === 0) return 0;
        if (high !== 0x1000_0000) return NaN;
        return possible((tablesAt + low * Number(SE_TABLE_SECTORS)) * SECTOR);
      },
      grainPosition(view, at) {
        const low = view.getUint32(at, true);
        const high = view.getUint32(at + 4, true);
        switch (high >>> 28) {
          case 0:
            return low === 0 && high === 0 ? UNALLOCATED : NaN;
          case 1:
          case 2:
            return ZERO;
          case 3: {
            // The index of the grain: its lowest 12 bits stand above the others.
            const index = (high >>> 16 & 0xfff) + ((high & 0xffff) * 2 ** 32 + low) * 2 ** 12;
            return possible((grainsAt + index * Number(SE_GRAIN_SECTORS)) * SECTOR);
          }
          default:
            return NaN;
        }
      },
    },
  };
}

async function checkVolatileHeader(
  file: BlockNode,
  sector: bigint,
  refuse: (message: string, field: string) => ImageError,
): Promise<void> {
  const offset = Number(sector) * SECTOR;
  const view = await readView(file, Number.isNaN(possible(offset)) ? 2 ** 63 : offset);
  const magic = view.getBigUint64(0, true);
  if (magic !== VOLATILE_MAGIC) {
    throw refuse(`Bad volatile header magic: ${hex(magic)}`, "volatile header");
  }
  if (view.getUint8(24) !== 0) {
    throw refuse("Image is dirty, Replaying journal not supported", "replay journal");
  }
  if (!isZero(view, 25)) {
    throw refuse("Unsupported non-zero volatile header padding", "volatile header");
  }
}

/** A position, or NaN for one that no file reaches. */
function possible(position: number): number {
  return position <= Number.MAX_SAFE_INTEGER ? position : NaN;
}

async function readView(file: BlockNode, offset: number): Promise<DataView> {
  const bytes = new Uint8Array(SECTOR);
  await readPadded(file, offset, bytes);
  return new DataView(bytes.buffer);
}

function isZero({ buffer }: DataView, from: number): boolean {
  return new Uint8Array(buffer, from).every((byte) => byte === 0);
}

function hex(value: bigint): string {
  return `0x${value.toString(16).padStart(16, "0")}`;
}
