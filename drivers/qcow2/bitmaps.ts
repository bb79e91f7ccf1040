/**
 * Persistent dirty bitmaps of an open image (section 13 of the format's
 * reference): they are marked as in use while the image is open for writing,
 * record guest writes, and are stored when it is closed.
 *
 * @module
 */
import { findBitmap, requireConsistent } from "../../lib/block/bitmap.ts";
import type { BitmapInfo, BitmapStore, NewBitmap } from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import { Autoclear } from "./_layout.ts";
import { readPadded } from "./_read.ts";
import {
  assertStorable,
  BitmapFlag,
  bitmapInfo,
  type BitmapTable,
  type DirectoryEntry,
  encodeDirectory,
  isSound,
  readDirectory,
} from "./bitmap_directory.ts";
import { DirtyBitmap } from "./dirty_bitmap.ts";
import { encodeHeader, writeHeader } from "./header_writer.ts";
import type { HostRange, Qcow2Image } from "./image.ts";
import { EntryTable } from "./table.ts";

/** One of an image's bitmaps. */
interface Member {
  /** Its directory entry, but for what the next storing changes. */
  readonly entry: DirectoryEntry;
  /** The directory on disk has it. */
  readonly stored: boolean;
  /** Its bits; `undefined` if it was in use when the image was opened. */
  readonly bits: DirtyBitmap | undefined;
}

/** The bitmaps of an open image. */
export class Bitmaps implements BitmapStore {
  readonly #image: Qcow2Image;
  readonly #writable: boolean;
  /** In the order of the directory that the next storing writes. */
  #members: Member[];
  /** They were stored, or that failed: nothing can be done to them any more. */
  #closed = false;

