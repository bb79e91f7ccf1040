import { ImageError } from "../../lib/block/error.ts";
import type { OpenMode } from "../../lib/block/mode.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type {
  BlockNode,
  Extent,
  NodeAddress,
  NodeLimits,
  Preallocation,
  ZeroFlags,
} from "../../lib/block/node.ts";
import { requireWritable } from "../../lib/block/range.ts";
import { alignDown, alignUp, isAligned } from "../../lib/bytes/align.ts";
import { isZero } from "../../lib/bytes/zero_scan.ts";
import { ALLOCATION, COMMAND, COMMAND_FLAG, EXPORT_FLAG, LIMIT } from "../../lib/nbd/constants.ts";
import type { Session } from "./handshake.ts";
import type { Link } from "./link.ts";
import { MOST_REQUESTS, type Status, type Transmission } from "./transmission.ts";

const SECTOR = 512;

/** The longest trim and status request where lengths have 32 bits, before it is aligned. */
const MAX_LENGTH = 2 ** 31 - 1;

/** How an export is opened. */
export interface NbdNodeOptions {
  /** The name, as messages show it. */
  filename(): string;
  /** How to get here again. */
  readonly address: NodeAddress;
  /** Cache, unmapping. */
  readonly mode: OpenMode;
}

/** An export of an NBD server. */
export class NbdNode implements BlockNode {
  readonly driver = "nbd";
  readonly readOnly: boolean;
  readonly length: number;
  readonly exactLength: number;
  readonly limits: NodeLimits;
  readonly children: BlockNode["children"] = [];
  readonly address: NodeAddress;
  readonly #link: Link;
  readonly #session: Session;
  readonly #options: NbdNodeOptions;
  /** Offsets and lengths of requests are multiples of this, bytes. */
  readonly #unit: number;
  /** Data of a request, bytes, a multiple of the unit. */
  readonly #maxTransfer: number;
  /** Those that write parts of units read the rest first. */
  readonly #unaligned = new Mutex();
  /** Something was written since the last flush. */
  #dirty = false;

  /** Takes over a link to the export of `session`. */
  constructor(link: Link, session: Session, options: NbdNodeOptions) {
    const { size, blockSizes } = session;
    this.#link = link;
    this.#session = session;
    this.#options = options;
    this.address = options.address;
    this.readOnly = !options.mode.writable;
    this.exactLength = size;
    this.length = alignUp(size, SECTOR);
    // A server that says nothing takes sectors, unless its export does not end with one.
    this.#unit = blockSizes?.minimum ??
      (session.contextId !== undefined || !isAligned(size, SECTOR) ? 1 : SECTOR);
    const maximum = Math.min(blockSizes?.maximum ?? LIMIT.transfer, LIMIT.transfer);
    this.#maxTransfer = Math.max(alignDown(maximum, this.#unit), this.#unit);
    this.limits = {
      requestAlignment: this.#unit,
      clusterSize: 0,
      zeroAlignment: this.#unit,
      requests: MOST_REQUESTS,
    };
  }

