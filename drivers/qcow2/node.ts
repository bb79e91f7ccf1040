import { allocatedSum } from "../../lib/block/allocated_sum.ts";
import { closeAll } from "../../lib/block/close_all.ts";
import type {
  Amender,
  BackingLink,
  BitmapStore,
  Checker,
  Emptier,
  ImageDetails,
  SnapshotStore,
} from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import type {
  BlockNode,
  Extent,
  NodeChild,
  NodeLimits,
  Preallocation,
  ZeroFlags,
} from "../../lib/block/node.ts";
import type { Allocator, PackTarget } from "../../lib/block/plan.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { finishPacked, writePackedAt } from "./compressed.ts";
import { extentAt } from "./extents.ts";
import type { Qcow2Image } from "./image.ts";
import { flushImage, markClean, writeTables } from "./lazy.ts";
import { abandonAll } from "./link.ts";
import { readAt } from "./mapping.ts";
import { allocateGuest, writeAt } from "./write.ts";
import { discardAt, writeZeroesAt } from "./zero.ts";

/** What the node gets from other rooms of this driver. */
export interface Qcow2Parts {
  /** What `info` shows. */
  details(): Promise<ImageDetails>;
  /** Sets the virtual size. */
  resize(length: number, how: Preallocation): Promise<void>;
  /** Rewrites backing file name and format in the header. */
  changeBacking(name: string, format: string | undefined): Promise<void>;
  /** Stores what is kept in memory until the end (bitmaps), before tables are flushed for the last time. */
  beforeClose?(): Promise<void>;
  /** Forgets all guest data. */
  makeEmpty(): Promise<void>;
  /** Checks. */
  readonly checker?: Checker;
  /** Changes of options. */
  readonly amender?: Amender;
  /** Internal snapshots. */
  readonly snapshots?: SnapshotStore;
  /** Bitmaps, or why the image can have none. */
  readonly bitmaps: BitmapStore | string;
}

/** The node of an open image. */
export class Qcow2Node implements BlockNode {
  readonly driver = "qcow2";
  readonly readOnly: boolean;
  readonly limits: NodeLimits;
  readonly backing: BackingLink;
  readonly allocator?: Allocator;
  readonly packs = true;
  readonly packer?: PackTarget;
  readonly emptier?: Emptier;
  readonly checker?: Checker;
  readonly amender?: Amender;
  readonly snapshots?: SnapshotStore;
  readonly bitmaps?: BitmapStore;
  readonly withoutBitmaps?: string;
  readonly #image: Qcow2Image;
  readonly #parts: Qcow2Parts;
  #closed = false;

