/**
 * Comparing two images.
 *
 * @module
 */
import type { BlockNode } from "../../block/node.ts";
import { firstDifference } from "../../bytes/equal.ts";
import { type JobPair, SLOT_SIZE } from "./job.ts";
import type { Pace } from "./pace.ts";
import { isReachable, JobFiles } from "./planner.ts";
import type { Pool } from "./pool.ts";
import { slicePlace, Source, type Stretch } from "./source.ts";

const SECTOR = 512;

/** Bytes and pairs that make up a job. */
const FULL_BATCH = 4 << 20;
const MOST_PAIRS = 256;

/** Jobs and reads under way. */
const MOST_BATCHES = 8;

/** One of the two images. */
export interface Side {
  /** The image. */
  readonly node: BlockNode;
  /** Turns a failure to learn the state of the disk into what is thrown. */
  statusError(error: unknown): Error;
  /** Turns a failure to read at `offset` into what is thrown. */
  readError(error: unknown, offset: number): Error;
}

/** How two images are compared. */
export interface ComparisonOptions {
  /** Compares what other threads can reach. */
  readonly pool: Pool;
  /** Keeps the thread responsive. */
  readonly pace: Pace;
  /** Stop where one side is allocated in another way than the other. */
  readonly strict: boolean;
  /** Called with the offset up to which all is equal. */
  readonly onProgress: (offset: number) => void;
}

/** What was found: `status` in strict comparisons only. */
export interface Difference {
  /** What differs. */
  readonly kind: "content" | "status";
  /** Where: a multiple of 512, or the end of a file in the middle of its last sector. */
  readonly offset: number;
}

/** The first difference between two images from `start` up to `end`, which is within both. */
export async function findDifference(
  left: Side,
  right: Side,
  end: number,
  options: ComparisonOptions,
): Promise<Difference | undefined> {
  return await new Comparison(left, right, options).run(end);
}

/** The first sector of an image that is not zero from `start` on, -1 if there is none. */
export async function findData(
  side: Side,
  start: number,
  options: ComparisonOptions,
): Promise<number> {
  return (await new Comparison(side, undefined, options).run(side.node.length, start))?.offset ??
    -1;
}

/** A run on both sides on its way to the pool, or to this thread. */
interface Batch {
  readonly files: JobFiles;
  readonly pairs: JobPair[];
  /** Offsets up to which progress is reported, one by one, when all is equal. */
  readonly marks: number[];
  bytes: number;
}

interface Pending {
  readonly batch: Batch;
  /** The first sector that differs or -1; `undefined` if somebody else has to look. */
  readonly result: Promise<number | undefined>;
}

class Comparison {
  readonly #left: Side;
  /** Absent: zeros. */
  readonly #right: Side | undefined;
  readonly #options: ComparisonOptions;
  /** Progress is reported at multiples of these. */
  readonly #spans: ReadonlySet<number>;
  readonly #pending: Pending[] = [];
  #batch: Batch = emptyBatch();

  constructor(left: Side, right: Side | undefined, options: ComparisonOptions) {
    this.#left = left;
    this.#right = right;
    this.#options = options;
    this.#spans = new Set([left, right].flatMap((side) => statusSpans(side?.node ?? null)));
  }

