/**
 * Persistent dirty bitmaps of an open image (section 13 of the format's
 * reference): they are marked as in use while the image is open for writing,
 * record guest writes, and are stored when it is closed.
 *
 * @module
 */
import type { BitmapInfo, BitmapStore } from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import { isZero } from "../../lib/bytes/zero_scan.ts";
import { Autoclear } from "./_layout.ts";
import { readPadded } from "./_read.ts";
import {
  BitmapFlag,
  bitmapInfo,
  bitmapTableEntries,
  type DirectoryEntry,
  encodeDirectory,
  readDirectory,
} from "./bitmap_directory.ts";
import { writeHeader } from "./header_writer.ts";
import type { Qcow2Image } from "./image.ts";
import { EntryTable } from "./table.ts";

/** The bitmaps of an open image. */
export class Bitmaps implements BitmapStore {
  readonly #image: Qcow2Image;
  #entries: DirectoryEntry[];
  /** Those that will be stored at close, by name; empty unless the image is open for writing. */
  readonly #live = new Map<string, LiveBitmap>();

  private constructor(image: Qcow2Image, entries: DirectoryEntry[]) {
    this.#image = image;
    this.#entries = entries;
  }

  /**
   * Reads and checks the bitmaps of an image that is being opened. If it is
   * writable, the directory on disk says from now on that the bitmaps are in
   * use, and those that were not before follow the guest's writes.
   *
   * @throws {ImageError} for bitmaps that break a rule.
   */
  static async load(image: Qcow2Image): Promise<Bitmaps> {
    const entries = await readDirectory(image);
    const bitmaps = new Bitmaps(image, entries);
    if (image.context.mode.writable && !image.file.readOnly) await bitmaps.#take();
    return bitmaps;
  }

  /** Whether the opening wrote to the header and the directory. */
  get tookOver(): boolean {
    return this.#live.size > 0;
  }

  /** All, in directory order. */
  list(): readonly BitmapInfo[] {
    return this.#entries.map(bitmapInfo);
  }

  /** Records that the guest changed a range of the disk. */
  record(offset: number, length: number): void {
    for (const bitmap of this.#live.values()) {
      if (bitmap.enabled) bitmap.record(offset, length);
    }
  }

  /**
   * Whether the disk's size may change.
   *
   * @throws {ImageError} if a bitmap was not closed properly by an earlier user.
   */
  assertResizable(): void {
    for (const entry of this.#entries) {
      if (this.#live.has(entry.name)) continue;
      throw new ImageError(`Bitmap '${entry.name}' is inconsistent and cannot be used`, {
        errno: "ENOTSUP",
        file: this.#image.context.filename,
        field: `bitmap '${entry.name}'`,
        hint: "Try block-dirty-bitmap-remove to delete this bitmap from disk",
      });
    }
  }

  /** Adapts the bitmaps to a new size of the disk in bytes; what is new is clean. */
  resize(size: number): void {
    for (const bitmap of this.#live.values()) bitmap.resize(size);
  }

  /**
   * Stores the bitmaps in new clusters, writes a new directory that says that
   * they are complete, then frees what they took before. For closing: the
   * image's bitmaps are not followed any more afterwards.
   */
  async store(): Promise<void> {
    if (this.#live.size === 0) return;
    const image = this.#image;
    const { header, refcounts, file } = image;
    const replaced: DirectoryEntry[] = [];
    const entries: DirectoryEntry[] = [];
    for (const entry of this.#entries) {
      const live = this.#live.get(entry.name);
      if (live === undefined) {
        entries.push(entry);
      } else {
        replaced.push(entry);
        entries.push({
          ...entry,
          ...await live.store(),
          flags: live.enabled ? BitmapFlag.auto : 0,
        });
      }
    }

    const directory = encodeDirectory(entries);
    const old = header.bitmaps;
    const offset = await refcounts.allocate(directory.length);
    await refcounts.flush();
    await file.write(offset, directory);
    await image.barrier();
    header.bitmaps = {
      count: entries.length,
      directorySize: directory.length,
      directoryOffset: offset,
    };
    header.autoclear |= BigInt(Autoclear.bitmaps);
    try {
      await writeHeader(image);
      await image.barrier();
    } catch (error) {
      header.bitmaps = old;
      throw error;
    }
    this.#entries = entries;
    this.#live.clear();

    if (old !== undefined) {
      await refcounts.free(old.directoryOffset, old.directorySize, "other");
    }
    for (const entry of replaced) await freeBitmap(image, entry);
  }

  /**
   * Marks all as in use on disk. A program that does not know bitmaps clears
   * the autoclear bit; while the directory changes it is clear for everybody.
   */
  async #take(): Promise<void> {
    const image = this.#image;
    const { header } = image;
    const consistent = this.#entries.filter(({ flags }) => (flags & BitmapFlag.inUse) === 0);
    if (consistent.length === 0) return;
    header.autoclear &= ~BigInt(Autoclear.bitmaps);
    await writeHeader(image);
    await image.barrier();
    this.#entries = this.#entries.map((entry) => ({
      ...entry,
      flags: entry.flags | BitmapFlag.inUse,
    }));
    const { directoryOffset } = header.bitmaps!;
    const directory = encodeDirectory(this.#entries);
    try {
      await image.overlap.check(directoryOffset, directory.length, "bitmap directory");
      await image.file.write(directoryOffset, directory);
      await image.barrier();
    } catch (error) {
      throw ImageError.from(error).prefixed("Can't update bitmap directory: ");
    }
    header.autoclear |= BigInt(Autoclear.bitmaps);
    await writeHeader(image);
    await image.barrier();
    for (const entry of consistent) this.#live.set(entry.name, new LiveBitmap(image, entry));
  }
}

