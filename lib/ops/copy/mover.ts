/**
 * Carrying out the steps of a copy.
 *
 * Who does what was decided by measuring. Plain bytes are read, scanned and written by this thread, a
 * chunk at a time: handing them from thread to thread costs more than a second thread gains, for they
 * leave the cache of the processor that has them, and the system lets one writer at a file at a time.
 * Inflating and deflating take far longer than that, so these are for the pool, and so are nodes that
 * answer from afar, which are asked for several pieces at once. All of them fill slots; this thread
 * writes what is in the slots, in the order of the disk unless told otherwise.
 *
 * @module
 */
import { ImageError } from "../../block/error.ts";
import type { PackTarget } from "../../block/plan.ts";
import { alignDown } from "../../bytes/align.ts";
import {
  CHUNK_SIZE,
  type DataRun,
  type JobPiece,
  PLAIN_CLUSTER,
  SLOT_SIZE,
  ZERO_CLUSTER,
} from "./job.ts";
import type { Offload } from "./offload.ts";
import type { Pace } from "./pace.ts";
import { isReachable, JobFiles, type Piece, readyPiece, type Step } from "./planner.ts";
import type { Pool } from "./pool.ts";
import type { Place, Source } from "./source.ts";
import { dataRuns, isPiecewise, type SparseRule } from "./sparse.ts";
import { writeError, type Writer } from "./writer.ts";

/** Compressing what is written. */
export interface Packing {
  /** Takes the clusters. */
  readonly packer: PackTarget;
  /** `undefined`: the codec's default. */
  readonly level: number | undefined;
}

/** How a copy is done. */
export interface MoverOptions {
  /** What is copied. */
  readonly source: Source;
  /** Where it goes. */
  readonly writer: Writer;
  /** Fills slots. */
  readonly pool: Pool;
  /** Keeps the thread responsive. */
  readonly pace: Pace;
  /** How zeros are found in data; `null`: not at all. */
  readonly sparse: SparseRule | null;
  /** Zeros need not be written. */
  readonly skipZeros: boolean;
  /** Write slots as they get ready. */
  readonly outOfOrder: boolean;
  /** Present when the target is compressed. */
  readonly packing?: Packing | undefined;
  /** Present when the host may copy. */
  readonly offload?: Offload | undefined;
  /** Called with the bytes of data that were done. */
  readonly onDone: (bytes: number) => void;
}

/** A slot that was filled, and what to do with it. */
type Filled =
  | { readonly kind: "runs"; readonly runs: readonly (readonly DataRun[])[] }
  | { readonly kind: "clusters"; readonly lengths: readonly number[] };

/** A step on its way: as a promise once its slot is being filled. */
interface Entry {
  readonly step: Step;
  readonly slot: number;
  readonly filled: Promise<Filled> | undefined;
}

/** Steps of no slot that may wait for those before them. */
const MOST_WAITING = 64;

/** Copies all that the steps say. */
export async function move(steps: AsyncIterable<Step>, options: MoverOptions): Promise<void> {
  await new Mover(options).run(steps);
}

class Mover {
  readonly #options: MoverOptions;
  readonly #free: number[];
  readonly #entries: Entry[] = [];
  readonly #buffer: Uint8Array;
  readonly #isPiecewise: boolean;

  constructor(options: MoverOptions) {
    const { pool, sparse, writer } = options;
    this.#options = options;
    this.#free = pool.slots.map((_, index) => index);
    this.#isPiecewise = isPiecewise(sparse, CHUNK_SIZE);
    // A new cluster that is written bit by bit would first be filled with zeros.
    const chunk = Math.max(CHUNK_SIZE, writer.target.limits.clusterSize);
    this.#buffer = new Uint8Array(this.#isPiecewise ? Math.min(chunk, SLOT_SIZE) : SLOT_SIZE);
  }

