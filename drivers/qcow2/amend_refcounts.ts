/**
 * Another width of refcounts: a new refcount structure beside the old one
 * (section 17 of the format's reference).
 *
 * The old structure counts the new one before anything of that is written, and
 * the header turns from the one to the other with its first sector. What a
 * crash leaves over is leaked, be it the new structure or the old one.
 *
 * @module
 */
import { during, ImageError } from "../../lib/block/error.ts";
import { viewOf } from "../../lib/bytes/endian.ts";
import { MAX_REFCOUNT_TABLE_BYTES } from "./_layout.ts";
import type { Step } from "./amend_progress.ts";
import { hex } from "./corruption.ts";
import { encodeHeader, writeHeader } from "./header_writer.ts";
import type { Qcow2Image } from "./image.ts";
import { type RefcountFormat, refcountFormat } from "./refcount_format.ts";
import { RefcountTable } from "./table.ts";

/**
 * Stores the refcounts with `2 ** order` bits each. Takes the image's lock.
 *
 * @throws {ImageError} `Cannot decrease refcount entry width …` if one is too large. When the header
 * could not be written, the image is of no use any more until it is opened again.
 */
export async function changeRefcountWidth(
  image: Qcow2Image,
  order: number,
  onStep: Step,
): Promise<void> {
  await image.lock.run(() => new WidthChange(image, order, onStep).all());
}

/** A change in progress. */
class WidthChange {
  readonly #image: Qcow2Image;
  readonly #order: number;
  readonly #format: RefcountFormat;
  readonly #onStep: Step;
  /** Offsets of the new blocks by index, 0 for none. */
  #blocks: number[] = [];
  /** Where the new table lies and what it takes, bytes. */
  #table = { offset: 0, length: 0 };

  constructor(image: Qcow2Image, order: number, onStep: Step) {
    this.#image = image;
    this.#order = order;
    this.#format = refcountFormat(order, image.geometry.clusterSize);
    this.#onStep = onStep;
  }

  async all(): Promise<void> {
    const { refcounts, geometry: { clusterSize } } = this.#image;
    this.#assertNoSharedBlocks();
    try {
      const walks = await this.#allocate();
      await refcounts.flush();
      await this.#write(walks);
    } catch (error) {
      if (!this.#image.broken) {
        for (const offset of this.#blocks) {
          if (offset !== 0) await refcounts.free(offset, clusterSize, "other");
        }
        await refcounts.free(this.#table.offset, this.#table.length, "other");
      }
      throw error;
    }
    await this.#switch();
  }

  /** Two entries that lead to one block are damage, and could make a small file a long walk. */
  #assertNoSharedBlocks(): void {
    const { refcounts: { table }, context } = this.#image;
    const seen = new Set<number>();
    for (let index = 0; index < table.length; index++) {
      const offset = table.offset(index);
      if (offset !== 0 && seen.has(offset)) {
        throw new ImageError(
          `Refcount table entry ${index} leads to the same block as another one`,
          { errno: "EIO", file: context.filename, field: "refcount table" },
        );
      }
      seen.add(offset);
    }
  }

  /**
   * Allocates the new structure. That needs refcounts itself, so it is done
   * over and over until nothing is missing. Answers with the number of walks.
   */
  async #allocate(): Promise<number> {
    const { refcounts, geometry: { clusterSize } } = this.#image;
    for (let walk = 0;; walk++) {
      let allocated = false;
      await this.#walk(walk, Math.max(walk + 2, 3), async (index, empty) => {
        if (empty || (this.#blocks[index] ?? 0) !== 0) return;
        this.#growTo(index + 1);
        this.#blocks[index] = await refcounts.allocate(clusterSize);
        allocated = true;
      });
      if (!allocated) return walk + 1;
      await refcounts.free(this.#table.offset, this.#table.length, "never");
      this.#table = { offset: 0, length: 0 };
      const length = this.#blocks.length * 8;
      this.#table = { offset: await refcounts.allocate(length), length };
    }
  }

