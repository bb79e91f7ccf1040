/**
 * The raw format: the disk lies in its file byte by byte. Raw reference, section 2.
 *
 * @module
 */
import type { BackingLink, ImageDetails, SnapshotStore } from "../lib/block/capabilities.ts";
import type {
  CreateRequest,
  DriverContext,
  FormatDriver,
  MeasureResult,
} from "../lib/block/driver.ts";
import { ImageError } from "../lib/block/error.ts";
import type { NodeAccess } from "../lib/block/mode.ts";
import type {
  BlockNode,
  Extent,
  NodeChild,
  NodeLimits,
  Preallocation,
  ZeroFlags,
} from "../lib/block/node.ts";
import type { OptionSet, OptionSpec } from "../lib/block/options.ts";
import type { Allocation, Allocator } from "../lib/block/plan.ts";
import { requireRange, requireWritable } from "../lib/block/range.ts";
import { alignUp, isAligned } from "../lib/bytes/align.ts";

const SECTOR = 512;

const CREATE_OPTIONS: readonly OptionSpec[] = [
  { name: "size", type: "size", help: "Virtual disk size" },
];

const OPEN_OPTIONS: readonly OptionSpec[] = [
  { name: "offset", type: "size", help: "First byte of the disk in its file", strong: true },
  { name: "size", type: "size", help: "Virtual disk size, a multiple of 512", strong: true },
];

/** The driver. */
export const raw: FormatDriver = {
  name: "raw",
  transparent: true,
  createOptions: CREATE_OPTIONS,
  openOptions: OPEN_OPTIONS,
  open(file, options, context) {
    try {
      return Promise.resolve(openRaw(file, options, context));
    } catch (error) {
      return Promise.reject(error);
    }
  },
  async create(request: CreateRequest) {
    // The file below is the image.
    await using _file = await request.createBase();
  },
  measure(options, source) {
    const size = source?.length ?? Number(roundedSize(options.exact("size") ?? 0n));
    const result: MeasureResult = { required: size, fullyAllocated: size };
    return Promise.resolve(result);
  },
};

/** Whole sectors, of which even the most bytes that there may be are a number without loss. */
function roundedSize(size: bigint): bigint {
  const sector = BigInt(SECTOR);
  return (size + sector - 1n) / sector * sector;
}

function openRaw(file: BlockNode, options: OptionSet, context: DriverContext): RawNode {
  const offset = options.number("offset") ?? 0;
  const size = options.number("size");
  const refuse = (message: string, field: string) =>
    new ImageError(message, { errno: "EINVAL", file: context.filename, field });
  if (offset > file.length) {
    throw refuse(
      `Offset (${
        options.exact("offset")
      }) cannot be greater than size of the containing file (${file.length})`,
      "offset",
    );
  }
  if (size !== undefined && file.length - offset < size) {
    throw refuse(
      `The sum of offset (${offset}) and size (${
        options.exact("size")
      }) has to be smaller or equal to the  ` +
        `actual size of the containing file (${file.length})`,
      "size",
    );
  }
  if (size !== undefined && !isAligned(size, SECTOR)) {
    throw refuse("Specified size is not multiple of 512", "size");
  }
  const window = { offset, size };
  if (context.looksForeign === undefined || file.readOnly) {
    return new RawNode(file, context, window, undefined);
  }
  context.report(
    `WARNING: Image format was not specified for '${file.filename}' and probing guessed raw.`,
  );
  context.report(
    "         Automatically detecting the format is dangerous for raw images, " +
      "write operations on block 0 will be restricted.",
  );
  context.report(
    "         Specify the 'raw' format explicitly to remove the restrictions.",
  );
  return new RawNode(file, context, window, context.looksForeign);
}

/** How long a disk is that ends with its file: whole sectors. */
function lengthBehind(offset: number, file: BlockNode): number {
  return Math.max(alignUp(file.length - offset, SECTOR), 0);
}

/** The part of the file that is the disk. */
interface Window {
  readonly offset: number;
  /** Fixed length; without it the disk ends with the file. */
  readonly size: number | undefined;
}

/** An open raw image. Requests are the file's, moved by the window's offset. */
class RawNode implements BlockNode {
  readonly driver = "raw";
  readonly readOnly: boolean;
  readonly limits: NodeLimits;
  readonly children: readonly NodeChild[];
  readonly allocator?: Allocator;
  readonly lock?: (access: NodeAccess) => Promise<void>;
  readonly snapshots?: SnapshotStore;
  readonly #file: BlockNode;
  readonly #context: DriverContext;
  readonly #window: Window;
  /** Whether discards go on to the file, which does what it is told. */
  readonly #unmap: boolean;
  /** Whether a first sector would be probed as another format; set if probing alone vouches for this one. */
  readonly #looksForeign: ((head: Uint8Array) => boolean) | undefined;
  /** The length of a file that nobody here can change. */
  readonly #fixedLength: number | undefined;

