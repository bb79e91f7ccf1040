/**
 * A second pair of hands for plain bytes.
 *
 * @module
 */
import type { LocalFile } from "../../block/node.ts";
import type { CopyRun, PartnerFile, PartnerMessage } from "./job.ts";
import { BATCHES, BatchState, READY } from "./job.ts";
import { breathe, type Pace } from "./pace.ts";
import { startWorker } from "./pool.ts";

/** How long this thread sleeps before it heeds signals, in milliseconds. */
const NAP = 10;

/** What the partner is to copy: plain bytes from file to file. */
export interface Run {
  /** Where they are. */
  readonly source: LocalFile;
  /** Where in `source`, bytes. */
  readonly from: number;
  /** Where they go. */
  readonly target: LocalFile;
  /** Where in `target`, bytes. */
  readonly to: number;
  /** Bytes. */
  readonly length: number;
}

/**
 * A thread that copies runs of bytes that lie plainly in local files, and reads them by itself.
 *
 * Runs are handed over in batches by message; what became of a batch stands in shared memory, where it
 * can be looked up without waiting for a message.
 */
export class Partner implements Disposable {
  readonly #worker: Worker;
  readonly #states = new Int32Array(
    new SharedArrayBuffer((BATCHES + 1) * Int32Array.BYTES_PER_ELEMENT),
  );
  readonly #pace: Pace;
  readonly #files = new Map<string, number>();
  #isLost = false;

  /** Starts the thread and does not wait for it. */
  constructor(pace: Pace) {
    this.#pace = pace;
    this.#worker = startWorker();
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#isLost = true;
    };
    this.#post({ partner: this.#states });
  }

  /** Whether it has started and can take a batch as number `batch`. */
  canTake(batch: number): boolean {
    return !this.#isLost && Atomics.load(this.#states, READY) === 1 &&
      Atomics.load(this.#states, batch) === BatchState.none;
  }

  /** Hands over a batch. */
  take(batch: number, runs: readonly Run[]): void {
    const copy = runs.map(({ source, from, target, to, length }): CopyRun => ({
      source: this.#indexOf(source, false),
      from,
      target: this.#indexOf(target, true),
      to,
      length,
    }));
    Atomics.store(this.#states, batch, BatchState.taken);
    this.#post({ copy, batch });
  }

  /** Whether a batch was copied; `undefined` while it is being copied, and where there is none. */
  outcome(batch: number): boolean | undefined {
    const state = Atomics.load(this.#states, batch);
    if (state === BatchState.copied) return true;
    return state === BatchState.failed || this.#isLost ? false : undefined;
  }

  /** Lets the number of a batch be used again. */
  forget(batch: number): void {
    Atomics.store(this.#states, batch, BatchState.none);
  }

  /** Waits for a batch and says whether it was copied. Throws the reason of an abort. */
  async wait(batch: number): Promise<boolean> {
    for (;;) {
      const outcome = this.outcome(batch);
      if (outcome !== undefined) return outcome;
      Atomics.wait(this.#states, batch, BatchState.taken, NAP);
      await this.#pace.rest();
    }
  }

  /** Waits until nothing of a batch is being copied any more, come what may. */
  async stopped(batch: number): Promise<void> {
    while (this.outcome(batch) === undefined) {
      Atomics.wait(this.#states, batch, BatchState.taken, NAP);
      await breathe();
    }
  }

  /** Ends the thread. */
  [Symbol.dispose](): void {
    this.#worker.terminate();
  }

  #indexOf({ path, direct, sync }: LocalFile, write: boolean): number {
    const key = `${write ? "to" : "from"} ${path}`;
    let index = this.#files.get(key);
    if (index === undefined) {
      index = this.#files.size;
      this.#files.set(key, index);
      const file: PartnerFile = { path, direct, write, sync: write && sync };
      this.#post({ file });
    }
    return index;
  }

  #post(message: PartnerMessage): void {
    this.#worker.postMessage(message);
  }
}
