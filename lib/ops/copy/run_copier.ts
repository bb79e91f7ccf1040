/**
 * Copying runs that are all data: what goes where is known, nothing is looked for in them.
 *
 * @module
 */
import type { Allocation } from "../../block/plan.ts";
import { alignedBytes } from "../../io/aligned_buffer.ts";
import { BATCHES, CHUNK_SIZE, SLOT_SIZE } from "./job.ts";
import type { Pace } from "./pace.ts";
import type { Partner, Run } from "./partner.ts";
import type { Piece } from "./planner.ts";
import { type Place, slicePlace, type Source } from "./source.ts";
import type { Writer } from "./writer.ts";

/** Copies pieces that go through no slot. */
export interface PieceCopier {
  /** Copies a piece, or begins to. */
  copy(piece: Piece): Promise<void>;
  /** Ends all that was begun. */
  settle(): Promise<void>;
  /** After a failure: waits until nobody writes any more, and gives back what was reserved. */
  cancel(): Promise<void>;
}

/** How runs are copied. */
export interface RunCopierOptions {
  /** What is copied. */
  readonly source: Source;
  /** Where it goes. */
  readonly writer: Writer;
  /** Keeps the thread responsive. */
  readonly pace: Pace;
  /** Present when another thread helps; its batches take {@linkcode SLOT_SIZE} bytes. */
  readonly partner?: Partner | undefined;
}

/** A run that the partner writes. */
interface Given extends Run {
  readonly allocation: Allocation;
  /** Where the piece begins that it is from. */
  readonly begin: number;
}

/** What the partner writes in one go, or will when it is enough. */
interface Batch {
  /** The number by which the partner knows it. */
  readonly number: number;
  readonly runs: Given[];
  /** Bytes of its buffer that are in use. */
  size: number;
}

/** From how many bytes on a batch is worth its message. */
const FULL_BATCH = 1 << 20;

/**
 * Copies pieces, each in one request as the reference would, so that the space for it is reserved in one go
 * and lies as it would there. This thread reads, and writes only while its partner has enough to do.
 */
export class RunCopier implements PieceCopier {
  readonly #options: RunCopierOptions;
  // What begins on a page the system copies faster.
  readonly #chunk = alignedBytes(CHUNK_SIZE);
  #whole: Uint8Array | undefined;
  /** What the partner has in hand, by the numbers of the batches. */
  readonly #taken: (Batch | undefined)[] = Array.from({ length: BATCHES });
  /** What is gathered for the partner. */
  #gathered: Batch | undefined;

  /** Copies as the options say. */
  constructor(options: RunCopierOptions) {
    this.#options = options;
  }

  /** Copies a piece of at most {@linkcode SLOT_SIZE} bytes, or begins to. */
  async copy({ offset, length, places }: Piece): Promise<void> {
    const { partner, writer } = this.#options;
    for (let number = 0; number < BATCHES; number++) {
      if (partner?.outcome(number) !== undefined) await this.#end(number);
    }
    const batch = this.#batchFor(length);
    for (let at = 0; at < length;) {
      const allocation = await writer.allocate(offset + at, length - at, offset);
      const rest = placesFrom(places, at);
      if (allocation === null) {
        await this.#writeThrough(offset + at, rest, offset);
        break;
      }
      if (batch === undefined || allocation.file.local === undefined) {
        await this.#fill(allocation, offset + at, rest, offset);
      } else {
        await this.#gather(batch, allocation, offset + at, rest, offset);
      }
      at += allocation.length;
    }
    if (batch !== undefined && batch.size >= FULL_BATCH) this.#handOver();
  }

  /** Ends all that was begun. */
  async settle(): Promise<void> {
    this.#handOver();
    for (const [number, batch] of this.#taken.entries()) {
      if (batch === undefined) continue;
      await this.#options.partner!.wait(number);
      await this.#end(number);
    }
  }

