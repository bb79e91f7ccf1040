import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignDown, alignUp } from "../../lib/bytes/align.ts";
import { viewOf } from "../../lib/bytes/endian.ts";
import { SECTOR } from "./header.ts";

/** An entry of an L1 table without a table, and of an L2 table that leaves it to the backing file. */
export const UNALLOCATED = 0;
/** An entry of an L2 table for a cluster of zeros. */
export const ZERO = 1;

/** Bytes of an entry. */
export const ENTRY = 8;

/** Largest piece of a table that is in memory as a whole, bytes. */
const MAX_PAGE = 64 << 10;
/** Bytes of pages that are kept. */
const BUDGET = 8 << 20;
/** Bytes of changed pages from which on they should be stored. */
const MOST_CHANGED = 4 << 20;

/** A piece of a table in memory. */
export class TablePage {
  /** Where it lies, bytes. */
  readonly offset: number;
  /** Its bytes. */
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  /** The entries that were changed since they were stored, as a range; none of them if it is empty. */
  #first = Infinity;
  #end = 0;

  /** A page of the bytes that lie at an offset. */
  constructor(offset: number, bytes: Uint8Array) {
    this.offset = offset;
    this.bytes = bytes;
    this.#view = viewOf(bytes);
  }

  /** How many entries it has. */
  get length(): number {
    return this.bytes.length / ENTRY;
  }

  /** An entry. What is above 2^53 comes only near, and is beyond the end of any file. */
  get(index: number): number {
    const at = index * ENTRY;
    return this.#view.getUint32(at + 4, true) * 2 ** 32 + this.#view.getUint32(at, true);
  }

  /** Sets an entry to a number up to 2^53. */
  set(index: number, value: number): void {
    const at = index * ENTRY;
    this.#view.setUint32(at, value % 2 ** 32, true);
    this.#view.setUint32(at + 4, Math.floor(value / 2 ** 32), true);
    this.#first = Math.min(this.#first, index);
    this.#end = Math.max(this.#end, index + 1);
  }

  /** Whether there is anything to store. */
  get isChanged(): boolean {
    return this.#first < this.#end;
  }

  /** Writes what was changed, in whole sectors. After a failure it is still to be stored. */
  async store(file: BlockNode): Promise<void> {
    if (!this.isChanged) return;
    const [first, end] = [this.#first, this.#end];
    const from = alignDown(first * ENTRY, SECTOR);
    const to = alignUp(end * ENTRY, SECTOR);
    [this.#first, this.#end] = [Infinity, 0];
    try {
      await file.write(this.offset + from, this.bytes.slice(from, to));
    } catch (error) {
      this.#first = Math.min(this.#first, first);
      this.#end = Math.max(this.#end, end);
      throw error;
    }
  }
}

/**
 * The tables of an image, in pages of which those stay in memory that were changed or used of late.
 *
 * Reading is for everybody at any time. Changing is for the holder of the image's lock, between `load` and
 * the next await, followed by `touch`; storing is for him, too.
 */
export class TablePages {
  /** Bytes of a page; tables are whole pages. */
  readonly pageSize: number;
  readonly #file: BlockNode;
  readonly #pages = new Map<number, TablePage>();
  readonly #loading = new Map<number, Promise<TablePage>>();
  readonly #changed = new Set<TablePage>();

  /** The tables in a file with clusters of `clusterSize` bytes. */
  constructor(file: BlockNode, clusterSize: number) {
    this.#file = file;
    this.pageSize = Math.min(clusterSize, MAX_PAGE);
  }

  /** Where the page lies that has an entry of the table at `table`, and which entry of the page that is. */
  locate(table: number, index: number): { readonly page: number; readonly entry: number } {
    const entry = index % (this.pageSize / ENTRY);
    return { page: table + (index - entry) * ENTRY, entry };
  }

  /** The page at an offset, if it is in memory. */
  peek(offset: number): TablePage | undefined {
    return this.#pages.get(offset);
  }

  /**
   * The page at an offset.
   *
   * @throws {ImageError} of the file.
   */
  load(offset: number): Promise<TablePage> {
    const page = this.#pages.get(offset);
    if (page !== undefined) {
      // The last that is pushed out.
      this.#pages.delete(offset);
      this.#pages.set(offset, page);
      return Promise.resolve(page);
    }
    // Two who ask at a time must get the same object, or changes would be lost.
    let loading = this.#loading.get(offset);
    if (loading === undefined) {
      loading = this.#read(offset).finally(() => this.#loading.delete(offset));
      this.#loading.set(offset, loading);
    }
    return loading;
  }

  /** Says that a page was changed. */
  touch(page: TablePage): void {
    this.#changed.add(page);
    // A reader may have pushed it out since it was loaded.
    this.#pages.set(page.offset, page);
  }

  /** Whether there is anything to store. */
  get isChanged(): boolean {
    return this.#changed.size > 0;
  }

  /** Whether so much was changed that it should be stored. */
  get isFull(): boolean {
    return this.#changed.size * this.pageSize >= MOST_CHANGED;
  }

  /** Writes what was changed, in the order of the file. */
  async store(): Promise<void> {
    for (const page of [...this.#changed].sort((a, b) => a.offset - b.offset)) {
      await page.store(this.#file);
      if (!page.isChanged) this.#changed.delete(page);
    }
  }

  /** Forgets all pages, after somebody else has changed the tables in the file. */
  clear(): void {
    this.#pages.clear();
    this.#changed.clear();
  }

  async #read(offset: number): Promise<TablePage> {
    const bytes = new Uint8Array(this.pageSize);
    await readPadded(this.#file, offset, bytes);
    const page = new TablePage(offset, bytes);
    this.#pages.set(offset, page);
    this.#makeRoom(page);
    return page;
  }

  #makeRoom(newest: TablePage): void {
    const most = BUDGET / this.pageSize;
    for (const [offset, page] of this.#pages) {
      if (this.#pages.size <= most) return;
      if (page !== newest && !this.#changed.has(page)) this.#pages.delete(offset);
    }
  }
}
