/**
 * Copying plain bytes: read, scan, write, a chunk at a time.
 *
 * @module
 */
import type { BlockNode, LocalFile } from "../../block/node.ts";
import type { Allocation } from "../../block/plan.ts";
import { alignDown } from "../../bytes/align.ts";
import { BATCHES, CHUNK_SIZE, type DataRun, SLOT_SIZE } from "./job.ts";
import type { Offload } from "./offload.ts";
import type { Pace } from "./pace.ts";
import type { Partner, Run } from "./partner.ts";
import type { Piece } from "./planner.ts";
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

/** A chunk in this thread's buffer. */
interface Scanned {
  readonly chunk: Chunk;
  readonly bytes: Uint8Array;
  readonly runs: readonly DataRun[];
}

/** Data that the partner is to copy, before there is space for them. */
interface Wanted {
  /** Guest offset. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  readonly source: LocalFile;
  /** Where in `source`, bytes. */
  readonly from: number;
  /** Where the first piece begins. */
  readonly begin: number;
}

/** A run that the partner copies. */
interface Given extends Run {
  readonly allocation: Allocation;
}

/** Chunks that the partner copies, or will when they are enough. */
interface Batch {
  readonly chunks: Chunk[];
  /** The data of the chunks. */
  readonly wanted: Wanted[];
  /** The same with space reserved, once the batch is handed over. */
  readonly runs: Given[];
  /** Bytes of the data. */
  size: number;
}

function emptyBatch(): Batch {
  return { chunks: [], wanted: [], runs: [], size: 0 };
}

/** Bytes of a batch: a message costs 60 µs, copying this much half a millisecond. */
const BATCH_SIZE = 1 << 20;

/**
 * Copies pieces in their order.
 *
 * With a partner this thread still reads and scans everything, because space is reserved in the order of
 * the disk and only for data. Then whoever has less to do writes it: the partner reads it once more, from
 * the page cache and into the cache of its own processor, which costs less than handing the bytes over.
 */
export class PlainCopier {
  readonly #options: PlainOptions;
  readonly #buffer: Uint8Array;
  readonly #isPiecewise: boolean;
  /** What the partner has in hand, by the numbers of the batches. */
  readonly #taken: (Batch | undefined)[] = Array.from({ length: BATCHES });
  /** What is gathered for the partner. */
  #gathered: Batch = emptyBatch();

