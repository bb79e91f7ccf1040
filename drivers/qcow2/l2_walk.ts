import { ImageError, reasonText } from "../../lib/block/error.ts";
import { hex } from "./_check_run.ts";
import { readPadded } from "./_read.ts";
import type { ReferenceWalk } from "./reference_walk.ts";
import { COMPRESSED_HIGH, COPIED_HIGH, EntryTable, ZERO_LOW } from "./table.ts";

/** Bits of an entry of a cluster that is not compressed which are always 0, upper and lower half. */
const RESERVED_HIGH = 0x3f000000;
const RESERVED_LOW = 0x1fe;
/** The offset's bits of the upper half. */
const OFFSET_HIGH = 0x00ffffff;
/** All bits of the upper half but the flags. */
const ENTRY_HIGH = 0x3fffffff;
const ALL_SUBCLUSTERS_HIGH = 0xffffffff;

/**
 * The part of a {@linkcode ReferenceWalk} that looks into L2 tables. It sees
 * every entry of the image, so what is usual (a data cluster as it should be,
 * a hole) is dealt with in one loop on halves of words, the rest elsewhere.
 */
export class L2Walk {
  readonly #walk: ReferenceWalk;
  readonly #table: EntryTable;
  /** Where the next cluster lies if the table's clusters are contiguous; 0 at first. */
  #expected = 0;
  #active = true;

  /** Reports to and counts for `walk`. */
  constructor(walk: ReferenceWalk) {
    this.#walk = walk;
    this.#table = new EntryTable(new Uint8Array(walk.run.image.geometry.clusterSize));
  }

