import type { ImageDetails } from "../../lib/block/capabilities.ts";
import type { DebugEvent } from "../../lib/block/debug_event.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { NodeAccess } from "../../lib/block/mode.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type {
  BlockNode,
  Extent,
  NodeAddress,
  NodeChild,
  NodeLimits,
  Preallocation,
  ZeroFlags,
} from "../../lib/block/node.ts";
import { outerDetails } from "../../lib/block/outer_details.ts";
import { padWrite } from "../../lib/block/pad_write.ts";
import { requireRange, requireWritable } from "../../lib/block/range.ts";
import { alignDown, alignUp } from "../../lib/bytes/align.ts";
import { errnoFromNumber, errnoNumber } from "../../lib/io/errno.ts";
import { alignedPieces, piecesOf, type RequestLimits } from "./limits.ts";
import type { RequestKind, RuleBook } from "./rules.ts";

/** What a node is made of. */
export interface BlkdebugParts {
  /** What it shows. */
  readonly image: BlockNode;
  /** When requests fail. */
  readonly rules: RuleBook;
  /** What requests it takes. */
  readonly limits: RequestLimits;
  /** How it is named. */
  readonly address: NodeAddress;
}

/** Shows another node, keeps to given limits in what it asks of it, and fails by rules. */
export class BlkdebugNode implements BlockNode {
  readonly driver = "blkdebug";
  readonly readOnly: boolean;
  readonly limits: NodeLimits;
  readonly children: readonly NodeChild[];
  readonly address: NodeAddress;
  readonly filtered: BlockNode;
  readonly lock?: (access: NodeAccess) => Promise<void>;
  readonly #image: BlockNode;
  readonly #rules: RuleBook;
  readonly #request: RequestLimits;
  readonly #context: DriverContext;
  /** Nobody writes the rest of a unit that is being changed in part. */
  readonly #writes = new Mutex();

  /** A node on `parts.image`, which is closed with it. */
  constructor({ image, rules, limits, address }: BlkdebugParts, context: DriverContext) {
    this.#image = image;
    this.#rules = rules;
    this.#request = limits;
    this.#context = context;
    this.address = address;
    this.filtered = image;
    this.readOnly = image.readOnly || !context.mode.writable;
    this.limits = {
      requestAlignment: limits.align,
      clusterSize: image.limits.clusterSize,
      zeroAlignment: limits.zeroAlign > limits.align
        ? limits.zeroAlign
        : image.limits.zeroAlignment,
    };
    this.children = [{ name: "image", node: image }];
    if (image.lock !== undefined) this.lock = (access) => image.lock!(access);
  }

  get filename(): string {
    return this.#context.filename;
  }

  get length(): number {
    return this.#image.length;
  }