  async run(steps: AsyncIterable<Step>): Promise<void> {
    const { pace } = this.#options;
    try {
      for await (const step of steps) {
        await pace.step();
        if (step.kind === "slot") {
          while (this.#free.length === 0) await this.#writeNext();
          const slot = this.#free.pop()!;
          const filled = this.#fill(step.pieces, slot);
          // Should another step fail first, nobody will ask this one.
          filled.catch(() => {});
          this.#entries.push({ step, slot, filled });
        } else if (this.#entries.length === 0) {
          await this.#write(step);
        } else {
          while (this.#entries.length >= MOST_WAITING) await this.#writeNext();
          this.#entries.push({ step, slot: -1, filled: undefined });
        }
      }
      while (this.#entries.length > 0) {
        await pace.step();
        await this.#writeNext();
      }
    } finally {
      // Nodes are not to be closed while they are being read.
      await Promise.allSettled(this.#entries.map(({ filled }) => filled));
    }
  }

  /** Writes the first entry, or the first that is ready. */
  async #writeNext(): Promise<void> {
    const entries = this.#entries;
    const entry = this.#options.outOfOrder
      ? await Promise.race(entries.map(async (entry) => {
        await entry.filled;
        return entry;
      }))
      : entries[0]!;
    const filled = await entry.filled;
    entries.splice(entries.indexOf(entry), 1);
    if (filled === undefined) await this.#write(entry.step);
    else {
      await this.#writeSlot(entry, filled);
      this.#free.push(entry.slot);
    }
  }

  async #write(step: Step): Promise<void> {
    if (step.kind === "zero") {
      await this.#options.writer.zeros(step.offset, step.length, step.offset);
    } else if (step.kind === "plain") {
      await this.#copyPlain(step.piece);
    }
  }

  async #copyPlain({ offset, length, places }: Piece): Promise<void> {
    const { onDone } = this.#options;
    let at = offset;
    for (const place of places) {
      await this.#copyPlace(place, at, offset);
      at += place.length;
    }
    onDone(length);
  }

  /** Copies a run of plain bytes to `offset`; `begin` is for messages. */
  async #copyPlace(place: Place, offset: number, begin: number): Promise<void> {
    const { sparse, pace, offload } = this.#options;
    let at = 0;
    if (offload !== undefined && place.kind === "plain") {
      at = await offload.copy(place.file, place.offset, offset, place.length);
    }
    while (at < place.length) {
      await pace.step();
      const start = offset + at;
      // Chunks end on round offsets, where no run of zeros is cut in a way that matters.
      const end = this.#isPiecewise
        ? alignDown(start, this.#buffer.length) + this.#buffer.length
        : offset + place.length;
      const chunk = this.#buffer.subarray(0, Math.min(end, offset + place.length) - start);
      await this.#read(place, at, start, chunk, begin);
      const runs = dataRuns(chunk, start, sparse);
      await this.#writeRuns(chunk, start, runs, begin);
      at += chunk.length;
    }
  }

