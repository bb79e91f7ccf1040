import type { StatusRun } from "../../nbd/transmission.ts";

/** Runs of one reply at most: clients ask again for what is left. */
const MOST_RUNS = 16384;

/** The answer of one context, as it comes: neighbours that are alike are one. */
export class StatusRuns {
  readonly #most: number;
  readonly #runs: { length: number; flags: number }[] = [];

  /** No more runs than `most`. */
  constructor(most: number = MOST_RUNS) {
    this.#most = most;
  }

  /** What there is so far. */
  get list(): readonly StatusRun[] {
    return this.#runs;
  }

  /** Adds a run and answers whether there is room for more. */
  add(length: number, flags: number): boolean {
    const last = this.#runs.at(-1);
    if (last !== undefined && last.flags === flags) {
      last.length += length;
      return true;
    }
    if (this.#runs.length >= this.#most) return false;
    this.#runs.push({ length, flags });
    return true;
  }
}