  private constructor(image: Qcow2Image, entries: readonly DirectoryEntry[]) {
    this.#image = image;
    this.#writable = image.context.mode.writable && !image.file.readOnly;
    this.#members = entries.map((entry) => ({
      entry,
      stored: true,
      bits: (entry.flags & BitmapFlag.inUse) !== 0 ? undefined : new DirtyBitmap(image, {
        granularityBits: entry.granularityBits,
        enabled: (entry.flags & BitmapFlag.auto) !== 0,
        stored: entry,
      }),
    }));
  }

  /**
   * Reads and checks the bitmaps of an image that is being opened. If it is
   * writable, the directory on disk says from now on that the bitmaps are in
   * use, and those that were not before follow the guest's writes.
   *
   * @throws {ImageError} for bitmaps that break a rule.
   */
  static async load(image: Qcow2Image): Promise<Bitmaps> {
    const bitmaps = new Bitmaps(image, await readDirectory(image));
    if (bitmaps.tookOver) await bitmaps.#take();
    return bitmaps;
  }

  /** Whether the opening wrote to the header and the directory. */
  get tookOver(): boolean {
    return this.#writable && this.#members.some(({ bits, stored }) => stored && bits !== undefined);
  }

  /** All, in directory order. */
  list(): readonly BitmapInfo[] {
    return this.#members.map(({ entry, bits }) => {
      if (bits === undefined) return bitmapInfo(entry);
      const auto = bits.enabled ? BitmapFlag.auto : 0;
      const inUse = this.#writable && !this.#closed ? BitmapFlag.inUse : 0;
      const flags = auto | inUse;
      return { ...bitmapInfo({ ...entry, flags }), enabled: bits.enabled, consistent: true };
    });
  }

  /** Records that the guest changed a range of the disk. */
  record(offset: number, length: number): void {
    for (const { bits } of this.#members) {
      if (bits?.enabled) bits.mark(offset, length);
    }
  }

  /** Calls `visit` for every run of dirty bytes of the disk, in order. */
  async visitDirty(
    name: string,
    visit: (offset: number, length: number) => void,
  ): Promise<void> {
    await this.#usable(name).visit(visit);
  }

  /**
   * Adds a bitmap that is stored when the image is closed.
   *
   * @throws {ImageError} for a name that is taken, and for what cannot be stored.
   */
  add({ name, granularity, enabled }: NewBitmap): void {
    if (this.#members.some(({ entry }) => entry.name === name)) {
      throw new ImageError(`Bitmap already exists: ${name}`, { errno: "EEXIST", field: name });
    }
    const granularityBits = Math.log2(granularity);
    const nameBytes = new TextEncoder().encode(name);
    try {
      assertStorable(
        this.#image,
        { nameBytes, granularityBits },
        this.#members.map(({ entry }) => entry),
      );
    } catch (error) {
      const { filename } = this.#image.context;
      throw ImageError.from(error)
        .prefixed(`Can't make bitmap '${name}' persistent in '${filename}': `);
    }
    const entry = { name, nameBytes, tableOffset: 0, tableEntries: 0, flags: 0, granularityBits };
    const bits = new DirtyBitmap(this.#image, { granularityBits, enabled });
    // The reference has the newest first among those that no directory has yet.
    const at = this.#members.findIndex(({ stored }) => !stored);
    this.#members.splice(at < 0 ? this.#members.length : at, 0, { entry, stored: false, bits });
  }

  /** Removes a bitmap from the directory, then frees its clusters. */
  async remove(name: string): Promise<void> {
    await this.#image.lock.run(async () => {
      findBitmap(this, name);
      const gone = this.#members.find(({ entry }) => entry.name === name)!;
      const left = this.#members.filter((member) => member !== gone);
      if (gone.stored) {
        await this.#replaceDirectory(
          left.filter(({ stored }) => stored).map(({ entry }) => entry),
        );
      }
      this.#members = left;
      if (gone.stored) await freeBitmap(this.#image, gone.entry);
    });
  }

  /** Makes everything clean. */
  clear(name: string): void {
    this.#usable(name).clear();
  }

  /** Makes a bitmap follow the guest's writes, or not. */
  setEnabled(name: string, enabled: boolean): void {
    this.#usable(name).enabled = enabled;
  }

  /** What makes ranges of the disk dirty, bytes. */
  marker(name: string): (offset: number, length: number) => void {
    const bits = this.#usable(name);
    return (offset, length) => bits.mark(offset, length);
  }

  /**
   * Whether the disk's size may change.
   *
   * @throws {ImageError} if a bitmap was not closed properly by an earlier user.
   */
  assertResizable(): void {
    for (const info of this.list()) requireConsistent(info);
  }

  /** Adapts the bitmaps to a new size of the disk in bytes; what is new is clean. */
  resize(size: number): void {
    for (const { bits } of this.#members) bits?.resize(size);
  }

  /**
   * Stores the bitmaps in new clusters, writes a new directory that says that
   * they are complete, then frees what they took before. For closing: the
   * image's bitmaps are not followed any more afterwards.
   *
   * On failure the file still says that they are in use, and what was taken
   * for the new ones is free again.
   */
  async store(): Promise<void> {
    if (!this.#writable || this.#closed) return;
    if (this.#members.every(({ bits }) => bits === undefined)) return;
    this.#closed = true;
    await this.#image.lock.run(async () => {
      const replaced = this.#members.filter(({ stored, bits }) => stored && bits !== undefined);
      const taken: HostRange[] = [];
      let entries: DirectoryEntry[];
      try {
        entries = await this.#storeBits(taken);
      } catch (error) {
        await freeRanges(this.#image, taken);
        throw error;
      }
      await this.#replaceDirectory(entries, taken);
      for (const { entry } of replaced) await freeBitmap(this.#image, entry);
    });
  }

  /** Writes the bits to clusters that are added to `taken`; answers with the new directory. */
  async #storeBits(taken: HostRange[]): Promise<DirectoryEntry[]> {
    const image = this.#image;
    const write = async (bytes: Uint8Array) => {
      const offset = await image.refcounts.allocate(bytes.length);
      taken.push({ offset, length: bytes.length });
      await image.overlap.check(offset, bytes.length);
      await image.file.write(offset, bytes);
      return offset;
    };
    const entries: DirectoryEntry[] = [];
    for (const { entry, bits } of this.#members) {
      if (bits === undefined) {
        entries.push(entry);
        continue;
      }
      let table: BitmapTable;
      try {
        table = await bits.store(write);
      } catch (error) {
        throw ImageError.from(error).prefixed(`Failed to write bitmap '${entry.name}' to file: `);
      }
      entries.push({ ...entry, ...table, flags: bits.enabled ? BitmapFlag.auto : 0 });
    }
    return entries;
  }

  /**
   * Writes a directory to new clusters and lets the header name it, then frees
   * the old one. Without entries there is none. If the header cannot be
   * changed, `taken` is freed too.
   */
  async #replaceDirectory(
    entries: readonly DirectoryEntry[],
    taken: HostRange[] = [],
  ): Promise<void> {
    const image = this.#image;
    const { header, refcounts, file } = image;
    const old = { bitmaps: header.bitmaps, autoclear: header.autoclear };
    try {
      header.bitmaps = undefined;
      header.autoclear &= ~BigInt(Autoclear.bitmaps);
      if (entries.length > 0) {
        const directory = encodeDirectory(entries);
        const directoryOffset = await refcounts.allocate(directory.length);
        taken.push({ offset: directoryOffset, length: directory.length });
        await refcounts.flush();
        await image.overlap.check(directoryOffset, directory.length);
        await file.write(directoryOffset, directory);
        await image.barrier();
        const directorySize = directory.length;
        header.bitmaps = { count: entries.length, directorySize, directoryOffset };
        header.autoclear |= BigInt(Autoclear.bitmaps);
      }
      // If the header has no room for it the file does not know yet, so all can be undone.
      encodeHeader(header);
    } catch (error) {
      Object.assign(header, old);
      await freeRanges(image, taken);
      throw ImageError.from(error).prefixed("Failed to update bitmap extension: ");
    }
    try {
      await writeHeader(image);
      await image.barrier();
    } catch (error) {
      // Nobody knows which of the two the file names now: both keep their clusters.
      Object.assign(header, old);
      throw ImageError.from(error).prefixed("Failed to update bitmap extension: ");
    }
    if (old.bitmaps !== undefined) {
      await refcounts.free(old.bitmaps.directoryOffset, old.bitmaps.directorySize, "other");
    }
  }

  /**
   * Marks all as in use on disk. A program that does not know bitmaps clears
   * the autoclear bit; while the directory changes it is clear for everybody.
   */
  async #take(): Promise<void> {
    const image = this.#image;
    const { header } = image;
    header.autoclear &= ~BigInt(Autoclear.bitmaps);
    await writeHeader(image);
    await image.barrier();
    this.#members = this.#members.map((member) => ({
      ...member,
      entry: { ...member.entry, flags: member.entry.flags | BitmapFlag.inUse },
    }));
    const { directoryOffset } = header.bitmaps!;
    const directory = encodeDirectory(this.#members.map(({ entry }) => entry));
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
  }

  #usable(name: string): DirtyBitmap {
    requireConsistent(findBitmap(this, name));
    return this.#members.find(({ entry }) => entry.name === name)!.bits!;
  }
}