  get filename(): string {
    return this.#options.filename();
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    // The rest of the last sector, and what formats read behind the end.
    const available = Math.min(Math.max(this.exactLength - offset, 0), into.length);
    into.fill(0, available);
    if (available === 0) return;
    const target = into.subarray(0, available);
    const start = alignDown(offset, this.#unit);
    const end = alignUp(offset + available, this.#unit);
    if (end - start === available) {
      await this.#readAligned(start, target);
      return;
    }
    const wide = new Uint8Array(end - start);
    await this.#readAligned(start, wide);
    target.set(wide.subarray(offset - start, offset - start + available));
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    this.#beginWriting();
    const bytes = this.#withinExport(offset, from);
    if (bytes.length === 0) return;
    const start = alignDown(offset, this.#unit);
    const end = alignUp(offset + bytes.length, this.#unit);
    if (end - start === bytes.length) {
      await this.#writeAligned(offset, bytes);
      return;
    }
    await this.#unaligned.run(async () => {
      const wide = new Uint8Array(end - start);
      await this.#readAligned(start, wide);
      wide.set(bytes, offset - start);
      await this.#writeAligned(start, wide);
    });
  }

  async writeZeroes(
    offset: number,
    length: number,
    { unmap, noFallback = false }: ZeroFlags,
  ): Promise<void> {
    this.#beginWriting();
    const end = Math.min(offset + length, this.exactLength);
    if (offset >= end) return;
    const canFail = this.#has(EXPORT_FLAG.fastZero);
    const isPossible = this.#has(EXPORT_FLAG.writeZeroes) && (!noFallback || canFail) &&
      isAligned(offset, this.#unit) && isAligned(end, this.#unit);
    if (isPossible) {
      // A server that fails a fast request says that a slow one would be no better than data.
      const flags = (unmap && this.#options.mode.unmap ? 0 : COMMAND_FLAG.noHole) |
        (noFallback ? COMMAND_FLAG.fastZero : 0) | this.#writeFlags;
      const step = this.#session.extended ? Infinity : this.#maxTransfer;
      if (await this.#succeeds(COMMAND.writeZeroes, offset, end, step, flags)) return;
    }
    if (noFallback) throw ImageError.fromErrno("ENOTSUP", { file: this.filename });
    await this.#writeBufferedZeroes(offset, end);
  }

  async discard(offset: number, length: number): Promise<void> {
    if (!this.#options.mode.unmap || !this.#has(EXPORT_FLAG.trim)) return;
    this.#beginWriting();
    const start = alignUp(offset, this.#unit);
    const end = alignDown(Math.min(offset + length, this.exactLength), this.#unit);
    const step = this.#session.extended ? Infinity : alignDown(MAX_LENGTH, this.#unit);
    // No support is no error: nobody counts on the space.
    await this.#succeeds(COMMAND.trim, start, end, step, this.#writeFlags);
  }

  async extent(offset: number, length: number): Promise<Extent> {
    // Behind the end of the export there is nothing to be found anywhere.
    if (offset >= this.exactLength) return { compressed: false, length, state: "zero" };
    const plain = { compressed: false, file: this, offset };
    const rest = Math.min(length, this.exactLength - offset);
    if (this.#session.contextId === undefined) return { ...plain, length: rest, state: "data" };
    const { length: found, flags } = await this.#status(offset, rest);
    const isHole = (flags & ALLOCATION.hole) !== 0;
    if ((flags & ALLOCATION.zero) === 0) {
      if (isHole) return { compressed: false, length: found, state: "data", unknown: true };
      return { ...plain, length: found, state: "data" };
    }
    const state = isHole ? "zero" : "data";
    return { ...plain, length: found, state, ...(isHole ? {} : { hole: true }) };
  }

  async flush(): Promise<void> {
    const { cache } = this.#options.mode;
    if (this.readOnly || cache.noFlush || !this.#has(EXPORT_FLAG.flush)) return;
    await this.#run((transmission) => transmission.command(COMMAND.flush, 0, 0, 0));
    this.#dirty = false;
  }

  // deno-lint-ignore require-await -- refusals are rejections
  async resize(length: number, how: Preallocation): Promise<void> {
    requireWritable(this);
    const isSame = length === this.exactLength;
    if (isSame && how === "off") return;
    throw new ImageError(
      isSame ? `Unsupported preallocation mode '${how}'` : "Cannot resize NBD nodes",
      { errno: "ENOTSUP", file: this.filename },
    );
  }

  allocatedSize(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      if (this.#dirty) await this.flush();
    } finally {
      this.#dirty = false;
      await this.#link.close();
    }
  }

  #has(flag: number): boolean {
    return (this.#session.flags & flag) !== 0;
  }

  /** What writes have in common. */
  get #writeFlags(): number {
    const isThrough = this.#options.mode.cache.writethrough && this.#has(EXPORT_FLAG.fua);
    return isThrough ? COMMAND_FLAG.fua : 0;
  }

  #beginWriting(): void {
    requireWritable(this);
    this.#dirty = true;
  }

  /** The rest of the last sector takes zeros, which it holds; what else lies behind the end the server refuses. */
  #withinExport(offset: number, from: Uint8Array): Uint8Array {
    const available = Math.max(this.exactLength - offset, 0);
    if (from.length <= available) return from;
    const isTail = offset + from.length <= this.length && isZero(from.subarray(available));
    return isTail ? from.subarray(0, available) : from;
  }

  async #readAligned(offset: number, into: Uint8Array): Promise<void> {
    await this.#inParts(offset, into, (at, part) => {
      return this.#run((transmission) => transmission.read(at, part));
    });
  }

  async #writeAligned(offset: number, from: Uint8Array): Promise<void> {
    const flags = this.#writeFlags;
    await this.#inParts(offset, from, (at, part) => {
      return this.#run((transmission) => transmission.write(at, part, flags));
    });
    await this.#afterWriting();
  }

  /** A write that is to be through where the server cannot do that by itself. */
  async #afterWriting(): Promise<void> {
    if (this.#options.mode.cache.writethrough && this.#writeFlags === 0) await this.flush();
  }

  /** Runs requests for all parts at a time; when it ends nothing looks at the bytes any more. */
  async #inParts(
    offset: number,
    bytes: Uint8Array,
    request: (offset: number, part: Uint8Array) => Promise<void>,
  ): Promise<void> {
    const step = this.#maxTransfer;
    if (bytes.length <= step) return await request(offset, bytes);
    const parts: Promise<void>[] = [];
    for (let at = 0; at < bytes.length; at += step) {
      parts.push(request(offset + at, bytes.subarray(at, at + step)));
    }
    for (const result of await Promise.allSettled(parts)) {
      if (result.status === "rejected") throw result.reason;
    }
  }

