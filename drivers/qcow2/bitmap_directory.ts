/**
 * The directory of persistent dirty bitmaps and their tables (section 13 of
 * the format's reference): reading with all checks, writing.
 *
 * @module
 */
import type { BitmapInfo } from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import { MAX_BITMAP_DIRECTORY_BYTES, MAX_BITMAPS, MAX_FILE_LENGTH, UNTRUSTED } from "./_layout.ts";
import { readPadded } from "./_read.ts";
import type { ImageFacts } from "./image.ts";
import { EntryTable } from "./table.ts";

/** Flags of a directory entry; all others are refused. */
export const BitmapFlag = { inUse: 1, auto: 2 } as const;

/** Bytes of an entry before its name. */
const FIXED = 24;
const TYPE_DIRTY_TRACKING = 1;
const MAX_NAME = 1023;
const MIN_GRANULARITY_BITS = 9;
const MAX_GRANULARITY_BITS = 31;
/** Largest bitmap, bytes in the file. */
const MAX_BITMAP_BYTES = 512 * 1024 * 1024;
/** How much of a table is looked at in one go, bytes. */
const STEP = 1024 * 1024;

/** Where the bits of a bitmap are found. */
export interface BitmapTable {
  /** Where the bitmap's table lies, bytes. */
  readonly tableOffset: number;
  /** Entries of the table. */
  readonly tableEntries: number;
}

/** An entry of the bitmap directory. */
export interface DirectoryEntry extends BitmapTable {
  /** Name. */
  readonly name: string;
  /** The name as stored; need not be UTF-8. */
  readonly nameBytes: Uint8Array;
  /** Bits of `BitmapFlag`. */
  readonly flags: number;
  /** log2 of the bytes of the disk for a bit, 9 to 31. */
  readonly granularityBits: number;
}

/** What users see of an entry. */
export function bitmapInfo(entry: DirectoryEntry): BitmapInfo {
  const flags: string[] = [];
  const inUse = (entry.flags & BitmapFlag.inUse) !== 0;
  const auto = (entry.flags & BitmapFlag.auto) !== 0;
  if (inUse) flags.push("in-use");
  if (auto) flags.push("auto");
  const granularity = 2 ** entry.granularityBits;
  return { name: entry.name, granularity, flags, enabled: auto && !inUse, consistent: !inUse };
}

/** Bytes of a directory with bitmaps of these names. */
export function directorySize(nameLengths: Iterable<number>): number {
  let size = 0;
  for (const length of nameLengths) size += Math.ceil((FIXED + length) / 8) * 8;
  return size;
}

/** Clusters that the bits of a disk of `size` bytes take: whole 64-bit words, whole clusters. */
export function bitmapTableEntries(
  image: ImageFacts,
  size: number,
  granularityBits: number,
): number {
  const bits = Math.ceil(size / 2 ** granularityBits);
  return Math.ceil(Math.ceil(bits / 64) * 8 / image.geometry.clusterSize);
}

/**
 * Makes sure that a bitmap can be stored beside others.
 *
 * @throws {ImageError} with the reference's text.
 */
export function assertStorable(
  image: ImageFacts,
  { nameBytes, granularityBits }: Pick<DirectoryEntry, "nameBytes" | "granularityBits">,
  others: readonly Pick<DirectoryEntry, "nameBytes">[],
): void {
  const refuse = (message: string) =>
    new ImageError(message, { errno: "EINVAL", file: image.context.filename, field: "bitmap" });
  const { size } = image.header;
  // Beyond these bounds an image with the bitmap could not be opened again.
  if (size === 0) throw refuse("The disk is empty");
  if (granularityBits > MAX_GRANULARITY_BITS) {
    throw refuse(`Granularity exceeds maximum (${2 ** MAX_GRANULARITY_BITS} bytes)`);
  }
  const bytes = Math.ceil(size / 2 ** granularityBits / 8);
  const stored = bitmapTableEntries(image, size, granularityBits) * image.geometry.clusterSize;
  if (bytes > MAX_BITMAP_BYTES || stored > MAX_BITMAP_BYTES) {
    throw refuse("Too much space will be occupied by the bitmap. Use larger granularity");
  }
  if (nameBytes.length > MAX_NAME) {
    throw refuse(`Name length exceeds maximum (${MAX_NAME} characters)`);
  }
  if (others.length >= MAX_BITMAPS) {
    throw refuse("Maximum number of persistent bitmaps is already reached");
  }
  const lengths = [...others, { nameBytes }].map(({ nameBytes }) => nameBytes.length);
  if (directorySize(lengths) > MAX_BITMAP_DIRECTORY_BYTES) {
    throw refuse("Not enough space in the bitmap directory");
  }
}

/**
 * Reads the directory that the header names and checks it, the tables too.
 *
 * @throws {ImageError} with the reference's texts.
 */
