/**
 * The block map (section 2 of the format's reference), and which blocks are free (section 3).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { alignDown, alignUp } from "../../lib/bytes/align.ts";
import { readU32LE, writeU32LE } from "../../lib/bytes/endian.ts";
import { DISCARDED, mapSize, SECTOR, type VdiHeader, withAllocated } from "./header.ts";

/**
 * The map of an open image. Changes are kept in memory until they are stored, in an order that leaves at
 * worst blocks that nobody uses.
 */
export class BlockMap {
  readonly #file: BlockNode;
  readonly #header: VdiHeader;
  /** The map as far as the file has it; behind it all entries are 0, as they are read there. */
  readonly #bytes: Uint8Array;
  readonly #entries: number;
  /** The number of the next block, if it is free. */
  #next: number;
  /** Blocks from `#next` on that are in use although the header does not count them. */
  #uncounted: Set<number> | undefined;
  /** Blocks that were taken, and that no entry names yet. */
  readonly #taken = new Set<number>();
  /** Blocks that were taken and given back. */
  readonly #returned: number[] = [];
  /** Entries that were changed, as a range. */
  #first = Infinity;
  #last = -1;
  #stored: number;

  private constructor(file: BlockNode, header: VdiHeader, bytes: Uint8Array) {
    this.#file = file;
    this.#header = header;
    this.#bytes = bytes;
    this.#entries = Math.min(header.blocks, bytes.length / 4);
    this.#next = this.#stored = header.allocated;
  }

  /** Reads the map, of which only what is in the file takes memory. */
  static async load(file: BlockNode, header: VdiHeader): Promise<BlockMap> {
    const inFile = alignUp(Math.max(file.length - header.mapOffset, 0), SECTOR);
    const bytes = new Uint8Array(Math.min(mapSize(header.blocks), inFile));
    await readPadded(file, header.mapOffset, bytes);
    return new BlockMap(file, header, bytes);
  }

  /** The entry of a part of the disk: the number of its block, or `DISCARDED`, or `UNALLOCATED`. */
  get(index: number): number {
    return index < this.#entries ? readU32LE(this.#bytes, index * 4) : 0;
  }

  /** Whether a part of the disk has a block. */
  has(index: number): boolean {
    return this.get(index) < DISCARDED;
  }

  /** Sets an entry to a block that {@linkcode take} gave. */
  set(index: number, block: number): void {
    writeU32LE(this.#bytes, index * 4, block);
    this.#taken.delete(block);
    this.#first = Math.min(this.#first, index);
    this.#last = Math.max(this.#last, index);
  }

  /**
   * Takes a free block.
   *
   * @throws {ImageError} `ENOSPC` if there is none, which takes a damaged map.
   */
  take(): number {
    const block = this.#returned.pop() ?? this.#free();
    this.#taken.add(block);
    return block;
  }

  /** Gives back a block that no entry names. */
  giveBack(block: number): void {
    this.#taken.delete(block);
    if (block === this.#next - 1) this.#next--;
    else this.#returned.push(block);
  }

  /** Whether there is anything to store. */
  get isChanged(): boolean {
    return this.#last >= 0 || this.#next !== this.#stored;
  }

  /**
   * Brings changes into the file. What entries name has to be safe before; the count is before they are,
   * or another block could take the place of one of them.
   */
  async store(barrier: () => Promise<void>): Promise<void> {
    if (this.#next !== this.#stored) {
      const next = this.#next;
      await this.#file.write(0, withAllocated(this.#header, next));
      this.#stored = next;
      if (this.#last >= 0) await barrier();
    }
    if (this.#last < 0) return;
    const start = alignDown(this.#first * 4, SECTOR);
    const end = alignUp(this.#last * 4 + 4, SECTOR);
    [this.#first, this.#last] = [Infinity, -1];
    await this.#file.write(this.#header.mapOffset + start, this.#bytes.slice(start, end));
  }

  #free(): number {
    this.#uncounted ??= this.#blocksFrom(this.#next);
    while (this.#uncounted.has(this.#next)) this.#next++;
    // Discarding leaves holes, and may lead the count beyond what an image can have.
    return this.#next < this.#header.blocks ? this.#next++ : this.#hole();
  }

  #blocksFrom(start: number): Set<number> {
    const found = new Set<number>();
    for (let index = 0; index < this.#entries; index++) {
      const block = this.get(index);
      if (block >= start && block < DISCARDED) found.add(block);
    }
    return found;
  }

  #hole(): number {
    const used = new Set(this.#taken);
    if (this.#entries < this.#header.blocks) used.add(0);
    for (let index = 0; index < this.#entries; index++) used.add(this.get(index));
    for (let block = 0; block < this.#header.blocks; block++) {
      if (!used.has(block)) return block;
    }
    throw ImageError.fromErrno("ENOSPC", { file: this.#file.filename, field: "block map" });
  }
}
