/**
 * What the nodes of fixed and dynamic images have in common.
 *
 * @module
 */
import type { ImageDetails } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import type { BlockNode, Extent, NodeChild, NodeLimits, ZeroFlags } from "../../lib/block/node.ts";
import type { Allocation, Allocator } from "../../lib/block/plan.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { refuseResize } from "../../lib/block/refuse_resize.ts";
import { writeAllocated } from "../../lib/block/write_allocated.ts";
import { writeZeroData } from "../../lib/block/write_zero_data.ts";

/** A node whose writes all go through allocations. */
export abstract class WritableNode implements BlockNode {
  readonly driver = "vpc";
  readonly readOnly: boolean;
  readonly length: number;
  readonly limits: NodeLimits;
  readonly children: readonly NodeChild[];
  readonly allocator?: Allocator;
  /** The file that holds the image. */
  protected readonly file: BlockNode;
  readonly #context: DriverContext;
  #closed = false;

  /** A node on `file`, which is closed with it. Lengths in bytes; a `clusterSize` of 0: there are no blocks. */
  constructor(
    file: BlockNode,
    context: DriverContext,
    { length, clusterSize }: { readonly length: number; readonly clusterSize: number },
  ) {
    this.file = file;
    this.#context = context;
    this.readOnly = !context.mode.writable;
    this.length = length;
    this.limits = { requestAlignment: 1, clusterSize, zeroAlignment: 0 };
    this.children = [{ name: "file", node: file }];
    if (!this.readOnly) {
      this.allocator = { allocate: (offset, length) => this.allocate(offset, length) };
    }
  }

  get filename(): string {
    return this.#context.filename;
  }

  abstract read(offset: number, into: Uint8Array): Promise<void>;
  abstract extent(offset: number, length: number): Promise<Extent>;
  abstract readsZeroWhenNew(): Promise<boolean>;

  /** Room in the file for a prefix of a range. */
  protected abstract allocate(offset: number, length: number): Promise<Allocation>;

  /** Brings what is only in memory into the file. */
  protected abstract store(): Promise<void>;

  async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, from.length);
    await writeAllocated((at, length) => this.allocate(at, length), offset, from);
    if (this.#context.mode.cache.writethrough) await this.flush();
  }

  /** Nothing in the format says "zero": they are written. */
  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    await writeZeroData(this, offset, length, flags, (at, zeros) => this.write(at, zeros));
  }

  /** Blocks stay where they are. */
  discard(offset: number, length: number): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    return Promise.resolve();
  }

  async flush(): Promise<void> {
    if (this.readOnly) return;
    await this.store();
    await this.file.flush();
  }

  resize(): Promise<void> {
    return refuseResize(this);
  }

  allocatedSize(): Promise<number | undefined> {
    return this.file.allocatedSize();
  }

  details(): Promise<ImageDetails> {
    const { clusterSize } = this.limits;
    return Promise.resolve({ ...(clusterSize === 0 ? {} : { clusterSize }), dirty: false });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await this.flush();
    } finally {
      await this.file[Symbol.asyncDispose]();
    }
  }
}