export async function readDirectory(image: ImageFacts): Promise<DirectoryEntry[]> {
  const { file, header, context } = image;
  const extension = header.bitmaps;
  if (extension === undefined) return [];
  const refuse = (message: string) =>
    new ImageError(message, {
      errno: "EINVAL",
      file: context.filename,
      field: "bitmap directory",
    });
  const { count, directorySize, directoryOffset } = extension;
  if (directorySize === 0) throw refuse("Requested bitmap directory size is zero");
  const bytes = new Uint8Array(directorySize);
  await readPadded(file, directoryOffset, bytes);
  const view = new DataView(bytes.buffer);
  const entries: DirectoryEntry[] = [];
  for (let at = 0; at < bytes.length;) {
    if (at + FIXED > bytes.length) throw refuse("Broken bitmap directory");
    if (entries.length === count) {
      throw refuse("More bitmaps found than specified in header extension");
    }
    const nameLength = view.getUint16(at + 18);
    const extraLength = view.getUint32(at + 20);
    const next = at + Math.ceil((FIXED + extraLength + nameLength) / 8) * 8;
    // The reference counts in 32 bits with a sign, so of two complaints it may have the other.
    if (next > bytes.length && (next - at | 0) >= 0) throw refuse("Broken bitmap directory");
    if (extraLength !== 0) throw refuse("Bitmap extra data is not supported");
    const nameBytes = bytes.slice(at + FIXED, at + FIXED + nameLength);
    const name = new TextDecoder().decode(nameBytes);
    const entry = {
      name,
      nameBytes,
      tableOffset: Number(view.getBigUint64(at)),
      tableEntries: view.getUint32(at + 8),
      flags: view.getUint32(at + 12),
      granularityBits: view.getUint8(at + 17),
    };
    // The lower half tells alignment where the whole is no exact number.
    const aligned = view.getUint32(at + 4) % image.geometry.clusterSize === 0;
    if (!aligned || !isSane(image, entry, view.getUint8(at + 16))) {
      throw refuse(`Bitmap '${name}' doesn't satisfy the constraints`);
    }
    entries.push(entry);
    at = next;
  }
  if (entries.length !== count) {
    throw refuse("Less bitmaps found than specified in header extension");
  }
  const names = new Set<string>();
  for (const entry of entries) {
    await checkTable(image, entry);
    // Names that are not UTF-8 may be different and show as the same text.
    const key = entry.nameBytes.join();
    if (names.has(key)) throw refuse(`Bitmap already exists: ${entry.name}`);
    names.add(key);
  }
  return entries;
}

function isSane(image: ImageFacts, entry: DirectoryEntry, type: number): boolean {
  const { clusterSize } = image.geometry;
  const { tableOffset, tableEntries, flags, granularityBits } = entry;
  const bytes = tableEntries * clusterSize;
  const inUse = (flags & BitmapFlag.inUse) !== 0;
  return tableEntries > 0 && tableOffset > 0 &&
    tableOffset + tableEntries * 8 < MAX_FILE_LENGTH &&
    bytes <= MAX_BITMAP_BYTES &&
    !(image.context.untrusted && tableEntries > UNTRUSTED.bitmapTableEntries) &&
    granularityBits >= MIN_GRANULARITY_BITS && granularityBits <= MAX_GRANULARITY_BITS &&
    (flags & ~(BitmapFlag.inUse | BitmapFlag.auto)) === 0 &&
    entry.nameBytes.length <= MAX_NAME &&
    type === TYPE_DIRTY_TRACKING &&
    (inUse || image.header.size <= bytes * 8 * 2 ** granularityBits);
}

/** Checks a bitmap's table; one that was not closed properly is not looked into. */
async function checkTable(image: ImageFacts, entry: DirectoryEntry): Promise<void> {
  if ((entry.flags & BitmapFlag.inUse) !== 0) return;
  const refuse = (what: string) =>
    new ImageError(`Could not read ${what}: Invalid argument`, {
      errno: "EINVAL",
      file: image.context.filename,
      field: `bitmap '${entry.name}'`,
    });
  const { clusterSize } = image.geometry;
  const total = entry.tableEntries * 8;
  const piece = new Uint8Array(Math.min(STEP, total));
  for (let done = 0; done < total; done += piece.length) {
    const part = piece.subarray(0, Math.min(piece.length, total - done));
    await readPadded(image.file, entry.tableOffset + done, part);
    const table = new EntryTable(part);
    if (!isSound(table, clusterSize)) {
      throw refuse(`bitmap_table table from image for bitmap '${entry.name}'`);
    }
  }
  if (
    entry.tableEntries !== bitmapTableEntries(image, image.header.size, entry.granularityBits)
  ) throw refuse(`bitmap '${entry.name}' from image`);
}

/** Whether all entries of a bitmap's table are such as the format knows. */
export function isSound(table: EntryTable, clusterSize: number): boolean {
  for (let i = 0; i < table.length; i++) {
    const [high, low] = [table.high(i), table.low(i)];
    const offset = table.offset(i);
    const reserved = (high & 0xff000000) !== 0 || (low & 0x1fe) !== 0;
    const allOnes = (low & 1) !== 0;
    if (reserved || (offset !== 0 && (allOnes || offset % clusterSize !== 0))) return false;
  }
  return true;
}

/** The directory's bytes. */
export function encodeDirectory(entries: readonly DirectoryEntry[]): Uint8Array<ArrayBuffer> {
  const lengthOf = ({ nameBytes }: DirectoryEntry) => nameBytes.length;
  const bytes = new Uint8Array(directorySize(entries.map(lengthOf)));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const entry of entries) {
    view.setBigUint64(at, BigInt(entry.tableOffset));
    view.setUint32(at + 8, entry.tableEntries);
    view.setUint32(at + 12, entry.flags);
    view.setUint8(at + 16, TYPE_DIRTY_TRACKING);
    view.setUint8(at + 17, entry.granularityBits);
    view.setUint16(at + 18, entry.nameBytes.length);
    bytes.set(entry.nameBytes, at + FIXED);
    at += directorySize([entry.nameBytes.length]);
  }
  return bytes;
}
