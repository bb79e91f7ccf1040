/**
 * An open image as clients of the server see it: a number of bytes to read and perhaps to write, at any
 * offset and of any length, whatever the image below prefers.
 *
 * @module
 */
import { Mutex } from "../../block/mutex.ts";
import type { BlockNode } from "../../block/node.ts";
import { alignDown, alignUp, isAligned } from "../../bytes/align.ts";
import { mapNode } from "../map.ts";
import { breathe } from "./shares.ts";
import type { MetaContext } from "./meta_contexts.ts";

/** Bytes that no read and no write of a client may exceed. */
export const MAX_TRANSFER = 32 << 20;

/** Bytes of a zero write or a discard that are done at once; others get their turn in between. */
const STRETCH = 128 << 20;

/** What clients prefer to be told even of images that take everything, bytes. */
const PREFERRED = 4096;

/** Sizes of requests, bytes (NBD_INFO_BLOCK_SIZE). */
export interface BlockSizes {
  /** Requests are best a multiple of this; others are taken, too. */
  readonly minimum: number;
  /** What does not meet this is slower. */
  readonly preferred: number;
  /** The longest transfer. */
  readonly maximum: number;
}

/** A run of an export's bytes for a reply to a read. */
export interface ReadRun {
  /** First byte. */
  readonly start: number;
  /** Bytes. */
  readonly length: number;
  /** They are known to be zeros. */
  readonly zero: boolean;
}

/** What {@linkcode DiskExport} is made of. */
export interface ExportSettings {
  /** Its name for clients, `""` for the one that they get without asking for any. */
  readonly name: string;
  /** What people may be told of it. */
  readonly description?: string | undefined;
  /** Many clients may be connected at once. */
  readonly shared: boolean;
  /** What block status can tell. */
  readonly contexts: readonly MetaContext[];
  /** Called when something was written. */
  changed(): void;
}

/** An image and all that clients are told of it. */
export class DiskExport {
  readonly name: string;
  readonly description: string | undefined;
  readonly shared: boolean;
  readonly contexts: readonly MetaContext[];
  /** Bytes. */
  readonly size: number;
  /** Nothing can be written. */
  readonly readOnly: boolean;
  /** The sizes of requests. */
  readonly blocks: BlockSizes;
  readonly #node: BlockNode;
  readonly #changed: () => void;
  readonly #alignment: number;
  /** Parts of a block are changed in turn, or one change would undo another. */
  readonly #turns: Mutex | undefined;

  /** Shows `node`. It remains the caller's to close. */
  constructor(node: BlockNode, settings: ExportSettings) {
    this.name = settings.name;
    this.description = settings.description;
    this.shared = settings.shared;
    this.contexts = settings.contexts;
    this.#node = node;
    this.#changed = settings.changed;
    this.size = node.length;
    this.readOnly = node.readOnly;
    this.#alignment = node.limits.requestAlignment;
    this.#turns = this.#alignment > 1 ? new Mutex() : undefined;
    const minimum = divisorOf(this.size, this.#alignment);
    this.blocks = { minimum, preferred: Math.max(PREFERRED, minimum), maximum: MAX_TRANSFER };
  }

  /** Fills `into`. */
  async read(offset: number, into: Uint8Array): Promise<void> {
    if (this.#isAligned(offset, into.length)) return await this.#node.read(offset, into);
    const around = await this.#readAround(offset, into.length);
    into.set(around.bytes.subarray(offset - around.start, offset - around.start + into.length));
  }

  /** Writes `from`. */
  async write(offset: number, from: Uint8Array): Promise<void> {
    await this.#change(() => this.#write(offset, from));
  }

  /**
   * Makes bytes read as zeros.
   *
   * @throws {ImageError} `ENOTSUP` if `fast` was asked for and zeros would have to be written.
   */
  async writeZeroes(
    offset: number,
    length: number,
    { unmap, fast }: { unmap: boolean; fast: boolean },
  ): Promise<void> {
    const flags = { unmap, ...(fast ? { noFallback: true } : {}) };
    await inStretches(offset, length, (at, part) =>
      this.#change(async () => {
        const { begin, end } = this.#blocksWithin(at, part);
        if (begin >= end) return await this.#write(at, new Uint8Array(part));
        await this.#node.writeZeroes(begin, end - begin, flags);
        if (at < begin) await this.#write(at, new Uint8Array(begin - at));
        if (end < at + part) await this.#write(end, new Uint8Array(at + part - end));
      }));
  }

