/**
 * Small reads of a file that is far away, made of few large ones: what was fetched is kept for a while,
 * and where reads follow each other what comes next is fetched before anybody asks for it.
 *
 * @module
 */
import { alignDown, divideUp } from "../../lib/bytes/align.ts";

/** Where the bytes come from. */
export interface Origin {
  /** Bytes. */
  readonly size: number;
  /** Hands the bytes from `start` up to `end` to `take`, in order and in any pieces. */
  read(start: number, end: number, take: (bytes: Uint8Array) => void): Promise<void>;
}

/** Unit of what is kept, bytes; the small one if less is to be read ahead. */
const LARGE_BLOCK = 64 << 10;
const SMALL_BLOCK = 4 << 10;

/** Bytes that one request fetches, and requests at a time. */
const LONGEST_RUN = 1 << 20;
const MOST_RUNS = 16;

/** Bytes that are kept. */
const CAPACITY = 16 << 20;

/** Bytes that nobody has asked for yet, of a reader and of all. */
const MOST_AHEAD = 12 << 20;

/** How much further is read ahead each time that reading ahead was right. */
const GROWTH = 4;

/** Places in the file that are read from at the same time. */
const MOST_STREAMS = 8;

/** Reads that leave out no more than this follow each other. */
const SLACK = 1 << 20;

/** A part of the file, here or on its way. */
interface Block {
  bytes: Uint8Array | undefined;
  /** Resolves when `bytes` is there. */
  readonly arrival: PromiseWithResolvers<void>;
  /** The request that brings it, as long as that was not made. */
  run: Run | undefined;
  /** Nobody has asked for it. */
  isAhead: boolean;
  /** Reads that are going to copy from it. */
  readers: number;
}

/** Blocks to be fetched by one request. */
interface Run {
  readonly first: number;
  readonly blocks: readonly Block[];
}

/** A place from which reads go on and on. */
interface Stream {
  /** End of the read that got furthest. */
  next: number;
  /** End of what was asked for from here. */
  fetched: number;
  /** Bytes to be ahead of the reader. */
  window: number;
}

/** Reads through a cache of some megabytes. */
export class ReadAhead {
  readonly #origin: Origin;
  readonly #readahead: number;
  readonly #unit: number;
  /** By number; those that were used last come last. */
  readonly #blocks = new Map<number, Block>();
  /** Memory for blocks: what was used before costs the system no clean pages. */
  readonly #spare: Uint8Array[] = [];
  /** Runs to be fetched: those that somebody waits for, and the others. */
  readonly #wanted: Run[] = [];
  readonly #ahead: Run[] = [];
  #running = 0;
  #aheadBytes = 0;
  /** The one that was used last comes last. */
  #streams: Stream[] = [];

  /** On top of `origin`; without `readahead`, in bytes, only what is asked for is fetched. */
  constructor(origin: Origin, readahead: number) {
    this.#origin = origin;
    this.#readahead = readahead;
    this.#unit = readahead < LARGE_BLOCK ? SMALL_BLOCK : LARGE_BLOCK;
  }

  /**
   * Fills `into` from `offset`, which with the bytes asked for lies within the file.
   *
   * @throws what the origin throws, who is asked again the next time.
   */
  async read(offset: number, into: Uint8Array): Promise<void> {
    if (into.length === 0) return;
    const unit = this.#unit;
    const end = offset + into.length;
    const first = alignDown(offset, unit) / unit;
    const blocks = this.#want(offset, end);
    this.#pump();
    try {
      for (const [index, block] of blocks.entries()) {
        if (block.bytes === undefined) await block.arrival.promise;
        const begin = (first + index) * unit;
        const from = Math.max(offset, begin);
        const bytes = block.bytes!.subarray(from - begin, Math.min(end - begin, unit));
        into.set(bytes, from - offset);
      }
    } finally {
      for (const block of blocks) block.readers--;
    }
  }

  /** The blocks of a read, held for it, and asked for if they are not here with what comes after them. */
  #want(offset: number, end: number): Block[] {
    const unit = this.#unit;
    const first = alignDown(offset, unit) / unit;
    const count = divideUp(end, unit) - first;
    const isKnown = this.#blocks.has(first + count - 1);
    const stream = this.#streamAt(offset, end);
    const blocks: Block[] = [];
    for (let number = first; number < first + count; number++) {
      const block = this.#blocks.get(number);
      if (block === undefined) continue;
      // What was used last goes last.
      this.#blocks.delete(number);
      this.#blocks.set(number, block);
      if (block.isAhead) {
        block.isAhead = false;
        this.#aheadBytes -= unit;
      }
      this.#hurry(block);
    }
    // What is read ahead from a new place comes with the read itself.
    const isNew = stream.window === 0;
    if (isNew) stream.window = this.#readahead;
    const together = isNew && !isKnown ? Math.min(this.#readahead, LONGEST_RUN) : 0;
    const fetched = this.#fetch(
      first,
      divideUp(Math.min(end + together, this.#origin.size), unit),
      {
        isAhead: (number) => number >= first + count,
        queue: this.#wanted,
      },
    );
    stream.fetched = Math.max(stream.fetched, fetched);
    for (let number = first; number < first + count; number++) {
      const block = this.#blocks.get(number)!;
      block.readers++;
      blocks.push(block);
    }
    if (!isNew) this.#advance(stream);
    this.#trim();
    return blocks;
  }

  /** The stream that a read goes on with, or a new one, which has no window yet. */
  #streamAt(offset: number, end: number): Stream {
    const found = this.#streams.findLastIndex(({ next, fetched }) =>
      offset <= Math.max(fetched, next + SLACK) && offset >= next - MOST_AHEAD
    );
    const stream = found < 0
      ? { next: 0, fetched: 0, window: 0 }
      : this.#streams.splice(found, 1)[0]!;
    stream.next = Math.max(stream.next, end);
    this.#streams.push(stream);
    if (this.#streams.length > MOST_STREAMS) this.#streams.shift();
    return stream;
  }