  /** A node over an image, with its capabilities. */
  constructor(image: Qcow2Image, parts: Qcow2Parts) {
    this.#image = image;
    this.#parts = parts;
    this.readOnly = !image.context.mode.writable;
    const { clusterSize, subclusterSize } = image.geometry;
    this.limits = {
      requestAlignment: 1,
      clusterSize,
      zeroAlignment: subclusterSize,
      statusSpan: statusSpan(image),
    };
    this.backing = new Backing(image, parts);
    if (!this.readOnly) this.emptier = { makeEmpty: () => parts.makeEmpty() };
    // What others put into the file would be neither encrypted nor readable.
    if (!this.readOnly && image.encryption === undefined) {
      // What is done to a file that fails on purpose is done here, step by step.
      if (image.file.debugEvent === undefined) {
        this.allocator = { allocate: (offset, length) => this.#allocate(offset, length) };
      }
      this.packer = {
        codec: image.packed.codec,
        clusterSize,
        writePacked: (offset, packed) => this.#writePacked(offset, packed),
        finish: () => finishPacked(image),
      };
    }
    if (parts.checker !== undefined) this.checker = parts.checker;
    if (parts.amender !== undefined) this.amender = parts.amender;
    if (parts.snapshots !== undefined) this.snapshots = parts.snapshots;
    if (typeof parts.bitmaps === "string") this.withoutBitmaps = parts.bitmaps;
    else this.bitmaps = parts.bitmaps;
  }

  get filename(): string {
    return this.#image.context.filename;
  }

  get length(): number {
    return this.#image.header.size;
  }

  get children(): readonly NodeChild[] {
    const { file, dataFile } = this.#image;
    const children: NodeChild[] = [{ name: "file", node: file }];
    if (dataFile !== file) children.unshift({ name: "data-file", node: dataFile });
    return children;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.#check(offset, into.length, "read");
    await readAt(this.#image, offset, into);
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#check(offset, from.length, "write");
    this.#image.guestWrite?.(offset, from.length);
    await writeAt(this.#image, offset, from);
    await this.#writtenThrough();
  }

  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    this.#check(offset, length, "write");
    this.#image.guestWrite?.(offset, length);
    await writeZeroesAt(this.#image, offset, length, flags);
    await this.#writtenThrough();
  }

  async discard(offset: number, length: number): Promise<void> {
    this.#check(offset, length, "write");
    if (!this.#image.context.mode.unmap) return;
    this.#image.guestWrite?.(offset, length);
    try {
      await discardAt(this.#image, offset, length, "guest");
    } catch (error) {
      // Advice that this image cannot take.
      if (ImageError.from(error).errno !== "ENOTSUP") throw error;
    }
    await this.#writtenThrough();
  }

  extent(offset: number, length: number): Promise<Extent> {
    try {
      this.#check(offset, length, "read");
    } catch (error) {
      return Promise.reject(error);
    }
    return extentAt(this.#image, offset, length);
  }

  async flush(): Promise<void> {
    await flushImage(this.#image);
  }

  resize(length: number, how: Preallocation): Promise<void> {
    return this.#parts.resize(length, how);
  }

  allocatedSize(): Promise<number | undefined> {
    return allocatedSum(this);
  }

  details(): Promise<ImageDetails> {
    return this.#parts.details();
  }

  readsZeroWhenNew(): Promise<boolean> {
    const { l1, backing, dataFile, encryption } = this.#image;
    if (backing !== null) return Promise.resolve(false);
    // Preallocated clusters show what their file has there.
    if (l1.length === 0 || l1.offset(0) === 0) return Promise.resolve(true);
    if (encryption !== undefined) return Promise.resolve(false);
    return dataFile.readsZeroWhenNew?.() ?? Promise.resolve(false);
  }

  /** Stores everything and closes the image, its backing files and its files. The first failure is thrown. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const { file, dataFile, backing, encryption } = this.#image;
    // Everything is closed, whatever fails on the way; the first failure is told.
    await closeAll([
      () => this.#finish(),
      () => encryption?.[Symbol.dispose](),
      () => backing?.[Symbol.asyncDispose](),
      () => dataFile === file ? undefined : dataFile[Symbol.asyncDispose](),
      () => file[Symbol.asyncDispose](),
    ]);
  }

  /** Brings everything into the files and clears the dirty bit. */
  async #finish(): Promise<void> {
    const image = this.#image;
    if (this.readOnly || image.broken) return;
    await abandonAll(image);
    try {
      await this.#parts.beforeClose?.();
    } finally {
      // What the guest wrote counts, whether or not there is room for bitmaps.
      await image.lock.run(() => writeTables(image));
      await image.barrier();
      if (image.hasDataFile) await image.barrier(image.dataFile);
      await image.lock.run(() => markClean(image));
    }
  }

  async #allocate(
    offset: number,
    length: number,
  ): ReturnType<Allocator["allocate"]> {
    this.#check(offset, length, "write");
    const allocation = await allocateGuest(this.#image, offset, length, true);
    this.#image.guestWrite?.(offset, allocation.length);
    return allocation;
  }

  async #writePacked(offset: number, packed: Uint8Array): Promise<void> {
    const image = this.#image;
    this.#check(offset, Math.min(image.geometry.clusterSize, this.length - offset), "write");
    image.guestWrite?.(offset, Math.min(image.geometry.clusterSize, this.length - offset));
    await writePackedAt(image, offset, packed);
    await this.#writtenThrough();
  }

  async #writtenThrough(): Promise<void> {
    if (this.#image.context.mode.cache.writethrough) await flushImage(this.#image);
  }

  #check(offset: number, length: number, request: "read" | "write"): void {
    this.#image.assertUsable();
    if (request === "write") requireWritable(this);
    requireRange(this, offset, length);
  }
}

/** Bytes of the reference's cache of L2 tables, and of what it keeps in it where not all tables fit. */
const L2_CACHE = 32 << 20;
const L2_SLICE = 4 << 10;

/** What an L2 table covers, or the piece of one that the reference has in its cache. */
function statusSpan({ header, geometry: { clusterSize, entrySize } }: Qcow2Image): number {
  const tables = alignUp(Math.ceil(header.size / clusterSize) * entrySize, clusterSize);
  const piece = tables <= L2_CACHE ? clusterSize : Math.min(clusterSize, L2_SLICE);
  return piece / entrySize * clusterSize;
}

/** The backing file of an image. */
class Backing implements BackingLink {
  readonly #image: Qcow2Image;
  readonly #parts: Qcow2Parts;

  constructor(image: Qcow2Image, parts: Qcow2Parts) {
    this.#image = image;
    this.#parts = parts;
  }

  get name(): string {
    return this.#image.header.backingFile;
  }

  get format(): string | undefined {
    return this.#image.header.backingFormat;
  }

  get node(): BlockNode | null {
    return this.#image.backing;
  }

  attach(node: BlockNode | null): void {
    this.#image.backing = node;
  }

  change(name: string, format: string | undefined): Promise<void> {
    return this.#parts.changeBacking(name, format);
  }
}
