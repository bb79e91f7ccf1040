import { closeAll } from "../../lib/block/close_all.ts";
import type { BackingLink, Checker, ImageDetails } from "../../lib/block/capabilities.ts";
import { during, ImageError } from "../../lib/block/error.ts";
import type {
  BlockNode,
  Extent,
  NodeChild,
  NodeLimits,
  Preallocation,
  ZeroFlags,
} from "../../lib/block/node.ts";
import type { Allocator } from "../../lib/block/plan.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { Backing } from "./backing.ts";
import { isImageSize, SECTOR } from "./header.ts";
import type { QedImage } from "./image.ts";
import { findRun, readAt } from "./mapping.ts";
import { Writer } from "./write.ts";

/** The node of an open image. */
export class QedNode implements BlockNode {
  readonly driver = "qed";
  readonly readOnly: boolean;
  readonly limits: NodeLimits;
  readonly children: readonly NodeChild[];
  readonly backing: BackingLink;
  readonly checker: Checker;
  readonly allocator?: Allocator;
  readonly #image: QedImage;
  readonly #writer: Writer;
  #closed = false;

  /** A node over an image that names a backing file (`""`: none). */
  constructor(image: QedImage, backingName: string) {
    const { file, context, header: { clusterSize } } = image;
    this.#image = image;
    this.#writer = new Writer(image);
    this.readOnly = !context.mode.writable;
    this.limits = {
      requestAlignment: SECTOR,
      clusterSize,
      zeroAlignment: clusterSize,
      statusSpan: image.l2Span,
    };
    this.children = [{ name: "file", node: file }];
    this.backing = new Backing(image, backingName);
    this.checker = {
      check: async (repair) => {
        const { checkImage } = await import("./check.ts");
        return await checkImage(image, repair);
      },
    };
    if (!this.readOnly) {
      this.allocator = {
        allocate: async (offset, length) => {
          requireRange(this, offset, length);
          return await this.#writer.allocate(offset, length);
        },
      };
    }
  }

  /** Known for good only once the image is open. */
  get filename(): string {
    return this.#image.context.filename;
  }

  get length(): number {
    return this.#image.header.imageSize;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    await readAt(this.#image, offset, into);
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, from.length);
    await this.#writer.write(offset, from);
    await this.#writtenThrough();
  }

  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    await this.#writer.writeZeroes(offset, length, flags);
    await this.#writtenThrough();
  }

  /** Clusters stay where they are: there is no way to give them back. */
  discard(offset: number, length: number): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    return Promise.resolve();
  }

  async extent(offset: number, length: number): Promise<Extent> {
    requireRange(this, offset, length);
    const { state, host, length: run } = await findRun(this.#image, offset, length);
    const extent = { length: run, state, compressed: false };
    return state === "data" ? { ...extent, file: this.#image.file, offset: host } : extent;
  }

  async flush(): Promise<void> {
    if (!this.readOnly) await this.#writer.flush();
  }

  async resize(length: number, how: Preallocation): Promise<void> {
    const image = this.#image;
    const { header, backing, context } = image;
    const refuse = (message: string, errno: "EINVAL" | "ENOTSUP") =>
      new ImageError(message, { errno, file: context.filename, field: "size" });
    requireWritable(this);
    // What the backing file has there would come to light.
    if (length > header.imageSize && backing !== null && backing.length > header.imageSize) {
      throw refuse("Block driver does not support requested flags", "ENOTSUP");
    }
    if (how !== "off") throw refuse(`Unsupported preallocation mode '${how}'`, "ENOTSUP");
    if (!isImageSize(BigInt(length), header.clusterSize, header.tableClusters)) {
      throw refuse("Invalid image size specified", "EINVAL");
    }
    if (length < header.imageSize) {
      throw refuse("Shrinking images is currently not supported", "ENOTSUP");
    }
    await during("Failed to update the image size", () =>
      image.lock.run(async () => {
        const before = header.imageSize;
        header.imageSize = length;
        try {
          await image.storeHeader();
          await image.barrier();
        } catch (error) {
          header.imageSize = before;
          throw error;
        }
      }));
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#image.file.allocatedSize();
  }

  /** Those who look at an image are not told that it was not closed, as in the reference. */
  details(): Promise<ImageDetails> {
    return Promise.resolve({ clusterSize: this.limits.clusterSize, dirty: false });
  }

  readsZeroWhenNew(): Promise<boolean> {
    return Promise.resolve(this.#image.backing === null);
  }

  /** Stores everything and closes the image, its backing file and its file. The first failure is thrown. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const { file, backing, lock } = this.#image;
    await closeAll([
      async () => {
        if (this.readOnly) return;
        await this.flush();
        await lock.run(() => this.#image.markChecked());
      },
      () => backing?.[Symbol.asyncDispose](),
      () => file[Symbol.asyncDispose](),
    ]);
  }

  async #writtenThrough(): Promise<void> {
    if (this.#image.context.mode.cache.writethrough) await this.flush();
  }
}
