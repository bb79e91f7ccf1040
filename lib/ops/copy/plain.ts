/**
 * Copying bytes that are not compressed: read, scan, write, a chunk at a time.
 *
 * @module
 */
import type { BlockNode } from "../../block/node.ts";
import { alignDown } from "../../bytes/align.ts";
import { alignedBytes } from "../../io/aligned_buffer.ts";
import { BATCHES, CHUNK_SIZE, type DataRun, SLOT_SIZE } from "./job.ts";
import type { Offload } from "./offload.ts";
import type { Pace } from "./pace.ts";
import type { Partner } from "./partner.ts";
import type { Piece } from "./planner.ts";
import { type ReservedRun, reserveRuns } from "./reserve.ts";
import type { Place, Source } from "./source.ts";
import { dataRuns, isPiecewise, type SparseRule } from "./sparse.ts";
import type { Writer } from "./writer.ts";

/** How plain bytes are copied. */
export interface PlainOptions {
  /** What is copied. */
  readonly source: Source;
  /** Where it goes. */
  readonly writer: Writer;
  /** Keeps the thread responsive. */
  readonly pace: Pace;
  /** How zeros are found in data; `null`: not at all. */
  readonly sparse: SparseRule | null;
  /** Present when the host may copy. */
  readonly offload?: Offload | undefined;
  /** Present when another thread helps. */
  readonly partner?: Partner | undefined;
  /** Called with the bytes of data that were done. */
  readonly onDone: (bytes: number) => void;
}

/** How many bytes are read, scanned and written at a time. */
export function chunkSize(target: BlockNode, sparse: SparseRule | null): number {
  // A run of zeros is not to be cut in a way that matters.
  if (!isPiecewise(sparse, CHUNK_SIZE)) return SLOT_SIZE;
  // A new cluster that is written bit by bit would first be filled with zeros.
  return Math.min(Math.max(CHUNK_SIZE, target.limits.clusterSize), SLOT_SIZE);
}

interface Chunk {
  readonly place: Place;
  /** Where it begins in the place. */
  readonly at: number;
  /** Guest offset. */
  readonly offset: number;
  readonly length: number;
  /** Where the piece begins, which is what messages name. */
  readonly begin: number;
  /** What is done when this chunk is. */
  readonly done: number;
}

/** A chunk that was read. */
interface Scanned {
  readonly chunk: Chunk;
  readonly bytes: Uint8Array;
  readonly runs: readonly DataRun[];
}

/** Chunks that the partner writes, or will when they are enough. */
interface Batch {
  /** The number by which the partner knows it. */
  readonly number: number;
  readonly chunks: Scanned[];
  /** The data of the chunks with space reserved, once the batch is handed over. */
  readonly runs: ReservedRun[];
  /** Bytes of its buffer that are in use. */
  size: number;
}

/** Bytes of a batch: a message costs 60 µs, writing this much half a millisecond. */
const BATCH_SIZE = 1 << 20;

/** Bytes of a batch, where chunks are of `chunk` bytes at most. */
export function batchSize(chunk: number): number {
  return Math.max(BATCH_SIZE, chunk);
}

/**
 * Copies pieces in their order.
 *
 * With a partner this thread reads and scans, because space is reserved in the order of the disk and only
 * for data, and the partner writes. Only while the partner has enough to do this thread writes as well.
 */
export class PlainCopier {
  readonly #options: PlainOptions;
  readonly #buffer: Uint8Array;
  readonly #isPiecewise: boolean;
  /** What the partner has in hand, by the numbers of the batches. */
  readonly #taken: (Batch | undefined)[] = Array.from({ length: BATCHES });
  /** What is gathered for the partner. */
  #gathered: Batch | undefined;

  /** Copies as the options say. */
  constructor(options: PlainOptions) {
    this.#options = options;
    this.#isPiecewise = isPiecewise(options.sparse, CHUNK_SIZE);
    this.#buffer = alignedBytes(chunkSize(options.writer.target, options.sparse));
  }

  /** Copies a piece, or begins to. */
  async copy({ offset, length, places }: Piece): Promise<void> {
    let at = offset;
    const end = offset + length;
    for (const place of places) {
      await this.#copyPlace(place, at, offset, at + place.length === end ? length : 0);
      at += place.length;
    }
  }

