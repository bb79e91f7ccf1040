/**
 * Staying responsive: nothing is delivered to a thread, no signal and no message, while it works.
 *
 * @module
 */

/** Milliseconds of work between two looks at what has come. */
const INTERVAL = 20;

/** Lets signals and messages through. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Called between any two pieces of work, it breathes now and then and heeds an abort. */
export class Pace {
  readonly #signal: AbortSignal | undefined;
  #last = performance.now();

  /** Throws the signal's reason once it is aborted. */
  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
  }

  /** Throws the reason of an abort. Mostly does nothing. */
  step(): Promise<void> | void {
    this.#signal?.throwIfAborted();
    if (performance.now() - this.#last >= INTERVAL) return this.rest();
  }

  /** Lets everything through that waits; throws the reason of an abort. */
  async rest(): Promise<void> {
    await breathe();
    this.#last = performance.now();
    this.#signal?.throwIfAborted();
  }
}
