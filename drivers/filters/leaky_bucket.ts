/** What a bucket lets through. Units are bytes or requests. */
export interface BucketLimit {
  /** Units a second in the long run. */
  readonly rate: number;
  /** Units a second in a burst; 0 for no more bursts than a tenth of a second's worth. */
  readonly burstRate: number;
  /** How long a burst may last, seconds. */
  readonly burstSeconds: number;
}

/**
 * A leaky bucket: what passes is poured in, and runs out at a constant rate. When it is full, nothing may
 * pass until enough of it has run out. A burst that lasts more than a second has a second bucket, which
 * keeps it to its own rate.
 */
export class LeakyBucket {
  readonly #limit: BucketLimit;
  #level = 0;
  #burstLevel = 0;
  #leakedAt: number;

  /** An empty bucket; times are in milliseconds of any one clock. */
  constructor(limit: BucketLimit, now: number) {
    this.#limit = limit;
    this.#leakedAt = now;
  }

  /** How many milliseconds from `now` it takes until something may pass, 0 for at once. */
  delay(now: number): number {
    this.#leak(now);
    const { rate, burstRate, burstSeconds } = this.#limit;
    const room = burstRate > 0 ? burstRate * burstSeconds : rate / 10;
    const excess = this.#level - room;
    if (excess > 0) return excess / rate * 1000;
    if (burstRate === 0 || burstSeconds <= 1) return 0;
    return Math.max(this.#burstLevel - burstRate / 10, 0) / burstRate * 1000;
  }

  /** Pours in what passes. */
  add(units: number): void {
    this.#level += units;
    this.#burstLevel += units;
  }

  #leak(now: number): void {
    const seconds = Math.max(now - this.#leakedAt, 0) / 1000;
    this.#leakedAt = Math.max(now, this.#leakedAt);
    this.#level = Math.max(this.#level - seconds * this.#limit.rate, 0);
    this.#burstLevel = Math.max(this.#burstLevel - seconds * this.#limit.burstRate, 0);
  }
}
