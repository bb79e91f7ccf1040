/**
 * The L1 table and the L2 tables (section 3 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { viewOf, writeU64BE } from "../../lib/bytes/endian.ts";
import type { QcowHeader } from "./header.ts";

const ENTRY = 8;
/** Entries of the L1 table that are read at a time. */
const PAGE = 8192;
/** Pages that are kept: those of 2 TiB. */
const MAX_PAGES = 128;
/** Bytes of L2 tables that are kept, about: those of 4 GiB, of 512 MiB in clusters of 512 bytes. */
const TABLE_BUDGET = 8 << 20;
/** Fewer would push each other out. */
const MIN_TABLES = 16;

/** An L2 table in memory. */
export interface L2Table {
  /** Its entry in the L1 table. */
  readonly index: number;
  /** Where it lies, bytes. */
  readonly position: number;
  /** Its entries as they are in the file: 64 bits each, big endian. */
  readonly entries: DataView;
}

/** What is to be written of a table. */
interface Change {
  readonly table: L2Table;
  /** First entry. */
  from: number;
  /** End. */
  to: number;
}

/** Both kinds of tables, read when needed. What is changed stays in memory until it is {@linkcode store}d. */
export class Tables {
  readonly #file: BlockNode;
  readonly #header: QcowHeader;
  /** Parts of the L1 table: where L2 tables lie, `null` for one that names none. */
  readonly #pages = new Map<number, Promise<Float64Array | null> | Float64Array | null>();
  readonly #tables = new Map<number, L2Table | null>();
  readonly #loading = new Map<number, Promise<L2Table | null>>();
  readonly #changes = new Map<number, Change>();
  /** Where tables lie that the L1 table did not name when this image was opened. */
  readonly #placed = new Map<number, number>();
  /** Those of them that it does not name yet. */
  readonly #unnamed = new Set<number>();
  /** Pages in which there are any of those. */
  readonly #placedPages = new Set<number>();
  readonly #limit: number;
  /** How often everything was forgotten: what was being read then is forgotten, too. */
  #epoch = 0;

  /** The tables of an image in `file`. */
  constructor(file: BlockNode, header: QcowHeader) {
    this.#file = file;
    this.#header = header;
    this.#limit = Math.max(Math.floor(TABLE_BUDGET / (header.l2Entries * ENTRY)), MIN_TABLES);
  }

  /** Whether so much was changed that it is time to store it. */
  get isFull(): boolean {
    return this.#changes.size >= this.#limit / 2;
  }

