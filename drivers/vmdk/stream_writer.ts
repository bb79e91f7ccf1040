/**
 * Writing compressed grains as a stream (section 6 of the format's reference, and VMware's specification of
 * the virtual disk format 5.0, "Stream-Optimized Compressed Sparse Extents").
 *
 * The file grows and nothing in it is written twice but its header: markers with their grains, a grain
 * table behind the grains that it leads to, and in the end the grain directory, the footer that names it
 * and an end-of-stream marker. Whoever reads it from begin to end, as importers do, needs no table at all;
 * whoever can seek finds the directory through the footer.
 *
 * An image that has grains already stays readable meanwhile: as long as there is no footer the header names
 * the last directory that was complete.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import { writeU32LE, writeU64LE } from "../../lib/bytes/endian.ts";
import { type Codec, loadCodec } from "../../lib/codec/mod.ts";
import {
  DESCRIPTOR_AREA,
  DIRECTORY_AT_END,
  Flag,
  GRAIN_MARKER,
  Marker,
  SECTOR,
} from "./_layout.ts";
import type { GrainExtent } from "./extent.ts";
import type { VmdkImage } from "./image.ts";
import {
  encodeHeader,
  FOOTER_LENGTH,
  footerPosition,
  hasFooter,
  type SparseHeader,
} from "./sparse_header.ts";
import { type GrainTable, UNALLOCATED, ZERO } from "./tables.ts";

/** Positions are stored in sectors, as 32 bits. */
const MAX_POSITION = 2 ** 32 * SECTOR;
/** Where the first grain of a new stream goes. */
const FIRST_GRAIN = 128 * SECTOR;
/** Changed tables that are kept in memory at most. */
const MOST_CHANGED = 256;
/** Directory entries that are handled at a time. */
const DIRECTORY_CHUNK = 65536;

/** Appends grains to one extent, which has a header of its own and is the only one of its image. */
export class StreamWriter {
  readonly #image: VmdkImage;
  readonly #extent: GrainExtent;
  readonly #header: SparseHeader;
  /** Where the next thing goes, bytes; -1 as long as nothing was written since the last commit. */
  #next = -1;
  /** Where the directory of the last commit lies, bytes. */
  #directoryAt: number;
  /** The file ends with a footer, to which the header refers. */
  #hasFooter: boolean;
  /** Tables with grains that they do not lead to on disk. */
  readonly #changed = new Map<number, GrainTable>();
  /** Where tables lie since the last commit, by directory entry. */
  readonly #moved = new Map<number, number>();
  /** The table of the grain that was written last. */
  #current = -1;
  /** Where grains may begin, sectors. */
  #overhead: bigint;
  /** The stream began with no directory before it. */
  #isFresh = false;
  #codec: Codec | undefined;
  /** A compressed grain, and one with its marker: used again and again, under the image's lock. */
  #packed: Uint8Array<ArrayBuffer> | undefined;
  #marked = new Uint8Array(0);

  /** A writer for the extent of an image. */
  constructor(image: VmdkImage, extent: GrainExtent, header: SparseHeader) {
    this.#image = image;
    this.#extent = extent;
    this.#header = header;
    this.#overhead = header.overhead;
    this.#directoryAt = extent.tables.layout.directoryAt;
    this.#hasFooter = hasFooter(header);
  }

  /**
   * Compresses and writes whole grains of the extent; the last one of a disk may be shorter.
   *
   * @throws {ImageError} `EINVAL` for parts of grains, `EIO` for grains that are stored.
   */
  async write(offset: number, from: Uint8Array, level?: number): Promise<void> {
    const { grainSize, length } = this.#extent;
    const end = offset + from.length;
    const isWhole = offset % grainSize === 0 && (end % grainSize === 0 || end === length);
    if (!isWhole) {
      throw ImageError.fromErrno("EINVAL", { file: this.#extent.file.filename, field: "grain" });
    }
    this.#codec ??= await loadCodec("zlib");
    const codec = this.#codec;
    for (let done = 0; done < from.length; done += grainSize) {
      let grain = from.subarray(done, done + grainSize);
      if (grain.length < grainSize) {
        grain = new Uint8Array(grainSize);
        grain.set(from.subarray(done));
      }
      await this.#image.lock.run(async () => {
        const packed = this.#packed ??= new Uint8Array(grainSize + grainSize / 8 + 64);
        const size = codec.pack(grain, packed, level);
        if (size === null) throw new Error("deflate has grown a grain by an eighth");
        await this.#append(offset + done, packed.subarray(0, size));
      });
    }
  }

