/**
 * Dynamic images: blocks in the order in which they were written, each behind its sector bitmap.
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { BlockNode, Extent } from "../../lib/block/node.ts";
import type { Allocation } from "../../lib/block/plan.ts";
import { requireRange } from "../../lib/block/range.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { FOOTER_SIZE } from "./_layout.ts";
import type { BlockTable } from "./block_table.ts";
import type { DynamicHeader } from "./dynamic_header.ts";
import { WritableNode } from "./writable_node.ts";

/** What is known of an image that has blocks. */
export interface BlockImage {
  /** Bytes of the disk. */
  readonly length: number;
  /** The footer as it stands in front, and is put behind the last block. */
  readonly footer: Uint8Array;
  /** How blocks are laid out. */
  readonly header: DynamicHeader;
  /** Where they are. */
  readonly table: BlockTable;
}

/** A block that room was taken for, until its first bytes are in the file. */
interface PendingBlock {
  readonly position: number;
  /** Allocations in it that have not ended. */
  users: number;
}

/** The node of a dynamic image in `file`. */
export function dynamicNode(file: BlockNode, context: DriverContext, image: BlockImage): BlockNode {
  return new DynamicNode(file, context, image);
}

/**
 * A dynamic image. Sector bitmaps do not count when it is read, as with the reference; what is written
 * sets all their bits.
 *
 * Data and bitmaps are written first, then the footer behind them, which makes the file as long as its
 * blocks need it, and, once all that is safe, the entries. A crash leaves at worst blocks that nobody
 * uses, and no footer at the end: the one in front counts.
 */
class DynamicNode extends WritableNode {
  readonly #image: BlockImage;
  readonly #lock = new Mutex();
  readonly #pending = new Map<number, PendingBlock>();
  /** A bit for each block whose sector bitmap is known to be full. */
  #full: Uint8Array | undefined;
  /** Where the footer was written. */
  #footerAt: number;

  constructor(file: BlockNode, context: DriverContext, image: BlockImage) {
    super(file, context, { length: image.length, clusterSize: image.header.blockSize });
    this.#image = image;
    this.#footerAt = image.table.end;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    for (let done = 0; done < into.length;) {
      const { length, position } = this.#run(offset + done, into.length - done);
      const part = into.subarray(done, done + length);
      if (position === undefined) part.fill(0);
      else await readPadded(this.file, position, part);
      done += length;
    }
  }

  extent(offset: number, length: number): Promise<Extent> {
    try {
      requireRange(this, offset, length);
    } catch (error) {
      return Promise.reject(error);
    }
    const { length: run, position } = this.#run(offset, length);
    return Promise.resolve(
      position === undefined ? { length: run, state: "zero", compressed: false } : {
        length: run,
        state: "data",
        compressed: false,
        file: this.file,
        offset: position,
      },
    );
  }

  override readsZeroWhenNew(): Promise<boolean> {
    return Promise.resolve(true);
  }

  /** How far the disk goes on like at `offset`, and where that is in the file. */
  #run(offset: number, most: number): { length: number; position: number | undefined } {
    const { header: { blockSize, bitmapSize }, table } = this.#image;
    const first = Math.floor(offset / blockSize);
    const skip = offset % blockSize;
    const position = table.position(first);
    let length = blockSize - skip;
    if (position !== undefined) {
      return { length: Math.min(length, most), position: position + bitmapSize + skip };
    }
    for (let index = first + 1; length < most; index++) {
      if (table.position(index) !== undefined) break;
      length += blockSize;
    }
    return { length: Math.min(length, most), position };
  }

  /** Room for a prefix of a range, within one block. */
  protected override allocate(offset: number, most: number): Promise<Allocation> {
    return this.#lock.run(async () => {
      requireRange(this, offset, most);
      const { header: { blockSize, bitmapSize }, table } = this.#image;
      const index = Math.floor(offset / blockSize);
      const skip = offset % blockSize;
      const length = Math.min(blockSize - skip, most);
      const known = table.position(index);
      if (known !== undefined) {
        await this.#fillBitmap(index, known);
        return {
          length,
          file: this.file,
          offset: known + bitmapSize + skip,
          publish: () => Promise.resolve(),
          abandon: () => Promise.resolve(),
        };
      }
      const pending = this.#pending.get(index) ?? await this.#begin(index, skip, length);
      pending.users++;
      return {
        length,
        file: this.file,
        offset: pending.position + bitmapSize + skip,
        publish: () => this.#lock.run(() => this.#end(index, pending, true)),
        abandon: () => this.#lock.run(() => this.#end(index, pending, false)),
      };
    });
  }

  /** Takes room for a block and clears it, as far as it will not be filled. */
  async #begin(index: number, skip: number, length: number): Promise<PendingBlock> {
    const { header: { blockSize, bitmapSize }, table } = this.#image;
    const pending = { position: table.take(), users: 0 };
    const start = pending.position + bitmapSize;
    try {
      await this.#clear(start, skip);
      await this.#clear(start + skip + length, blockSize - skip - length);
    } catch (error) {
      table.giveBack(pending.position);
      throw error;
    }
    this.#pending.set(index, pending);
    return pending;
  }

  /** Ends one use of a new block; the first that is published makes it a part of the disk. */
  async #end(index: number, pending: PendingBlock, isFilled: boolean): Promise<void> {
    const { table } = this.#image;
    pending.users--;
    try {
      if (isFilled && table.position(index) === undefined) {
        await this.#writeBitmap(index, pending.position);
        table.set(index, pending.position);
      }
    } finally {
      if (pending.users === 0) {
        this.#pending.delete(index);
        if (table.position(index) === undefined) table.giveBack(pending.position);
      }
    }
  }

  /** Behind the end of the file there are zeros. Before it lies what a crash left, or what others gave up. */
  async #clear(position: number, length: number): Promise<void> {
    const end = Math.min(position + length, this.file.length);
    if (end > position) await this.file.writeZeroes(position, end - position, { unmap: true });
  }

  /** Lets all sectors of a block count that is there already. */
  async #fillBitmap(index: number, position: number): Promise<void> {
    if ((this.#bitmapBits[index >> 3]! & 1 << (index & 7)) !== 0) return;
    const { header: { bitmapSize }, table } = this.#image;
    table.requireApart(position);
    const bitmap = new Uint8Array(bitmapSize);
    await readPadded(this.file, position, bitmap);
    if (bitmap.every((byte) => byte === 0xff)) this.#markFull(index);
    else await this.#writeBitmap(index, position);
  }

  async #writeBitmap(index: number, position: number): Promise<void> {
    const bitmap = new Uint8Array(this.#image.header.bitmapSize).fill(0xff);
    await this.file.write(position, bitmap);
    this.#markFull(index);
  }

  #markFull(index: number): void {
    this.#bitmapBits[index >> 3]! |= 1 << (index & 7);
  }

  get #bitmapBits(): Uint8Array {
    return this.#full ??= new Uint8Array(Math.ceil(this.#image.header.entries / 8));
  }

  protected override store(): Promise<void> {
    return this.#lock.run(async () => {
      const { table, footer } = this.#image;
      // Blocks that are still to be filled have their room before the footer, too.
      if (table.end !== this.#footerAt) {
        const at = table.end;
        await this.file.write(at, footer.subarray(0, FOOTER_SIZE));
        this.#footerAt = at;
      }
      if (!table.isChanged) return;
      // What entries name has to be safe before they are.
      await this.file.flush();
      await table.store();
    });
  }
}