  #growTo(entries: number): void {
    const perCluster = this.#image.geometry.clusterSize / 8;
    const wanted = Math.ceil(entries / perCluster) * perCluster;
    if (wanted * 8 > MAX_REFCOUNT_TABLE_BYTES) {
      throw new ImageError(
        "This operation would make the refcount table grow beyond the maximum size supported by " +
          "QEMU, aborting",
        { errno: "ENOTSUP", file: this.#image.context.filename, field: "refcount table" },
      );
    }
    while (this.#blocks.length < wanted) this.#blocks.push(0);
  }

  /** Writes the new blocks and their table, and flushes. */
  async #write(walk: number): Promise<void> {
    const image = this.#image;
    const block = new Uint8Array(image.geometry.clusterSize);
    await this.#walk(walk, walk + 1, async (index) => {
      const offset = this.#blocks[index] ?? 0;
      if (offset !== 0) {
        await during("Overlap check failed", () => image.overlap.check(offset, block.length));
        await image.file.write(offset, block);
      }
      block.fill(0);
    }, block);
    const { offset } = this.#table;
    const table = this.#newTable();
    await during("Overlap check failed", () => image.overlap.check(offset, table.bytes.length));
    await image.file.write(offset, table.bytes);
    await image.barrier();
  }

  #newTable(): RefcountTable {
    const table = new RefcountTable(new Uint8Array(this.#table.length));
    for (const [index, offset] of this.#blocks.entries()) table.setOffset(index, offset);
    return table;
  }

  /**
   * Goes through all refcounts of the old structure, as it is at that moment,
   * and calls `done` for every new block's worth of them: with its index and
   * whether all are 0. They are stored in `into`, if that is given.
   */
  async #walk(
    walk: number,
    walks: number,
    done: (index: number, empty: boolean) => Promise<void>,
    into?: Uint8Array,
  ): Promise<void> {
    const { refcounts } = this.#image;
    const { perBlock } = refcounts.format;
    const room = this.#format.perBlock;
    let index = 0;
    let filled = 0;
    let empty = true;
    /** Of most of a large table there is nothing to allocate and nothing to write. */
    const concerns = () => !empty || into !== undefined && (this.#blocks[index] ?? 0) !== 0;
    // An allocation may make the table longer, and blocks where there were none.
    for (let i = 0; i < refcounts.blocks; i++) {
      const present = refcounts.table.offset(i) !== 0;
      this.#onStep(walk * refcounts.blocks + i, walks * refcounts.blocks);
      for (let at = 0; at < perBlock;) {
        if (filled === room) {
          if (concerns()) await done(index, empty);
          index++;
          filled = 0;
          empty = true;
        }
        const count = Math.min(room - filled, perBlock - at);
        if (present) {
          const block = await refcounts.block(i);
          if (block !== undefined && this.#take(block, { i, at, count }, into, filled)) {
            empty = false;
          }
        }
        at += count;
        filled += count;
      }
    }
    if (filled > 0 && concerns()) await done(index, empty);
    this.#onStep((walk + 1) * refcounts.blocks, walks * refcounts.blocks);
  }

  /** Takes `count` refcounts from entry `at` of block `i` on; whether any is not 0. */
  #take(
    block: Uint8Array,
    { i, at, count }: { i: number; at: number; count: number },
    into: Uint8Array | undefined,
    filled: number,
  ): boolean {
    const old = this.#image.refcounts.format;
    const narrows = this.#format.bits < old.bits;
    const end = at + count;
    const first = old.firstUsed(block, at, end);
    if (!narrows && into === undefined) return first < end;
    for (let entry = first; entry < end; entry = old.firstUsed(block, entry + 1, end)) {
      const refcount = old.get(block, entry);
      if (narrows && refcount > this.#format.maximum) throw this.#tooLarge(block, i, entry);
      if (into !== undefined) this.#format.set(into, filled + entry - at, refcount);
    }
    return first < end;
  }

  #tooLarge(block: Uint8Array, i: number, entry: number): ImageError {
    const { refcounts: { format }, geometry: { clusterSize }, context } = this.#image;
    const exact = format.bits === 64
      ? viewOf(block).getBigUint64(entry * 8)
      : format.get(block, entry);
    return new ImageError(
      `Cannot decrease refcount entry width to ${this.#format.bits} bits: Cluster at offset ` +
        `${hex((i * format.perBlock + entry) * clusterSize)} has a refcount of ${exact}`,
      { errno: "EINVAL", file: context.filename, field: "refcount_bits" },
    );
  }

  /** Lets the header name the new structure, then frees the old one. */
  async #switch(): Promise<void> {
    const image = this.#image;
    const { header, refcounts, geometry: { clusterSize } } = image;
    const { table: old } = refcounts;
    const place = { offset: header.refcountTableOffset, length: old.length * 8 };
    header.refcountTableOffset = this.#table.offset;
    header.refcountTableClusters = this.#table.length / clusterSize;
    header.refcountOrder = this.#order;
    try {
      encodeHeader(header);
      await writeHeader(image);
      await image.barrier();
    } catch (error) {
      // Which structure counts is not known any more, so nothing may be counted.
      image.broken = true;
      throw ImageError.from(error).prefixed("Failed to update the image header: ");
    }
    refcounts.adopt(this.#newTable());
    for (let index = 0; index < old.length; index++) {
      const offset = old.offset(index);
      if (offset !== 0) await refcounts.free(offset, clusterSize, "other");
    }
    await refcounts.free(place.offset, place.length, "other");
  }
}