  /** Counts what the table at `offset` refers to. `active`: it belongs to the active L1 table. */
  async table(offset: number, active: boolean): Promise<void> {
    const { run } = this.#walk;
    try {
      await readPadded(run.image.file, offset, this.#table.bytes);
    } catch (error) {
      run.checkError("ERROR: I/O error in check_refcounts_l2");
      throw error;
    }
    this.#expected = 0;
    this.#active = active;
    const { l2Entries } = run.image.geometry;
    for (let i = this.#count(0); i < l2Entries; i = this.#count(i + 1)) {
      if (!await this.#makeZero(offset, i)) this.#allocated(i);
    }
  }

  /** Counts from entry `from` on; stops at an entry that a write can repair. */
  #count(from: number): number {
    const { geometry, file, hasDataFile } = this.#walk.run.image;
    const { l2Entries, clusterSize, entrySize } = geometry;
    if (entrySize !== 8 || hasDataFile) return this.#countUnusual(from);
    const { counts } = this.#walk;
    const table = this.#table;
    const { result } = this.#walk.run;
    const fileLength = file.length;
    // Includes the reserved bits, for no cluster is smaller than 512 bytes.
    const unusualLow = clusterSize - 2;
    const unusualHigh = COMPRESSED_HIGH | RESERVED_HIGH;
    let expected = this.#expected;
    let allocated = 0;
    let fragmented = 0;
    let stop = l2Entries;
    for (let i = from; i < l2Entries; i++) {
      const high = table.high(i);
      const low = table.low(i);
      if ((high | low) === 0) continue;
      const offset = (high & OFFSET_HIGH) * 0x100000000 + ((low & ~ZERO_LOW) >>> 0);
      if (
        (high & unusualHigh) === 0 && (low & unusualLow) === 0 && offset < fileLength
      ) {
        if (offset === 0) continue;
        if (expected !== 0 && offset !== expected) fragmented++;
        allocated++;
        expected = offset + clusterSize;
        const cluster = offset / clusterSize;
        if (!counts.increment(cluster)) this.#walk.overflow(cluster);
        continue;
      }
      if (high >>> 30 === 1 && this.#plainCompressed(high, low)) continue;
      this.#expected = expected;
      const done = this.#entry(i);
      expected = this.#expected;
      if (!done) {
        stop = i;
        break;
      }
    }
    this.#expected = expected;
    if (this.#active) {
      result.allocatedClusters += allocated;
      result.fragmentedClusters += fragmented;
    }
    return stop;
  }

  #countUnusual(from: number): number {
    const { l2Entries, entrySize } = this.#walk.run.image.geometry;
    const words = entrySize / 8;
    for (let i = from; i < l2Entries; i++) {
      const at = i * words;
      if ((this.#table.high(at) | this.#table.low(at)) === 0 && words === 1) continue;
      if (!this.#entry(i)) return i;
    }
    return l2Entries;
  }

  /** Counts any entry; false if it can be repaired instead. */
  #entry(index: number): boolean {
    const { run } = this.#walk;
    const { geometry, hasDataFile } = run.image;
    const extended = geometry.entrySize === 16;
    const at = extended ? index * 2 : index;
    const table = this.#table;
    const [high, low] = [table.high(at), table.low(at)];
    if ((high & COMPRESSED_HIGH) !== 0) {
      this.#compressed(index, at);
      return true;
    }
    if ((high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0) {
      run.corruption(`ERROR found l2 entry with reserved bits set: ${hex(table.word(at))}`);
    }
    const offset = table.offset(at);
    const zero = !extended && (low & ZERO_LOW) !== 0;
    const [zeros, stored] = extended ? [table.high(at + 1), table.low(at + 1)] : [0, 0];
    // Guest offset 0 of a data file is a place like any other there.
    if (offset === 0 && (zero || !hasDataFile || (high & COPIED_HIGH) === 0)) {
      if (stored !== 0) {
        run.corruption("ERROR: Unallocated cluster has non-zero subcluster allocation map");
      }
      return true;
    }
    if ((zeros & stored) !== 0) {
      run.corruption(
        `ERROR offset=${hex(offset)}: Allocated cluster has corrupted subcluster allocation bitmap`,
      );
    }
    if (offset % geometry.clusterSize !== 0) {
      const hasData = extended ? stored !== 0 : !zero;
      const what = `offset=${hex(offset)}: ${hasData ? "Data" : "Preallocated"} cluster is not ` +
        "properly aligned; L2 entry corrupted.";
      const repairs = !hasData && this.#walk.repair;
      run.corruption(`${repairs ? "Repairing" : "ERROR"} ${what}`);
      if (repairs) return false;
    }
    this.#allocated(index);
    return true;
  }

  /** Counts an entry with a host offset. */
  #allocated(index: number): void {
    const { run } = this.#walk;
    const { clusterSize, entrySize } = run.image.geometry;
    const offset = this.#table.offset(index * entrySize / 8);
    if (this.#active) {
      run.result.allocatedClusters++;
      if (this.#expected !== 0 && offset !== this.#expected) run.result.fragmentedClusters++;
    }
    this.#expected = offset + clusterSize;
    if (!run.image.hasDataFile) this.#walk.range({ offset, length: clusterSize });
  }

  /** Counts a compressed cluster as it should be, without bigint arithmetic; false if it is none. */
  #plainCompressed(high: number, low: number): boolean {
    const { run, counts } = this.#walk;
    const { file, geometry: { clusterSize, clusterBits } } = run.image;
    // Section 5: the offset's upper bits, then the number of further sectors.
    const highBits = 38 - clusterBits;
    const offset = (high & (2 ** highBits - 1)) * 0x100000000 + low;
    const length = (((high & ENTRY_HIGH) >>> highBits) + 1) * 512 - low % 512;
    if (offset + length > file.length) return false;
    const last = Math.floor((offset + length - 1) / clusterSize);
    for (let cluster = Math.floor(offset / clusterSize); cluster <= last; cluster++) {
      if (!counts.increment(cluster)) this.#walk.overflow(cluster);
    }
    if (this.#active) {
      run.result.allocatedClusters++;
      run.result.compressedClusters++;
      run.result.fragmentedClusters++;
    }
    return true;
  }

  #compressed(index: number, at: number): void {
    const { run } = this.#walk;
    const { geometry, hasDataFile } = run.image;
    const table = this.#table;
    let word = table.word(at);
    // Section 5: x bits of offset, then the number of further sectors.
    const offsetBits = BigInt(70 - geometry.clusterBits);
    const offset = word & ((1n << offsetBits) - 1n);
    if ((table.high(at) & COPIED_HIGH) !== 0) {
      run.corruption(
        `ERROR: coffset=0x${hex(offset)}: copied flag must never be set for compressed clusters`,
      );
      word &= ~(1n << 63n);
    }
    if (hasDataFile) {
      run.corruption(`ERROR compressed cluster ${index} with data file, entry=0x${hex(word)}`);
      return;
    }
    if (geometry.entrySize === 16 && (table.high(at + 1) | table.low(at + 1)) !== 0) {
      run.corruption(
        `ERROR compressed cluster ${index} with non-zero subcluster allocation bitmap, ` +
          `entry=0x${hex(word)}`,
      );
      return;
    }
    const sectors = Number((word & ((1n << 62n) - 1n)) >> offsetBits) + 1;
    const length = sectors * 512 - Number(offset % 512n);
    this.#walk.range({ offset: Number(offset), length }, offset);
    if (this.#active) {
      run.result.allocatedClusters++;
      run.result.compressedClusters++;
      run.result.fragmentedClusters++;
    }
  }

  /**
   * Turns an entry whose host cluster was only reserved, in an impossible
   * place, into one that reads as zeros; false if it could not be written.
   *
   * @throws {ImageError} if the table itself overlaps with other metadata.
   */
  async #makeZero(tableOffset: number, index: number): Promise<boolean> {
    const { run } = this.#walk;
    const { image, result } = run;
    const { entrySize } = image.geometry;
    const table = this.#table;
    const before = table.bytes.slice(index * entrySize, (index + 1) * entrySize);
    if (entrySize === 16) {
      const at = index * 2;
      const zeros = (table.high(at + 1) | table.low(at + 1)) & ALL_SUBCLUSTERS_HIGH;
      table.set(at, 0, 0);
      table.set(at + 1, zeros >>> 0, 0);
    } else {
      table.set(index, 0, ZERO_LOW);
    }
    const offset = tableOffset + index * entrySize;
    try {
      await image.overlap.check(offset, entrySize, this.#active ? "active L2 table" : undefined);
    } catch (error) {
      run.checkError("ERROR: Overlap check failed");
      throw ImageError.from(error);
    }
    try {
      await image.file.write(
        offset,
        table.bytes.subarray(index * entrySize, (index + 1) * entrySize),
      );
      await image.barrier();
    } catch (error) {
      run.checkError(`ERROR: Failed to overwrite L2 table entry: ${reasonText(error)}`);
      table.bytes.set(before, index * entrySize);
      return false;
    }
    result.corruptions--;
    result.corruptionsFixed++;
    return true;
  }
}
