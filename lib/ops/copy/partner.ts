/**
 * A second pair of hands for plain bytes.
 *
 * @module
 */
import type { LocalFile } from "../../block/node.ts";
import type { PartnerMessage, WriteRun } from "./job.ts";
import { BATCHES, BatchState } from "./job.ts";
import { alignUp } from "../../bytes/align.ts";
import { breathe, type Pace } from "./pace.ts";
import { startWorker } from "./pool.ts";

/** How long this thread sleeps before it heeds signals, in milliseconds. */
const NAP = 10;

/** What the partner is to write. */
export interface Run {
  /** Where in the buffer of its batch, bytes. */
  readonly at: number;
  /** Bytes. */
  readonly length: number;
  /** Where they go. */
  readonly target: LocalFile;
  /** Where in `target`, bytes. */
  readonly to: number;
}

/**
 * A thread that writes runs of bytes to local files.
 *
 * The bytes are in shared buffers, one for each batch that there may be. Runs are handed over in batches
 * by message; what became of a batch stands in shared memory, where it can be looked up without waiting
 * for a message.
 */
export class Partner implements Disposable {
  readonly #worker: Worker;
  /** Of each batch, and whether the thread has started. */
  readonly #states: Int32Array;
  readonly #buffers: readonly Uint8Array[];
  readonly #pace: Pace;
  readonly #files = new Map<string, number>();
  readonly #waiting = new Set<() => void>();
  #isLost = false;

  /** Starts the thread and does not wait for it. There may be `count` batches of `size` bytes at most. */
  constructor(pace: Pace, size: number, count = BATCHES) {
    this.#pace = pace;
    this.#states = new Int32Array(
      new SharedArrayBuffer((count + 1) * Int32Array.BYTES_PER_ELEMENT),
    );
    this.#buffers = sharedBuffers(count, size);
    this.#worker = startWorker();
    this.#worker.onmessage = () => this.#wake();
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#isLost = true;
      this.#wake();
    };
    this.#post({ partner: this.#states, buffers: this.#buffers });
  }

  /** Where the bytes of batches go, by their numbers. */
  get buffers(): readonly Uint8Array[] {
    return this.#buffers;
  }

  /** Whether it has started and can take a batch as number `batch`. */
  canTake(batch: number): boolean {
    return !this.#isLost && Atomics.load(this.#states, this.#states.length - 1) === 1 &&
      Atomics.load(this.#states, batch) === BatchState.none;
  }

  /** Where the bytes of a batch go. To be left alone from {@linkcode take} until there is an outcome. */
  buffer(batch: number): Uint8Array {
    return this.#buffers[batch]!;
  }

  /** Hands over a batch; {@linkcode ended} waits only for those that it is to `tell` of. */
  take(batch: number, runs: readonly Run[], { tell = false } = {}): void {
    const write = runs.map(({ at, length, target, to }): WriteRun => ({
      at,
      length,
      target: this.#indexOf(target),
      to,
    }));
    Atomics.store(this.#states, batch, BatchState.taken);
    this.#post({ write, batch, tell });
  }

  /** Whether a batch was written; `undefined` while it is being written, and where there is none. */
  outcome(batch: number): boolean | undefined {
    const state = Atomics.load(this.#states, batch);
    if (state === BatchState.written) return true;
    return state === BatchState.failed || this.#isLost ? false : undefined;
  }

  /** Waits for a batch while this thread does other things, and says whether it was written. */
  async ended(batch: number): Promise<boolean> {
    for (;;) {
      const outcome = this.outcome(batch);
      if (outcome !== undefined) return outcome;
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  /** Lets the number of a batch be used again. */
  forget(batch: number): void {
    Atomics.store(this.#states, batch, BatchState.none);
  }

  /** Waits for a batch and says whether it was written. Throws the reason of an abort. */
  async wait(batch: number): Promise<boolean> {
    for (;;) {
      const outcome = this.outcome(batch);
      if (outcome !== undefined) return outcome;
      Atomics.wait(this.#states, batch, BatchState.taken, NAP);
      await this.#pace.rest();
    }
  }

  /** Waits until nothing of a batch is being written any more, come what may. */
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

  #indexOf({ path, direct, sync }: LocalFile): number {
    let index = this.#files.get(path);
    if (index === undefined) {
      index = this.#files.size;
      this.#files.set(path, index);
      this.#post({ file: { path, direct, sync } });
    }
    return index;
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }

  #post(message: PartnerMessage): void {
    this.#worker.postMessage(message);
  }
}

/** Buffers that two threads use. They begin on pages: the system copies from there up to four times as fast. */
function sharedBuffers(count: number, size: number): Uint8Array[] {
  const page = 65536;
  const stride = alignUp(size, page);
  const pages = count * stride / page;
  const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
  return Array.from({ length: count }, (_, index) => new Uint8Array(buffer, index * stride, size));
}