  /** Fetches what comes next in a stream, as soon as half of it or a whole request of it is used up. */
  #advance(stream: Stream): void {
    if (this.#readahead === 0) return;
    const { size } = this.#origin;
    stream.fetched = Math.max(stream.fetched, stream.next);
    const enough = Math.max(stream.window / 2, stream.window - LONGEST_RUN);
    if (stream.fetched - stream.next > enough || stream.fetched >= size) return;
    // Readers share what may be ahead: one that took all of it would leave the others with crumbs.
    stream.window = Math.min(stream.window * GROWTH, MOST_AHEAD / this.#streams.length);
    const room = MOST_AHEAD - this.#aheadBytes;
    const end = Math.min(stream.next + stream.window, stream.fetched + room, size);
    if (end <= stream.fetched) return;
    stream.fetched = this.#fetch(
      alignDown(stream.fetched, this.#unit) / this.#unit,
      divideUp(end, this.#unit),
      { isAhead: () => true, queue: this.#ahead },
    );
  }

  /** Queues those of the blocks from `first` up to `end` that are not here. Answers with their end in bytes. */
  #fetch(
    first: number,
    end: number,
    { isAhead, queue }: { isAhead(number: number): boolean; readonly queue: Run[] },
  ): number {
    const unit = this.#unit;
    for (let number = first; number < end;) {
      const blocks: Block[] = [];
      const start = number;
      while (number < end && !this.#blocks.has(number) && blocks.length * unit < LONGEST_RUN) {
        const block = newBlock(isAhead(number));
        if (block.isAhead) this.#aheadBytes += unit;
        this.#blocks.set(number, block);
        blocks.push(block);
        number++;
      }
      if (blocks.length === 0) {
        number++;
        continue;
      }
      const run: Run = { first: start, blocks };
      for (const block of blocks) block.run = run;
      queue.push(run);
    }
    return Math.min(end * unit, this.#origin.size);
  }

  /** Somebody waits for what was to be fetched when there is time. */
  #hurry({ run }: Block): void {
    if (run === undefined) return;
    const at = this.#ahead.indexOf(run);
    if (at < 0) return;
    this.#ahead.splice(at, 1);
    this.#wanted.push(run);
  }

  #pump(): void {
    while (this.#running < MOST_RUNS) {
      const run = this.#wanted.shift() ?? this.#ahead.shift();
      if (run === undefined) return;
      this.#running++;
      this.#carryOut(run).finally(() => {
        this.#running--;
        this.#pump();
      });
    }
  }

  async #carryOut({ first, blocks }: Run): Promise<void> {
    const unit = this.#unit;
    const { size } = this.#origin;
    for (const block of blocks) block.run = undefined;
    const start = first * unit;
    const end = Math.min(start + blocks.length * unit, size);
    let bytes: Uint8Array | undefined;
    let at = start;
    let filled = 0;
    try {
      await this.#origin.read(start, end, (piece) => {
        while (piece.length > 0) {
          bytes ??= this.#spare.pop() ?? new Uint8Array(unit);
          const length = Math.min(unit, end - at);
          const part = piece.subarray(0, length - filled);
          bytes.set(part, filled);
          piece = piece.subarray(part.length);
          filled += part.length;
          if (filled < length) continue;
          const block = blocks[(at - start) / unit]!;
          block.bytes = bytes;
          block.arrival.resolve();
          bytes = undefined;
          at += unit;
          filled = 0;
        }
      });
    } catch (error) {
      for (const [index, block] of blocks.entries()) {
        if (block.bytes !== undefined) continue;
        this.#forget(first + index, block);
        block.arrival.reject(error);
      }
    }
  }

  #forget(number: number, block: Block): void {
    if (this.#blocks.get(number) === block) this.#blocks.delete(number);
    if (block.isAhead) this.#aheadBytes -= this.#unit;
    block.isAhead = false;
  }

  /**
   * Lets go of what was not used for the longest time; of what is still to be asked for only if there is
   * nothing else. What is on its way stays.
   */
  #trim(): void {
    let surplus = this.#blocks.size - CAPACITY / this.#unit;
    for (const mayBeAhead of [false, true]) {
      for (const [number, block] of this.#blocks) {
        if (surplus <= 0) return;
        if (block.bytes === undefined || (block.isAhead && !mayBeAhead)) continue;
        this.#forget(number, block);
        if (block.readers === 0) this.#spare.push(block.bytes);
        surplus--;
      }
    }
  }
}

function newBlock(isAhead: boolean): Block {
  const arrival = Promise.withResolvers<void>();
  // Perhaps nobody ever waits for it.
  arrival.promise.catch(() => {});
  return { bytes: undefined, arrival, run: undefined, isAhead, readers: 0 };
}