  /** Does it in steps; `false` if the server cannot. */
  async #succeeds(
    command: number,
    start: number,
    end: number,
    step: number,
    flags: number,
  ): Promise<boolean> {
    for (let at = start; at < end; at += step) {
      const length = Math.min(step, end - at);
      try {
        await this.#run((transmission) => transmission.command(command, at, length, flags));
      } catch (error) {
        if (error instanceof ImageError && error.errno === "ENOTSUP") return false;
        throw error;
      }
    }
    await this.#afterWriting();
    return true;
  }

  async #writeBufferedZeroes(start: number, end: number): Promise<void> {
    const step = Math.min(1 << 20, this.#maxTransfer);
    const zeros = new Uint8Array(Math.min(step, end - start));
    for (let at = start; at < end; at += step) {
      await this.write(at, zeros.subarray(0, end - at));
    }
  }

  /** Rounded down to whole units; a first unit that has several states is data. */
  async #status(offset: number, length: number): Promise<Status> {
    const start = alignDown(offset, this.#unit);
    const end = Math.min(alignUp(offset + length, this.#unit), this.exactLength);
    const most = this.#session.extended ? Infinity : alignDown(MAX_LENGTH, this.#unit);
    const asked = Math.min(end - start, most);
    const found = await this.#run((transmission) => transmission.status(start, asked));
    const isWhole = start + found.length === this.exactLength;
    const whole = isWhole ? found.length : alignDown(found.length, this.#unit);
    if (whole === 0) return { length: Math.min(start + this.#unit - offset, length), flags: 0 };
    return { length: Math.min(start + whole - offset, length), flags: found.flags };
  }

  async #run<T>(request: (transmission: Transmission) => Promise<T>): Promise<T> {
    try {
      return await this.#link.run(request);
    } catch (error) {
      throw error instanceof ImageError && error.file === undefined
        ? new ImageError(error.message, { errno: error.errno, file: this.filename, cause: error })
        : error;
    }
  }
}
