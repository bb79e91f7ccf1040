/**
 * Groups of throttled nodes: what all of them do together keeps to the limits.
 *
 * @module
 */
import type { UserObject } from "../../lib/block/user_object.ts";
import { LeakyBucket } from "./leaky_bucket.ts";

/** The type of the objects that define groups. */
export const THROTTLE_GROUP = "throttle-group";

/** What time it is, and how to wait. All in milliseconds. */
export interface Clock {
  /** Never goes back. */
  now(): number;
  /** Resolves so much later. */
  sleep(duration: number): Promise<void>;
}

/** The time of this machine. */
const MACHINE: Clock = {
  now: () => performance.now(),
  sleep: (duration) => new Promise((resolve) => setTimeout(resolve, duration)),
};

/** What a request does. */
export type Direction = "read" | "write";

const DIRECTIONS: readonly Direction[] = ["read", "write"];

/** A group of nodes. */
export class ThrottleGroup {
  readonly #clock: Clock;
  /** Bytes of a request; larger ones count as several. 0 for any. */
  readonly #requestSize: number;
  readonly #buckets: Readonly<Record<Direction, readonly Counted[]>>;
  /** The last that waits in each direction: requests pass in the order in which they came. */
  readonly #last: Partial<Record<Direction, Promise<void>>> = {};

  /** A group with the limits of an object: `bps-total`, `iops-read-max` … */
  constructor(limits: ReadonlyMap<string, string>, clock: Clock = MACHINE) {
    this.#clock = clock;
    this.#requestSize = Number(limits.get("iops-size") ?? 0);
    const total = bucketsFor("total", limits, clock);
    const [read, write] = DIRECTIONS.map((
      direction,
    ) => [...total, ...bucketsFor(direction, limits, clock)]);
    this.#buckets = { read: read!, write: write! };
  }

  /** Waits until a request of so many bytes may go on. */
  async pass(direction: Direction, bytes: number): Promise<void> {
    const buckets = this.#buckets[direction];
    if (buckets.length === 0) return;
    const before = this.#last[direction];
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last[direction] = promise;
    try {
      if (before !== undefined) await before;
      for (;;) {
        const now = this.#clock.now();
        const delay = Math.max(...buckets.map(({ bucket }) => bucket.delay(now)));
        if (delay === 0) break;
        // Timers may be early by a part of a millisecond.
        await this.#clock.sleep(Math.max(delay, 1));
      }
      // Like the reference: a request of many parts counts for the whole ones.
      const requests = this.#requestSize > 0 && bytes > this.#requestSize
        ? bytes / this.#requestSize
        : 1;
      for (const { bucket, counts } of buckets) bucket.add(counts === "bps" ? bytes : requests);
    } finally {
      if (this.#last[direction] === promise) delete this.#last[direction];
      resolve();
    }
  }
}

interface Counted {
  readonly counts: "bps" | "iops";
  readonly bucket: LeakyBucket;
}

function bucketsFor(
  what: Direction | "total",
  limits: ReadonlyMap<string, string>,
  clock: Clock,
): Counted[] {
  return (["bps", "iops"] as const).flatMap((counts) => {
    const number = (suffix: string) => Number(limits.get(`${counts}-${what}${suffix}`) ?? 0);
    const rate = number("");
    if (rate === 0) return [];
    const limit = { rate, burstRate: number("-max"), burstSeconds: number("-max-length") || 1 };
    return [{ counts, bucket: new LeakyBucket(limit, clock.now()) }];
  });
}

const groups = new WeakMap<UserObject, ThrottleGroup>();

/** The group that an object defines: for the same object always the same. */
export function groupOf(object: UserObject): ThrottleGroup {
  let group = groups.get(object);
  if (group === undefined) groups.set(object, group = new ThrottleGroup(object.properties));
  return group;
}