  /** Reads from byte `at` of a place, which is guest offset `offset`. */
  async #read(
    place: Place,
    at: number,
    offset: number,
    into: Uint8Array,
    begin: number,
  ): Promise<void> {
    if (place.kind === "zero") into.fill(0);
    else if (place.kind === "plain") {
      try {
        await place.file.read(place.offset + at, into);
      } catch {
        await this.#options.source.read(offset, into, begin);
      }
    } else await this.#options.source.read(offset, into, begin);
  }

  /** Writes the data of a piece and, where that matters, zeros in between. */
  async #writeRuns(
    bytes: Uint8Array,
    offset: number,
    runs: readonly DataRun[],
    begin: number,
  ): Promise<void> {
    const { writer, skipZeros } = this.#options;
    let at = 0;
    for (const { start, length } of runs) {
      if (!skipZeros && start > at) await writer.zeros(offset + at, start - at, begin);
      await writer.data(offset + start, bytes.subarray(start, start + length), begin);
      at = start + length;
    }
    if (!skipZeros && at < bytes.length) {
      await writer.zeros(offset + at, bytes.length - at, begin);
    }
  }

  /** Fills a slot: what others can reach they do, the rest is done here before. */
  async #fill(pieces: readonly Piece[], slot: number): Promise<Filled> {
    const { packing } = this.#options;
    await this.#fillFrom(pieces, slot, (place) => !isReachable(place));
    const files = new JobFiles();
    const jobPieces = pieces.map((piece) => files.pieceOf(piece));
    if (packing === undefined && jobPieces.every(isReady)) return this.#scan(pieces, slot);
    const done = await this.#runJob(files, jobPieces, slot);
    if (done !== undefined) return done;
    // The nodes know what is wrong, or read it after all.
    await this.#fillFrom(pieces, slot, () => true);
    if (packing === undefined) return this.#scan(pieces, slot);
    const again = await this.#runJob(new JobFiles(), pieces.map(readyPiece), slot);
    if (again !== undefined) return again;
    throw new Error("a job without files cannot fail to read");
  }

  async #runJob(
    { files }: JobFiles,
    pieces: readonly JobPiece[],
    slot: number,
  ): Promise<Filled | undefined> {
    const { pool, packing, sparse } = this.#options;
    if (packing === undefined) {
      const result = await pool.run({ kind: "read", files, slot, pieces, sparse });
      return result.kind === "failed" ? undefined : { kind: "runs", runs: result.runs };
    }
    const { packer: { codec, clusterSize }, level } = packing;
    const result = await pool.run({
      kind: "pack",
      files,
      slot,
      pieces,
      codec,
      level,
      clusterSize,
      keepZeros: sparse === null,
    });
    return result.kind === "failed" ? undefined : { kind: "clusters", lengths: result.lengths };
  }

  /** Reads the places that `wanted` tells through the nodes into a slot. */
  async #fillFrom(
    pieces: readonly Piece[],
    slot: number,
    wanted: (place: Place) => boolean,
  ): Promise<void> {
    const { source, packing, pool } = this.#options;
    let start = 0;
    for (const piece of pieces) {
      let offset = piece.offset;
      for (const place of piece.places) {
        const { length } = place;
        if (wanted(place)) {
          const into = pool.slots[slot]!.subarray(start, start + length);
          await this.#readThrough(source, offset, into, piece.offset, packing);
        }
        offset += length;
        start += length;
      }
    }
  }

  /** The reference reads a cluster at a time for a compressed target, which its messages show. */
  async #readThrough(
    source: Source,
    offset: number,
    into: Uint8Array,
    begin: number,
    packing: Packing | undefined,
  ): Promise<void> {
    if (packing === undefined) return await source.read(offset, into, begin);
    const { clusterSize } = packing.packer;
    for (let at = 0; at < into.length;) {
      const start = alignDown(offset + at, clusterSize);
      const length = Math.min(start + clusterSize - offset - at, into.length - at);
      await source.read(offset + at, into.subarray(at, at + length), start);
      at += length;
    }
  }

  #scan(pieces: readonly Piece[], slot: number): Filled {
    const { pool, sparse } = this.#options;
    let at = 0;
    const runs = pieces.map(({ offset, length }) => {
      const bytes = pool.slots[slot]!.subarray(at, at + length);
      at += length;
      return dataRuns(bytes, offset, sparse);
    });
    return { kind: "runs", runs };
  }

  async #writeSlot({ step, slot }: Entry, filled: Filled): Promise<void> {
    if (step.kind !== "slot") return;
    const bytes = this.#options.pool.slots[slot]!;
    if (filled.kind === "clusters") return await this.#writeClusters(step.pieces, bytes, filled);
    let at = 0;
    for (const [index, { offset, length }] of step.pieces.entries()) {
      const piece = bytes.subarray(at, at + length);
      await this.#writeRuns(piece, offset, filled.runs[index]!, offset);
      this.#options.onDone(length);
      at += length;
    }
  }

  async #writeClusters(
    pieces: readonly Piece[],
    bytes: Uint8Array,
    { lengths }: Extract<Filled, { kind: "clusters" }>,
  ): Promise<void> {
    const { writer, packing, skipZeros, pace, onDone } = this.#options;
    const { packer } = packing!;
    let at = 0;
    let index = 0;
    for (const piece of pieces) {
      const end = piece.offset + piece.length;
      for (let offset = piece.offset; offset < end; offset += packer.clusterSize) {
        await pace.step();
        const size = Math.min(packer.clusterSize, end - offset);
        const length = lengths[index++]!;
        if (length === ZERO_CLUSTER) {
          if (!skipZeros) await writer.zeros(offset, size, offset);
        } else if (size < packer.clusterSize && offset + size < writer.target.length) {
          // The rest of the cluster belongs to the target.
          throw writeError(ImageError.fromErrno("EINVAL"), offset);
        } else if (length === PLAIN_CLUSTER) {
          await writer.data(offset, bytes.subarray(at, at + size), offset);
          at += size;
        } else {
          await writer.packed(packer, offset, size, bytes.subarray(at, at + length));
          at += length;
        }
        onDone(size);
      }
    }
  }
}

function isReady({ parts }: JobPiece): boolean {
  return parts.every(({ kind }) => kind === "ready");
}
