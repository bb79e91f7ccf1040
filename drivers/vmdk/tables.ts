import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { divideUp } from "../../lib/bytes/align.ts";

/** A grain that is not stored; what is behind the image shows. */
export const UNALLOCATED = 0;
/** A grain of zeros. */
export const ZERO = 1;

/** How an extent's tables are written down. All positions are in bytes. */
export interface TableLayout {
  /** Bytes of an entry. */
  readonly entrySize: 4 | 8;
  /** Where the grain directory lies. */
  readonly directoryAt: number;
  /** Where its copy lies, if there is one that has to be kept up to date. */
  readonly redundantAt: number | undefined;
  /** Entries of the directory. */
  readonly directoryEntries: number;
  /** Entries of a grain table. */
  readonly tableEntries: number;
  /** Where the table of a directory entry lies: 0 for none, NaN for a damaged entry. */
  tablePosition(view: DataView, at: number): number;
  /** {@linkcode UNALLOCATED}, {@linkcode ZERO}, where the grain lies, or NaN for a damaged entry. */
  grainPosition(view: DataView, at: number): number;
}

/** A grain table in memory. */
export interface GrainTable {
  /** Its entry in the directory. */
  readonly index: number;
  /** Where it lies, bytes. */
  readonly position: number;
  /** Its entries as {@linkcode TableLayout.grainPosition} has them. */
  readonly grains: Float64Array;
}

/** Entries of the directory that are read at a time. */
const PAGE = 4096;
/** A whole page that lies behind the end of its file, and so has no table: headers can ask for many. */
const BEHIND_END = new Float64Array(PAGE);
/** Pages that are kept: a directory for 64 TiB in grains of 64 KiB. */
const MAX_PAGES = 512;
/** Bytes of tables that are kept, about: those of 32 GiB in grains of 64 KiB. */
const TABLE_BUDGET = 4 * 2 ** 20;
/** Fewer would push each other out. */
const MIN_TABLES = 16;

/**
 * Directory and tables of an extent, read when needed. What was changed stays until
 * it is {@linkcode forget | forgotten}, and is for the writer to bring into the file.
 */
export class GrainTables {
  /** How they are written down. */
  readonly layout: TableLayout;
  readonly #file: BlockNode;
  readonly #pages = new Map<number, Promise<Float64Array> | Float64Array>();
  readonly #tables = new Map<number, GrainTable | null>();
  readonly #loading = new Map<number, Promise<GrainTable | null>>();
  /** Tables that must not be pushed out. */
  readonly #kept = new Set<number>();
  /** Where tables lie that the directory does not name yet, or did not when it was read. */
  readonly #placed = new Map<number, number>();
  readonly #limit: number;
  /** Where the directory lies, `undefined` for one of nothing but zeros. */
  #directoryAt: number | undefined;
  /** Grows when the directory moves: what is being read then is of no use. */
  #generation = 0;

  /** Tables in `file`. */
  constructor(file: BlockNode, layout: TableLayout) {
    this.#file = file;
    this.layout = layout;
    this.#directoryAt = layout.directoryAt;
    this.#limit = Math.max(Math.floor(TABLE_BUDGET / (layout.tableEntries * 8)), MIN_TABLES);
  }

