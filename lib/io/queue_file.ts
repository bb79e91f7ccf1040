/**
 * A file or block device of the host with several requests on their way at a time.
 *
 * A `Deno.FsFile` has one position, and the runtime does one request of it at a time. So each slot has a
 * handle of its own: it is set to its place synchronously, and only the transfer is waited for. That takes
 * 6 µs a request and another thread, where `HostFile` takes one and this thread: it is for devices, not
 * for the page cache.
 *
 * @module
 */
import { HostError } from "./errno.ts";

/** How {@linkcode openQueueFile} opens. */
export interface QueueFileOptions {
  /** How many requests there may be at a time, at least 1. */
  readonly slots: number;
  /** Writing, too. */
  readonly write: boolean;
  /**
   * Pass by the host's page cache (O_DIRECT), on Linux alone: requests must then keep to the unit of the
   * file system in offset, length and memory (`alignedBytes`).
   */
  readonly direct: boolean;
  /** A write is done only when its data are on the medium. */
  readonly sync: boolean;
}

/** Requests to a file. Two of the same slot must not run at the same time. */
export interface QueueFile extends Disposable {
  /**
   * Reads at `offset`, and answers with the number of bytes read, which may be fewer than `into` takes;
   * at the end of the file with 0 or `null`. Throws or rejects with what the runtime throws.
   */
  read(slot: number, offset: number, into: Uint8Array): Promise<number | null>;
  /**
   * Writes at `offset`, and answers with the number of bytes written, which may be fewer than `from` has.
   * Throws or rejects with what the runtime throws.
   */
  write(slot: number, offset: number, from: Uint8Array): Promise<number>;
  /**
   * The same as `read`, by the calling thread: a microsecond for what the page cache has. Absent where
   * there is none.
   */
  readNow?(slot: number, offset: number, into: Uint8Array): number | null;
  /** The same as `write`, by the calling thread. Absent where writes wait for a device. */
  writeNow?(slot: number, offset: number, from: Uint8Array): number;
}

/** Opens an existing file or device. Throws `HostError`. */
export async function openQueueFile(path: string, options: QueueFileOptions): Promise<QueueFile> {
  if (!options.direct) return new FsQueueFile(path, options);
  const { openDirectQueueFile } = await import("./_direct_queue.ts");
  return openDirectQueueFile(path, options);
}

class FsQueueFile implements QueueFile {
  readonly #files: Deno.FsFile[] = [];
  readonly #sync: boolean;
  readonly writeNow?: (slot: number, offset: number, from: Uint8Array) => number;

  constructor(path: string, { slots, write, sync }: QueueFileOptions) {
    this.#sync = sync;
    if (!sync) {
      this.writeNow = (slot, offset, from) => {
        const file = this.#files[slot]!;
        file.seekSync(offset, Deno.SeekMode.Start);
        return file.writeSync(from);
      };
    }
    try {
      for (let slot = 0; slot < slots; slot++) {
        this.#files.push(Deno.openSync(path, { read: true, write }));
      }
    } catch (error) {
      this[Symbol.dispose]();
      throw HostError.from(error, "open", path);
    }
  }

  // No promises but the runtime's: there are a hundred thousand requests a second.
  read(slot: number, offset: number, into: Uint8Array): Promise<number | null> {
    const file = this.#files[slot]!;
    file.seekSync(offset, Deno.SeekMode.Start);
    return file.read(into);
  }

  readNow(slot: number, offset: number, into: Uint8Array): number | null {
    const file = this.#files[slot]!;
    file.seekSync(offset, Deno.SeekMode.Start);
    return file.readSync(into);
  }

  write(slot: number, offset: number, from: Uint8Array): Promise<number> {
    const file = this.#files[slot]!;
    file.seekSync(offset, Deno.SeekMode.Start);
    return this.#sync ? writeThrough(file, from) : file.write(from);
  }

  [Symbol.dispose](): void {
    for (const file of this.#files.splice(0)) file.close();
  }
}

async function writeThrough(file: Deno.FsFile, from: Uint8Array): Promise<number> {
  const count = await file.write(from);
  await file.syncData();
  return count;
}
