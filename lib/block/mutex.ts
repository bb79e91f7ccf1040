/** Lets one asynchronous section run at a time, in the order in which they came. */
export class Mutex {
  #last: Promise<void> | undefined;

  /** Whether a section runs or waits. */
  get busy(): boolean {
    return this.#last !== undefined;
  }

  /** Runs `section` when all earlier ones have ended, and answers as it does. Not reentrant. */
  async run<T>(section: () => T | Promise<T>): Promise<T> {
    const before = this.#last;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#last = promise;
    if (before !== undefined) await before;
    try {
      return await section();
    } finally {
      // A queue of nobody is no queue: keeps `busy` true to its word.
      if (this.#last === promise) this.#last = undefined;
      resolve();
    }
  }
}
