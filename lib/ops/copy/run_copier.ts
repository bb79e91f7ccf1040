/**
 * Copying runs that are all data: what goes where is known, nothing is looked for in them.
 *
 * @module
 */
import type { Allocation } from "../../block/plan.ts";
import { CHUNK_SIZE, SLOT_SIZE } from "./job.ts";
import type { Pace } from "./pace.ts";
import type { Piece } from "./planner.ts";
import { type Place, slicePlace, type Source } from "./source.ts";
import type { Writer } from "./writer.ts";

/** How runs are copied. */
export interface RunCopierOptions {
  /** What is copied. */
  readonly source: Source;
  /** Where it goes. */
  readonly writer: Writer;
  /** Keeps the thread responsive. */
  readonly pace: Pace;
}

/** Copies pieces that go through no slot. */
export interface PieceCopier {
  /** Copies a piece, or begins to. */
  copy(piece: Piece): Promise<void>;
  /** Ends all that was begun. */
  settle(): Promise<void>;
  /** After a failure: waits until nobody writes any more, and gives back what was reserved. */
  cancel(): Promise<void>;
}

/**
 * Copies pieces, each in one request as the reference would, so that the space for it is reserved in one go
 * and lies as it would there. The bytes go through a buffer that stays in the processor's cache.
 */
export class RunCopier implements PieceCopier {
  readonly #options: RunCopierOptions;
  readonly #chunk = new Uint8Array(CHUNK_SIZE);
  #whole: Uint8Array | undefined;

  /** Copies as the options say. */
  constructor(options: RunCopierOptions) {
    this.#options = options;
  }

  /** Copies a piece. */
  async copy({ offset, length, places }: Piece): Promise<void> {
    const { writer } = this.#options;
    for (let at = 0; at < length;) {
      const allocation = await writer.allocate(offset + at, length - at, offset);
      if (allocation === null) {
        await this.#writeThrough(offset + at, placesFrom(places, at), offset);
        return;
      }
      let isFilled = false;
      try {
        await this.#fill(allocation, offset + at, placesFrom(places, at), offset);
        isFilled = true;
      } finally {
        if (!isFilled) await allocation.abandon();
      }
      await writer.publish(allocation, offset);
      at += allocation.length;
    }
  }

  /** Everything that was begun has ended. */
  async settle(): Promise<void> {}

  /** There is nothing to give back. */
  async cancel(): Promise<void> {}

  async #fill(
    allocation: Allocation,
    offset: number,
    places: readonly Place[],
    begin: number,
  ): Promise<void> {
    const { pace, writer } = this.#options;
    const { length } = allocation;
    let done = 0;
    for (const place of places) {
      const end = Math.min(place.length, length - done);
      for (let at = 0; at < end;) {
        await pace.step();
        const bytes = this.#chunk.subarray(0, Math.min(CHUNK_SIZE, end - at));
        await this.#read(place, at, offset + done + at, bytes, begin);
        await writer.fill(allocation, done + at, bytes, begin);
        at += bytes.length;
      }
      done += end;
      if (done === length) return;
    }
  }

  /** Where nobody else may fill the space (encryption …), the node writes the bytes itself. */
  async #writeThrough(offset: number, places: readonly Place[], begin: number): Promise<void> {
    this.#whole ??= new Uint8Array(SLOT_SIZE);
    let end = 0;
    for (const place of places) {
      await this.#read(
        place,
        0,
        offset + end,
        this.#whole.subarray(end, end + place.length),
        begin,
      );
      end += place.length;
    }
    await this.#options.writer.data(offset, this.#whole.subarray(0, end), begin);
  }

  async #read(
    place: Place,
    at: number,
    offset: number,
    into: Uint8Array,
    begin: number,
  ): Promise<void> {
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
