/**
 * The {@linkcode QueueFile} of direct I/O: one descriptor of `node:fs`, whose requests say where they go.
 *
 * @module
 */
import { O_DIRECT } from "./_direct_file.ts";
import { HostError } from "./errno.ts";
import type { QueueFile, QueueFileOptions } from "./queue_file.ts";

// A static import would be loaded at every start of a bundle of the program.
const { default: fs } = await import("node:fs");

/** Opens `path` with O_DIRECT. Throws `HostError`. */
export function openDirectQueueFile(path: string, { write, sync }: QueueFileOptions): QueueFile {
  const { O_DSYNC, O_RDONLY, O_RDWR } = fs.constants;
  const flags = O_DIRECT | (write ? O_RDWR : O_RDONLY) | (sync ? O_DSYNC : 0);
  try {
    return new DirectQueueFile(fs.openSync(path, flags));
  } catch (error) {
    throw HostError.from(error, "open", path);
  }
}

class DirectQueueFile implements QueueFile {
  readonly #descriptor: number;

  constructor(descriptor: number) {
    this.#descriptor = descriptor;
  }

  read(_slot: number, offset: number, into: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.read(this.#descriptor, into, 0, into.length, offset, (error, count) => {
        if (error) reject(error);
        else resolve(count);
      });
    });
  }

  write(_slot: number, offset: number, from: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => {
      fs.write(this.#descriptor, from, 0, from.length, offset, (error, count) => {
        if (error) reject(error);
        else resolve(count);
      });
    });
  }

  [Symbol.dispose](): void {
    fs.closeSync(this.#descriptor);
  }
}
