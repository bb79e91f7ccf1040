/**
 * Writing to the target of a copy.
 *
 * @module
 */
import { ImageError, reasonText } from "../../block/error.ts";
import type { BlockNode } from "../../block/node.ts";
import type { Allocation, PackTarget } from "../../block/plan.ts";
import type { DataRun } from "./job.ts";

/** The longest request for zeros, bytes: what the reference passes on at once. */
const MOST_ZEROS = 2 ** 31 - 512;

/** How {@linkcode Writer} writes. */
export interface WriterOptions {
  /** Zero writes may free space. */
  readonly unmap: boolean;
  /** The target reads as zeros where nothing was written. */
  readonly skipZeros: boolean;
  /** Bytes a second, 0 for as many as possible. */
  readonly rate: number;
  /** Ends waiting for the rate. */
  readonly signal?: AbortSignal | undefined;
  /** Turns a failure into what is thrown; by default {@linkcode writeError}. */
  readonly failure?: (error: unknown, begin: number) => Error;
}

/** Writes to a node, not faster than wanted, with the reference's words when it fails. */
export class Writer {
  /** What is written to. */
  readonly target: BlockNode;
  /** Whether zeros that were found need not be written. */
  readonly skipZeros: boolean;
  readonly #unmap: boolean;
  readonly #limit: RateLimit | undefined;
  readonly #failure: (error: unknown, begin: number) => Error;

  /** A writer to `target`, which stays the caller's. */
  constructor(
    target: BlockNode,
    { unmap, skipZeros, rate, signal, failure = writeError }: WriterOptions,
  ) {
    this.target = target;
    this.#unmap = unmap;
    this.skipZeros = skipZeros;
    this.#limit = rate > 0 ? new RateLimit(rate, signal) : undefined;
    this.#failure = failure;
  }

  /**
   * Fills reserved space.
   *
   * @throws {ImageError} `error while writing at byte <begin>: …`
   */
  async fill(
    { file, offset }: Allocation,
    at: number,
    from: Uint8Array,
    begin: number,
  ): Promise<void> {
    try {
      await file.write(offset + at, from);
    } catch (error) {
      throw this.#failure(error, begin);
    }
  }

  /**
   * Writes data. `begin` is where the piece begins that they are from.
   *
   * @throws {ImageError} `error while writing at byte <begin>: …`
   */
  async data(offset: number, from: Uint8Array, begin: number): Promise<void> {
    await this.#limit?.take(from.length);
    try {
      await this.target.write(offset, from);
    } catch (error) {
      throw this.#failure(error, begin);
    }
  }

  /**
   * Makes a range read as zeros.
   *
   * @throws {ImageError} `error while writing at byte <begin>: …`
   */
  async zeros(offset: number, length: number, begin: number): Promise<void> {
    for (let at = 0; at < length; at += MOST_ZEROS) {
      const count = Math.min(MOST_ZEROS, length - at);
      await this.#limit?.take(count);
      try {
        await this.target.writeZeroes(offset + at, count, { unmap: this.#unmap });
      } catch (error) {
        throw this.#failure(error, begin);
      }
    }
  }

  /**
   * Stores a compressed cluster of `size` guest bytes.
   *
   * @throws {ImageError} `error while writing at byte <offset>: …`
   */
  async packed(
    packer: PackTarget,
    offset: number,
    size: number,
    packed: Uint8Array,
  ): Promise<void> {
    await this.#limit?.take(size);
    try {
      await packer.writePacked(offset, packed);
    } catch (error) {
      throw this.#failure(error, offset);
    }
  }

  /**
   * Stores a cluster that does not shrink.
   *
   * @throws {ImageError} `error while writing at byte <offset>: …`
   */
  async unpacked(packer: PackTarget, offset: number, bytes: Uint8Array): Promise<void> {
    if (packer.writeUnpacked === undefined) return await this.data(offset, bytes, offset);
    await this.#limit?.take(bytes.length);
    try {
      await packer.writeUnpacked(offset, bytes);
    } catch (error) {
      throw this.#failure(error, offset);
    }
  }

  /**
   * Writes the data of a piece, and zeros in between where that matters.
   *
   * @throws {ImageError} `error while writing at byte <begin>: …`
   */
  async runs(
    bytes: Uint8Array,
    offset: number,
    runs: readonly DataRun[],
    begin: number,
  ): Promise<void> {
    let at = 0;
    for (const { start, length } of runs) {
      if (start > at) await this.hole(offset + at, start - at, begin);
      await this.data(offset + start, bytes.subarray(start, start + length), begin);
      at = start + length;
    }
    if (at < bytes.length) await this.hole(offset + at, bytes.length - at, begin);
  }

  /**
   * Reserves host space to be filled by others; `null` where that cannot be.
   *
   * @throws {ImageError} `error while writing at byte <begin>: …`
   */
  async allocate(offset: number, length: number, begin: number): Promise<Allocation | null> {
    const { allocator } = this.target;
    if (allocator === undefined) return null;
    let allocation: Allocation | null;
    try {
      allocation = await allocator.allocate(offset, length);
    } catch (error) {
      throw this.#failure(error, begin);
    }
    try {
      if (allocation !== null) await this.#limit?.take(allocation.length);
    } catch (reason) {
      await allocation?.abandon();
      throw reason;
    }
    return allocation;
  }

  /**
   * Makes reserved space reachable that was filled.
   *
   * @throws {ImageError} `error while writing at byte <begin>: …`
   */
  async publish(allocation: Allocation, begin: number): Promise<void> {
    try {
      await allocation.publish();
    } catch (error) {
      throw this.#failure(error, begin);
    }
  }

  /**
   * Zeros that were found: they are written only where something else may be.
   *
   * @throws {ImageError} `error while writing at byte <begin>: …`
   */
  async hole(offset: number, length: number, begin: number): Promise<void> {
    if (!this.skipZeros) await this.zeros(offset, length, begin);
  }
}

/** What timers can do, in milliseconds. */
const LONGEST_DELAY = 2 ** 31 - 1;

/** Lets a number of bytes a second pass, and a tenth of a second's worth at once after a pause. */
class RateLimit {
  readonly #rate: number;
  readonly #signal: AbortSignal | undefined;
  /** When all that has passed will be paid for, in milliseconds. */
  #settled = -Infinity;

  constructor(rate: number, signal: AbortSignal | undefined) {
    this.#rate = rate;
    this.#signal = signal;
  }

  async take(bytes: number): Promise<void> {
    const credit = 100;
    const now = performance.now();
    this.#settled = Math.max(this.#settled, now - credit);
    for (let left = this.#settled - now; left > 0; left -= LONGEST_DELAY) {
      await delay(Math.min(left, LONGEST_DELAY), this.#signal);
    }
    this.#settled += bytes / this.#rate * 1000;
  }
}

/** Waits some milliseconds; an abort ends it early with the signal's reason. */
function delay(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, milliseconds);
    signal?.addEventListener("abort", abort, { once: true });
    if (signal?.aborted) abort();
  });
}

/** The words for a failed write; `begin` is what the reference would have written from. */
export function writeError(error: unknown, begin: number): ImageError {
  const known = ImageError.from(error);
  return new ImageError(`error while writing at byte ${begin}: ${reasonText(error)}`, {
    errno: known.errno,
    file: known.file,
    field: known.field,
    cause: error,
  });
}
