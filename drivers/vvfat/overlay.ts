import { ImageError } from "../../lib/block/error.ts";
import { HostError } from "../../lib/io/errno.ts";
import { SECTOR } from "./layout.ts";

/** The sectors that were written, in a temporary file as long as the disk and full of holes. */
export class Overlay {
  readonly #file: Deno.FsFile;
  /** Still to be removed: some systems cannot remove an open file. */
  readonly #path: string | undefined;
  readonly #written: Uint8Array;
  #closed = false;

  /** Makes a temporary file for a disk of `length` bytes. */
  constructor(length: number) {
    this.#written = new Uint8Array(length / SECTOR);
    const path = onHost(() => Deno.makeTempFileSync({ prefix: "qimg-vvfat-" }));
    this.#file = onHost(() => Deno.openSync(path, { read: true, write: true }));
    try {
      Deno.removeSync(path);
    } catch {
      this.#path = path;
    }
  }

  /** The first run at `offset`, of `length` bytes at most, of which all or nothing was written. */
  run(offset: number, length: number): { readonly written: boolean; readonly length: number } {
    const first = Math.floor(offset / SECTOR);
    const end = Math.ceil((offset + length) / SECTOR);
    const state = this.#written[first];
    let sector = first + 1;
    while (sector < end && this.#written[sector] === state) sector++;
    return { written: state === 1, length: Math.min(sector * SECTOR - offset, length) };
  }

  /** Reads what was written. */
  read(offset: number, into: Uint8Array): void {
    onHost(() => {
      for (let done = 0; done < into.length;) {
        this.#file.seekSync(offset + done, Deno.SeekMode.Start);
        const count = this.#file.readSync(into.subarray(done));
        if (count === null) throw new HostError("EIO", "read", "");
        done += count;
      }
    });
  }

  /** Writes whole sectors. */
  write(offset: number, from: Uint8Array): void {
    onHost(() => {
      for (let done = 0; done < from.length;) {
        this.#file.seekSync(offset + done, Deno.SeekMode.Start);
        done += this.#file.writeSync(from.subarray(done));
      }
    });
    this.#written.fill(1, offset / SECTOR, (offset + from.length) / SECTOR);
  }

  /** Forgets everything. A second call does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#file.close();
    if (this.#path !== undefined) Deno.removeSync(this.#path);
  }
}

function onHost<T>(body: () => T): T {
  try {
    return body();
  } catch (error) {
    const known = HostError.from(error, "write", "");
    if (!(known instanceof HostError)) throw error;
    throw new ImageError(`Could not keep changes in a temporary file: ${known.message}`, {
      errno: known.errno,
      cause: error,
    });
  }
}
