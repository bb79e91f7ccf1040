/**
 * Threads that do jobs.
 *
 * @module
 */
import {
  type Job,
  type JobMessage,
  type ResultMessage,
  type ResultOf,
  type SetupMessage,
  SLOT_SIZE,
} from "./job.ts";
import { breathe } from "./pace.ts";
import { JobRunner } from "./runner.ts";

/** Does jobs, in other threads if it has any. */
export interface Pool extends AsyncDisposable {
  /** Buffers that jobs refer to by their index, each of {@linkcode SLOT_SIZE} bytes. */
  readonly slots: readonly Uint8Array[];
  /** Does a job. Jobs that overlap must not use the same slot. */
  run<J extends Job>(job: J): Promise<ResultOf<J>>;
  /** Ends the threads. What was still to be done is rejected. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** The main module of workers. */
const WORKER = new URL("./worker.ts", import.meta.url);

/** How many threads there may be, beside this one. */
export function threadLimit(requests: number): number {
  return mayStartWorkers() ? Math.min(requests, navigator.hardwareConcurrency) : 0;
}

/** Starts a worker, and does not wait for it. */
export function startWorker(): Worker {
  return new Worker(WORKER, { type: "module" });
}

/** Deno reads the main module of a worker with the permissions of who starts it, and complains aloud. */
function mayStartWorkers(): boolean {
  if (WORKER.protocol !== "file:" || Deno.build.standalone) return true;
  return Deno.permissions.querySync({ name: "read", path: WORKER }).state === "granted";
}

/** Does all jobs in this thread, when their turn comes. */
export class InlinePool implements Pool {
  readonly slots: readonly Uint8Array[];
  readonly #runner: JobRunner;
  #last: Promise<unknown> = Promise.resolve();
  #isEnding = false;

  /** A pool with slots of its own, or with those that jobs refer to already. */
  constructor(slots: number | readonly Uint8Array[]) {
    this.slots = typeof slots === "number"
      ? Array.from({ length: slots }, () => new Uint8Array(SLOT_SIZE))
      : slots;
    this.#runner = new JobRunner(this.slots);
  }

  run<J extends Job>(job: J): Promise<ResultOf<J>> {
    const result = this.#last.then(async () => {
      // Signals are delivered only when nothing runs.
      await breathe();
      if (this.#isEnding) throw new Error("the pool has ended");
      return await this.#runner.run(job);
    });
    this.#last = result.catch(() => {});
    return result;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isEnding = true;
    await this.#last;
    this.#runner[Symbol.dispose]();
  }
}

interface Pending {
  readonly job: Job;
  readonly resolve: (result: ResultOf<Job>) => void;
  readonly reject: (error: unknown) => void;
}

interface Thread {
  readonly worker: Worker;
  readonly pending: Map<number, Pending>;
}

/**
 * Does jobs in workers, each job in the one that has the least to do.
 *
 * A worker that does not start (its module cannot be found, say) costs time but no job: what it had to
 * do is done in this thread.
 */
export class WorkerPool implements Pool {
  readonly slots: readonly Uint8Array[];
  #threads: Thread[] = [];
  #inline: InlinePool | undefined;
  #nextId = 0;

  /** Starts `threads` workers with `slots` slots, and does not wait for them. */
  constructor(threads: number, slots: number) {
    this.slots = Array.from(
      { length: slots },
      () => new Uint8Array(new SharedArrayBuffer(SLOT_SIZE)),
    );
    for (let i = 0; i < threads; i++) this.#threads.push(this.#start());
  }

  run<J extends Job>(job: J): Promise<ResultOf<J>> {
    const thread = this.#idlest();
    if (thread === undefined) return this.#runInline(job);
    return new Promise((resolve, reject) => {
      const id = this.#nextId++;
      thread.pending.set(id, { job, resolve: resolve as Pending["resolve"], reject });
      thread.worker.postMessage({ id, job } satisfies JobMessage);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { worker, pending } of this.#threads) {
      worker.terminate();
      for (const { reject } of pending.values()) reject(new Error("the pool has ended"));
      pending.clear();
    }
    this.#threads = [];
    await this.#inline?.[Symbol.asyncDispose]();
  }

  #start(): Thread {
    const worker = startWorker();
    const thread: Thread = { worker, pending: new Map() };
    worker.onmessage = ({ data }: MessageEvent<ResultMessage>) => {
      const pending = thread.pending.get(data.id);
      if (pending === undefined) return;
      thread.pending.delete(data.id);
      if (data.result !== undefined) pending.resolve(data.result);
      else pending.reject(new Error(`in a worker: ${data.error}`));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      this.#abandon(thread);
    };
    worker.postMessage({ slots: this.slots } satisfies SetupMessage);
    return thread;
  }

  #abandon(thread: Thread): void {
    thread.worker.terminate();
    this.#threads = this.#threads.filter((other) => other !== thread);
    for (const { job, resolve, reject } of thread.pending.values()) {
      this.#runInline(job).then(resolve, reject);
    }
    thread.pending.clear();
  }

  #idlest(): Thread | undefined {
    let idlest = this.#threads[0];
    for (const thread of this.#threads) {
      if (thread.pending.size < idlest!.pending.size) idlest = thread;
    }
    return idlest;
  }

  #runInline<J extends Job>(job: J): Promise<ResultOf<J>> {
    this.#inline ??= new InlinePool(this.slots);
    return this.#inline.run(job);
  }
}