  /** The table of a directory entry: `null` if there is none, `undefined` if that is not known yet. */
  peek(index: number): GrainTable | null | undefined {
    const table = this.#tables.get(index);
    if (table !== undefined) return table;
    if (this.#placed.has(index)) return undefined;
    const page = this.#pages.get(Math.floor(index / PAGE));
    return page instanceof Float64Array && page[index % PAGE] === 0 ? null : undefined;
  }

  /** How many directory entries from `index` on are known to have no table; `most` at most. */
  countEmpty(index: number, most: number): number {
    let end = index;
    for (;;) {
      const page = this.#pages.get(Math.floor(end / PAGE));
      if (!(page instanceof Float64Array)) return end - index;
      if (page === BEHIND_END && this.#placed.size === 0) {
        // All whole pages that follow lie there, too.
        const { directoryEntries } = this.layout;
        return Math.min(directoryEntries - directoryEntries % PAGE, index + most) - index;
      }
      const left = Math.min(page.length - end % PAGE, most - (end - index));
      for (const stop = end + left; end < stop; end++) {
        if (page[end % PAGE] !== 0 || this.#placed.has(end)) return end - index;
      }
      if (end - index === most || end % PAGE !== 0) return end - index;
    }
  }

  /**
   * The table of a directory entry, read if needed.
   *
   * @throws {ImageError} `EIO` for an entry that the directory does not have, or a damaged one.
   */
  load(index: number): Promise<GrainTable | null> {
    const known = this.peek(index);
    if (known !== undefined) return Promise.resolve(known);
    // Two who ask at a time must get the same object, or changes would be lost.
    let loading = this.#loading.get(index);
    if (loading === undefined) {
      loading = this.#read(index).finally(() => this.#loading.delete(index));
      this.#loading.set(index, loading);
    }
    return loading;
  }

  /** Where the table of a directory entry lies, 0 if there is none. */
  async position(index: number): Promise<number> {
    const { directoryEntries } = this.layout;
    if (index >= directoryEntries) throw this.#damaged("grain directory");
    const placed = this.#placed.get(index);
    if (placed !== undefined) return placed;
    const page = await this.#page(Math.floor(index / PAGE));
    const position = page[index % PAGE]!;
    if (Number.isNaN(position)) throw this.#damaged(`grain directory entry ${index}`);
    return position;
  }

  /** Keeps a table that was changed. */
  keep(table: GrainTable): void {
    this.#kept.add(table.index);
    this.#tables.set(table.index, table);
  }

  /** Lets go of tables that were kept. */
  release(): void {
    this.#kept.clear();
    this.#makeRoom();
  }

  /** Says where the table of a directory entry lies from now on, and what is in it. */
  place(table: GrainTable): void {
    this.keep(table);
    this.#placed.set(table.index, table.position);
  }

  /** Says where the directory lies from now on, `undefined` for one that names no table. */
  moveDirectory(position: number | undefined): void {
    this.#directoryAt = position;
    this.#generation++;
    this.#placed.clear();
    this.#pages.clear();
    this.#tables.clear();
    this.#kept.clear();
  }

  async #read(index: number): Promise<GrainTable | null> {
    const generation = this.#generation;
    const position = await this.position(index);
    if (position === 0) return null;
    const { entrySize, tableEntries, grainPosition } = this.layout;
    const view = await this.#view(position, tableEntries * entrySize);
    const grains = new Float64Array(tableEntries);
    for (let i = 0; i < tableEntries; i++) grains[i] = grainPosition(view, i * entrySize);
    if (generation !== this.#generation) return await this.#read(index);
    const table = { index, position, grains };
    this.#tables.set(index, table);
    this.#makeRoom(index);
    return table;
  }

  #page(number: number): Promise<Float64Array> | Float64Array {
    let page = this.#pages.get(number);
    if (page === undefined) {
      const generation = this.#generation;
      page = this.#readPage(number).then(
        (page) => {
          if (generation === this.#generation) this.#pages.set(number, page);
          return page;
        },
        (error) => {
          if (generation === this.#generation) this.#pages.delete(number);
          throw error;
        },
      );
      this.#pages.set(number, page);
      for (const oldest of this.#pages.keys()) {
        if (this.#pages.size <= MAX_PAGES) break;
        if (oldest !== number) this.#pages.delete(oldest);
      }
    }
    return page;
  }

  async #readPage(number: number): Promise<Float64Array> {
    const { entrySize, directoryEntries, tablePosition } = this.layout;
    const directoryAt = this.#directoryAt;
    const first = number * PAGE;
    const count = Math.min(PAGE, directoryEntries - first);
    const isBehindEnd = directoryAt === undefined ||
      directoryAt + first * entrySize >= this.#file.length;
    if (isBehindEnd) return count === PAGE ? BEHIND_END : new Float64Array(count);
    const page = new Float64Array(count);
    const view = await this.#view(directoryAt + first * entrySize, count * entrySize);
    for (let i = 0; i < count; i++) page[i] = tablePosition(view, i * entrySize);
    return page;
  }

  async #view(offset: number, length: number): Promise<DataView> {
    const bytes = new Uint8Array(length);
    await readPadded(this.#file, offset, bytes);
    return new DataView(bytes.buffer);
  }

  /** Pushes out the oldest tables that need not be kept, but not the `latest`, for which somebody waits. */
  #makeRoom(latest = -1): void {
    if (this.#tables.size <= this.#limit) return;
    for (const index of this.#tables.keys()) {
      if (this.#tables.size <= this.#limit) return;
      if (index !== latest && !this.#kept.has(index)) this.#tables.delete(index);
    }
  }

  #damaged(field: string): ImageError {
    return ImageError.fromErrno("EIO", { file: this.#file.filename, field });
  }
}

/** A run of grains with one state. */
export interface GrainRun {
  /** Bytes, from where the run was asked for. */
  readonly length: number;
  /** {@linkcode UNALLOCATED}, {@linkcode ZERO}, or where the (first) grain lies, bytes. */
  readonly position: number;
}

/**
 * The run at byte `offset` of an extent, `length` bytes at most; `undefined` if
 * a table has to be read first: that of `grain / tableEntries`. Grains that are
 * stored are runs by themselves, as in the reference.
 */
export function grainRun(
  tables: GrainTables,
  grainSize: number,
  offset: number,
  length: number,
): GrainRun | undefined {
  const { tableEntries } = tables.layout;
  const grain = Math.floor(offset / grainSize);
  const inside = offset - grain * grainSize;
  let index = Math.floor(grain / tableEntries);
  let table = tables.peek(index);
  if (table === undefined) return undefined;
  let entry = grain - index * tableEntries;
  const position = table === null ? UNALLOCATED : table.grains[entry]!;
  if (position !== UNALLOCATED && position !== ZERO) {
    return { length: Math.min(grainSize - inside, length), position };
  }
  const grains = divideUp(inside + length, grainSize);
  let count = 0;
  while (count < grains && table !== undefined) {
    if (table === null) {
      if (position !== UNALLOCATED) break;
      const wanted = divideUp(entry + grains - count, tableEntries);
      const empty = tables.countEmpty(index, wanted);
      count += empty * tableEntries - entry;
      index += empty - 1;
    } else {
      const { grains: positions } = table;
      const from = entry;
      while (entry < tableEntries && positions[entry] === position) entry++;
      count += entry - from;
      if (entry < tableEntries) break;
    }
    entry = 0;
    table = tables.peek(++index);
  }
  return { length: Math.min(count * grainSize - inside, length), position };
}
