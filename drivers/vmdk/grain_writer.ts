/**
 * Writing to grains that are not compressed (section 5 of the format's reference).
 *
 * Bytes come first, then, after a barrier, the tables that lead to them: changed tables stay in memory
 * until the image is flushed or there are many.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { Allocation } from "../../lib/block/plan.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignUp, divideUp } from "../../lib/bytes/align.ts";
import { readU32LE, writeU32LE } from "../../lib/bytes/endian.ts";
import { SECTOR } from "./_layout.ts";
import type { GrainExtent } from "./extent.ts";
import type { VmdkImage } from "./image.ts";
import { readBehind } from "./read.ts";
import { type GrainTable, UNALLOCATED, ZERO } from "./tables.ts";

/** Changed tables that are kept in memory at most: those of 8 GiB in grains of 64 KiB. */
const MOST_CHANGED = 256;
/** Positions are stored in sectors, as 32 bits. */
const MAX_POSITION = 2 ** 32 * SECTOR;
/** Bytes that are copied from the parent at a time. */
const COPY_CHUNK = 2 ** 20;

/** Entries of a table that changed. */
interface Change {
  readonly table: GrainTable;
  from: number;
  to: number;
}

/** A grain that has a place in the file and no table entry yet, because its bytes are on their way. */
interface PendingGrain {
  readonly position: number;
  users: number;
}

/** A run of grains that lie one behind the other in the file. */
interface Place {
  /** Where the run begins, bytes. */
  readonly position: number;
  /** Bytes from the one that was asked for. */
  readonly length: number;
  /** Grains whose entries have to change once the bytes are written, first and number. */
  readonly pending: readonly [first: number, count: number] | undefined;
}

/** Writes to one extent. All methods that are not said to be for holders of the image's lock take it. */
export class GrainWriter {
  readonly #image: VmdkImage;
  readonly #extent: GrainExtent;
  /** Where the next new grain goes, bytes; -1 until it is needed. */
  #next = -1;
  readonly #changes = new Map<number, Change>();
  readonly #pending = new Map<number, PendingGrain>();

  /** A writer for an extent of an image. */
  constructor(image: VmdkImage, extent: GrainExtent) {
    this.#image = image;
    this.#extent = extent;
  }

  /**
   * Finds or reserves space for a prefix of a range of the extent, and fills what lies around the range in
   * new grains.
   *
   * @throws {ImageError} of the file; `EINVAL` if the parent is another one than it was.
   */
  async allocate(offset: number, length: number): Promise<Allocation> {
    await this.#image.markWritten();
    const place = await this.#image.lock.run(() => this.#place(offset, length));
    const { pending } = place;
    return {
      length: place.length,
      file: this.#extent.file,
      offset: place.position,
      publish: async () => {
        if (pending !== undefined) await this.#image.lock.run(() => this.#publish(...pending));
      },
      abandon: async () => {
        if (pending !== undefined) await this.#image.lock.run(() => this.#abandon(...pending));
      },
    };
  }

  /** Writes bytes of the extent. */
  async write(offset: number, from: Uint8Array): Promise<void> {
    for (let done = 0; done < from.length;) {
      const allocation = await this.allocate(offset + done, from.length - done);
      try {
        const part = from.subarray(done, done + allocation.length);
        await allocation.file.write(allocation.offset, part);
      } catch (error) {
        await allocation.abandon();
        throw error;
      }
      await allocation.publish();
      done += allocation.length;
    }
  }

