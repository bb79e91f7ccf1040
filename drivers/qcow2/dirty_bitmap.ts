import { isZero } from "../../lib/bytes/zero_scan.ts";
import { clearBitsFrom, setBits, visitSetBits } from "./_bits.ts";
import { readPadded } from "./_read.ts";
import { type BitmapTable, bitmapTableEntries } from "./bitmap_directory.ts";
import type { Qcow2Image } from "./image.ts";
import { EntryTable } from "./table.ts";

/** Takes a cluster of bits, or a table, and answers with the place in the file that it was written to. */
export type BitmapWriter = (bytes: Uint8Array) => Promise<number>;

/** A table entry that stands for a cluster of set bits, lower half. */
const ALL_ONES = 1;

const NO_TABLE: BitmapTable = { tableOffset: 0, tableEntries: 0 };

/** A part of a bitmap. */
interface BitmapCluster {
  /** Which of the bitmap's clusters. */
  readonly index: number;
  /** Its bits; `"ones"` if the file says without a cluster that all are set. */
  readonly bits: Uint8Array | "ones";
}

/**
 * A consistent bitmap of an open image: what the file has, and what was set
 * since. Memory is taken by clusters with new bits only.
 */
export class DirtyBitmap {
  /** Follows the guest's writes. */
  enabled: boolean;
  readonly #image: Qcow2Image;
  readonly #granularityBits: number;
  readonly #granularity: number;
  readonly #bitsPerCluster: number;
  readonly #stored: BitmapTable;
  /** Bits set since the opening, by cluster of the bitmap. */
  readonly #marks = new Map<number, Uint8Array>();
  /** Bytes of the disk for which the stored bits still count. */
  #storedSize: number;
  #size: number;

  /** A bitmap with the bits of a table in the file; without one nothing is dirty. */
  constructor(
    image: Qcow2Image,
    { granularityBits, enabled, stored }: {
      readonly granularityBits: number;
      readonly enabled: boolean;
      readonly stored?: BitmapTable;
    },
  ) {
    this.enabled = enabled;
    this.#image = image;
    this.#granularityBits = granularityBits;
    this.#granularity = 2 ** granularityBits;
    this.#bitsPerCluster = image.geometry.clusterSize * 8;
    this.#stored = stored ?? NO_TABLE;
    this.#size = image.header.size;
    this.#storedSize = stored === undefined ? 0 : this.#size;
  }

  /** Makes a range of the disk dirty, bytes. */
  mark(offset: number, length: number): void {
    if (length === 0) return;
    const bitsPerCluster = this.#bitsPerCluster;
    const end = Math.floor((offset + length - 1) / this.#granularity) + 1;
    let bit = Math.floor(offset / this.#granularity);
    while (bit < end) {
      const index = Math.floor(bit / bitsPerCluster);
      const start = index * bitsPerCluster;
      const to = Math.min(end, start + bitsPerCluster);
      setBits(this.#cluster(index), bit - start, to - start);
      bit = to;
    }
  }

  /** Makes everything clean. */
  clear(): void {
    this.#marks.clear();
    this.#storedSize = 0;
  }

  /** Adapts it to a new size of the disk in bytes; what is new is clean. */
  resize(size: number): void {
    this.#storedSize = Math.min(this.#storedSize, size);
    this.#size = size;
    const bits = this.#bitCount(size);
    for (const [index, marks] of this.#marks) {
      const start = index * this.#bitsPerCluster;
      if (start >= bits) this.#marks.delete(index);
      else clearBitsFrom(marks, bits - start);
    }
  }

  /** Calls `visit` for every run of dirty bytes of the disk, in order. */
  async visit(visit: (offset: number, length: number) => void): Promise<void> {
    const granularity = this.#granularity;
    // Runs of bits, joined over the borders of clusters.
    let [start, end] = [0, 0];
    const finish = () => {
      if (end === start) return;
      const offset = start * granularity;
      visit(offset, Math.min(end * granularity, this.#size) - offset);
    };
    for await (const { index, bits } of this.#clusters()) {
      const base = index * this.#bitsPerCluster;
      const take = (from: number, to: number) => {
        if (base + from !== end) {
          finish();
          start = base + from;
        }
        end = base + to;
      };
      if (bits === "ones") take(0, this.#bitsPerCluster);
      else visitSetBits(bits, take);
    }
    finish();
  }

  /** Writes bits and table to places that `write` finds. */
  async store(write: BitmapWriter): Promise<BitmapTable> {
    const tableEntries = bitmapTableEntries(this.#image, this.#size, this.#granularityBits);
    const table = new EntryTable(new Uint8Array(tableEntries * 8));
    for await (const { index, bits } of this.#clusters()) {
      // What the file says in a bit stays so: written out, a small file could become a huge one.
      if (bits === "ones") table.set(index, 0, ALL_ONES);
      else table.setOffset(index, await write(bits));
    }
    return { tableOffset: await write(table.bytes), tableEntries };
  }

  /** The clusters of the bitmap that have a bit set. */
  async *#clusters(): AsyncGenerator<BitmapCluster> {
    const { tableOffset, tableEntries } = this.#stored;
    const stored = new EntryTable(new Uint8Array(this.#storedSize > 0 ? tableEntries * 8 : 0));
    await readPadded(this.#image.file, tableOffset, stored.bytes);
    const count = bitmapTableEntries(this.#image, this.#size, this.#granularityBits);
    const storedBits = this.#bitCount(this.#storedSize);
    for (let index = 0; index < count; index++) {
      if (isAllOnes(stored, index) && storedBits >= (index + 1) * this.#bitsPerCluster) {
        yield { index, bits: "ones" };
        continue;
      }
      const bits = await this.#load(stored, index);
      if (bits !== undefined && !isZero(bits)) yield { index, bits };
    }
  }

  /** A cluster of the bitmap as it is now, `undefined` if it is surely all clean. */
  async #load(stored: EntryTable, index: number): Promise<Uint8Array | undefined> {
    const { clusterSize } = this.#image.geometry;
    const marks = this.#marks.get(index);
    const offset = index < stored.length ? stored.offset(index) : 0;
    const ones = isAllOnes(stored, index);
    if (offset === 0 && !ones) return marks;
    const bits = new Uint8Array(clusterSize);
    if (ones) bits.fill(0xff);
    else await readPadded(this.#image.file, offset, bits);
    clearBitsFrom(bits, this.#bitCount(this.#storedSize) - index * this.#bitsPerCluster);
    if (marks !== undefined) {
      for (let i = 0; i < bits.length; i++) bits[i]! |= marks[i]!;
    }
    return bits;
  }

  #bitCount(size: number): number {
    return Math.ceil(size / this.#granularity);
  }

  #cluster(index: number): Uint8Array {
    let bits = this.#marks.get(index);
    if (bits === undefined) {
      this.#marks.set(index, bits = new Uint8Array(this.#image.geometry.clusterSize));
    }
    return bits;
  }
}

function isAllOnes(table: EntryTable, index: number): boolean {
  return index < table.length && table.high(index) === 0 && table.low(index) === ALL_ONES;
}
