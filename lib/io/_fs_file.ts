/**
 * The ordinary {@linkcode HostFile}, on `Deno.FsFile`.
 *
 * @module
 */
import { HostError } from "./errno.ts";
import {
  type HostFile,
  type HostFileOptions,
  type HostFileStat,
  toHostFileStat,
} from "./_host_types.ts";

/** Opens `path` through the page cache. Throws `HostError`. */
export function openFsFile(path: string, options: HostFileOptions): HostFile {
  const { read = true, write = false, create, createNew, truncate, sync = false } = options;
  try {
    const file = Deno.openSync(path, {
      read,
      write,
      ...(create || createNew ? { mode: 0o644 } : {}),
      ...(create ? { create } : {}),
      ...(createNew ? { createNew } : {}),
      ...(truncate ? { truncate } : {}),
    });
    return new FsHostFile(path, file, write, sync);
  } catch (error) {
    throw HostError.from(error, "open", path);
  }
}

class FsHostFile implements HostFile {
  readonly path: string;
  readonly writable: boolean;
  readonly direct = false;
  readonly alignment = 1;
  readonly #file: Deno.FsFile;
  readonly #syncWrites: boolean;
  #closed = false;

  constructor(path: string, file: Deno.FsFile, writable: boolean, syncWrites: boolean) {
    this.path = path;
    this.writable = writable;
    this.#file = file;
    this.#syncWrites = syncWrites;
  }

  readAt(offset: number, into: Uint8Array): number {
    const file = this.#file;
    let done = 0;
    while (done < into.length) {
      try {
        // The position stands right after a short read, but an interrupted one leaves it anywhere.
        file.seekSync(offset + done, Deno.SeekMode.Start);
        const count = file.readSync(done === 0 ? into : into.subarray(done));
        if (count === null) break;
        done += count;
      } catch (error) {
        if (!(error instanceof Deno.errors.Interrupted)) {
          throw HostError.from(error, "read", this.path);
        }
      }
    }
    return done;
  }

  writeAt(offset: number, from: Uint8Array): void {
    const file = this.#file;
    let done = 0;
    while (done < from.length) {
      try {
        file.seekSync(offset + done, Deno.SeekMode.Start);
        const count = file.writeSync(done === 0 ? from : from.subarray(done));
        // A device that takes nothing more and does not say why.
        if (count === 0) throw new HostError("ENOSPC", "write", this.path);
        done += count;
      } catch (error) {
        if (!(error instanceof Deno.errors.Interrupted)) {
          throw HostError.from(error, "write", this.path);
        }
      }
    }
    if (this.#syncWrites && done > 0) this.datasync();
  }

  size(): number {
    // Unlike stat(), this knows the capacity of a device.
    return this.#call("seek", (file) => file.seekSync(0, Deno.SeekMode.End));
  }

  truncate(length: number): void {
    this.#call("truncate", (file) => file.truncateSync(length));
  }

  sync(): void {
    this.#call("sync", (file) => file.syncSync());
  }

  datasync(): void {
    this.#call("sync", (file) => file.syncDataSync());
  }

  stat(): HostFileStat {
    return this.#call("stat", (file) => toHostFileStat(file.statSync()));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#file.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #call<T>(operation: string, body: (file: Deno.FsFile) => T): T {
    for (;;) {
      try {
        return body(this.#file);
      } catch (error) {
        if (!(error instanceof Deno.errors.Interrupted)) {
          throw HostError.from(error, operation, this.path);
        }
      }
    }
  }
}
