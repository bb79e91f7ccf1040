/** Random numbers that come again with the same seed, for property tests. */

/** A generator (mulberry32): small, fast, and good enough to choose operations and bytes. */
export class Random {
  #state: number;

  /** Begins a sequence; print the seed where a test fails. */
  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** An integer from 0 to 2^32 - 1. */
  u32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ t >>> 15, t | 1);
    t ^= t + Math.imul(t ^ t >>> 7, t | 61);
    return (t ^ t >>> 14) >>> 0;
  }

  /** An integer from 0 to `limit - 1`; `limit` at most 2^53. */
  below(limit: number): number {
    return Math.floor((this.u32() * 0x20_0000 + (this.u32() >>> 11)) / 2 ** 53 * limit);
  }

  /** An integer from `lowest` to `highest`, both included. */
  between(lowest: number, highest: number): number {
    return lowest + this.below(highest - lowest + 1);
  }

  /** True once in `n` times. */
  oneIn(n: number): boolean {
    return this.below(n) === 0;
  }

  /** One of the items. */
  pick<T>(items: readonly T[]): T {
    if (items.length === 0) throw new RangeError("nothing to pick from");
    return items[this.below(items.length)]!;
  }

  /** `length` random bytes, from 0 to `limit - 1` each: few different ones compress well. */
  bytes(length: number, limit = 256): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.u32() % limit;
    return bytes;
  }
}

/** Runs `body` once for each of `count` seeds; a failure names the seed. */
export function forSeeds(count: number, body: (random: Random, seed: number) => void): void {
  for (let seed = 1; seed <= count; seed++) {
    try {
      body(new Random(seed), seed);
    } catch (error) {
      throw new Error(`with seed ${seed}`, { cause: error });
    }
  }
}
