/**
 * Finding which units of two disks differ.
 *
 * @module
 */
import type { BlockNode } from "../../block/node.ts";
import { alignDown } from "../../bytes/align.ts";
import { firstDifference } from "../../bytes/equal.ts";
import { isZero } from "../../bytes/zero_scan.ts";
import { CHUNK_SIZE, type DataRun } from "./job.ts";
import type { Pace } from "./pace.ts";
import { type Place, slicePlace, Source, zeros } from "./source.ts";

/** Units from this many bytes on are looked at in their first bytes before they are read whole. */
const LARGE_UNIT = 32 << 10;

/** What is looked at first: data mostly differ at once, or not at all. */
const PROBE = 4096;

/** A disk as one of two that are compared: behind its end, and without an image, there are zeros. */
export class ComparedDisk {
  /** Bytes. */
  readonly length: number;
  readonly #source: Source | undefined;
  readonly #error: (error: unknown) => Error;

  /** The disk of `node`, which stays the caller's. `error` turns a failure to read into what is thrown. */
  constructor(node: BlockNode | null, error: (error: unknown) => Error) {
    this.#source = node === null ? undefined : new Source([node], { exact: true });
    this.length = node?.length ?? 0;
    this.#error = error;
  }

  /** Where the bytes of a range are, in order. */
  async places(offset: number, length: number): Promise<Place[]> {
    const places: Place[] = [];
    const end = offset + length;
    for (let at = offset; at < end;) {
      const place = await this.#placeAt(at, end - at);
      places.push(place);
      at += place.length;
    }
    return places;
  }

  /** Reads bytes of a place that begins at `offset` of the disk, from its byte `skip` on. */
  async read(place: Place, offset: number, skip: number, into: Uint8Array): Promise<void> {
    if (place.kind === "zero") {
      into.fill(0);
      return;
    }
    if (place.kind === "plain") {
      try {
        await place.file.read(place.offset + skip, into);
        return;
      } catch {
        // The image knows what to say of it.
      }
    }
    try {
      await this.#source!.read(offset + skip, into);
    } catch (error) {
      throw this.#error(error);
    }
  }

  async #placeAt(offset: number, most: number): Promise<Place> {
    if (this.#source === undefined || offset >= this.length) return zeros(most);
    try {
      const { place, length } = await this.#source.stretchAt(offset);
      return slicePlace(place, 0, Math.min(length, most));
    } catch (error) {
      throw this.#error(error);
    }
  }
}

/** A run that lies in one piece on both sides. */
interface Pair {
  readonly offset: number;
  readonly length: number;
  readonly left: Place;
  readonly right: Place;
}

/** Compares two disks unit by unit. */
export class UnitComparison {
  readonly #left: ComparedDisk;
  readonly #right: ComparedDisk;
  readonly #unit: number;
  readonly #pace: Pace;
  readonly #a: Uint8Array;
  readonly #b: Uint8Array;

  /** Units begin at multiples of `unit` bytes, a power of two; the last one may end with the disk. */
  constructor(left: ComparedDisk, right: ComparedDisk, unit: number, pace: Pace) {
    this.#left = left;
    this.#right = right;
    this.#unit = unit;
    this.#pace = pace;
    this.#a = new Uint8Array(CHUNK_SIZE);
    this.#b = new Uint8Array(CHUNK_SIZE);
  }

  /** The units of a range that differ, as runs counted from `offset`, which is where a unit begins. */
  async differing(offset: number, length: number): Promise<DataRun[]> {
    const flags = new Uint8Array(Math.ceil(length / this.#unit));
    for (const pair of await this.#pairs(offset, length)) await this.#compare(pair, offset, flags);
    const runs: DataRun[] = [];
    for (let index = 0; index < flags.length;) {
      const first = index;
      while (index < flags.length && flags[index] === flags[first]) index++;
      if (flags[first] === 0) continue;
      const start = first * this.#unit;
      runs.push({ start, length: Math.min(index * this.#unit, length) - start });
    }
    return runs;
  }

  async #pairs(offset: number, length: number): Promise<Pair[]> {
    const lefts = await this.#left.places(offset, length);
    const rights = await this.#right.places(offset, length);
    const pairs: Pair[] = [];
    let [i, skipLeft, j, skipRight] = [0, 0, 0, 0];
    for (let at = 0; at < length;) {
      const [left, right] = [lefts[i]!, rights[j]!];
      const count = Math.min(left.length - skipLeft, right.length - skipRight);
      pairs.push({
        offset: offset + at,
        length: count,
        left: slicePlace(left, skipLeft, count),
        right: slicePlace(right, skipRight, count),
      });
      at += count;
      skipLeft += count;
      skipRight += count;
      if (skipLeft === left.length) [i, skipLeft] = [i + 1, 0];
      if (skipRight === right.length) [j, skipRight] = [j + 1, 0];
    }
    return pairs;
  }

  /** Marks the units that differ within a pair; `base` is where the first unit begins. */
  async #compare(pair: Pair, base: number, flags: Uint8Array): Promise<void> {
    if (isSame(pair.left, pair.right)) return;
    const end = pair.offset + pair.length;
    for (let at = pair.offset; at < end;) {
      await this.#pace.step();
      const index = Math.floor((at - base) / this.#unit);
      const unitEnd = Math.min(base + (index + 1) * this.#unit, end);
      if (flags[index] === 1) {
        at = unitEnd;
        continue;
      }
      if (this.#unit >= LARGE_UNIT) {
        flags[index] = await this.#unitDiffers(pair, at, unitEnd) ? 1 : 0;
        at = unitEnd;
        continue;
      }
      const chunkEnd = Math.min(alignDown(at - base, CHUNK_SIZE) + base + CHUNK_SIZE, end);
      const [a, b] = await this.#load(pair, at, chunkEnd - at);
      for (let from = at; from < chunkEnd;) {
        const unit = Math.floor((from - base) / this.#unit);
        const to = Math.min(base + (unit + 1) * this.#unit, chunkEnd);
        if (differ(a?.subarray(from - at, to - at), b?.subarray(from - at, to - at))) {
          flags[unit] = 1;
        }
        from = to;
      }
      at = chunkEnd;
    }
  }

  async #unitDiffers(pair: Pair, from: number, to: number): Promise<boolean> {
    for (let at = from, count = PROBE; at < to; count = CHUNK_SIZE) {
      const length = Math.min(count, to - at);
      const [a, b] = await this.#load(pair, at, length);
      if (differ(a, b)) return true;
      at += length;
    }
    return false;
  }

  /** Bytes of both sides; `undefined` for zeros. */
  async #load(
    { offset, left, right }: Pair,
    at: number,
    length: number,
  ): Promise<[Uint8Array | undefined, Uint8Array | undefined]> {
    const a = left.kind === "zero" ? undefined : this.#a.subarray(0, length);
    if (a !== undefined) await this.#left.read(left, offset, at - offset, a);
    const b = right.kind === "zero" ? undefined : this.#b.subarray(0, length);
    if (b !== undefined) await this.#right.read(right, offset, at - offset, b);
    return [a, b];
  }
}

/** Whether two places are one. */
function isSame(a: Place, b: Place): boolean {
  if (a.kind === "zero") return b.kind === "zero";
  return a.kind === "plain" && b.kind === "plain" && a.file === b.file && a.offset === b.offset;
}

/** Whether bytes differ; `undefined` stands for zeros. */
function differ(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  if (a === undefined) return b !== undefined && !isZero(b);
  return b === undefined ? !isZero(a) : firstDifference(a, b) >= 0;
}
