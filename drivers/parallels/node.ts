import type {
  BackingLink,
  BitmapStore,
  Checker,
  ImageDetails,
} from "../../lib/block/capabilities.ts";
import { closeAll } from "../../lib/block/close_all.ts";
import type { BlockNode, Extent, NodeChild, NodeLimits, ZeroFlags } from "../../lib/block/node.ts";
import type { Allocation, Allocator } from "../../lib/block/plan.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { refuseResize } from "../../lib/block/refuse_resize.ts";
import { SECTOR } from "./header.ts";
import type { ParallelsImage } from "./image.ts";
import { readAt, runAt } from "./reader.ts";
import { DiskWriter } from "./writer.ts";

/** The node of an open image. */
export class ParallelsNode implements BlockNode {
  readonly driver = "parallels";
  readonly readOnly: boolean;
  readonly length: number;
  /** Clusters are the format's own affair: the reference tells nobody of them. */
  readonly limits: NodeLimits = { requestAlignment: SECTOR, clusterSize: 0, zeroAlignment: 0 };
  readonly children: readonly NodeChild[];
  readonly backing: BackingLink;
  readonly allocator?: Allocator;
  readonly checker: Checker;
  /** Those of the format extension; nobody keeps them up to date, so images that are written have none. */
  readonly bitmaps: BitmapStore;
  readonly #image: ParallelsImage;
  readonly #writer: DiskWriter;
  #closed = false;

  /** A node over an image, with the bitmaps that were found in it. */
  constructor(image: ParallelsImage, bitmaps: BitmapStore = { list: () => [] }) {
    const { file, context, header } = image;
    this.#image = image;
    this.#writer = new DiskWriter(image);
    this.readOnly = !context.mode.writable;
    this.length = header.length;
    this.children = [{ name: "file", node: file }];
    this.backing = new Backing(image);
    if (!this.readOnly) {
      this.allocator = { allocate: (offset, length) => this.#allocate(offset, length) };
    }
    this.checker = {
      check: async (repair, report) => {
        const { checkImage } = await import("./check.ts");
        return await image.lock.run(() => checkImage(image, repair, report));
      },
    };
    this.bitmaps = bitmaps;
  }

  get filename(): string {
    return this.#image.context.filename;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    await readAt(this.#image, offset, into);
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    return this.#change(offset, from.length, () => this.#writer.write(offset, from));
  }

  writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    return this.#change(
      offset,
      length,
      () => this.#writer.writeZeroes(offset, length, flags.noFallback === true),
    );
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#change(offset, length, async () => {
      if (this.#image.context.mode.unmap) await this.#writer.discard(offset, length);
    });
  }

  extent(offset: number, length: number): Promise<Extent> {
    try {
      requireRange(this, offset, length);
    } catch (error) {
      return Promise.reject(error);
    }
    const { length: run, position } = runAt(this.#image, offset, length);
    return Promise.resolve(
      position === undefined ? { length: run, state: "unallocated", compressed: false } : {
        length: run,
        state: "data",
        compressed: false,
        file: this.#image.file,
        offset: position,
      },
    );
  }

  async flush(): Promise<void> {
    if (this.readOnly) return;
    await this.#image.lock.run(() => this.#writer.store());
    await this.#image.file.flush();
  }

  resize(): Promise<void> {
    return refuseResize(this);
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#image.file.allocatedSize();
  }

  /** The reference knows nothing more of this format. */
  details(): Promise<ImageDetails> {
    return Promise.resolve({});
  }

  readsZeroWhenNew(): Promise<boolean> {
    return Promise.resolve(this.#image.backing === null);
  }

  /** Stores everything and closes the image, its backing file and its file. The first failure is thrown. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const { file, backing } = this.#image;
    await closeAll([
      () => this.readOnly ? undefined : this.#image.lock.run(() => this.#finish()),
      () => backing?.[Symbol.asyncDispose](),
      () => file[Symbol.asyncDispose](),
    ]);
  }

  /** Takes the mark away that the image is in use, and what the file has in advance. */
  async #finish(): Promise<void> {
    const { file, header, space } = this.#image;
    await this.#writer.store();
    await file.flush();
    header.inUse = false;
    await this.#image.storeHeader();
    // A format extension lies behind the data. It is still there if nothing was changed.
    if (header.extension !== 0 || file.fixedLength) return;
    const end = space!.dataEnd;
    if ((file.exactLength ?? file.length) !== end) await file.resize(end, "off");
  }

  async #allocate(offset: number, length: number): Promise<Allocation> {
    requireWritable(this);
    requireRange(this, offset, length);
    return await this.#writer.allocate(offset, length);
  }

  async #change(offset: number, length: number, change: () => Promise<void>): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    if (length === 0) return;
    await change();
    if (this.#image.context.mode.cache.writethrough) await this.flush();
  }
}

/** The format stores no backing file; options can give it one. */
class Backing implements BackingLink {
  readonly name = "";
  readonly format = undefined;
  readonly #image: ParallelsImage;

  constructor(image: ParallelsImage) {
    this.#image = image;
  }

  get node(): BlockNode | null {
    return this.#image.backing;
  }

  attach(node: BlockNode | null): void {
    this.#image.backing = node;
  }
}