  /** Ends all that was begun. */
  async settle(): Promise<void> {
    if (this.#options.partner === undefined) return;
    await this.#handOver();
    await this.#endAll();
  }

  /** After a failure: waits until nobody writes any more, and gives back what was reserved. */
  async cancel(): Promise<void> {
    const { partner } = this.#options;
    for (const [number, batch] of this.#taken.entries()) {
      if (batch !== undefined) await partner!.stopped(number);
    }
    for (const batch of [...this.#taken, this.#gathered]) {
      for (const { allocation } of batch?.runs ?? []) {
        try {
          await allocation.abandon();
        } catch {
          // What went wrong first is what to tell.
        }
      }
    }
    this.#taken.fill(undefined);
    this.#gathered = undefined;
  }

  async #copyPlace(place: Place, offset: number, begin: number, done: number): Promise<void> {
    const { pace, offload, onDone } = this.#options;
    let at = 0;
    if (offload !== undefined && place.kind === "plain") {
      at = await offload.copy(place.file, place.offset, offset, place.length);
      if (at === place.length) onDone(done);
    }
    while (at < place.length) {
      await pace.step();
      const start = offset + at;
      const size = this.#buffer.length;
      // Chunks end on round offsets.
      const end = this.#isPiecewise ? alignDown(start, size) + size : offset + place.length;
      const length = Math.min(end - start, place.length - at);
      const isLast = at + length === place.length;
      await this.#push({ place, at, offset: start, length, begin, done: isLast ? done : 0 });
      at += length;
    }
  }

  /** Copies a chunk, or leaves the writing to the partner if that has less to do. */
  async #push(chunk: Chunk): Promise<void> {
    const { partner, writer } = this.#options;
    for (let number = 0; number < BATCHES; number++) {
      if (partner?.outcome(number) !== undefined) await this.#end(number);
    }
    const batch = await this.#batchFor(chunk.length);
    const buffer = batch === undefined
      ? this.#buffer
      : partner!.buffer(batch.number).subarray(batch.size);
    const scanned = await this.#scan(chunk, buffer);
    const isEmpty = scanned.runs.length === 0 && writer.skipZeros;
    if (batch === undefined || isEmpty) {
      // Space is reserved in the order of the disk.
      if (!isEmpty) await this.#handOver();
      await this.#write(scanned);
      return;
    }
    batch.chunks.push(scanned);
    batch.size += chunk.length;
    if (batch.size >= BATCH_SIZE) await this.#handOver();
  }

  /** What a chunk is gathered in; `undefined` if the partner has enough to do. */
  async #batchFor(length: number): Promise<Batch | undefined> {
    const { partner } = this.#options;
    if (partner === undefined) return undefined;
    const gathered = this.#gathered;
    if (gathered !== undefined) {
      if (gathered.size + length <= partner.buffer(gathered.number).length) return gathered;
      await this.#handOver();
    }
    for (let number = 0; number < BATCHES; number++) {
      if (this.#taken[number] === undefined && partner.canTake(number)) {
        return this.#gathered = { number, chunks: [], runs: [], size: 0 };
      }
    }
    return undefined;
  }

  async #scan(chunk: Chunk, buffer: Uint8Array): Promise<Scanned> {
    const bytes = buffer.subarray(0, chunk.length);
    const { place, at, offset, begin } = chunk;
    await this.#options.source.readPlace(place, at, offset, bytes, begin);
    return { chunk, bytes, runs: dataRuns(bytes, chunk.offset, this.#options.sparse) };
  }

  async #write({ chunk, bytes, runs }: Scanned): Promise<void> {
    const { writer, onDone } = this.#options;
    await writer.runs(bytes, chunk.offset, runs, chunk.begin);
    if (chunk.done > 0) onDone(chunk.done);
  }

  /** Gives the partner what is gathered. */
  async #handOver(): Promise<void> {
    const batch = this.#gathered;
    if (batch === undefined || batch.chunks.length === 0) return;
    let at = 0;
    for (const scanned of batch.chunks) {
      const { bytes, runs, chunk: { offset, begin } } = scanned;
      await reserveRuns(this.#options.writer, { bytes, offset, runs, begin }, at, batch.runs);
      at += bytes.length;
    }
    this.#gathered = undefined;
    this.#taken[batch.number] = batch;
    this.#options.partner!.take(batch.number, batch.runs);
  }

  /** Waits for all that the partner has. */
  async #endAll(): Promise<void> {
    for (const [number, batch] of this.#taken.entries()) {
      if (batch === undefined) continue;
      await this.#options.partner!.wait(number);
      await this.#end(number);
    }
  }

  /** Makes reachable what the partner has written, and writes what it could not. */
  async #end(number: number): Promise<void> {
    const batch = this.#taken[number];
    if (batch === undefined) return;
    const { writer, onDone } = this.#options;
    const partner = this.#options.partner!;
    const isWritten = partner.outcome(number) === true;
    // What was published or abandoned is no longer there to be given back.
    for (let run = batch.runs.shift(); run !== undefined; run = batch.runs.shift()) {
      if (isWritten) await writer.publish(run.allocation, batch.chunks[0]!.chunk.begin);
      else await run.allocation.abandon();
    }
    for (const scanned of batch.chunks) {
      if (!isWritten) await this.#write(scanned);
      else if (scanned.chunk.done > 0) onDone(scanned.chunk.done);
    }
    this.#taken[number] = undefined;
    partner.forget(number);
  }
}
