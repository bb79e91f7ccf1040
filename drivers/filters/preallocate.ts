/**
 * The filter that lets a file grow in few large steps: whoever writes behind its end gets more space than
 * it needs, and what is left of that is given back in the end.
 *
 * @module
 */
import type { DriverContext, FormatDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { FilterNode } from "../../lib/block/filter_node.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { BlockNode, Extent, Preallocation, ZeroFlags } from "../../lib/block/node.ts";
import { requireWritable } from "../../lib/block/range.ts";
import { alignUp, isAligned } from "../../lib/bytes/align.ts";

const SECTOR = 512;
const DEFAULT_ALIGN = 1 << 20;
const DEFAULT_SIZE = 128 << 20;

/** The driver. */
export const preallocate: FormatDriver = {
  name: "preallocate",
  transparent: true,
  openOptions: [
    { name: "prealloc-align", type: "size", help: "Where space that is reserved ends" },
    { name: "prealloc-size", type: "size", help: "How much is reserved behind what is written" },
  ],
  open(file, options, context) {
    const align = options.number("prealloc-align") ?? DEFAULT_ALIGN;
    const size = options.number("prealloc-size") ?? DEFAULT_SIZE;
    const { requestAlignment } = file.limits;
    const complaint = !isAligned(align, SECTOR)
      ? `is not aligned to ${SECTOR}`
      : !isAligned(align, requestAlignment)
      ? `is not aligned to underlying node request alignment (${requestAlignment})`
      : undefined;
    if (complaint !== undefined) {
      return Promise.reject(
        new ImageError(`prealloc-align parameter of preallocate filter ${complaint}`, {
          errno: "EINVAL",
          file: context.filename,
          field: "prealloc-align",
        }),
      );
    }
    return Promise.resolve(new PreallocateNode(file, context, { align: align || 1, size }));
  },
};

interface Reserve {
  /** Where space that is reserved ends, bytes. */
  readonly align: number;
  /** How much is reserved behind what is written, bytes. */
  readonly size: number;
}

class PreallocateNode extends FilterNode {
  readonly driver = "preallocate";
  readonly #reserve: Reserve;
  /** Where the data end; `undefined` as long as nothing was reserved. */
  #dataEnd: number | undefined;
  /** The length of the file with what is reserved. */
  #fileEnd = 0;
  readonly #lock = new Mutex();
  /** The file below cannot reserve space. */
  #isHopeless = false;

  constructor(file: BlockNode, context: DriverContext, reserve: Reserve) {
    super(file, context);
    this.#reserve = reserve;
  }

  override get length(): number {
    return this.#dataEnd === undefined ? super.length : alignUp(this.#dataEnd, SECTOR);
  }

  /** The length in bytes where the file has one. */
  get exactLength(): number {
    return this.#dataEnd ?? this.filtered.exactLength ?? this.filtered.length;
  }

  override async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    await this.#reserveFor(offset + from.length);
    await super.write(offset, from);
  }

  override async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    requireWritable(this);
    await this.#reserveFor(offset + length);
    await super.writeZeroes(offset, length, flags);
  }

  override async extent(offset: number, length: number): Promise<Extent> {
    // What is reserved is not there yet.
    const end = this.#dataEnd;
    if (end !== undefined && offset >= end) return { length, state: "zero", compressed: false };
    return await super.extent(offset, end === undefined ? length : Math.min(length, end - offset));
  }

  override async resize(length: number, how: Preallocation): Promise<void> {
    requireWritable(this);
    await this.#lock.run(async () => {
      await this.#giveBack();
      await super.resize(length, how);
    });
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#lock.run(() => this.#giveBack());
    } finally {
      await super[Symbol.asyncDispose]();
    }
  }

  /** Makes the file longer than a write that ends at `end` needs it. */
  async #reserveFor(end: number): Promise<void> {
    if (this.#isHopeless || end <= (this.#dataEnd ?? -1)) return;
    await this.#lock.run(async () => {
      if (this.#isHopeless) return;
      const before = this.#dataEnd ?? this.exactLength;
      if (end <= before) return;
      if (this.#dataEnd === undefined) this.#fileEnd = before;
      if (end <= this.#fileEnd) {
        this.#dataEnd = end;
        return;
      }
      const { align, size } = this.#reserve;
      const start = alignUp(this.#fileEnd, align);
      const stop = alignUp(Math.max(start, end) + size, align);
      try {
        await this.filtered.writeZeroes(start, stop - start, { unmap: false, noFallback: true });
      } catch (error) {
        // It is an offer: the write itself tells whether there is space for it.
        await this.#giveBack(error);
        this.#isHopeless = true;
        return;
      }
      this.#fileEnd = stop;
      this.#dataEnd = end;
    });
  }

  /** Cuts off what is reserved. With a `cause` that is all that counts. */
  async #giveBack(cause?: unknown): Promise<void> {
    const end = this.#dataEnd;
    if (end === undefined) return;
    this.#dataEnd = undefined;
    try {
      if (this.#fileEnd > end) await this.filtered.resize(end, "off");
    } catch (error) {
      if (cause === undefined) throw error;
    }
  }
}
