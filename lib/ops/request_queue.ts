/**
 * Several requests to an image at a time.
 *
 * @module
 */
import type { BlockNode } from "../block/node.ts";
import { requireRange } from "../block/range.ts";
import { isAligned } from "../bytes/align.ts";
import { filesOf } from "../graph/identity.ts";
import { HostError } from "../io/errno.ts";
import { openQueueFile, type QueueFile } from "../io/queue_file.ts";

/** Files that get handles of their own; an image of more pieces reads and writes the rest itself. */
const MOST_FILES = 4;

/** How far ahead is looked for where bytes lie. */
const LOOK_AHEAD = 1 << 30;

/** A run of an image's bytes in a file. */
interface Run {
  readonly start: number;
  readonly end: number;
  /** Where in the file the disk would begin if all of it lay like this run. */
  readonly origin: number;
  readonly file: QueueFile;
  /** What offsets and lengths in the file have to be multiples of. */
  readonly unit: number;
}

/** A file with handles. */
interface OpenFile {
  readonly queue: QueueFile;
  readonly unit: number;
}

/**
 * Reads and writes what lies plainly in local files past the image's node, so that the host has as many
 * requests as there are slots; all else is left to the node.
 */
export class RequestQueue implements Disposable {
  readonly #node: BlockNode;
  readonly #files: ReadonlyMap<BlockNode, OpenFile>;
  /** Where the last request was. */
  #run: Run | undefined;

  private constructor(node: BlockNode, files: ReadonlyMap<BlockNode, OpenFile>) {
    this.#node = node;
    this.#files = files;
  }

  /** Opens what is to be read or written of an image; files that do not open are left to its node. */
  static async open(node: BlockNode, slots: number, write: boolean): Promise<RequestQueue> {
    const files = new Map<BlockNode, OpenFile>();
    for (const file of filesOf(node)) {
      const { local } = file;
      if (local === undefined || (write && file.readOnly)) continue;
      const { path, direct, sync } = local;
      try {
        const queue = await openQueueFile(path, { slots, write, direct, sync: sync && write });
        files.set(file, { queue, unit: file.limits.requestAlignment });
      } catch (error) {
        if (!(error instanceof HostError)) throw error;
      }
      if (files.size === MOST_FILES) break;
    }
    return new RequestQueue(node, files);
  }

  /** Fills `into` from `offset`. Throws what the node would. */
  async read(slot: number, offset: number, into: Uint8Array): Promise<void> {
    requireRange(this.#node, offset, into.length);
    let run = this.#run;
    if (run === undefined || offset < run.start || offset >= run.end) {
      run = this.#run = await this.#runAt(offset);
    }
    if (run !== undefined && offset + into.length <= run.end) {
      const at = run.origin + offset;
      if (isAligned(at, run.unit) && isAligned(into.length, run.unit)) {
        try {
          if (await run.file.read(slot, at, into) === into.length) return;
        } catch {
          // The image knows what to say of it.
        }
      }
    }
    await this.#node.read(offset, into);
  }

  /** Writes `from` at `offset`. Throws what the node would. */
  async write(slot: number, offset: number, from: Uint8Array): Promise<void> {
    requireRange(this.#node, offset, from.length);
    let done = 0;
    while (done < from.length) {
      const count = await this.#writeSome(slot, offset + done, from.subarray(done));
      if (count === 0) return await this.#node.write(offset + done, from.subarray(done));
      done += count;
    }
  }

  /** Closes the handles. */
  [Symbol.dispose](): void {
    for (const { queue } of this.#files.values()) queue[Symbol.dispose]();
  }

  async #runAt(offset: number): Promise<Run | undefined> {
    const length = Math.min(this.#node.length - offset, LOOK_AHEAD);
    const extent = await this.#node.extent(offset, length);
    // Zeros may have space that holds something else.
    if (extent.state !== "data" || extent.file === undefined || extent.offset === undefined) {
      return undefined;
    }
    const file = this.#files.get(extent.file);
    if (file === undefined) return undefined;
    return {
      start: offset,
      end: offset + extent.length,
      origin: extent.offset - offset,
      file: file.queue,
      unit: file.unit,
    };
  }

  /** Writes a prefix of `from` where the image has space for it; 0 bytes where only the node can. */
  async #writeSome(slot: number, offset: number, from: Uint8Array): Promise<number> {
    const allocation = await this.#node.allocator?.allocate(offset, from.length) ?? null;
    if (allocation === null) return 0;
    const { length } = allocation;
    const file = this.#files.get(allocation.file);
    let isWritten = false;
    try {
      if (
        file !== undefined && isAligned(allocation.offset, file.unit) &&
        isAligned(length, file.unit)
      ) {
        await file.queue.write(slot, allocation.offset, from.subarray(0, length));
        isWritten = true;
      }
    } catch {
      // The image knows what to say of it.
    }
    if (!isWritten) {
      await allocation.abandon();
      return 0;
    }
    await allocation.publish();
    return length;
  }
}
