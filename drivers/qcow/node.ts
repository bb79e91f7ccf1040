import type { BackingLink, Emptier, ImageDetails } from "../../lib/block/capabilities.ts";
import { closeAll } from "../../lib/block/close_all.ts";
import type { BlockNode, Extent, NodeChild, NodeLimits, ZeroFlags } from "../../lib/block/node.ts";
import type { Allocation, Allocator, PackTarget } from "../../lib/block/plan.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { refuseResize } from "../../lib/block/refuse_resize.ts";
import { writeZeroData } from "../../lib/block/write_zero_data.ts";
import { SECTOR } from "./header.ts";
import type { QcowImage } from "./image.ts";
import { Writer } from "./writer.ts";

/** The node of an open image. */
export class QcowNode implements BlockNode {
  readonly driver = "qcow";
  readonly readOnly: boolean;
  readonly length: number;
  readonly limits: NodeLimits;
  readonly children: readonly NodeChild[];
  readonly backing: BackingLink;
  readonly emptier?: Emptier;
  readonly allocator?: Allocator;
  readonly packs = true;
  readonly packer?: PackTarget;
  readonly #image: QcowImage;
  readonly #writer: Writer | undefined;
  #closed = false;

  /** A node that closes the image's files with it. */
  constructor(image: QcowImage, backingName: string) {
    const { header: { length, clusterSize, isEncrypted }, context: { mode }, file } = image;
    this.#image = image;
    this.length = length;
    this.readOnly = !mode.writable;
    this.limits = {
      requestAlignment: SECTOR,
      clusterSize,
      zeroAlignment: 0,
      statusSpan: clusterSize,
    };
    this.children = [{ name: "file", node: file }];
    this.backing = {
      name: backingName,
      format: undefined,
      get node() {
        return image.backing;
      },
      attach(node) {
        image.backing = node;
      },
    };
    if (this.readOnly) return;
    const writer = new Writer(image);
    this.#writer = writer;
    this.emptier = { makeEmpty: () => writer.makeEmpty() };
    // What others put into the file would be neither encrypted nor readable.
    if (isEncrypted) return;
    this.allocator = { allocate: (offset, length) => this.#allocate(offset, length) };
    this.packer = {
      codec: "deflate",
      clusterSize,
      writePacked: (offset, packed) =>
        this.#change(
          offset,
          Math.max(Math.min(clusterSize, length - offset), 1),
          (writer) => writer.writePacked(offset, packed),
        ),
      // A file may end with a stream, as the reference leaves it.
      finish: () => Promise.resolve(),
    };
  }

  /** It is known for good only once the node is open. */
  get filename(): string {
    return this.#image.context.filename;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    await this.#image.read(offset, into);
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    return this.#change(offset, from.length, (writer) => writer.write(offset, from));
  }

  /** Nothing in the format says "zero": they are written. */
  writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    return this.#change(
      offset,
      length,
      (writer) =>
        writeZeroData(this, offset, length, flags, (at, zeros) => writer.write(at, zeros)),
    );
  }

  /** Nothing: there is no way to give clusters back. */
  discard(_offset: number, _length: number): Promise<void> {
    return Promise.resolve();
  }

  extent(offset: number, length: number): Promise<Extent> {
    try {
      requireRange(this, offset, length);
    } catch (error) {
      return Promise.reject(error);
    }
    return this.#image.extent(offset, length);
  }

  async flush(): Promise<void> {
    await this.#writer?.flush();
  }

  resize(): Promise<void> {
    return refuseResize(this);
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#image.file.allocatedSize();
  }

  details(): Promise<ImageDetails> {
    const { clusterSize, isEncrypted: encrypted } = this.#image.header;
    return Promise.resolve({ clusterSize, encrypted, dirty: false });
  }

  readsZeroWhenNew(): Promise<boolean> {
    return Promise.resolve(this.#image.backing === null);
  }

  /** Stores everything and closes the image, its backing file and its file. The first failure is thrown. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const { backing, file, encryption } = this.#image;
    await closeAll([
      () => this.flush(),
      () => encryption?.[Symbol.dispose](),
      () => backing?.[Symbol.asyncDispose](),
      () => file[Symbol.asyncDispose](),
    ]);
  }

  async #change(
    offset: number,
    length: number,
    change: (writer: Writer) => Promise<void>,
  ): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, length);
    this.#image.forget();
    await change(this.#writer!);
    if (this.#image.context.mode.cache.writethrough) await this.flush();
  }

  async #allocate(offset: number, length: number): Promise<Allocation> {
    requireWritable(this);
    requireRange(this, offset, length);
    this.#image.forget();
    return await this.#writer!.allocate(offset, length);
  }
}
