/**
 * The block allocation table (section 1 of the format's reference): where the clusters of the disk are.
 *
 * @module
 */
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { readU32LE, writeU32LE } from "../../lib/bytes/endian.ts";
import { HEADER_SIZE, type ParallelsHeader, tableEnd } from "./header.ts";

/** Changes are stored in pieces of the file of this many bytes. */
const CHUNK = 16384;

/** The table of an open image. Changes are kept in memory until they are stored. */
export class AllocationTable {
  /** How many entries there are, in the file or not. */
  readonly length: number;
  readonly #unit: number;
  /** The table as far as the file has it, or more; behind it all entries are 0, as they are read there. */
  #bytes: Uint8Array;
  readonly #changed = new Set<number>();

  private constructor(length: number, unit: number, bytes: Uint8Array) {
    this.length = length;
    this.#unit = unit;
    this.#bytes = bytes;
  }

  /** Reads the table, of which only what is in the file takes memory. */
  static async load(
    file: BlockNode,
    { entries, entryUnit }: ParallelsHeader,
  ): Promise<AllocationTable> {
    const inFile = Math.max(Math.min(tableEnd(entries), file.length) - HEADER_SIZE, 0);
    const bytes = new Uint8Array(inFile);
    await readPadded(file, HEADER_SIZE, bytes);
    return new AllocationTable(entries, entryUnit, bytes);
  }

  /** A table in which nothing is allocated, for those who do not look at data. */
  static unread({ entries, entryUnit }: ParallelsHeader): AllocationTable {
    return new AllocationTable(entries, entryUnit, new Uint8Array(0));
  }

  /** Entries from here on are 0. */
  get storedLength(): number {
    return this.#bytes.length / 4;
  }

  /** Where a cluster of the disk is in the file, bytes; 0 if it is nowhere. */
  get(index: number): number {
    const at = index * 4;
    return at < this.#bytes.length ? readU32LE(this.#bytes, at) * this.#unit : 0;
  }

  /** Sets where a cluster of the disk is, bytes; 0 for nowhere. */
  set(index: number, position: number): void {
    const at = index * 4;
    if (at >= this.#bytes.length) this.#growTo(at + 4);
    writeU32LE(this.#bytes, at, position / this.#unit);
    this.#changed.add(Math.floor((HEADER_SIZE + at) / CHUNK));
  }

  /** Whether there is anything to store. */
  get isChanged(): boolean {
    return this.#changed.size > 0;
  }

  /** Brings changes into the file. What entries lead to has to be safe before. */
  async store(file: BlockNode): Promise<void> {
    for (const chunk of [...this.#changed].sort((a, b) => a - b)) {
      const start = Math.max(chunk * CHUNK - HEADER_SIZE, 0);
      const end = Math.min((chunk + 1) * CHUNK - HEADER_SIZE, this.#bytes.length);
      const bytes = this.#bytes.slice(start, end);
      this.#changed.delete(chunk);
      try {
        await file.write(HEADER_SIZE + start, bytes);
      } catch (error) {
        this.#changed.add(chunk);
        throw error;
      }
    }
  }

  /** For an image whose file ended within its table. */
  #growTo(size: number): void {
    const bytes = new Uint8Array(Math.min(Math.max(size, this.#bytes.length * 2), this.length * 4));
    bytes.set(this.#bytes);
    this.#bytes = bytes;
  }
}
