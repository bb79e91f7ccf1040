/**
 * How long things took, millions of them in little memory.
 *
 * @module
 */

/** Each power of two is cut into as many parts, so that what a part holds differs by 1.6% at most. */
const PARTS = 64;

/** Powers of two above the parts of the first. 2^63 ns are 292 years. */
const POWERS = 57;

/** A histogram of durations. All in nanoseconds. */
export class Latencies {
  readonly #counts = new Uint32Array(PARTS * (POWERS + 1));
  #count = 0;
  #sum = 0;
  #min = Infinity;
  #max = 0;

  /** How many were added. */
  get count(): number {
    return this.#count;
  }

  /** The shortest, 0 without any. */
  get min(): number {
    return this.#count === 0 ? 0 : this.#min;
  }

  /** The longest. */
  get max(): number {
    return this.#max;
  }

  /** The mean, 0 without any. */
  get mean(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }

  /** Adds one. What a clock makes negative counts as 0. */
  add(duration: number): void {
    const nanoseconds = Math.max(Math.round(duration), 0);
    this.#counts[indexOf(nanoseconds)]!++;
    this.#count++;
    this.#sum += nanoseconds;
    if (nanoseconds < this.#min) this.#min = nanoseconds;
    if (nanoseconds > this.#max) this.#max = nanoseconds;
  }

  /** What `percent` of all did not exceed: at most 1.6% too much. */
  percentile(percent: number): number {
    const wanted = Math.max(Math.ceil(this.#count * percent / 100), 1);
    let seen = 0;
    for (const [index, count] of this.#counts.entries()) {
      seen += count;
      const isLast = index === this.#counts.length - 1;
      if (seen >= wanted && !isLast) return Math.min(endOf(index), this.#max);
    }
    return this.#max;
  }
}

/** Below {@linkcode PARTS} each number has a part of its own; above, the six bits behind the first count. */
function indexOf(nanoseconds: number): number {
  if (nanoseconds < PARTS) return nanoseconds;
  const power = Math.min(Math.floor(Math.log2(nanoseconds)) - Math.log2(PARTS), POWERS - 1);
  // Rounding makes a logarithm reach the next power too early.
  const exact = nanoseconds < PARTS * 2 ** power ? power - 1 : power;
  const part = Math.min(Math.floor(nanoseconds / 2 ** exact) - PARTS, PARTS - 1);
  return PARTS * (exact + 1) + part;
}

/** The largest number of a part. */
function endOf(index: number): number {
  if (index < PARTS) return index;
  const power = Math.floor(index / PARTS) - 1;
  return (PARTS + index % PARTS + 1) * 2 ** power - 1;
}
