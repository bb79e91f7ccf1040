/**
 * What the partner of a copying thread does.
 *
 * @module
 */
import { HostError } from "../../io/errno.ts";
import { type HostFile, openHostFile } from "../../io/host_file.ts";
import { BatchState, CHUNK_SIZE, type PartnerFile, type WriteRun } from "./job.ts";

/** Writes batches as they come. */
export class Assistant {
  readonly #states: Int32Array;
  readonly #buffers: readonly Uint8Array[];
  readonly #files: HostFile[] = [];

  /** Tells in `states` what becomes of batches, whose bytes are in `buffers`. */
  constructor(states: Int32Array, buffers: readonly Uint8Array[]) {
    this.#states = states;
    this.#buffers = buffers;
    Atomics.store(states, states.length - 1, 1);
  }

  /** Opens the next file. One that cannot be opened fails the batches that need it. */
  async open({ path, direct, sync }: PartnerFile): Promise<void> {
    this.#files.push(await openHostFile(path, { direct, write: true, sync }));
  }

  /** Writes a batch. */
  write(batch: number, runs: readonly WriteRun[]): void {
    let state: number = BatchState.failed;
    try {
      for (const run of runs) this.#writeRun(this.#buffers[batch]!, run);
      state = BatchState.written;
    } catch (error) {
      // The other side does it again, and finds the words.
      if (!(error instanceof HostError)) throw error;
    } finally {
      Atomics.store(this.#states, batch, state);
      Atomics.notify(this.#states, batch);
    }
  }

  #writeRun(bytes: Uint8Array, { at, length, target, to }: WriteRun): void {
    const file = this.#files[target];
    if (file === undefined) throw new HostError("EBADF", "write", "");
    for (let done = 0; done < length; done += CHUNK_SIZE) {
      const count = Math.min(CHUNK_SIZE, length - done);
      file.writeAt(to + done, bytes.subarray(at + done, at + done + count));
    }
  }
}