/**
 * A bitmap that will be stored at close: what the file has, and what was set
 * since. Memory is taken by clusters with new bits only.
 */
class LiveBitmap {
  readonly enabled: boolean;
  readonly #image: Qcow2Image;
  readonly #entry: DirectoryEntry;
  /** Bits set since the opening, by cluster of the bitmap. */
  readonly #marks = new Map<number, Uint8Array>();
  /** Bytes of the disk for which the stored bits still count. */
  #storedSize: number;
  #size: number;

  constructor(image: Qcow2Image, entry: DirectoryEntry) {
    this.#image = image;
    this.#entry = entry;
    this.enabled = (entry.flags & BitmapFlag.auto) !== 0;
    this.#size = this.#storedSize = image.header.size;
  }

  record(offset: number, length: number): void {
    if (length === 0) return;
    const granularity = 2 ** this.#entry.granularityBits;
    const bitsPerCluster = this.#image.geometry.clusterSize * 8;
    const end = Math.floor((offset + length - 1) / granularity) + 1;
    for (let bit = Math.floor(offset / granularity); bit < end;) {
      const index = Math.floor(bit / bitsPerCluster);
      const start = index * bitsPerCluster;
      const to = Math.min(end, start + bitsPerCluster);
      setBits(this.#cluster(index), bit - start, to - start);
      bit = to;
    }
  }

  resize(size: number): void {
    this.#storedSize = Math.min(this.#storedSize, size);
    this.#size = size;
    const bits = this.#bitCount(size);
    const bitsPerCluster = this.#image.geometry.clusterSize * 8;
    for (const [index, marks] of this.#marks) {
      const start = index * bitsPerCluster;
      if (start >= bits) this.#marks.delete(index);
      else clearBitsFrom(marks, bits - start);
    }
  }

  /** Writes bits and table to new clusters. */
  async store(): Promise<{ tableOffset: number; tableEntries: number }> {
    const image = this.#image;
    const { refcounts, file, geometry } = image;
    const count = bitmapTableEntries(image, this.#size, this.#entry.granularityBits);
    const old = new EntryTable(new Uint8Array(this.#entry.tableEntries * 8));
    await readPadded(file, this.#entry.tableOffset, old.bytes);
    const table = new EntryTable(new Uint8Array(count * 8));
    for (let index = 0; index < count; index++) {
      const bits = await this.#load(old, index);
      if (bits === undefined || isZero(bits)) continue;
      const offset = await refcounts.allocate(geometry.clusterSize);
      await image.overlap.check(offset, bits.length);
      await file.write(offset, bits);
      table.setOffset(index, offset);
    }
    const tableOffset = await refcounts.allocate(table.bytes.length);
    await image.overlap.check(tableOffset, table.bytes.length);
    await file.write(tableOffset, table.bytes);
    return { tableOffset, tableEntries: count };
  }

  /** A cluster of the bitmap as it is now, `undefined` if it is surely all clean. */
  async #load(old: EntryTable, index: number): Promise<Uint8Array | undefined> {
    const { clusterSize } = this.#image.geometry;
    const marks = this.#marks.get(index);
    const offset = index < old.length ? old.offset(index) : 0;
    const allOnes = index < old.length && offset === 0 && (old.low(index) & 1) !== 0;
    if (offset === 0 && !allOnes) return marks;
    const bits = new Uint8Array(clusterSize);
    if (allOnes) bits.fill(0xff);
    else await readPadded(this.#image.file, offset, bits);
    clearBitsFrom(bits, this.#bitCount(this.#storedSize) - index * clusterSize * 8);
    if (marks !== undefined) {
      for (const [i, byte] of marks.entries()) bits[i]! |= byte;
    }
    return bits;
  }

  #bitCount(size: number): number {
    return Math.ceil(size / 2 ** this.#entry.granularityBits);
  }

  #cluster(index: number): Uint8Array {
    let bits = this.#marks.get(index);
    if (bits === undefined) {
      this.#marks.set(index, bits = new Uint8Array(this.#image.geometry.clusterSize));
    }
    return bits;
  }
}

/** Frees a bitmap's clusters, then its table. */
async function freeBitmap(image: Qcow2Image, entry: DirectoryEntry): Promise<void> {
  const { refcounts, geometry } = image;
  const table = new EntryTable(new Uint8Array(entry.tableEntries * 8));
  await readPadded(image.file, entry.tableOffset, table.bytes);
  for (let index = 0; index < table.length; index++) {
    const offset = table.offset(index);
    if (offset !== 0) await refcounts.free(offset, geometry.clusterSize, "always");
  }
  await refcounts.free(entry.tableOffset, table.bytes.length, "other");
}

/** Sets the bits from `start` to before `end`, the low bit of a byte first. */
function setBits(bytes: Uint8Array, start: number, end: number): void {
  const [first, last] = [start >>> 3, (end - 1) >>> 3];
  const head = 0xff << (start & 7) & 0xff;
  const tail = 0xff >>> (7 - ((end - 1) & 7));
  if (first === last) {
    bytes[first]! |= head & tail;
    return;
  }
  bytes[first]! |= head;
  bytes.fill(0xff, first + 1, last);
  bytes[last]! |= tail;
}

/** Clears all bits from bit `start` on; a `start` outside clears all or nothing. */
function clearBitsFrom(bytes: Uint8Array, start: number): void {
  if (start >= bytes.length * 8) return;
  if (start <= 0) {
    bytes.fill(0);
    return;
  }
  const byte = start >>> 3;
  bytes[byte]! &= (1 << (start & 7)) - 1;
  bytes.fill(0, byte + 1);
}
