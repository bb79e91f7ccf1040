/**
 * What the partner of a copying thread does.
 *
 * @module
 */
import { HostError } from "../../io/errno.ts";
import { type HostFile, openHostFile } from "../../io/host_file.ts";
import { BatchState, CHUNK_SIZE, type CopyRun, type PartnerFile, READY } from "./job.ts";

/** Copies batches as they come. */
export class Assistant {
  readonly #states: Int32Array;
  readonly #files: HostFile[] = [];
  readonly #buffer = new Uint8Array(CHUNK_SIZE);

  /** Tells in `states` what becomes of batches. */
  constructor(states: Int32Array) {
    this.#states = states;
    Atomics.store(states, READY, 1);
  }

  /** Opens the next file. One that cannot be opened fails the batches that need it. */
  async open({ path, direct, write, sync }: PartnerFile): Promise<void> {
    this.#files.push(await openHostFile(path, { direct, write, sync }));
  }

  /** Copies a batch. */
  copy(batch: number, runs: readonly CopyRun[]): void {
    let state: number = BatchState.failed;
    try {
      if (runs.every((run) => this.#copyRun(run))) state = BatchState.copied;
    } catch (error) {
      // The other side does it again, and finds the words.
      if (!(error instanceof HostError)) throw error;
    } finally {
      Atomics.store(this.#states, batch, state);
      Atomics.notify(this.#states, batch);
    }
  }

  #copyRun({ source, from, target, to, length }: CopyRun): boolean {
    const [input, output] = [this.#files[source], this.#files[target]];
    if (input === undefined || output === undefined) return false;
    for (let at = 0; at < length; at += CHUNK_SIZE) {
      const chunk = this.#buffer.subarray(0, Math.min(CHUNK_SIZE, length - at));
      // A file that has become shorter is for the other side to judge.
      if (input.readAt(from + at, chunk) < chunk.length) return false;
      output.writeAt(to + at, chunk);
    }
    return true;
  }
}
