import { hex, signalCorruption } from "./corruption.ts";
import type { Qcow2Image } from "./image.ts";
import { growL1, writeL1Entry } from "./l1_table.ts";
import { COPIED_HIGH } from "./table.ts";
import { type CachedTable, TableCache } from "./table_cache.ts";

/** A cached L2 table: one word an entry, two with extended L2 entries (descriptor, bitmap). */
export type L2Table = CachedTable;

/** Memory for L2 tables, bytes: those of 128 GiB with clusters of 64 KiB. */
const CACHE_BYTES = 16 * 1024 * 1024;

/**
 * The reference works on parts of a table, bytes, when its own cache cannot
 * hold all of a disk's tables, bytes. It shows in where runs are split.
 */
const SLICE_BYTES = 4096;
const REFERENCE_CACHE_BYTES = 32 * 1024 * 1024;

/** The L2 tables in memory: bounded, written back late and in order. */
export class L2Tables {
  /** Tables in memory. */
  readonly cache: TableCache;
  readonly #image: Qcow2Image;

  /** Nothing is read before it is needed. */
  constructor(image: Qcow2Image) {
    this.#image = image;
    this.cache = new TableCache(image, "active L2 table", CACHE_BYTES);
  }

  /** Entries of a table from a guest offset on that one allocation may cover. */
  entriesForRun(guestOffset: number): number {
    const { geometry: { clusterSize, entrySize, l2Entries }, header } = this.#image;
    const diskTables = Math.ceil(Math.ceil(header.size / clusterSize) * entrySize / clusterSize);
    const sliced = diskTables * clusterSize > REFERENCE_CACHE_BYTES;
    const entries = sliced ? Math.min(SLICE_BYTES / entrySize, l2Entries) : l2Entries;
    return entries - Math.floor(guestOffset / clusterSize) % entries;
  }

  /** The table at a host offset, if it is cached. */
  peek(offset: number): L2Table | undefined {
    return this.cache.peek(offset);
  }

  /** The table at a host offset. What it holds may be changed (with `touch`) only before the next await. */
  load(offset: number): Promise<L2Table> {
    return this.cache.load(offset);
  }

  /**
   * The table that maps a guest offset, ready to be changed: allocated or
   * copied first if the active L1 table does not own it alone.
   *
   * @throws {ImageError} `EIO` where the L1 entry is damaged.
   */
  async own(guestOffset: number): Promise<L2Table> {
    const image = this.#image;
    const index = Math.floor(guestOffset / image.geometry.l2Span);
    if (index >= image.header.l1Size) await growL1(image, index + 1, "generous");
    const offset = image.l1.offset(index);
    if (offset % image.geometry.clusterSize !== 0) {
      throw await signalCorruption(
        image,
        `L2 table offset ${hex(offset)} unaligned (L1 index: ${hex(index)})`,
      );
    }
    await this.cache.makeRoom();
    if ((image.l1.high(index) & COPIED_HIGH) !== 0) return this.cache.load(offset);
    return await this.#replace(index, offset);
  }

  /** Says that a table was changed. */
  touch(table: L2Table): void {
    this.cache.touch(table);
  }

  /** Forgets the table at a host offset, changed or not. */
  forget(offset: number): void {
    this.cache.forget(offset);
  }

  /** Writes changed tables. */
  write(): Promise<void> {
    return this.cache.write();
  }

  /** Writes changed tables and flushes. */
  flush(): Promise<void> {
    return this.cache.flush();
  }

  /** Forgets everything cached, changed or not. */
  reset(): void {
    this.cache.clear();
  }

  /** A new table in place of none, or of one that others use too: the old one loses a reference. */
  async #replace(index: number, oldOffset: number): Promise<L2Table> {
    const image = this.#image;
    const { clusterSize } = image.geometry;
    const [oldHigh, oldLow] = [image.l1.high(index), image.l1.low(index)];
    const offset = await image.refcounts.allocate(clusterSize);
    if (offset === 0) {
      throw await signalCorruption(
        image,
        "Preventing invalid allocation of L2 table at offset 0",
      );
    }
    let table: L2Table;
    try {
      await image.refcounts.flush();
      if (oldOffset !== 0) image.event("l2_alloc_cow_read");
      const old = oldOffset === 0 ? undefined : await this.cache.load(oldOffset);
      table = this.cache.create(offset);
      if (old !== undefined) table.entries.bytes.set(old.entries.bytes);
      image.event("l2_alloc_write");
      await this.cache.flush();
    } catch (error) {
      if (image.broken) throw error;
      this.cache.forget(offset);
      await image.refcounts.free(offset, clusterSize, "always");
      throw error;
    }
    image.l1.setOffset(index, offset, COPIED_HIGH);
    try {
      await writeL1Entry(image, index);
    } catch (error) {
      // The entry may be in the file all the same, so the new table is not freed.
      image.l1.set(index, oldHigh, oldLow);
      throw error;
    }
    image.overlap.addedL2Table(offset);
    if (oldOffset !== 0) await image.refcounts.free(oldOffset, clusterSize, "other");
    return table;
  }
}
