/**
 * Counting references anew when a snapshot appears or goes (section 12, walk).
 *
 * It comes by every entry of the disk, so refcounts are changed in their
 * blocks' bytes, a table's worth of entries in one loop; whatever needs to wait
 * (another block, an unusual entry) interrupts it.
 *
 * @module
 */
import type { FreeReason } from "./allocation.ts";
import { packedRange } from "./cluster_entry.ts";
import { hex, signalCorruption } from "./corruption.ts";
import type { Qcow2Image } from "./image.ts";
import type { L2Table } from "./l2_tables.ts";
import { COMPRESSED_HIGH, COPIED_HIGH, type EntryTable, OFFSET_HIGH, OFFSET_LOW } from "./table.ts";
import type { CachedTable } from "./table_cache.ts";

/** No cluster is smaller: lower halves of entries below this one are flags alone. */
const CLUSTER_LOW = 512;

/** What becomes of every refcount on the way; 0 only looks at them. */
export type Delta = 1 | 0 | -1;

/**
 * Adds `delta` to the refcounts of all that an L1 table leads to, and makes
 * the COPIED flags on the way say what the refcounts then are: in the L2
 * tables, and in `l1`, which the caller stores. `reason` says what becomes of
 * the bytes of clusters that nothing refers to any more. The caller holds the
 * image's lock.
 *
 * Where refcounts cannot be raised (they have no higher value), what was
 * raised is lowered again before the error is thrown.
 *
 * @throws {ImageError} `EINVAL` for a refcount that would leave its range,
 * `EIO` for damaged tables.
 */
export async function countReferences(
  image: Qcow2Image,
  l1: EntryTable,
  delta: Delta,
  reason: FreeReason = "snapshot",
): Promise<void> {
  const count = new ReferenceCount(image, l1, reason);
  await image.refcounts.holdingDiscards(() => count.all(delta));
}

class ReferenceCount {
  readonly #image: Qcow2Image;
  readonly #l1: EntryTable;
  /** The refcount block in hand, and the index of its first cluster. */
  #block: CachedTable | undefined;
  #base = 0;
  /** The block in hand was changed since anybody was told. */
  #blockChanged = false;
  /** The L2 table in hand was changed since anybody was told. */
  #tableChanged = false;
  /** What becomes of the bytes of clusters that are freed. */
  #reason: FreeReason;

  constructor(image: Qcow2Image, l1: EntryTable, reason: FreeReason) {
    this.#image = image;
    this.#l1 = l1;
    this.#reason = reason;
  }

  async all(delta: Delta): Promise<void> {
    for (let index = 0; index < this.#l1.length; index++) {
      try {
        await this.#l2(index, delta);
      } catch (error) {
        this.#image.countsInDoubt = true;
        if (delta === 1 && !this.#image.broken) {
          await this.#lower(index);
          this.#image.countsInDoubt = false;
        }
        throw error;
      }
    }
  }