  /** Something that rules may wait for is about to be done. */
  debugEvent(event: DebugEvent): void {
    this.#rules.raise(event);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    const { align } = this.#request;
    const start = alignDown(offset, align);
    const end = Math.min(alignUp(offset + into.length, align), this.length);
    if (start === offset && end === offset + into.length) return await this.#read(offset, into);
    const whole = new Uint8Array(end - start);
    await this.#read(start, whole);
    into.set(whole.subarray(offset - start, offset - start + into.length));
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    await this.#exclusively(offset, from.length, () => this.#writePadded(offset, from));
  }

  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    requireWritable(this);
    if (length === 0) return;
    const { align } = this.#request;
    const unmap = flags.unmap && this.#context.mode.unmap;
    await this.#exclusively(offset, length, async () => {
      // Parts of units are written as data, so that what is beside them stays.
      for (const piece of alignedPieces(offset, length, align, Number.MAX_SAFE_INTEGER)) {
        if (piece.offset % align === 0 && piece.length % align === 0) {
          await this.#writeZeroes(piece.offset, piece.length, { ...flags, unmap });
        } else {
          await this.#writePadded(piece.offset, new Uint8Array(piece.length));
        }
      }
    });
  }

  async discard(offset: number, length: number): Promise<void> {
    requireWritable(this);
    if (!this.#context.mode.unmap) return;
    const { discardAlign, discard } = this.#request;
    for (const piece of alignedPieces(offset, length, discardAlign, discard)) {
      // There is nothing to be had for less.
      if (piece.length < discardAlign) continue;
      await this.#check("discard", piece.offset, piece.length);
      await this.#image.discard(piece.offset, piece.length);
    }
  }

  /** It is no secret where the bytes are, but whoever reads them there would not meet the rules. */
  async extent(offset: number, length: number): Promise<Extent> {
    await this.#check("block-status", offset, length);
    return { ...await this.#image.extent(offset, length), guarded: true };
  }

  async flush(): Promise<void> {
    await this.#check("flush", 0, 0);
    await this.#image.flush();
  }

  async resize(length: number, how: Preallocation): Promise<void> {
    requireWritable(this);
    await this.#image.resize(length, how);
  }

  /** What is lost in between nobody knows. */
  allocatedSize(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  /** Clusters, and whether it was closed well: all that the reference asks the node below for. */
  details(): Promise<ImageDetails> {
    return outerDetails(this.#image);
  }

  readsZeroWhenNew(): Promise<boolean> {
    return this.#image.readsZeroWhenNew?.() ?? Promise.resolve(false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#image[Symbol.asyncDispose]();
  }

  /** Runs what writes parts of units when nobody else writes. Whole units need not wait. */
  async #exclusively(offset: number, length: number, write: () => Promise<void>): Promise<void> {
    const { align } = this.#request;
    const isWhole = offset % align === 0 && length % align === 0;
    if (align === 1 || (isWhole && !this.#writes.busy)) await write();
    else await this.#writes.run(write);
  }

  async #writePadded(offset: number, from: Uint8Array): Promise<void> {
    const { offset: start, bytes } = await padWrite(offset, from, {
      unit: this.#request.align,
      end: this.length,
      read: (at, into) => this.#read(at, into),
      step: (step) => this.#rules.raise(`pwritev_rmw_${step}`),
    });
    this.#rules.raise("pwritev");
    try {
      await this.#write(start, bytes);
    } finally {
      this.#rules.raise("pwritev_done");
    }
  }

  async #read(offset: number, into: Uint8Array): Promise<void> {
    for (const piece of piecesOf(offset, into.length, this.#request.transfer)) {
      await this.#check("read", piece.offset, piece.length);
      const start = piece.offset - offset;
      await this.#image.read(piece.offset, into.subarray(start, start + piece.length));
    }
  }

  async #write(offset: number, from: Uint8Array): Promise<void> {
    for (const piece of piecesOf(offset, from.length, this.#request.transfer)) {
      await this.#check("write", piece.offset, piece.length);
      const start = piece.offset - offset;
      await this.#image.write(piece.offset, from.subarray(start, start + piece.length));
    }
  }

  async #writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    const { zeroAlign, zero } = this.#request;
    this.#rules.raise("pwritev_zero");
    try {
      for (const piece of alignedPieces(offset, length, zeroAlign, zero)) {
        const done = piece.length >= zeroAlign &&
          await this.#zero(piece.offset, piece.length, flags);
        if (done) continue;
        if (flags.noFallback) throw ImageError.fromErrno("ENOTSUP", { file: this.filename });
        for (const part of piecesOf(piece.offset, piece.length, this.#request.bounce)) {
          await this.#write(part.offset, new Uint8Array(part.length));
        }
      }
    } finally {
      this.#rules.raise("pwritev_done");
    }
  }

  /** Writes zeros; `false` if that is not supported, or said not to be. */
  async #zero(offset: number, length: number, flags: ZeroFlags): Promise<boolean> {
    try {
      await this.#check("write-zeroes", offset, length);
      await this.#image.writeZeroes(offset, length, flags);
      return true;
    } catch (error) {
      if (error instanceof ImageError && error.errno === "ENOTSUP") return false;
      throw error;
    }
  }

  /** Fails if a rule says so. */
  async #check(kind: RequestKind, offset: number, length: number): Promise<void> {
    const rule = this.#rules.failing(kind, offset, length);
    if (rule === undefined) return;
    if (!rule.immediately) await new Promise((resolve) => setTimeout(resolve, 0));
    const errno = errnoFromNumber(rule.errno);
    if (errnoNumber(errno) === rule.errno) {
      throw ImageError.fromErrno(errno, { file: this.filename });
    }
    throw new ImageError(`Unknown error ${rule.errno}`, { file: this.filename });
  }
}
