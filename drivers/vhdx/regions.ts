/**
 * The region table: where block allocation table and metadata are (section 1 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { readU32LE, readU64LE, writeU32LE, writeU64LE } from "../../lib/bytes/endian.ts";
import { equalBytes } from "../../lib/bytes/equal.ts";
import {
  hasSignature,
  invalid,
  isSummed,
  MAX_ENTRIES,
  putSignature,
  REGION_TABLE_SIZE,
  REGION_TABLES_AT,
  setSum,
} from "./_layout.ts";
import { GUID_SIZE, Region } from "./guid.ts";

const SIGNATURE = "regi";
const [ENTRIES_AT, ENTRY_SIZE, REQUIRED] = [16, 32, 1];

/** A part of the file that is taken. In bytes. */
export interface FileRange {
  /** Where it begins. */
  readonly offset: number;
  /** How long it is. */
  readonly length: number;
}

/** What is taken of the file. */
export class Regions {
  readonly #taken: FileRange[] = [];

  /** Notes a part that is known to be free. */
  add(range: FileRange): void {
    this.#taken.push(range);
  }

  /** The words for what is in the way of a part; `undefined` if nothing is. */
  overlap({ offset, length }: FileRange): string | undefined {
    const end = offset + length;
    const other = this.#taken.find((taken) =>
      offset < taken.offset + taken.length && taken.offset < end
    );
    if (other === undefined) return undefined;
    return `VHDX region ${offset}-${end} overlaps with region ` +
      `${other.offset}-${other.offset + other.length}`;
  }
}

/** Where what an image needs is. */
export interface RegionTable {
  /** The block allocation table. */
  readonly table: FileRange;
  /** What is known of the disk. */
  readonly metadata: FileRange;
}

/**
 * Reads the region table and notes what is taken.
 *
 * @throws {ImageError} `EINVAL`, and `ENOTSUP` for a required region that nobody knows; what overlaps is
 * told to `report`.
 */
export async function readRegions(
  file: BlockNode,
  regions: Regions,
  report: (line: string) => void,
): Promise<RegionTable> {
  const bytes = new Uint8Array(REGION_TABLE_SIZE);
  await readPadded(file, REGION_TABLES_AT[0], bytes);
  if (!hasSignature(bytes, SIGNATURE) || !isSummed(bytes)) throw invalid(file, "region table");
  const count = readU32LE(bytes, 8);
  if (count > MAX_ENTRIES) throw invalid(file, "region table: entry count");
  let table: FileRange | undefined;
  let metadata: FileRange | undefined;
  for (let i = 0; i < count; i++) {
    const at = ENTRIES_AT + i * ENTRY_SIZE;
    const guid = bytes.subarray(at, at + GUID_SIZE);
    const offset = readU64LE(bytes, at + 16);
    const range = { offset: Number(offset), length: readU32LE(bytes, at + 24) };
    if (offset + BigInt(range.length) > Number.MAX_SAFE_INTEGER) {
      throw invalid(file, "region table: file offset");
    }
    const overlap = regions.overlap(range);
    if (overlap !== undefined) {
      report(overlap);
      throw invalid(file, "region table: file offset");
    }
    regions.add(range);
    if (equalBytes(guid, Region.table)) {
      if (table !== undefined) throw invalid(file, "region table: block allocation table");
      table = range;
    } else if (equalBytes(guid, Region.metadata)) {
      if (metadata !== undefined) throw invalid(file, "region table: metadata");
      metadata = range;
    } else if ((readU32LE(bytes, at + 28) & REQUIRED) !== 0) {
      throw ImageError.fromErrno("ENOTSUP", { file: file.filename, field: "region table" });
    }
  }
  if (table === undefined || metadata === undefined) throw invalid(file, "region table");
  return { table, metadata };
}

/** The region table of a new image. */
export function newRegionTable({ table, metadata }: RegionTable): Uint8Array {
  const bytes = new Uint8Array(REGION_TABLE_SIZE);
  putSignature(bytes, SIGNATURE);
  const entries = [[Region.table, table], [Region.metadata, metadata]] as const;
  writeU32LE(bytes, 8, entries.length);
  for (const [i, [guid, { offset, length }]] of entries.entries()) {
    const at = ENTRIES_AT + i * ENTRY_SIZE;
    bytes.set(guid, at);
    writeU64LE(bytes, at + 16, offset);
    writeU32LE(bytes, at + 24, length);
  }
  setSum(bytes);
  return bytes;
}