/**
 * Frees a bitmap's clusters, then its table. No directory names them any more,
 * so what cannot be freed leaks: a table that cannot be read, or has entries
 * that mean nothing.
 */
async function freeBitmap(image: Qcow2Image, entry: DirectoryEntry): Promise<void> {
  const { refcounts, geometry: { clusterSize }, context } = image;
  const table = new EntryTable(new Uint8Array(entry.tableEntries * 8));
  try {
    await readPadded(image.file, entry.tableOffset, table.bytes);
    if (!isSound(table, clusterSize)) throw ImageError.fromErrno("EINVAL");
  } catch (error) {
    const { message } = ImageError.from(error);
    context.report(`Could not free the clusters of bitmap '${entry.name}': ${message}`);
    return;
  }
  for (let index = 0; index < table.length; index++) {
    const offset = table.offset(index);
    // A damaged entry must not cost the image its metadata.
    if (offset === 0 || await image.overlap.find(offset, clusterSize) !== undefined) continue;
    await refcounts.free(offset, clusterSize, "always");
  }
  await refcounts.free(entry.tableOffset, table.bytes.length, "other");
}

/** Gives clusters back that nothing names. */
async function freeRanges(image: Qcow2Image, ranges: readonly HostRange[]): Promise<void> {
  for (const { offset, length } of ranges) await image.refcounts.free(offset, length, "always");
}