  constructor(
    file: BlockNode,
    context: DriverContext,
    window: Window,
    looksForeign: ((head: Uint8Array) => boolean) | undefined,
  ) {
    // What uses the disk uses the file in the same way.
    if (file.lock !== undefined) this.lock = (access) => file.lock!(access);
    // Those of a disk below are this one's, too; only to read one the disk itself has to be asked.
    if (file.snapshots !== undefined) {
      const { select: _, ...store } = file.snapshots;
      this.snapshots = store;
    }
    this.#context = context;
    this.readOnly = file.readOnly || !context.mode.writable;
    this.limits = { ...file.limits, clusterSize: 0 };
    this.children = [{ name: "file", node: file }];
    // What is done to a file that fails on purpose is done here, step by step.
    if (file.debugEvent === undefined) {
      this.allocator = {
        isFixed: looksForeign === undefined,
        allocate: (offset, length) => this.#allocate(offset, length),
      };
    }
    this.#file = file;
    this.#window = window;
    this.#unmap = context.mode.unmap;
    this.#looksForeign = looksForeign;
    this.#fixedLength = window.size ??
      (file.readOnly ? lengthBehind(window.offset, file) : undefined);
  }

  get filename(): string {
    return this.#context.filename;
  }

  get length(): number {
    return this.#fixedLength ?? lengthBehind(this.#window.offset, this.#file);
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#within(
      offset,
      into.length,
      () => {
        this.#file.debugEvent?.("read_aio");
        return this.#file.read(offset + this.#window.offset, into);
      },
    );
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    requireRange(this, offset, from.length);
    if (this.#looksForeign !== undefined && offset < SECTOR && from.length > 0) {
      await this.#requireStillRaw(offset, from, this.#looksForeign);
    }
    this.#file.debugEvent?.("write_aio");
    await this.#file.write(offset + this.#window.offset, from);
  }

  writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    const unmap = flags.unmap && this.#unmap;
    return this.#within(
      offset,
      length,
      () => this.#file.writeZeroes(offset + this.#window.offset, length, { ...flags, unmap }),
    );
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#within(
      offset,
      length,
      async () => {
        if (this.#unmap) await this.#file.discard(offset + this.#window.offset, length);
      },
    );
  }

  extent(offset: number, length: number): Promise<Extent> {
    return this.#within(
      offset,
      length,
      () =>
        this.#file.backing === undefined
          ? this.#file.extent(offset + this.#window.offset, length)
          : this.#hiddenExtent(this.#file.backing, offset + this.#window.offset, length),
    );
  }

  flush(): Promise<void> {
    this.#file.debugEvent?.("flush_to_os");
    this.#file.debugEvent?.("flush_to_disk");
    return this.#file.flush();
  }

  async resize(length: number, how: Preallocation): Promise<void> {
    requireWritable(this);
    if (this.#window.size !== undefined) {
      throw new ImageError("Cannot resize fixed-size raw disks", {
        errno: "ENOTSUP",
        file: this.filename,
      });
    }
    const fileLength = length + this.#window.offset;
    if (this.#file.fixedLength && fileLength !== this.#file.exactLength) {
      throw new ImageError("Cannot resize device files", {
        errno: "ENOTSUP",
        file: this.filename,
      });
    }
    await this.#file.resize(fileLength, how);
  }

  allocatedSize(): Promise<number | undefined> {
    return this.#file.allocatedSize();
  }

  /** What the file below knows of itself; nothing where it knows nothing of the kind. */
  async details(): Promise<ImageDetails> {
    const below = await this.#file.details?.();
    if (below === undefined) return {};
    const { clusterSize, dirty } = below;
    return {
      ...(dirty === undefined ? {} : { dirty }),
      ...(clusterSize === undefined ? {} : { clusterSize }),
    };
  }

  readsZeroWhenNew(): Promise<boolean> {
    return this.#file.readsZeroWhenNew?.() ?? Promise.resolve(false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file[Symbol.asyncDispose]();
  }

  #within<T>(offset: number, length: number, body: () => Promise<T>): Promise<T> {
    try {
      requireRange(this, offset, length);
      return body();
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * What shows through an image below is not behind this one: only the image itself can read it.
   */
  async #hiddenExtent(
    { node: behind }: BackingLink,
    offset: number,
    length: number,
  ): Promise<Extent> {
    const extent = await this.#file.extent(offset, length);
    if (extent.state !== "unallocated" || behind === null) return extent;
    return offset < behind.length
      ? { length: extent.length, state: "data", compressed: false, unknown: true }
      : { ...extent, state: "zero" };
  }

  /**
   * Nothing but the file's begin says that this is a raw image: a guest that writes another format's
   * header there would choose how the file is read the next time.
   */
  async #requireStillRaw(
    offset: number,
    from: Uint8Array,
    looksForeign: (head: Uint8Array) => boolean,
  ): Promise<void> {
    const head = new Uint8Array(SECTOR);
    if (offset > 0 || from.length < SECTOR) await this.#file.read(this.#window.offset, head);
    head.set(from.subarray(0, SECTOR - offset), offset);
    if (looksForeign(head)) throw ImageError.fromErrno("EPERM", { file: this.filename });
  }

  #allocate(offset: number, length: number): Promise<Allocation | null> {
    return this.#within(offset, length, () => {
      requireWritable(this);
      // The head is checked on its way through `write`.
      if (this.#looksForeign !== undefined && offset < SECTOR) return Promise.resolve(null);
      return Promise.resolve({
        length,
        file: this.#file,
        offset: offset + this.#window.offset,
        publish: () => Promise.resolve(),
        abandon: () => Promise.resolve(),
      });
    });
  }
}
