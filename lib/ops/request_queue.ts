/**
 * Several requests to an image at a time.
 *
 * @module
 */
import type { BlockNode } from "../block/node.ts";
import { isAligned } from "../bytes/align.ts";
import { filesOf } from "../graph/identity.ts";
import { HostError } from "../io/errno.ts";
import { openQueueFile, type QueueFile } from "../io/queue_file.ts";

/** Files that get handles of their own; an image of more pieces reads and writes the rest itself. */
const MOST_FILES = 4;

/** How far ahead is looked for where bytes lie. */
const LOOK_AHEAD = 1 << 30;

/** A file with handles. */
interface OpenFile {
  readonly queue: QueueFile;
  /** What offsets and lengths in the file have to be multiples of. */
  readonly unit: number;
}

/** A run of an image's bytes in a file. */
interface Run {
  readonly start: number;
  readonly end: number;
  /** Where in the file the disk would begin if all of it lay like this run. */
  readonly origin: number;
  /** `undefined`: in none that others than the node read. */
  readonly file: OpenFile | undefined;
}

/**
 * Reads and writes what lies plainly in local files past the image's node, so that the host has as many
 * requests as there are slots; all else is left to the node.
 */
export class RequestQueue implements Disposable {
  readonly #node: BlockNode;
  readonly #files: ReadonlyMap<BlockNode, OpenFile>;
  readonly #turns = new Turns();
  /** Where the last read was, or where all writes go. */
  #run: Run | undefined;
  /** While it is found out where the next reads are. */
  #looking: Promise<void> | undefined;

  private constructor(
    node: BlockNode,
    files: ReadonlyMap<BlockNode, OpenFile>,
    run: Run | undefined,
  ) {
    this.#node = node;
    this.#files = files;
    this.#run = run;
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
    return new RequestQueue(node, files, write ? await fixedRun(node, files) : undefined);
  }

