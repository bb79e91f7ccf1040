/**
 * What keeps clients from each other's share: memory that is lent, and turns.
 *
 * @module
 */

/** Bytes of data that are moved at once: longer requests are answered in parts. */
export const PIECE = 1 << 20;

/** Room in front of the data of a buffer, for the header of a reply, bytes. */
export const HEADROOM = 64;

/** Bytes of the data of all requests of a connection that may be in memory. */
export const CONNECTION_LIMIT = 32 << 20;

/** Buffers that are kept for the next request, whichever connection it comes from. */
const MOST_SPARE = 32;

/** A buffer with room for a header in front of its data. */
export interface DataBuffer {
  /** All of it. */
  readonly whole: Uint8Array;
  /** Its part behind {@linkcode HEADROOM}, as long as was asked for. */
  readonly data: Uint8Array;
}

/** Buffers that are used again: to make them anew takes longer than to fill them. */
export class BufferPool {
  readonly #spare: Uint8Array[] = [];

  /** A buffer for `length` bytes. What it holds is anything. */
  take(length: number): DataBuffer {
    const whole = length > PIECE
      ? new Uint8Array(HEADROOM + length)
      : this.#spare.pop() ?? new Uint8Array(HEADROOM + PIECE);
    return { whole, data: whole.subarray(HEADROOM, HEADROOM + length) };
  }

  /** Takes a buffer back that nobody looks at any more. */
  give({ whole }: DataBuffer): void {
    if (whole.length === HEADROOM + PIECE && this.#spare.length < MOST_SPARE) {
      this.#spare.push(whole);
    }
  }
}

/** An amount of something that is lent, in the order in which it was asked for. */
export class Budget {
  #free: number;
  readonly #waiting: { readonly amount: number; grant(): void }[] = [];

  /** `total` is all there is; nobody asks for more. */
  constructor(total: number) {
    this.#free = total;
  }

  /** Waits until `amount` is free, and takes it. */
  take(amount: number): Promise<void> {
    if (this.#waiting.length === 0 && amount <= this.#free) {
      this.#free -= amount;
      return Promise.resolve();
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#waiting.push({ amount, grant: resolve });
    return promise;
  }

  /** Gives it back. */
  give(amount: number): void {
    this.#free += amount;
    while (this.#waiting.length > 0 && this.#waiting[0]!.amount <= this.#free) {
      const { amount, grant } = this.#waiting.shift()!;
      this.#free -= amount;
      grant();
    }
  }
}

/** Lets everybody else do something first: long work in one go would hold all other clients. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