  /** Makes whole grains zero by their entries. The grains that they named are lost to the file. */
  async zero(offset: number, length: number): Promise<void> {
    const { grainSize } = this.#extent;
    await this.#image.markWritten();
    await this.#image.lock.run(async () => {
      const first = offset / grainSize;
      for (let grain = first; grain < first + length / grainSize; grain++) {
        const table = await this.#ownTable(grain);
        this.#set(table, grain, ZERO);
      }
      await this.#makeRoom();
    });
  }

  /** Whether any grain of a range is still being filled by others. */
  isPending(offset: number, length: number): boolean {
    const { grainSize } = this.#extent;
    if (this.#pending.size === 0) return false;
    for (let grain = Math.floor(offset / grainSize); grain * grainSize < offset + length; grain++) {
      if (this.#pending.has(grain)) return true;
    }
    return false;
  }

  /** Brings changed tables into the file. */
  async flush(): Promise<void> {
    await this.#image.lock.run(() => this.#writeTables());
    await this.#image.barrier(this.#extent.file);
  }

  async #place(offset: number, length: number): Promise<Place> {
    const { grainSize } = this.#extent;
    const first = Math.floor(offset / grainSize);
    const inside = offset - first * grainSize;
    const end = first + divideUp(inside + length, grainSize);
    const known = await this.#find(first);
    let grain = first + 1;
    if (known.position > ZERO) {
      const position = known.position + inside;
      const pending: number[] = [];
      if (known.isPending) pending.push(first);
      for (; grain < end; grain++) {
        const next = await this.#find(grain);
        const isNext = next.position === known.position + (grain - first) * grainSize &&
          next.isPending === known.isPending;
        if (!isNext) break;
        if (next.isPending) pending.push(grain);
      }
      for (const joined of pending) this.#pending.get(joined)!.users++;
      return {
        position,
        length: Math.min(length, (grain - first) * grainSize - inside),
        pending: pending.length === 0 ? undefined : [first, pending.length],
      };
    }
    await this.#ownTable(first);
    for (; grain < end; grain++) {
      if ((await this.#find(grain)).position > ZERO) break;
      await this.#ownTable(grain);
    }
    const count = grain - first;
    const position = this.#reserve(count * grainSize);
    const covered = Math.min(length, count * grainSize - inside);
    await this.#fillAround(first, count, position, inside, inside + covered, known.position);
    for (let i = 0; i < count; i++) {
      this.#pending.set(first + i, { position: position + i * grainSize, users: 1 });
    }
    return { position: position + inside, length: covered, pending: [first, count] };
  }

  /** Where a grain lies, or will. */
  async #find(grain: number): Promise<{ position: number; isPending: boolean }> {
    const pending = this.#pending.get(grain);
    if (pending !== undefined) return { position: pending.position, isPending: true };
    const { tables, file } = this.#extent;
    const { tableEntries } = tables.layout;
    const table = await tables.load(Math.floor(grain / tableEntries));
    const position = table === null ? UNALLOCATED : table.grains[grain % tableEntries]!;
    if (Number.isNaN(position)) {
      throw ImageError.fromErrno("EIO", { file: file.filename, field: "grain table" });
    }
    return { position, isPending: false };
  }

  /** Takes space at the end of the file. What fails later leaves it unused. */
  #reserve(length: number): number {
    const { file, grainSize } = this.#extent;
    if (this.#next < 0) this.#next = alignUp(file.length, grainSize);
    const position = this.#next;
    if (position + length > MAX_POSITION) {
      throw new ImageError("No space for grains below 2 TiB of the file", {
        errno: "EIO",
        file: file.filename,
        field: "grain table",
      });
    }
    this.#next += length;
    return position;
  }

  /** What new grains hold in front of and behind the bytes that are to be written, from `from` to `to`. */
  async #fillAround(
    first: number,
    count: number,
    position: number,
    from: number,
    to: number,
    firstState: number,
  ): Promise<void> {
    const { grainSize } = this.#extent;
    const end = count * grainSize;
    const start = first * grainSize;
    if (from > 0) await this.#fill(start, from, position, firstState);
    if (to < end) {
      const lastState = count === 1 ? firstState : (await this.#find(first + count - 1)).position;
      await this.#fill(start + to, end - to, position + to, lastState);
    }
  }

  /** Fills a part of one new grain with what it showed before. */
  async #fill(offset: number, length: number, position: number, state: number): Promise<void> {
    const { file, start } = this.#extent;
    const image = this.#image;
    if (state === ZERO || image.backing === null) {
      // Behind the end of a file are zeros; only devices have anything there.
      if (file.fixedLength || position + length > file.length) {
        await file.writeZeroes(position, length, { unmap: true });
      }
      return;
    }
    for (let done = 0; done < length; done += COPY_CHUNK) {
      const bytes = new Uint8Array(Math.min(COPY_CHUNK, length - done));
      await readBehind(image, start + offset + done, bytes);
      await file.write(position + done, bytes);
    }
  }

  async #publish(first: number, count: number): Promise<void> {
    for (let grain = first; grain < first + count; grain++) {
      const pending = this.#pending.get(grain);
      // Somebody else who wrote to it was through before.
      if (pending === undefined) continue;
      this.#set(await this.#ownTable(grain), grain, pending.position);
      this.#pending.delete(grain);
    }
    await this.#makeRoom();
  }

  #abandon(first: number, count: number): void {
    for (let grain = first; grain < first + count; grain++) {
      const pending = this.#pending.get(grain);
      if (pending !== undefined && --pending.users === 0) this.#pending.delete(grain);
    }
  }

  #set(table: GrainTable, grain: number, position: number): void {
    const entry = grain % this.#extent.tables.layout.tableEntries;
    table.grains[entry] = position;
    this.#extent.tables.keep(table);
    const change = this.#changes.get(table.index);
    if (change === undefined) {
      this.#changes.set(table.index, { table, from: entry, to: entry + 1 });
    } else {
      change.from = Math.min(change.from, entry);
      change.to = Math.max(change.to, entry + 1);
    }
  }

  /** The table of a grain, made if there is none. */
  async #ownTable(grain: number): Promise<GrainTable> {
    const { tables } = this.#extent;
    const index = Math.floor(grain / tables.layout.tableEntries);
    return await tables.load(index) ?? await this.#addTable(index);
  }

  /** Puts an empty table at the end of the file, and makes it known once it is there. */
  async #addTable(index: number): Promise<GrainTable> {
    const { tables, file, grainSize } = this.#extent;
    const { layout } = tables;
    const length = alignUp(layout.tableEntries * 4, SECTOR);
    const directories = layout.redundantAt === undefined
      ? [layout.directoryAt]
      : [layout.redundantAt, layout.directoryAt];
    const position = this.#reserve(alignUp(directories.length * length, grainSize));
    await file.write(position, new Uint8Array(directories.length * length));
    await this.#noteFreeSector();
    await this.#image.barrier(file);
    for (const [i, directory] of directories.entries()) {
      const entry = new Uint8Array(4);
      writeU32LE(entry, 0, (position + i * length) / SECTOR);
      await file.write(directory + index * 4, entry);
    }
    await this.#image.barrier(file);
    const table = {
      index,
      position: position + (directories.length - 1) * length,
      grains: new Float64Array(layout.tableEntries),
    };
    tables.place(table);
    return table;
  }

  async #makeRoom(): Promise<void> {
    if (this.#changes.size >= MOST_CHANGED) await this.#writeTables();
  }

  /** Writes what changed, in whole sectors; the lock is held. */
  async #writeTables(): Promise<void> {
    if (this.#changes.size === 0) return;
    const { file, tables } = this.#extent;
    await this.#noteFreeSector();
    // Nothing leads to bytes that are not there.
    await this.#image.barrier(file);
    for (const { table, from, to } of [...this.#changes.values()]) {
      const bytes = encodeEntries(table, from, to);
      const at = from * 4 - from * 4 % SECTOR;
      await file.write(table.position + at, bytes);
      const copy = await this.#redundantPosition(table.index);
      if (copy !== undefined) await file.write(copy + at, bytes);
    }
    this.#changes.clear();
    tables.release();
  }

  /** Where the copy of a table lies, if there is one. */
  async #redundantPosition(index: number): Promise<number | undefined> {
    const { file, tables: { layout: { redundantAt } } } = this.#extent;
    if (redundantAt === undefined) return undefined;
    const entry = new Uint8Array(4);
    await readPadded(file, redundantAt + index * 4, entry);
    return readU32LE(entry, 0) * SECTOR || undefined;
  }

  /** ESX puts its next grain where the header says: not where the tables lead to. */
  async #noteFreeSector(): Promise<void> {
    const { file, freeSectorAt } = this.#extent;
    if (freeSectorAt === undefined || this.#next < 0) return;
    const field = new Uint8Array(4);
    writeU32LE(field, 0, this.#next / SECTOR);
    await file.write(freeSectorAt, field);
  }
}

/** The sectors of a table that hold the entries from `from` to `to`. */
function encodeEntries(
  { grains }: GrainTable,
  from: number,
  to: number,
): Uint8Array<ArrayBuffer> {
  const first = from - from % (SECTOR / 4);
  const end = Math.min(alignUp(to, SECTOR / 4), grains.length);
  const bytes = new Uint8Array((end - first) * 4);
  const view = new DataView(bytes.buffer);
  for (let i = first; i < end; i++) {
    const position = grains[i]!;
    view.setUint32((i - first) * 4, position === ZERO ? ZERO : position / SECTOR, true);
  }
  return bytes;
}