  /** Copies as the options say. */
  constructor(options: PlainOptions) {
    this.#options = options;
    this.#isPiecewise = isPiecewise(options.sparse, CHUNK_SIZE);
    this.#buffer = new Uint8Array(chunkSize(options.writer.target, options.sparse));
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
    await this.#endAll();
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
    this.#gathered = emptyBatch();
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

  /** Copies a chunk, or leaves it to the partner if that has less to do. */
  async #push(chunk: Chunk): Promise<void> {
    const { writer, partner } = this.#options;
    const { place, offset, length, begin } = chunk;
    for (let number = 0; number < BATCHES; number++) {
      if (partner?.outcome(number) !== undefined) await this.#end(number);
    }
    const { bytes, runs } = await this.#scan(chunk, this.#buffer);
    if (runs.length === 0 || !isLocal(place) || this.#freeNumber() < 0) {
      // Space is reserved in the order of the disk.
      if (runs.length > 0) await this.#handOver();
      await writer.runs(bytes, offset, runs, begin);
      this.#finish(chunk);
      return;
    }
    this.#gathered.chunks.push(chunk);
    let at = 0;
    for (const run of runs) {
      if (run.start > at) await writer.hole(offset + at, run.start - at, begin);
      this.#gather(chunk, place, run);
      at = run.start + run.length;
    }
    if (at < length) await writer.hole(offset + at, length - at, begin);
    if (this.#gathered.size >= BATCH_SIZE) await this.#handOver();
  }

  async #scan(chunk: Chunk, buffer: Uint8Array): Promise<Scanned> {
    const bytes = buffer.subarray(0, chunk.length);
    await this.#read(chunk, bytes);
    return { chunk, bytes, runs: dataRuns(bytes, chunk.offset, this.#options.sparse) };
  }

  async #read({ place, at, offset, begin }: Chunk, into: Uint8Array): Promise<void> {
    if (place.kind === "zero") {
      into.fill(0);
      return;
    }
    if (place.kind === "plain") {
      try {
        await place.file.read(place.offset + at, into);
        return;
      } catch {
        // The image knows what to say of it.
      }
    }
    await this.#options.source.read(offset, into, begin);
  }

  /** Puts data of a chunk with what is gathered. */
  #gather({ at, offset, begin }: Chunk, place: LocalPlace, { start, length }: DataRun): void {
    // Each run by itself, as this thread would write it: where space lies must not depend on who is faster.
    this.#gathered.wanted.push({
      offset: offset + start,
      length,
      source: place.file.local!,
      from: place.offset + at + start,
      begin,
    });
    this.#gathered.size += length;
  }

  /** Reserves host space for data that the partner will copy; what cannot be reserved is written here. */
  async #reserve({ offset, length, source, from, begin }: Wanted): Promise<void> {
    const { writer } = this.#options;
    for (let at = 0; at < length;) {
      const allocation = await writer.allocate(offset + at, length - at, begin);
      const target = allocation?.file.local;
      if (allocation === null || target === undefined) {
        await allocation?.abandon();
        const bytes = new Uint8Array(length - at);
        await this.#options.source.read(offset + at, bytes, begin);
        await writer.data(offset + at, bytes, begin);
        return;
      }
      const { length: reserved, offset: to } = allocation;
      this.#gathered.runs.push({
        source,
        from: from + at,
        target,
        to,
        length: reserved,
        allocation,
      });
      at += reserved;
    }
  }

  /** A number that the partner could take a batch by, -1 if it has enough to do. */
  #freeNumber(): number {
    const { partner } = this.#options;
    for (let number = 0; number < BATCHES; number++) {
      if (this.#taken[number] === undefined && partner?.canTake(number)) return number;
    }
    return -1;
  }

  /** Gives the partner what is gathered. It has a free number: nothing is gathered without one. */
  async #handOver(): Promise<void> {
    const batch = this.#gathered;
    if (batch.chunks.length === 0) return;
    for (const wanted of batch.wanted) await this.#reserve(wanted);
    const number = this.#taken.indexOf(undefined);
    this.#gathered = emptyBatch();
    this.#taken[number] = batch;
    this.#options.partner!.take(number, batch.runs);
  }

  /** Waits for all that the partner has. */
  async #endAll(): Promise<void> {
    for (const [number, batch] of this.#taken.entries()) {
      if (batch === undefined) continue;
      await this.#options.partner!.wait(number);
      await this.#end(number);
    }
  }

  /** Makes reachable what the partner has copied, and copies what it could not. */
  async #end(number: number): Promise<void> {
    const batch = this.#taken[number];
    if (batch === undefined) return;
    const { writer } = this.#options;
    const partner = this.#options.partner!;
    const isCopied = partner.outcome(number) === true;
    if (isCopied) {
      // What was published is no longer there to be given back.
      for (let run = batch.runs.shift(); run !== undefined; run = batch.runs.shift()) {
        await writer.publish(run.allocation, batch.chunks[0]!.begin);
      }
    } else {
      for (let run = batch.runs.shift(); run !== undefined; run = batch.runs.shift()) {
        await run.allocation.abandon();
      }
    }
    this.#taken[number] = undefined;
    partner.forget(number);
    for (const chunk of batch.chunks) {
      if (!isCopied) {
        const { bytes, runs } = await this.#scan(chunk, new Uint8Array(chunk.length));
        await writer.runs(bytes, chunk.offset, runs, chunk.begin);
      }
      this.#finish(chunk);
    }
  }

  #finish({ done }: Chunk): void {
    if (done > 0) this.#options.onDone(done);
  }
}

/** Plain bytes in a file that other threads can open. */
type LocalPlace = Extract<Place, { kind: "plain" }>;

function isLocal(place: Place): place is LocalPlace {
  return place.kind === "plain" && place.file.local !== undefined;
}