  /** After a failure: waits until nobody writes any more, and gives back what was reserved. */
  async cancel(): Promise<void> {
    for (const [number, batch] of this.#taken.entries()) {
      if (batch !== undefined) await this.#options.partner!.stopped(number);
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

  /** What a piece is gathered in; `undefined` if the partner has enough to do. */
  #batchFor(length: number): Batch | undefined {
    const { partner } = this.#options;
    if (partner === undefined) return undefined;
    if (this.#gathered !== undefined) {
      if (this.#gathered.size + length <= SLOT_SIZE) return this.#gathered;
      this.#handOver();
    }
    for (let number = 0; number < BATCHES; number++) {
      if (this.#taken[number] === undefined && partner.canTake(number)) {
        return this.#gathered = { number, runs: [], size: 0 };
      }
    }
    return undefined;
  }

  /** Gives the partner what is gathered. */
  #handOver(): void {
    const batch = this.#gathered;
    if (batch === undefined) return;
    this.#gathered = undefined;
    if (batch.runs.length === 0) return;
    this.#taken[batch.number] = batch;
    this.#options.partner!.take(batch.number, batch.runs);
  }

  /** Makes reachable what the partner has written, and writes what it could not. */
  async #end(number: number): Promise<void> {
    const batch = this.#taken[number];
    if (batch === undefined) return;
    const partner = this.#options.partner!;
    const { writer } = this.#options;
    const isWritten = partner.outcome(number) === true;
    const bytes = partner.buffer(number);
    for (let run = batch.runs[0]; run !== undefined; run = batch.runs[0]) {
      const { allocation, at, length, begin } = run;
      if (!isWritten) await writer.fill(allocation, 0, bytes.subarray(at, at + length), begin);
      // What was published is no longer there to be given back.
      batch.runs.shift();
      await writer.publish(allocation, begin);
    }
    this.#taken[number] = undefined;
    partner.forget(number);
  }

  /** Reads what goes into reserved space; the partner will write it. */
  async #gather(
    batch: Batch,
    allocation: Allocation,
    offset: number,
    places: readonly Place[],
    begin: number,
  ): Promise<void> {
    const { length, offset: to } = allocation;
    const at = batch.size;
    const into = this.#options.partner!.buffer(batch.number);
    batch.runs.push({ at, length, target: allocation.file.local!, to, allocation, begin });
    await this.#readChunks(
      places,
      offset,
      length,
      begin,
      (done, count) => into.subarray(at + done, at + done + count),
    );
    batch.size += length;
  }

  /** Fills reserved space and makes it reachable. */
  async #fill(
    allocation: Allocation,
    offset: number,
    places: readonly Place[],
    begin: number,
  ): Promise<void> {
    const { writer } = this.#options;
    let isFilled = false;
    try {
      await this.#readChunks(
        places,
        offset,
        allocation.length,
        begin,
        (_, count) => this.#chunk.subarray(0, count),
        (done, bytes) => writer.fill(allocation, done, bytes, begin),
      );
      isFilled = true;
    } finally {
      if (!isFilled) await allocation.abandon();
    }
    await writer.publish(allocation, begin);
  }

  /** Where nobody else may fill the space (encryption …), the node writes the bytes itself. */
  async #writeThrough(offset: number, places: readonly Place[], begin: number): Promise<void> {
    this.#whole ??= new Uint8Array(SLOT_SIZE);
    const length = places.reduce((sum, place) => sum + place.length, 0);
    const whole = this.#whole.subarray(0, length);
    await this.#readChunks(
      places,
      offset,
      length,
      begin,
      (done, count) => whole.subarray(done, done + count),
    );
    await this.#options.writer.data(offset, whole, begin);
  }

  /**
   * Reads the first `length` bytes of places that begin at `offset`, bit by bit, into what `buffer` says
   * for `count` bytes after `done`; tells when each bit is there.
   */
  async #readChunks(
    places: readonly Place[],
    offset: number,
    length: number,
    begin: number,
    buffer: (done: number, count: number) => Uint8Array,
    onRead?: (done: number, bytes: Uint8Array) => Promise<void>,
  ): Promise<void> {
    let start = 0;
    for (const place of places) {
      const end = Math.min(place.length, length - start);
      for (let at = 0; at < end;) {
        await this.#options.pace.step();
        const bytes = buffer(start + at, Math.min(CHUNK_SIZE, end - at));
        await this.#options.source.readPlace(place, at, offset + start + at, bytes, begin);
        await onRead?.(start + at, bytes);
        at += bytes.length;
      }
      start += end;
      if (start === length) return;
    }
  }
}

/** The rest of a piece from its byte `skip` on. */
function placesFrom(places: readonly Place[], skip: number): Place[] {
  const rest: Place[] = [];
  for (const place of places) {
    if (skip < place.length) rest.push(slicePlace(place, skip, place.length - skip));
    skip = Math.max(skip - place.length, 0);
  }
  return rest;
}
