/**
 * The block allocation table (section 1 of the format's reference): where the clusters of the disk are.
 *
 * @module
 */
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignDown, alignUp, divideUp } from "../../lib/bytes/align.ts";
import { readU32LE, writeU32LE } from "../../lib/bytes/endian.ts";
import { firstNonZero } from "../../lib/bytes/zero_scan.ts";
import { HEADER_SIZE, type ParallelsHeader, tableEnd } from "./header.ts";

/** The table is kept, and changes are stored, in pieces of the file of this many bytes. */
const PAGE = 16384;

/** Bytes that are read at a time. */
const READ_STEP = 64 * PAGE;

/** The table of an open image. Changes are kept in memory until they are stored. */
export class AllocationTable {
  /** How many entries there are, in the file or not. */
  readonly length: number;
  /** How many of them the file has, which may end before its table does; the others are 0. */
  readonly storedLength: number;
  readonly #unit: number;
  /**
   * The pages of the file with entries that are not 0, by their numbers. A header can claim far more
   * entries than the disk has clusters, and a file be long without taking any space.
   */
  readonly #pages = new Map<number, Uint8Array>();
  readonly #changed = new Set<number>();

  private constructor({ entries, entryUnit }: ParallelsHeader, fileLength: number) {
    this.length = entries;
    this.storedLength = Math.min(divideUp(Math.max(fileLength - HEADER_SIZE, 0), 4), entries);
    this.#unit = entryUnit;
  }

  /** Reads the table, of which only what is in use takes memory. */
  static async load(file: BlockNode, header: ParallelsHeader): Promise<AllocationTable> {
    const table = new AllocationTable(header, file.length);
    const end = Math.min(tableEnd(header.entries), file.length);
    for (let at = 0; at < end;) {
      const { state, hole, length } = await file.extent(at, end - at);
      if (state === "data" && hole !== true) await table.#read(file, at, at + length);
      at += length;
    }
    return table;
  }

  /** A table in which nothing is allocated, for those who do not look at data. */
  static unread(header: ParallelsHeader): AllocationTable {
    return new AllocationTable(header, 0);
  }

  /** Where a cluster of the disk is in the file, bytes; 0 if it is nowhere. */
  get(index: number): number {
    if (index >= this.length) return 0;
    const at = HEADER_SIZE + index * 4;
    const page = this.#pages.get(Math.floor(at / PAGE));
    return page === undefined ? 0 : readU32LE(page, at % PAGE) * this.#unit;
  }

  /** The first entry from `index` on that is not 0, or `end` if there is none before. */
  nextUsed(index: number, end: number = this.length): number {
    const stop = Math.min(end, this.length);
    while (index < stop) {
      const at = HEADER_SIZE + index * 4;
      const number = Math.floor(at / PAGE);
      const next = ((number + 1) * PAGE - HEADER_SIZE) / 4;
      const page = this.#pages.get(number);
      if (page !== undefined) {
        const last = Math.min(next, stop);
        for (let place = at % PAGE; index < last; index++, place += 4) {
          if (readU32LE(page, place) !== 0) return index;
        }
      }
      index = next;
    }
    return end;
  }

  /** The entries of a range that are not 0; they may be changed on the way. */
  *used(from: number = 0, end: number = this.length): Generator<number, void, undefined> {
    let index = this.nextUsed(from, end);
    while (index < end) {
      yield index;
      index = this.nextUsed(index + 1, end);
    }
  }

  /** Sets where a cluster of the disk is, bytes; 0 for nowhere. */
  set(index: number, position: number): void {
    const at = HEADER_SIZE + index * 4;
    const number = Math.floor(at / PAGE);
    let page = this.#pages.get(number);
    if (page === undefined) this.#pages.set(number, page = new Uint8Array(PAGE));
    writeU32LE(page, at % PAGE, position / this.#unit);
    this.#changed.add(number);
  }

  /** Whether there is anything to store. */
  get isChanged(): boolean {
    return this.#changed.size > 0;
  }

  /** Brings changes into the file. What entries lead to has to be safe before. */
  async store(file: BlockNode): Promise<void> {
    const tableLength = tableEnd(this.length);
    for (const number of [...this.#changed].sort((a, b) => a - b)) {
      const start = number * PAGE;
      const first = Math.max(start, HEADER_SIZE);
      const end = Math.min(start + PAGE, tableLength);
      const bytes = this.#pages.get(number)!.slice(first - start, end - start);
      this.#changed.delete(number);
      try {
        await file.write(first, bytes);
      } catch (error) {
        this.#changed.add(number);
        throw error;
      }
    }
  }

  /** Takes in the pages that `start` to `end` of the file touch. */
  async #read(file: BlockNode, start: number, end: number): Promise<void> {
    const stop = alignUp(end, PAGE);
    for (let at = alignDown(start, PAGE); at < stop; at += READ_STEP) {
      const bytes = new Uint8Array(Math.min(READ_STEP, stop - at));
      await readPadded(file, at, bytes);
      for (let place = 0; place < bytes.length; place += PAGE) {
        const page = bytes.subarray(place, place + PAGE);
        if (firstNonZero(page) >= 0) this.#pages.set((at + place) / PAGE, page.slice());
      }
    }
  }
}
