/**
 * Carrying out the steps of a copy.
 *
 * Who does what was decided by measuring. Plain bytes are read, scanned and written by one thread while
 * they are in its processor's cache: handed from thread to thread they cost more than that gains, and the
 * system lets one writer at a file at a time. So this thread copies them, by turns with at most one other.
 * Inflating and deflating take far longer than copying and are for the pool; nodes that answer from afar
 * are asked for several pieces at once. Both fill slots, which this thread writes, in the order of the disk
 * unless told otherwise. Whoever talks to a server does nothing else, or it waits: what came from afar
 * another thread writes, and what goes there another one has read.
 *
 * @module
 */
import { ImageError } from "../../block/error.ts";
import type { PackTarget } from "../../block/plan.ts";
import { alignDown } from "../../bytes/align.ts";
import { type DataRun, type JobPiece, PLAIN_CLUSTER, ZERO_CLUSTER } from "./job.ts";
import { PlainCopier, type PlainOptions } from "./plain.ts";
import { isReachable, JobFiles, type Piece, readyPiece, type Step } from "./planner.ts";
import type { Pool } from "./pool.ts";
import type { PieceCopier } from "./run_copier.ts";
import type { SlotWriter } from "./slot_writer.ts";
import type { Place, Source } from "./source.ts";
import { dataRuns } from "./sparse.ts";
import { writeError } from "./writer.ts";

/** Compressing what is written. */
export interface Packing {
  /** Takes the clusters. */
  readonly packer: PackTarget;
  /** `undefined`: the codec's default. */
  readonly level: number | undefined;
}

/** How a copy is done. */
export interface MoverOptions extends PlainOptions {
  /** Fills slots. */
  readonly pool: Pool;
  /** Write slots as they get ready. */
  readonly outOfOrder: boolean;
  /** Present when another thread writes the slots of the pool. */
  readonly slotWriter?: SlotWriter | undefined;
  /** Present when the target is compressed. */
  readonly packing?: Packing | undefined;
  /** How many slots and zeros may be on their way to the target at a time; one if absent. */
  readonly writes?: number;
  /** Copies what goes through no slot; by default zeros are looked for in it. */
  readonly copier?: PieceCopier | undefined;
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

/** How something ended that was begun: with nothing to say, or with an error. */
type Outcome = { readonly error: unknown } | undefined;

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
  readonly #plain: PieceCopier;
  /** What is on its way to the target, begun in the order of the disk unless told otherwise. */
  readonly #writing: Promise<Outcome>[] = [];

  constructor(options: MoverOptions) {
    this.#options = options;
    this.#free = options.pool.slots.map((_, index) => index);
    this.#plain = options.copier ?? new PlainCopier(options);
  }

  async run(steps: AsyncIterable<Step>): Promise<void> {
    const { pace } = this.#options;
    try {
      for await (const step of steps) {
        await pace.step();
        if (step.kind === "slot") {
          while (this.#free.length === 0) await this.#makeRoom();
          const slot = this.#free.pop()!;
          const filled = this.#fill(step.pieces, slot);
          // Should another step fail first, nobody will ask this one.
          filled.catch(() => {});
          this.#entries.push({ step, slot, filled });
        } else if (this.#entries.length === 0 && step.kind === "plain") {
          await this.#write(step);
        } else if (this.#entries.length === 0) {
          await this.#begin(() => this.#write(step));
        } else {
          while (this.#entries.length >= MOST_WAITING) await this.#writeNext();
          this.#entries.push({ step, slot: -1, filled: undefined });
        }
      }
      while (this.#entries.length > 0) {
        await pace.step();
        await this.#writeNext();
      }
      while (this.#writing.length > 0) await this.#endFirst();
      await this.#plain.settle();
    } finally {
      await Promise.all(this.#writing);
      await this.#plain.cancel();
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
    await this.#begin(async () => {
      if (filled === undefined) return await this.#write(entry.step);
      await this.#writeSlot(entry, filled);
      this.#free.push(entry.slot);
    });
  }

  /** Waits for a slot to be free, or one that was filled to be written. */
  async #makeRoom(): Promise<void> {
    if (this.#entries.length > 0) await this.#writeNext();
    else await this.#endFirst();
  }

  /** Writes, or begins to if there may be several things on their way. */
  async #begin(write: () => Promise<void>): Promise<void> {
    const { writes = 1 } = this.#options;
    if (writes <= 1) return await write();
    while (this.#writing.length >= writes) await this.#endFirst();
    this.#writing.push(write().then(() => undefined, (error) => ({ error })));
  }

  /** Waits for what was begun first, so that of several failures the first on the disk counts. */
  async #endFirst(): Promise<void> {
    const outcome = await this.#writing.shift();
    if (outcome !== undefined) throw outcome.error;
  }

  async #write(step: Step): Promise<void> {
    if (step.kind === "plain") await this.#plain.copy(step.piece);
    else if (step.kind === "zero") {
      await this.#plain.settle();
      await this.#options.writer.zeros(step.offset, step.length, step.offset);
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
    await this.#plain.settle();
    const { writer, pool, slotWriter, onDone } = this.#options;
    const bytes = pool.slots[slot]!;
    if (filled.kind === "clusters") return await this.#writeClusters(step.pieces, bytes, filled);
    const isWritten = await slotWriter?.write(slot, step.pieces, filled.runs) ?? false;
    let at = 0;
    for (const [index, { offset, length }] of step.pieces.entries()) {
      const piece = bytes.subarray(at, at + length);
      if (!isWritten) await writer.runs(piece, offset, filled.runs[index]!, offset);
      onDone(length);
      at += length;
    }
  }

  async #writeClusters(
    pieces: readonly Piece[],
    bytes: Uint8Array,
    { lengths }: Extract<Filled, { kind: "clusters" }>,
  ): Promise<void> {
    const { writer, packing, pace, onDone } = this.#options;
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
          await writer.hole(offset, size, offset);
        } else if (size < packer.clusterSize && offset + size < writer.target.length) {
          // The rest of the cluster belongs to the target.
          throw writeError(ImageError.fromErrno("EINVAL"), offset);
        } else if (length === PLAIN_CLUSTER) {
          await writer.unpacked(packer, offset, bytes.subarray(at, at + size));
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