  async run(end: number, start = 0): Promise<Difference | undefined> {
    try {
      return await this.#run(start, end);
    } finally {
      await Promise.allSettled(this.#pending.map(({ result }) => result));
    }
  }

  async #run(start: number, end: number): Promise<Difference | undefined> {
    const { pace, strict } = this.#options;
    const left = new Source([this.#left.node], { exact: true });
    const right = this.#right && new Source([this.#right.node], { exact: true });
    let found: number;
    for (let at = start; at < end;) {
      await pace.step();
      let a: Stretch, b: Stretch | undefined;
      try {
        a = await stretchOf(this.#left, left, at);
        b = right === undefined ? undefined : await stretchOf(this.#right!, right, at);
      } catch (error) {
        // What differs further in front counts.
        found = await this.#settleAll();
        if (found >= 0) return { kind: "content", offset: found };
        throw error;
      }
      const length = Math.min(a.length, b?.length ?? Infinity, end - at);
      if (strict && b !== undefined && statusOf(a, left) !== statusOf(b, right!)) {
        found = await this.#settleAll();
        return found < 0 ? { kind: "status", offset: at } : { kind: "content", offset: found };
      }
      const inside = strict && b !== undefined ? endInside(a, b, at + length) : undefined;
      if (inside !== undefined) return await this.#differsAtEnd(a, b, at, length, inside);
      if (a.kind === "zero" && (b === undefined || b.kind === "zero")) {
        for (let mark = at; mark < at + length;) {
          mark = Math.min(this.#nextMark(mark), at + length);
          this.#batch.marks.push(mark);
        }
        if (this.#batch.marks.length >= MOST_PAIRS) found = await this.#post();
        else found = -1;
      } else found = await this.#addData(a, b, at, length);
      if (found >= 0) return { kind: "content", offset: found };
      at += length;
    }
    found = await this.#settleAll();
    return found < 0 ? undefined : { kind: "content", offset: found };
  }

  /** The last run of images of which one's file ends at `end`, in a sector that the other's fills further. */
  async #differsAtEnd(
    a: Stretch,
    b: Stretch | undefined,
    offset: number,
    length: number,
    end: number,
  ): Promise<Difference> {
    let found = await this.#addData(a, b, offset, length);
    if (found < 0) found = await this.#settleAll();
    // Within that sector only what both have counts.
    const isEarlier = found >= 0 &&
      (found + SECTOR <= end || await this.#compareNodes(found, end - found) >= 0);
    return isEarlier ? { kind: "content", offset: found } : { kind: "status", offset: end };
  }

  /** Adds a run to the batch, in pieces. Answers as {@linkcode #post}. */
  async #addData(
    a: Stretch,
    b: Stretch | undefined,
    offset: number,
    length: number,
  ): Promise<number> {
    const isForPool = isReachable(a.place) && (b === undefined || isReachable(b.place));
    let count: number;
    // Where the reference looks anew at the state of the disk it begins a new piece.
    let mark = offset;
    for (let at = 0; at < length; at += count) {
      await this.#options.pace.step();
      if (offset + at >= mark) mark = this.#nextMark(offset + at);
      count = Math.min(SLOT_SIZE, length - at, mark - offset - at);
      let found = -1;
      if (isForPool) {
        const batch = this.#batch;
        batch.pairs.push({
          offset: offset + at,
          left: batch.files.partOf(slicePlace(a.place, at, count)),
          right: b === undefined
            ? { kind: "zero", length: count }
            : batch.files.partOf(slicePlace(b.place, at, count)),
        });
        batch.marks.push(offset + at + count);
        batch.bytes += count;
        if (batch.bytes >= FULL_BATCH || batch.pairs.length >= MOST_PAIRS) {
          found = await this.#post();
        }
      } else {
        found = await this.#post();
        if (found < 0) found = await this.#enqueue(this.#readBatch(offset + at, count));
      }
      if (found >= 0) return found;
    }
    return -1;
  }

  /** The next offset at which progress is reported whatever lies there. */
  #nextMark(offset: number): number {
    let next = Infinity;
    for (const span of this.#spans) next = Math.min(next, (Math.floor(offset / span) + 1) * span);
    return next;
  }

  /** A run that is read through the nodes. */
  #readBatch(offset: number, length: number): Pending {
    const batch = emptyBatch();
    batch.marks.push(offset + length);
    return { batch, result: this.#compareNodes(offset, length) };
  }

  /** Hands the batch over. Answers with a difference that was found meanwhile in what came before, or -1. */
  async #post(): Promise<number> {
    const batch = this.#batch;
    if (batch.marks.length === 0) return -1;
    this.#batch = emptyBatch();
    return await this.#enqueue({ batch, result: this.#compareBatch(batch) });
  }

  async #enqueue(pending: Pending): Promise<number> {
    // Should an earlier one fail, nobody will ask this one.
    pending.result.catch(() => {});
    this.#pending.push(pending);
    let found = -1;
    while (found < 0 && this.#pending.length >= MOST_BATCHES) found = await this.#settleNext();
    return found;
  }

  async #settleAll(): Promise<number> {
    let found = await this.#post();
    while (found < 0 && this.#pending.length > 0) found = await this.#settleNext();
    return found;
  }

  async #settleNext(): Promise<number> {
    const { batch, result } = this.#pending.shift()!;
    let found = await result;
    if (found === undefined) {
      // The nodes know what is wrong, or read it after all.
      found = -1;
      for (const { offset, left } of batch.pairs) {
        found = await this.#compareNodes(offset, left.length);
        if (found >= 0) break;
      }
    }
    for (const mark of batch.marks) {
      if (found >= 0 && mark > found) break;
      this.#options.onProgress(mark);
    }
    return found;
  }

  async #compareBatch({ files: { files }, pairs }: Batch): Promise<number | undefined> {
    if (pairs.length === 0) return -1;
    const result = await this.#options.pool.run({ kind: "compare", files, pairs });
    return result.kind === "failed" ? undefined : result.mismatch;
  }

  async #compareNodes(offset: number, length: number): Promise<number> {
    const a = await readSide(this.#left, offset, length);
    const b = this.#right === undefined
      ? new Uint8Array(length)
      : await readSide(this.#right, offset, length);
    const found = firstDifference(a, b, SECTOR);
    return found < 0 ? -1 : offset + found;
  }
}

function emptyBatch(): Batch {
  return { files: new JobFiles(), pairs: [], marks: [], bytes: 0 };
}

/** Where data of one side ends before `limit` and the other side's do not. */
function endInside(a: Stretch, b: Stretch, limit: number): number | undefined {
  const first = a.end < b.end ? a : b;
  return a.end !== b.end && first.kind === "data" && first.end < limit ? first.end : undefined;
}

/** Of an image and all behind it. */
function statusSpans(top: BlockNode | null): number[] {
  const spans: number[] = [];
  for (let node = top; node !== null; node = node.backing?.node ?? null) {
    if (node.limits.statusSpan !== undefined) spans.push(node.limits.statusSpan);
  }
  return spans;
}

async function stretchOf(side: Side, source: Source, offset: number): Promise<Stretch> {
  try {
    return await source.stretchAt(offset);
  } catch (error) {
    throw side.statusError(error);
  }
}

async function readSide(side: Side, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  try {
    await side.node.read(offset, bytes);
  } catch (error) {
    throw side.readError(error, offset);
  }
  return bytes;
}

/** All that a strict comparison looks at, as one value. */
function statusOf({ kind, extent, end }: Stretch, source: Source): string {
  return [
    kind,
    extent?.state,
    extent?.compressed ?? false,
    extent?.offset !== undefined,
    // The reference counts it among the states.
    end >= source.length,
  ].join(" ");
}