  /**
   * Fills `into` from `offset`, a range within the node, or begins to. What comes of it when that has
   * worked is the number of bytes; in all other cases the node has to do it, which also finds
   * the words for what is wrong.
   */
  read(slot: number, offset: number, into: Uint8Array): Promise<number | null> | number | null {
    const run = this.#run;
    const file = run && fileOf(run, offset, into.length);
    if (file === undefined) return this.#readElsewhere(slot, offset, into);
    const at = run!.origin + offset;
    const { queue } = file;
    if (queue.readNow === undefined || !this.#turns.isOwn()) return queue.read(slot, at, into);
    return this.#turns.time(() => queue.readNow!(slot, at, into));
  }

  /**
   * Writes `from` at `offset`, a range within the node, or begins to, and answers as {@linkcode read} does.
   */
  write(slot: number, offset: number, from: Uint8Array): Promise<number> | number {
    const run = this.#run;
    const file = run && fileOf(run, offset, from.length);
    if (file === undefined) return this.#writeElsewhere(slot, offset, from);
    const at = run!.origin + offset;
    const { queue } = file;
    if (queue.writeNow === undefined || !this.#turns.isOwn()) return queue.write(slot, at, from);
    return this.#turns.time(() => queue.writeNow!(slot, at, from));
  }

  /** Closes the handles. */
  [Symbol.dispose](): void {
    for (const { queue } of this.#files.values()) queue[Symbol.dispose]();
  }

  async #readElsewhere(slot: number, offset: number, into: Uint8Array): Promise<number | null> {
    // All slots come to the end of a run together, and one answer is enough: a file of many pages takes
    // the host long to look through.
    while (this.#looking !== undefined) await this.#looking;
    let run = this.#run;
    if (run === undefined || offset < run.start || offset >= run.end) {
      const looking = this.#runAt(offset);
      this.#looking = looking.then(() => {}, () => {});
      try {
        run = this.#run = await looking;
      } finally {
        this.#looking = undefined;
      }
    }
    const file = fileOf(run, offset, into.length);
    if (file !== undefined) return await file.queue.read(slot, run.origin + offset, into);
    await this.#node.read(offset, into);
    return into.length;
  }

  async #runAt(offset: number): Promise<Run> {
    const length = Math.min(this.#node.length - offset, LOOK_AHEAD);
    const node = this.#node;
    const extent = await (node.locate?.(offset, length) ?? node.extent(offset, length));
    // Zeros may have space that holds something else.
    const isPlain = extent.state === "data" && !extent.guarded && extent.offset !== undefined;
    return {
      start: offset,
      end: offset + extent.length,
      origin: (extent.offset ?? 0) - offset,
      file: isPlain && extent.file !== undefined ? this.#files.get(extent.file) : undefined,
    };
  }

  /** Writes where the image has space for it, and leaves to the node what only that can write. */
  async #writeElsewhere(slot: number, offset: number, from: Uint8Array): Promise<number> {
    for (let done = 0; done < from.length;) {
      const count = await this.#writeSome(slot, offset + done, from.subarray(done));
      if (count === 0) {
        await this.#node.write(offset + done, from.subarray(done));
        break;
      }
      done += count;
    }
    return from.length;
  }

  /** Writes a prefix of `from` into space that is reserved for it; 0 bytes where that cannot be. */
  async #writeSome(slot: number, offset: number, from: Uint8Array): Promise<number> {
    const allocation = await this.#node.allocator?.allocate(offset, from.length) ?? null;
    if (allocation === null) return 0;
    const { length } = allocation;
    const file = this.#files.get(allocation.file);
    let written = 0;
    try {
      if (
        file !== undefined && isAligned(allocation.offset, file.unit) &&
        isAligned(length, file.unit)
      ) {
        written = await file.queue.write(slot, allocation.offset, from.subarray(0, length));
      }
    } catch {
      // The image knows what to say of it.
    }
    if (written < length) {
      await allocation.abandon();
      return 0;
    }
    await allocation.publish();
    return length;
  }
}

/** Of so many requests this thread hands over one and does the others itself. */
const TURN = 3;

/** Milliseconds that a request may take this thread: as long as it takes to hand over several. */
const QUICK = 0.05;

/** As many in a row that were not quick are no accident. */
const SLOW = 4;

/** Requests that are all handed over then, at first. */
const PAUSE = 1000;

/**
 * Who does a request. What the page cache has is there in a microsecond, while it takes ten to hand it
 * over: so this thread is one of those that do requests, with the others having theirs meanwhile. Where a
 * device has to be waited for, all are handed over, and ever more before the next attempt.
 */
class Turns {
  #left = TURN;
  #slow = 0;
  #pause = PAUSE;

  /** Whether the next one is for this thread. */
  isOwn(): boolean {
    if (--this.#left >= TURN) return false;
    if (this.#left > 0) return true;
    this.#left = TURN;
    return false;
  }

  /** Does one in this thread. */
  time<T>(request: () => T): T {
    const started = performance.now();
    const result = request();
    if (performance.now() - started <= QUICK) this.#slow = 0;
    else if (++this.#slow >= SLOW) {
      this.#left = TURN + this.#pause;
      this.#pause *= 2;
      this.#slow = SLOW - 1;
    }
    return result;
  }
}

/** Where all of a disk is written, if that never changes. */
async function fixedRun(
  { allocator, length }: BlockNode,
  files: ReadonlyMap<BlockNode, OpenFile>,
): Promise<Run | undefined> {
  if (!allocator?.isFixed) return undefined;
  const allocation = await allocator.allocate(0, length);
  if (allocation === null) return undefined;
  await allocation.abandon();
  const file = files.get(allocation.file);
  if (file === undefined) return undefined;
  return { start: 0, end: allocation.length, origin: allocation.offset, file };
}

/** The file for a request, if that lies in the run and as the file wants it. */
function fileOf(
  { start, end, origin, file }: Run,
  offset: number,
  length: number,
): OpenFile | undefined {
  if (file === undefined || offset < start || offset + length > end) return undefined;
  const isAlignedThere = file.unit === 1 ||
    isAligned(origin + offset, file.unit) && isAligned(length, file.unit);
  return isAlignedThere ? file : undefined;
}
