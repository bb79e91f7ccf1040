/**
 * The node of an open image.
 *
 * @module
 */
import type { BackingLink, Checker, ImageDetails } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import type { BlockNode, Extent, NodeChild, NodeLimits, ZeroFlags } from "../../lib/block/node.ts";
import type { Allocator } from "../../lib/block/plan.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { refuseResize } from "../../lib/block/refuse_resize.ts";
import { writeAllocated } from "../../lib/block/write_allocated.ts";
import { writeZeroData } from "../../lib/block/write_zero_data.ts";
import { BlockState } from "./_layout.ts";
import { BlockWriter } from "./block_writer.ts";
import { checkImage } from "./check.ts";
import { openVhdx, type VhdxImage } from "./image.ts";
import { Parent } from "./parent.ts";
import { extentAt, runAt } from "./read.ts";

/** Opens an image. On failure `file` is left to the caller. */
export async function openNode(file: BlockNode, context: DriverContext): Promise<BlockNode> {
  return new VhdxNode(await openVhdx(file, context));
}

class VhdxNode implements BlockNode {
  readonly driver = "vhdx";
  readonly readOnly: boolean;
  readonly length: number;
  readonly limits: NodeLimits;
  readonly children: readonly NodeChild[];
  readonly backing?: BackingLink;
  readonly checker: Checker;
  readonly allocator?: Allocator;
  readonly #image: VhdxImage;
  readonly #writer: BlockWriter | undefined;
  #closed = false;

  constructor(image: VhdxImage) {
    const { file, context, metadata } = image;
    this.#image = image;
    this.readOnly = !context.mode.writable;
    this.length = metadata.length;
    this.limits = {
      requestAlignment: 512,
      clusterSize: metadata.blockSize,
      zeroAlignment: 0,
    };
    this.children = [{ name: "file", node: file }];
    this.checker = { check: (_repair, report) => checkImage(image, report) };
    if (metadata.parent !== undefined) this.backing = new Parent(image, dataGuidOf);
    if (this.readOnly) return;
    this.#writer = new BlockWriter(image);
    this.allocator = {
      allocate: async (offset, length) => {
        requireRange(this, offset, length);
        return await this.#writer!.allocate(offset, length);
      },
    };
  }

  /** Known for good only once the image is open. */
  get filename(): string {
    return this.#image.context.filename;
  }

  /** Which data an image has, if it is of this format. */
  static dataGuid(node: BlockNode): Uint8Array | undefined {
    return node instanceof VhdxNode ? node.#image.headers.dataWriteGuid : undefined;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    for (let done = 0; done < into.length;) {
      const { length, place } = await runAt(this.#image, offset + done, into.length - done);
      const part = into.subarray(done, done + length);
      if (place === "zero") part.fill(0);
      else if (place === "parent") await this.#readParent(offset + done, part);
      else await readPadded(this.#image.file, place, part);
      done += length;
    }
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, from.length);
    const writer = this.#writer!;
    await writeAllocated((at, length) => writer.allocate(at, length), offset, from);
    if (this.#image.context.mode.cache.writethrough) await this.flush();
  }

  /** There is a state for zeros, but what it says of a block's space is not undone: they are written. */
  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    await writeZeroData(this, offset, length, flags, (at, zeros) => this.write(at, zeros));
  }

  /** Blocks stay where they are. */
  async discard(offset: number, length: number): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    await Promise.resolve();
  }

  /** All that the reference says is that there are data; but of parents it knows nothing. */
  async extent(offset: number, length: number): Promise<Extent> {
    requireRange(this, offset, length);
    if (this.backing !== undefined) return await extentAt(this.#image, offset, length);
    return { length, state: "data", compressed: false };
  }

  async locate(offset: number, length: number): Promise<Extent> {
    requireRange(this, offset, length);
    try {
      return await extentAt(this.#image, offset, length);
    } catch {
      // Reading says what is wrong.
      const { clusterSize } = this.limits;
      const rest = clusterSize - offset % clusterSize;
      return { length: Math.min(length, rest), state: "data", compressed: false };
    }
  }

  async flush(): Promise<void> {
    if (!this.readOnly) await this.#image.file.flush();
  }

  resize(): Promise<void> {
    return refuseResize(this);
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#image.file.allocatedSize();
  }

  details(): Promise<ImageDetails> {
    return Promise.resolve({ clusterSize: this.limits.clusterSize, dirty: false });
  }

  async readsZeroWhenNew(): Promise<boolean> {
    const { table, file, blocks } = this.#image;
    // The first block shows whether the image was made with all of them.
    if (blocks === 0 || (await table.entry(0)).state !== BlockState.fullyPresent) return true;
    return await file.readsZeroWhenNew?.() ?? false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await this.flush();
    } finally {
      try {
        await this.backing?.node?.[Symbol.asyncDispose]();
      } finally {
        await this.#image.file[Symbol.asyncDispose]();
      }
    }
  }

  async #readParent(offset: number, into: Uint8Array): Promise<void> {
    const parent = this.backing?.node ?? null;
    const available = parent === null
      ? 0
      : Math.min(Math.max(parent.length - offset, 0), into.length);
    if (available > 0) await parent!.read(offset, into.subarray(0, available));
    into.fill(0, available);
  }
}

function dataGuidOf(node: BlockNode): Uint8Array | undefined {
  return VhdxNode.dataGuid(node);
}