  /**
   * Writes a grain that was compressed elsewhere.
   *
   * @throws {ImageError} `EIO` for a grain that is stored already.
   */
  async writePacked(offset: number, packed: Uint8Array): Promise<void> {
    await this.#image.lock.run(() => this.#append(offset, packed));
  }

  /** Stores a grain that does not shrink. */
  async writeUnpacked(offset: number, bytes: Uint8Array): Promise<void> {
    await this.write(offset, bytes, 0);
  }

  /** Ends the stream: what was written so far is there to stay. More may follow. */
  async commit(): Promise<void> {
    await this.#image.lock.run(() => this.#commit());
  }

  /** Ends the stream, also one of nothing, which whoever reads it from begin to end has to find the end of. */
  async finish(): Promise<void> {
    await this.#image.lock.run(async () => {
      if (this.#next < 0 && this.#extent.packed?.markers && this.#isEmpty()) await this.#begin();
      await this.#commit();
    });
  }

  async #append(offset: number, packed: Uint8Array): Promise<void> {
    const { tables, grainSize, file, packed: kind } = this.#extent;
    const { tableEntries } = tables.layout;
    const grain = offset / grainSize;
    const index = Math.floor(grain / tableEntries);
    const entry = grain % tableEntries;
    const before = (await tables.load(index))?.grains[entry] ?? UNALLOCATED;
    if (before !== UNALLOCATED && before !== ZERO) {
      this.#image.facts.context.report(
        "Could not write to allocated cluster for streamOptimized",
        true,
      );
      throw ImageError.fromErrno("EIO", { file: file.filename, field: "grain" });
    }
    if (!kind?.markers) {
      throw ImageError.fromErrno("EINVAL", { file: file.filename, field: "flags" });
    }
    if (this.#next < 0) await this.#begin();
    const table = await tables.load(index) ??
      { index, position: 0, grains: new Float64Array(tableEntries) };
    if (index !== this.#current) {
      // What comes in the order of the disk is through with the table before.
      await this.#writeTable(this.#current);
      if (this.#changed.size >= MOST_CHANGED) await this.#writeTables();
      this.#current = index;
    }
    const length = alignUp(GRAIN_MARKER + packed.length, SECTOR);
    this.#require(this.#next + length);
    if (this.#marked.length < length) this.#marked = new Uint8Array(length);
    const bytes = this.#marked.subarray(0, length);
    writeU64LE(bytes, 0, offset / SECTOR);
    writeU32LE(bytes, 8, packed.length);
    bytes.set(packed, GRAIN_MARKER);
    bytes.fill(0, GRAIN_MARKER + packed.length);
    await file.write(this.#next, bytes);
    table.grains[entry] = this.#next;
    this.#next += length;
    tables.keep(table);
    this.#changed.set(index, table);
  }

  /** Finds out where the stream goes on, and makes sure that nothing leads to what will be overwritten. */
  async #begin(): Promise<void> {
    const { file } = this.#extent;
    const image = this.#image;
    await image.markWritten();
    if (this.#isEmpty()) return await this.#beginAnew();
    if (this.#hasFooter) {
      const position = footerPosition(file);
      await this.#writeHeader(BigInt(this.#directoryAt / SECTOR));
      await image.barrier(file);
      this.#hasFooter = false;
      this.#next = position;
    } else this.#next = file.length;
  }

  /** Whether nothing is stored yet, not even the end. */
  #isEmpty(): boolean {
    return !this.#hasFooter && this.#extent.file.length <= Number(this.#overhead) * SECTOR;
  }

  /**
   * Nothing is stored yet: the stream begins behind the descriptor. What others make an empty image of, two
   * directories with all their tables, gives way to it.
   */
  async #beginAnew(): Promise<void> {
    const { file, tables } = this.#extent;
    const end = SECTOR + DESCRIPTOR_AREA;
    this.#overhead = BigInt(FIRST_GRAIN / SECTOR);
    await this.#writeHeader(DIRECTORY_AT_END);
    await this.#image.barrier(file);
    await file.write(end, new Uint8Array(FIRST_GRAIN - end));
    await file.resize(FIRST_GRAIN, "off");
    tables.moveDirectory(undefined);
    this.#isFresh = true;
    this.#next = FIRST_GRAIN;
  }

  /** A header for what this writer makes. */
  #newHeader(directoryAt: bigint): SparseHeader {
    return {
      ...this.#header,
      version: 3,
      flags: this.#header.flags & ~Flag.redundantDirectory | Flag.newlineCheck,
      redundantAt: 0n,
      directoryAt,
      overhead: this.#overhead,
    };
  }

  async #writeHeader(directoryAt: bigint): Promise<void> {
    await this.#extent.file.write(0, encodeHeader(this.#newHeader(directoryAt)));
  }

  async #commit(): Promise<void> {
    const { file, tables } = this.#extent;
    if (this.#next < 0) return;
    await this.#writeTables();
    await this.#writeDirectory();
    const footer = new Uint8Array(FOOTER_LENGTH);
    footer.set(marker(1, Marker.footer));
    footer.set(encodeHeader(this.#newHeader(BigInt(this.#directoryAt / SECTOR))), SECTOR);
    footer.set(marker(0, Marker.endOfStream), 2 * SECTOR);
    await file.write(this.#next, footer);
    this.#next += footer.length;
    // The footer is looked for at the end of the file.
    if (file.length > this.#next) await file.resize(this.#next, "off");
    await this.#image.barrier(file);
    await this.#writeHeader(DIRECTORY_AT_END);
    await this.#image.barrier(file);
    this.#hasFooter = true;
    this.#next = -1;
    this.#current = -1;
    tables.moveDirectory(this.#directoryAt);
  }

  async #writeTables(): Promise<void> {
    for (const index of [...this.#changed.keys()].sort((a, b) => a - b)) {
      await this.#writeTable(index);
    }
  }

  /** Appends a table with its marker, if it changed. */
  async #writeTable(index: number): Promise<void> {
    const table = this.#changed.get(index);
    if (table === undefined) return;
    const { file, tables } = this.#extent;
    const { grains } = table;
    const length = alignUp(grains.length * 4, SECTOR);
    this.#require(this.#next + SECTOR + length);
    const bytes = new Uint8Array(SECTOR + length);
    bytes.set(marker(length / SECTOR, Marker.table));
    const view = new DataView(bytes.buffer, SECTOR);
    for (const [i, position] of grains.entries()) {
      view.setUint32(i * 4, position === ZERO ? ZERO : position / SECTOR, true);
    }
    await file.write(this.#next, bytes);
    const position = this.#next + SECTOR;
    this.#next += bytes.length;
    this.#moved.set(index, position);
    this.#changed.delete(index);
    tables.place({ ...table, position });
    tables.release();
    for (const kept of this.#changed.values()) tables.keep(kept);
  }

  /** Appends the directory with its marker: the one that there was, and where tables lie now. */
  async #writeDirectory(): Promise<void> {
    const { file, tables: { layout: { directoryEntries } } } = this.#extent;
    const length = alignUp(directoryEntries * 4, SECTOR);
    this.#require(this.#next + SECTOR + length);
    const position = this.#next + SECTOR;
    await file.write(this.#next, marker(length / SECTOR, Marker.directory));
    for (let first = 0; first < directoryEntries; first += DIRECTORY_CHUNK) {
      const count = Math.min(DIRECTORY_CHUNK, directoryEntries - first);
      const isLast = first + count === directoryEntries;
      const bytes = new Uint8Array(isLast ? length - first * 4 : count * 4);
      if (!this.#isFresh) {
        await readPadded(file, this.#directoryAt + first * 4, bytes.subarray(0, count * 4));
      }
      for (const [index, table] of this.#moved) {
        if (index < first || index >= first + count) continue;
        writeU32LE(bytes, (index - first) * 4, table / SECTOR);
      }
      await file.write(position + first * 4, bytes);
    }
    this.#next = position + length;
    this.#directoryAt = position;
    this.#moved.clear();
    this.#isFresh = false;
  }

  #require(end: number): void {
    if (end <= MAX_POSITION) return;
    throw new ImageError("No space for grains below 2 TiB of the file", {
      errno: "EIO",
      file: this.#extent.file.filename,
      field: "grain table",
    });
  }
}

/** The sector of a marker: how many sectors follow, and what they are. */
function marker(sectors: number, type: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(SECTOR);
  writeU64LE(bytes, 0, sectors);
  writeU32LE(bytes, 12, type);
  return bytes;
}