  /** The table of an L1 entry: `null` if there is none, `undefined` if that is not known yet. */
  peek(index: number): L2Table | null | undefined {
    const table = this.#tables.get(index);
    if (table !== undefined) return table;
    if (this.#placed.has(index)) return undefined;
    const page = this.#peekPage(Math.floor(index / PAGE));
    if (page === null) return null;
    return page instanceof Float64Array && page[index % PAGE] === 0 ? null : undefined;
  }

  /** How many L1 entries from `index` on, of those that are known, name no table. */
  countEmpty(index: number): number {
    let at = index;
    while (at < this.#header.l1Entries) {
      const number = Math.floor(at / PAGE);
      if (this.#peekPage(number) === null && !this.#placedPages.has(number)) {
        at = (number + 1) * PAGE;
      } else if (this.peek(at) === null) at++;
      else break;
    }
    return Math.min(at, this.#header.l1Entries) - index;
  }

  /**
   * The table of an L1 entry, read if needed.
   *
   * @throws {ImageError} `EIO` for an entry beyond the table, and for a table that lies where no file has bytes.
   */
  load(index: number): Promise<L2Table | null> {
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

  /** Makes a table of zeros that is to lie at `position`, where there was none. */
  create(index: number, position: number): L2Table {
    const { l2Entries } = this.#header;
    const entries = new DataView(new ArrayBuffer(l2Entries * ENTRY));
    const table = { index, position, entries };
    this.#placed.set(index, position);
    this.#placedPages.add(Math.floor(index / PAGE));
    this.#unnamed.add(index);
    this.#tables.set(index, table);
    this.#changes.set(index, { table, from: 0, to: l2Entries });
    return table;
  }

  /** Sets an entry of a table from its halves. */
  set(table: L2Table, entry: number, high: number, low: number): void {
    table.entries.setUint32(entry * ENTRY, high);
    table.entries.setUint32(entry * ENTRY + 4, low);
    // A reader may have pushed it out meanwhile.
    this.#tables.set(table.index, table);
    const change = this.#changes.get(table.index);
    if (change === undefined) {
      this.#changes.set(table.index, { table, from: entry, to: entry + 1 });
    } else {
      change.from = Math.min(change.from, entry);
      change.to = Math.max(change.to, entry + 1);
    }
  }

  /**
   * Brings changes into the file: after what they lead to, which the first barrier is for, and L2 tables
   * before the entries that name them.
   */
  async store(barrier: () => Promise<void>): Promise<void> {
    if (this.#changes.size === 0) return;
    await barrier();
    const changes = [...this.#changes.values()];
    for (const { table: { position, entries }, from, to } of changes) {
      const bytes = new Uint8Array(entries.buffer).slice(from * ENTRY, to * ENTRY);
      await this.#file.write(position + from * ENTRY, bytes);
    }
    if (this.#unnamed.size > 0) {
      await barrier();
      for (const index of this.#unnamed) {
        const bytes = new Uint8Array(ENTRY);
        writeU64BE(bytes, 0, this.#placed.get(index)!);
        await this.#file.write(this.#header.l1Offset + index * ENTRY, bytes);
      }
    }
    this.#unnamed.clear();
    this.#changes.clear();
    this.#makeRoom();
  }

  /** Forgets everything, stored or not: there are no tables any more. */
  clear(): void {
    this.#epoch++;
    this.#pages.clear();
    this.#tables.clear();
    this.#loading.clear();
    this.#changes.clear();
    this.#placed.clear();
    this.#placedPages.clear();
    this.#unnamed.clear();
  }

  async #read(index: number): Promise<L2Table | null> {
    const epoch = this.#epoch;
    const position = await this.#position(index);
    if (position === 0) return null;
    const bytes = new Uint8Array(this.#header.l2Entries * ENTRY);
    await readPadded(this.#file, position, bytes);
    // Meanwhile it may have come back as one that was changed.
    const known = this.#tables.get(index);
    if (known) return known;
    const table = { index, position, entries: viewOf(bytes) };
    if (epoch !== this.#epoch) return table;
    this.#tables.set(index, table);
    this.#makeRoom();
    return table;
  }

  async #position(index: number): Promise<number> {
    if (index >= this.#header.l1Entries) {
      throw ImageError.fromErrno("EIO", { file: this.#file.filename, field: "L1 table" });
    }
    const placed = this.#placed.get(index);
    if (placed !== undefined) return placed;
    const page = await this.#page(Math.floor(index / PAGE));
    return page === null ? 0 : page[index % PAGE]!;
  }

  /** A page if it is known; what is behind the end of the file needs no look. */
  #peekPage(number: number): Promise<Float64Array | null> | Float64Array | null | undefined {
    const page = this.#pages.get(number);
    if (page !== undefined) return page;
    const isBehind = this.#header.l1Offset + number * PAGE * ENTRY >= this.#file.length;
    return isBehind ? null : undefined;
  }

  #page(number: number): Promise<Float64Array | null> | Float64Array | null {
    let page = this.#peekPage(number);
    if (page === undefined) {
      page = this.#readPage(number);
      this.#pages.set(number, page);
      for (const oldest of this.#pages.keys()) {
        if (this.#pages.size <= MAX_PAGES) break;
        if (oldest !== number) this.#pages.delete(oldest);
      }
    }
    return page;
  }

  async #readPage(number: number): Promise<Float64Array | null> {
    const epoch = this.#epoch;
    const first = number * PAGE;
    const count = Math.min(PAGE, this.#header.l1Entries - first);
    const bytes = new Uint8Array(count * ENTRY);
    try {
      await readPadded(this.#file, this.#header.l1Offset + first * ENTRY, bytes);
    } catch (error) {
      this.#pages.delete(number);
      throw error;
    }
    const view = viewOf(bytes);
    let page: Float64Array | null = null;
    for (let i = 0; i < count; i++) {
      const [high, low] = [view.getUint32(i * ENTRY), view.getUint32(i * ENTRY + 4)];
      // What this makes inexact lies behind the end of every file.
      if (high !== 0 || low !== 0) (page ??= new Float64Array(count))[i] = high * 2 ** 32 + low;
    }
    if (epoch === this.#epoch) this.#pages.set(number, page);
    return page;
  }

  #makeRoom(): void {
    if (this.#tables.size <= this.#limit) return;
    for (const index of this.#tables.keys()) {
      if (this.#tables.size <= this.#limit) return;
      if (!this.#changes.has(index)) this.#tables.delete(index);
    }
  }
}