  /** Says that nobody needs these bytes any more. */
  async trim(offset: number, length: number): Promise<void> {
    await inStretches(offset, length, async (at, part) => {
      const { begin, end } = this.#blocksWithin(at, part);
      if (begin < end) await this.#change(() => this.#node.discard(begin, end - begin));
    });
  }

  /** What was written is on stable storage when this is done. */
  flush(): Promise<void> {
    return this.#node.flush();
  }

  /** The runs of a part, data and known zeros in turn, no longer than `most` bytes where they are data. */
  async *runs(offset: number, length: number, most: number): AsyncGenerator<ReadRun> {
    const end = offset + length;
    const begin = alignDown(offset, this.#alignment);
    let run = { start: offset, length: 0, zero: false };
    for await (const batch of mapNode(this.#node, begin, Math.min(this.#up(end), this.size))) {
      for (const { start, length, zero } of batch) {
        let at = Math.max(start, offset);
        const until = Math.min(start + length, end);
        while (at < until) {
          if (run.length > 0 && (run.zero !== zero || (!zero && run.length >= most))) {
            yield run;
            run = { start: at, length: 0, zero };
          }
          run.zero = zero;
          const part = zero ? until - at : Math.min(until - at, most - run.length);
          run.length += part;
          at += part;
        }
      }
    }
    if (run.length > 0) yield run;
  }

  /** Changes the disk, in turn where that is necessary. */
  async #change(change: () => Promise<void>): Promise<void> {
    try {
      await (this.#turns === undefined ? change() : this.#turns.run(change));
    } finally {
      // Afterwards: what others learned meanwhile may have been out of date.
      this.#changed();
    }
  }

  /** A write in its turn. */
  async #write(offset: number, from: Uint8Array): Promise<void> {
    if (this.#isAligned(offset, from.length)) return await this.#node.write(offset, from);
    const { start, bytes } = await this.#readAround(offset, from.length);
    bytes.set(from, offset - start);
    await this.#node.write(start, bytes);
  }

  /** The whole blocks that a range touches. */
  async #readAround(offset: number, length: number): Promise<{ start: number; bytes: Uint8Array }> {
    const start = alignDown(offset, this.#alignment);
    const end = Math.min(this.#up(offset + length), this.size);
    const bytes = new Uint8Array(end - start);
    await this.#node.read(start, bytes);
    return { start, bytes };
  }

  /** The blocks that lie in a range with all their bytes. */
  #blocksWithin(offset: number, length: number): { begin: number; end: number } {
    const end = offset + length;
    return {
      begin: this.#up(offset),
      end: end === this.size ? end : alignDown(end, this.#alignment),
    };
  }

  #up(offset: number): number {
    return alignUp(offset, this.#alignment);
  }

  #isAligned(offset: number, length: number): boolean {
    const unit = this.#alignment;
    return unit === 1 ||
      (isAligned(offset, unit) && (isAligned(length, unit) || offset + length === this.size));
  }
}

/** The largest power of two up to `unit` that divides `size`: clients take no size with a block cut off. */
function divisorOf(size: number, unit: number): number {
  let divisor = unit;
  while (!isAligned(size, divisor)) divisor /= 2;
  return divisor;
}

async function inStretches(
  offset: number,
  length: number,
  what: (at: number, length: number) => Promise<void>,
): Promise<void> {
  for (let done = 0; done < length; done += STRETCH) {
    if (done > 0) await breathe();
    await what(offset + done, Math.min(STRETCH, length - done));
  }
}
