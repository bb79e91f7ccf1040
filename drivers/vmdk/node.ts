import { allocatedSum } from "../../lib/block/allocated_sum.ts";
import { closeAll } from "../../lib/block/close_all.ts";
import type { BackingLink, Checker, ImageDetails } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type {
  BlockNode,
  Extent,
  NodeChild,
  NodeLimits,
  Preallocation,
  ZeroFlags,
} from "../../lib/block/node.ts";
import type { Allocation, Allocator, PackTarget } from "../../lib/block/plan.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { refuseResize } from "../../lib/block/refuse_resize.ts";
import { Backing } from "./backing.ts";
import { checkImage } from "./check.ts";
import { imageDetails } from "./details.ts";
import type { GrainExtent } from "./extent.ts";
import { VmdkImage } from "./image.ts";
import { openExtents } from "./open.ts";
import { PackedReader } from "./packed.ts";
import { extentAt, readAt } from "./read.ts";
import { DiskWriter } from "./write.ts";

/**
 * Opens the image in `file` with all its extents.
 *
 * @throws {ImageError} naming file and field, with the reference's text.
 */
export async function openNode(file: BlockNode, context: DriverContext): Promise<BlockNode> {
  return new VmdkNode(new VmdkImage(await openExtents(file, context)));
}

/** The node of an open image. */
class VmdkNode implements BlockNode {
  readonly driver = "vmdk";
  readonly readOnly: boolean;
  readonly length: number;
  readonly limits: NodeLimits;
  readonly children: readonly NodeChild[];
  readonly backing: BackingLink;
  readonly checker: Checker;
  readonly allocator?: Allocator;
  readonly packs = true;
  readonly packer?: PackTarget;
  readonly packsPlainly?: boolean;
  readonly #image: VmdkImage;
  readonly #backing: Backing;
  readonly #packed = new PackedReader();
  readonly #writer: DiskWriter | undefined;
  #closed = false;

  constructor(image: VmdkImage) {
    const { file, context, extents } = image.facts;
    this.#image = image;
    this.readOnly = !context.mode.writable;
    this.length = image.length;
    const grains = extents.filter((extent): extent is GrainExtent => extent.kind === "grains");
    this.limits = {
      requestAlignment: 1,
      clusterSize: extents[0]!.kind === "grains" ? extents[0]!.grainSize : 0,
      zeroAlignment: grains.reduce((most, { grainSize }) => Math.max(most, grainSize), 0),
    };
    this.children = [
      ...extents.map((extent, index) => ({
        name: `extents.${index}`,
        node: extent.file,
        stored: true,
      }))
        .filter(({ node }) => node !== file).reverse(),
      { name: "file", node: file },
    ];
    this.#backing = new Backing(image);
    this.backing = this.#backing;
    this.checker = {
      check(repair, report) {
        if (repair !== "none") return Promise.reject(ImageError.fromErrno("ENOTSUP"));
        return checkImage(image, report);
      },
    };
    if (this.readOnly) return;
    const writer = new DiskWriter(image);
    this.#writer = writer;
    const { stream } = writer;
    if (stream === undefined) {
      this.packsPlainly = true;
      this.allocator = { allocate: (offset, length) => this.#allocate(offset, length) };
    } else {
      this.packer = {
        codec: "zlib",
        clusterSize: this.limits.clusterSize,
        always: true,
        writePacked: (offset, packed) =>
          this.#change(offset, this.#grainLength(offset), () => stream.writePacked(offset, packed)),
        writeUnpacked: (offset, bytes) =>
          this.#change(offset, bytes.length, () => stream.writeUnpacked(offset, bytes)),
        finish: () => stream.finish(),
      };
    }
  }

  /** Known for good only when everything is open. */
  get filename(): string {
    return this.#image.facts.context.filename;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    await readAt(this.#image, this.#packed, offset, into);
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    return this.#change(offset, from.length, (writer) => writer.write(offset, from));
  }

  writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    return this.#change(offset, length, (writer) => writer.writeZeroes(offset, length, flags));
  }

  /** Nothing: there is no way to give grains back. */
  discard(_offset: number, _length: number): Promise<void> {
    return Promise.resolve();
  }

  extent(offset: number, length: number): Promise<Extent> {
    try {
      requireRange(this, offset, length);
    } catch (error) {
      return Promise.reject(error);
    }
    const extent = extentAt(this.#image, offset, length);
    return this.#backing.mayBeWrong ? this.#showing(extent) : extent;
  }

  async flush(): Promise<void> {
    await this.#writer?.flush();
  }

  resize(_length: number, _how: Preallocation): Promise<void> {
    return refuseResize(this);
  }

  allocatedSize(): Promise<number | undefined> {
    return allocatedSum(this);
  }

  details(): Promise<ImageDetails> {
    return Promise.resolve(imageDetails(this.#image));
  }

  async readsZeroWhenNew(): Promise<boolean> {
    for (const { kind, file } of this.#image.facts.extents) {
      if (kind === "flat" && !(await file.readsZeroWhenNew?.() ?? false)) return false;
    }
    return this.#image.backing === null;
  }

  /** Stores everything and closes the image, its parent and its files. The first failure is thrown. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await closeAll([
      () => this.flush(),
      () => this.#backing.close(),
      ...this.children.map(({ node }) => () => node[Symbol.asyncDispose]()),
    ]);
  }

  #grainLength(offset: number): number {
    return Math.min(this.limits.clusterSize, this.length - offset);
  }

  async #change(
    offset: number,
    length: number,
    change: (writer: DiskWriter) => Promise<void>,
  ): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    this.#packed.forget();
    await change(this.#writer!);
    if (this.#image.facts.context.mode.cache.writethrough) await this.#writer!.flushThrough();
  }

  async #allocate(offset: number, length: number): Promise<Allocation> {
    requireWritable(this);
    requireRange(this, offset, length);
    return await this.#writer!.allocate(offset, length);
  }

  /** Before anybody looks behind this image it is known whether that is the right parent. */
  async #showing(extent: Promise<Extent>): Promise<Extent> {
    const found = await extent;
    if (found.state === "unallocated") await this.#backing.check();
    return found;
  }
}
