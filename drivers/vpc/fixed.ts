/**
 * Fixed images: the disk, and the footer behind it.
 *
 * @module
 */
import type { ImageDetails } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { hostHole } from "../../lib/block/host_hole.ts";
import type { BlockNode, Extent } from "../../lib/block/node.ts";
import type { Allocation } from "../../lib/block/plan.ts";
import { requireRange } from "../../lib/block/range.ts";
import { ReadOnlyNode, requireReadOnly } from "../../lib/block/read_only_node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { FOOTER_SIZE } from "./_layout.ts";
import { WritableNode } from "./writable_node.ts";

/** The node of a fixed image in `file`, of whose disk the footer tells the length in bytes. */
export function fixedNode(file: BlockNode, context: DriverContext, length: number): BlockNode {
  return new FixedNode(file, context, length);
}

/**
 * The node of an image that calls itself fixed and is laid out like a dynamic one. The reference takes the
 * whole file for the disk, headers and all; so it can be read, but whoever wrote to it would destroy it.
 *
 * @throws {ImageError} if it is to be written.
 */
export function headedFixedNode(
  file: BlockNode,
  context: DriverContext,
  length: number,
): BlockNode {
  requireReadOnly(context);
  return new HeadedFixedNode(file, context, length);
}

class FixedNode extends WritableNode {
  /** Where the footer begins. */
  readonly #footerAt: number;

  constructor(file: BlockNode, context: DriverContext, length: number) {
    super(file, context, { length, clusterSize: 0 });
    this.#footerAt = file.length - FOOTER_SIZE;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    await readPadded(this.file, offset, into);
  }

  extent(offset: number, length: number): Promise<Extent> {
    return plainExtent(this, this.file, offset, length);
  }

  override async readsZeroWhenNew(): Promise<boolean> {
    return await this.file.readsZeroWhenNew?.() ?? false;
  }

  protected override allocate(offset: number, length: number): Promise<Allocation> {
    requireRange(this, offset, length);
    // The disk of a damaged image can be longer than its file: the footer is no part of it.
    if (offset + length > this.#footerAt) {
      return Promise.reject(
        ImageError.fromErrno("EIO", { file: this.filename, field: "current size" }),
      );
    }
    return Promise.resolve({
      length,
      file: this.file,
      offset,
      publish: () => Promise.resolve(),
      abandon: () => Promise.resolve(),
    });
  }

  protected override store(): Promise<void> {
    return Promise.resolve();
  }
}

class HeadedFixedNode extends ReadOnlyNode {
  readonly driver = "vpc";
  readonly length: number;

  constructor(file: BlockNode, context: DriverContext, length: number) {
    super(file, context);
    this.length = length;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    await readPadded(this.file, offset, into);
  }

  extent(offset: number, length: number): Promise<Extent> {
    return plainExtent(this, this.file, offset, length);
  }

  details(): Promise<ImageDetails> {
    return Promise.resolve({ dirty: false });
  }
}

async function plainExtent(
  node: BlockNode,
  file: BlockNode,
  offset: number,
  length: number,
): Promise<Extent> {
  requireRange(node, offset, length);
  const below = await hostHole(file, offset, length);
  return { state: "data", compressed: false, file, offset, ...below };
}
