/**
 * The block allocation table (section 1 of the format's reference).
 *
 * @module
 */
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { viewOf } from "../../lib/bytes/endian.ts";
import { BlockState, MIB } from "./_layout.ts";

/** Bytes of the table that are read at a time, and kept. */
const PAGE = 65536;

/** Pages that are kept: 16 MiB of them, the table of 8 TiB with blocks of 4 MiB. */
const MAX_PAGES = 256;

/** Bytes of an entry. */
export const ENTRY_SIZE = 8;

/** Bytes of the table that change together, which is what the log stores. */
export const TABLE_SECTOR = 4096;

const STATE = 7;
const TWO_32 = 2 ** 32;

/** An entry of the table. */
export interface BlockEntry {
  /** One of `BlockState`, or 4, which is none. */
  readonly state: number;
  /** Where the block is, bytes: a multiple of 1 MiB below 2^64, and so exact. */
  readonly offset: number;
}

/** The table of an open image. What is kept of it is as the file has it. */
export class BlockTable {
  /** Where the table begins, bytes. */
  readonly position: number;
  readonly #file: BlockNode;
  readonly #chunkRatio: number;
  readonly #pages = new Map<number, DataView>();

  /** A table in `file`, with a sector bitmap behind every `chunkRatio` blocks. */
  constructor(file: BlockNode, position: number, chunkRatio: number) {
    this.#file = file;
    this.position = position;
    this.#chunkRatio = chunkRatio;
  }

  /** The entry of a block. */
  entry(block: number): Promise<BlockEntry> {
    return this.entryAt(this.indexOf(block));
  }

  /** The entry of the sector bitmap that a block's sectors are in. */
  bitmapEntry(block: number): Promise<BlockEntry> {
    const chunk = Math.floor(block / this.#chunkRatio);
    return this.entryAt(chunk * (this.#chunkRatio + 1) + this.#chunkRatio);
  }

  /** The place of a block's entry among all entries. */
  indexOf(block: number): number {
    return block + Math.floor(block / this.#chunkRatio);
  }

  /** The entry at a place among all entries. */
  async entryAt(index: number): Promise<BlockEntry> {
    const at = index * ENTRY_SIZE;
    return decode(await this.#page(Math.floor(at / PAGE)), at % PAGE);
  }

  /**
   * The sector with a block's entry, as it has to be once the block is at `offset`, and where it belongs.
   * The table is not changed by that.
   */
  async changedSector(
    block: number,
    { state, offset }: BlockEntry,
  ): Promise<{ readonly position: number; readonly bytes: Uint8Array }> {
    const at = this.indexOf(block) * ENTRY_SIZE;
    const start = at - at % TABLE_SECTOR;
    const page = await this.#page(Math.floor(at / PAGE));
    const bytes = new Uint8Array(page.buffer, start % PAGE, TABLE_SECTOR).slice();
    const view = viewOf(bytes);
    view.setUint32(at - start, offset % TWO_32 + state, true);
    view.setUint32(at - start + 4, Math.floor(offset / TWO_32), true);
    return { position: this.position + start, bytes };
  }

  /** Notes that a sector is in the file. */
  changed(position: number, bytes: Uint8Array): void {
    const start = position - this.position;
    const page = this.#pages.get(Math.floor(start / PAGE));
    if (page !== undefined) new Uint8Array(page.buffer).set(bytes, start % PAGE);
  }

  /**
   * Calls `visit` for those of the first `end` entries that say where a whole block is, in their order.
   * Parts of the table that take no space in the file take no time either.
   */
  async eachPresent(
    end: number,
    visit: (index: number, offset: number) => void,
  ): Promise<void> {
    const available = Math.ceil((this.#file.length - this.position) / ENTRY_SIZE);
    const last = Math.min(end, available);
    const buffer = new Uint8Array(PAGE);
    const view = viewOf(buffer);
    for (let index = 0; index < last;) {
      const position = this.position + index * ENTRY_SIZE;
      const rest = Math.min((last - index) * ENTRY_SIZE, this.#file.length - position);
      const below = await this.#file.extent(position, rest);
      const isEmpty = below.state !== "data" || below.hole === true;
      // Holes may end anywhere.
      const whole = Math.floor(below.length / ENTRY_SIZE);
      if (isEmpty && whole > 0) {
        index += whole;
        continue;
      }
      const stop = index + Math.min(Math.max(whole, 1), last - index);
      while (index < stop) {
        const count = Math.min(PAGE / ENTRY_SIZE, stop - index);
        const bytes = buffer.subarray(0, count * ENTRY_SIZE);
        await readPadded(this.#file, this.position + index * ENTRY_SIZE, bytes);
        for (let at = 0; at < bytes.length; at += ENTRY_SIZE) {
          if ((view.getUint32(at, true) & STATE) !== BlockState.fullyPresent) continue;
          visit(index + at / ENTRY_SIZE, decode(view, at).offset);
        }
        index += count;
      }
    }
  }

  async #page(number: number): Promise<DataView> {
    const known = this.#pages.get(number);
    if (known !== undefined) return known;
    const bytes = new Uint8Array(PAGE);
    await readPadded(this.#file, this.position + number * PAGE, bytes);
    // Somebody else may have been faster, and changed it since.
    const faster = this.#pages.get(number);
    if (faster !== undefined) return faster;
    const page = viewOf(bytes);
    for (const oldest of this.#pages.keys()) {
      if (this.#pages.size < MAX_PAGES) break;
      this.#pages.delete(oldest);
    }
    this.#pages.set(number, page);
    return page;
  }
}

function decode(view: DataView, at: number): BlockEntry {
  const low = view.getUint32(at, true);
  return {
    state: low & STATE,
    offset: view.getUint32(at + 4, true) * TWO_32 + (low - low % MIB),
  };
}