  /** Takes back what was raised through the first `end` L1 entries. */
  async #lower(end: number): Promise<void> {
    this.#reason = "never";
    for (let index = 0; index < end; index++) await this.#l2(index, -1);
  }

  /** Counts an L2 table and what it leads to. */
  async #l2(index: number, delta: Delta): Promise<void> {
    const { geometry: { clusterSize, l2Entries }, l2, refcounts } = this.#image;
    const offset = this.#l1.offset(index);
    if (offset === 0) return;
    if (offset % clusterSize !== 0) {
      throw await signalCorruption(
        this.#image,
        `L2 table offset ${hex(offset)} unaligned (L1 index: ${hex(index)})`,
      );
    }
    await l2.cache.makeRoom();
    const table = await l2.load(offset);
    await this.#entries(table, l2Entries, delta);
    let count: number;
    try {
      if (delta !== 0) await refcounts.add(offset, clusterSize, delta, this.#reason);
      count = await refcounts.get(offset / clusterSize);
    } catch (error) {
      if (delta === 1 && !this.#image.broken) await this.#takeBack(table, l2Entries);
      throw error;
    }
    this.#l1.setOffset(index, offset, count === 1 ? COPIED_HIGH : 0);
    await refcounts.deallocateIfMany();
  }

  /** Counts what the first `end` entries of a table lead to. */
  async #entries(table: L2Table, end: number, delta: Delta): Promise<void> {
    this.#letGo();
    for (let index = 0; index < end;) {
      index = this.#run(table.entries, index, end, delta);
      this.#tell(table);
      if (index === end) break;
      try {
        if (!await this.#take(table, index)) {
          await this.#unusual(table, index, delta);
          index++;
        }
      } catch (error) {
        if (delta === 1 && !this.#image.broken) await this.#takeBack(table, index);
        throw error;
      }
    }
  }

  async #takeBack(table: L2Table, end: number): Promise<void> {
    const before = this.#reason;
    this.#reason = "never";
    await this.#entries(table, end, -1);
    this.#reason = before;
  }

  /** Counts usual entries from `from` on, as far as the block in hand reaches: up to which entry. */
  #run(entries: EntryTable, from: number, end: number, delta: Delta): number {
    const { geometry: { clusterSize, clusterBits, entrySize }, refcounts } = this.#image;
    const { format } = refcounts;
    const { perBlock } = format;
    const bytes = this.#block?.entries.bytes;
    const base = this.#base;
    const words = entrySize / 8;
    // Of the offset's bits, those that a cluster's never has.
    const unaligned = (clusterSize - 1) & OFFSET_LOW;
    for (let index = from; index < end; index++) {
      const word = index * words;
      const high = entries.high(word);
      const low = entries.low(word);
      if ((high & COMPRESSED_HIGH) !== 0) {
        const { offset, length } = packedRange(clusterBits, high, low);
        const first = Math.floor(offset / clusterSize) - base;
        const last = Math.floor((offset + length - 1) / clusterSize) - base;
        if (bytes === undefined || first < 0 || last >= perBlock) return index;
        if (delta !== 0 && !this.#addAll(bytes, first, last, delta)) return index;
        this.#setFlag(entries, word, false);
        continue;
      }
      if ((high & OFFSET_HIGH) === 0 && low < CLUSTER_LOW) {
        // No cluster; the flag would be damage.
        if ((high & COPIED_HIGH) !== 0) this.#setFlag(entries, word, false);
        continue;
      }
      const offset = (high & OFFSET_HIGH) * 2 ** 32 + ((low & OFFSET_LOW) >>> 0);
      const place = offset / clusterSize - base;
      if (bytes === undefined || (low & unaligned) !== 0) return index;
      if (place < 0 || place >= perBlock) return index;
      let count;
      if (delta === 0) {
        count = format.get(bytes, place);
      } else {
        count = format.add(bytes, place, delta);
        if (count < 0) return index;
        this.#blockChanged = true;
        if (count === 0) refcounts.freed(base + place, this.#reason);
      }
      if ((count === 1) !== ((high & COPIED_HIGH) !== 0)) this.#setFlag(entries, word, count === 1);
    }
    return end;
  }

  /** Changes the refcounts of a compressed cluster's host clusters, all or none. */
  #addAll(bytes: Uint8Array, first: number, last: number, delta: Delta): boolean {
    const { refcounts, packed } = this.#image;
    const freed: number[] = [];
    for (let place = first; place <= last; place++) {
      const count = refcounts.format.add(bytes, place, delta);
      if (count < 0) {
        while (--place >= first) refcounts.format.add(bytes, place, -delta);
        return false;
      }
      if (count === 0) freed.push(place);
    }
    this.#blockChanged = true;
    if (freed.length > 0) packed.forget();
    for (const place of freed) refcounts.freed(this.#base + place, this.#reason);
    return true;
  }

  #setFlag(entries: EntryTable, word: number, copied: boolean): void {
    const high = entries.high(word);
    const wanted = (copied ? high | COPIED_HIGH : high & ~COPIED_HIGH) >>> 0;
    if (wanted === high) return;
    entries.set(word, wanted, entries.low(word));
    this.#tableChanged = true;
  }

  /** Says what was changed. Call it before any await. */
  #tell(table: L2Table): void {
    const { refcounts, l2 } = this.#image;
    if (this.#blockChanged) refcounts.cache.touch(this.#block!);
    if (this.#tableChanged) l2.touch(table);
    this.#blockChanged = false;
    this.#tableChanged = false;
  }

  /** Somebody else may change refcounts now, or throw the block out of memory. */
  #letGo(): void {
    this.#block = undefined;
  }

  /** Takes the block of an entry's clusters in hand. `false`: that is not what the entry needs. */
  async #take(table: L2Table, index: number): Promise<boolean> {
    const { geometry: { clusterSize, clusterBits, entrySize }, refcounts } = this.#image;
    const { perBlock } = refcounts.format;
    const word = index * entrySize / 8;
    const high = table.entries.high(word);
    const host = (high & COMPRESSED_HIGH) !== 0
      ? packedRange(clusterBits, high, table.entries.low(word)).offset
      : table.entries.offset(word);
    const block = Math.floor(host / clusterSize / perBlock);
    if (this.#block !== undefined && this.#base === block * perBlock) return false;
    this.#letGo();
    const taken = await refcounts.changeable(block);
    if (taken === undefined) return false;
    this.#block = taken;
    this.#base = block * perBlock;
    return true;
  }

  /** Counts an entry that is damaged, or whose refcounts lie in two blocks, in none, or out of range. */
  async #unusual(table: L2Table, index: number, delta: Delta): Promise<void> {
    const { geometry: { clusterSize, clusterBits, entrySize }, refcounts } = this.#image;
    this.#letGo();
    const word = index * entrySize / 8;
    const { entries } = table;
    const high = entries.high(word);
    if ((high & COMPRESSED_HIGH) !== 0) {
      const { offset, length } = packedRange(clusterBits, high, entries.low(word));
      if (delta !== 0) await refcounts.add(offset, length, delta, this.#reason);
      if (delta < 0) this.#image.packed.forget();
      this.#setFlag(entries, word, false);
    } else {
      const offset = entries.offset(word);
      if (offset % clusterSize !== 0) {
        throw await signalCorruption(
          this.#image,
          `Cluster allocation offset ${hex(offset)} unaligned ` +
            `(L2 offset: ${hex(table.offset)}, L2 index: ${hex(index)})`,
        );
      }
      if (delta !== 0) await refcounts.add(offset, clusterSize, delta, this.#reason);
      this.#setFlag(entries, word, await refcounts.get(offset / clusterSize) === 1);
    }
    this.#tell(table);
  }
}
