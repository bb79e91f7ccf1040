/**
 * Which places of the file are free, and which comes next (section 3 of the format's reference): holes that
 * were left, the lowest first, then what lies behind the data.
 *
 * @module
 */
import { alignUp, divideUp } from "../../lib/bytes/align.ts";

/** Where data may be. All in bytes. */
export interface DataArea {
  /** Where data begin. */
  readonly start: number;
  /** Places are multiples of `clusterSize` from here: at or behind `start`. */
  readonly origin: number;
  /** Bytes of a place. */
  readonly clusterSize: number;
  /** The end of the file. */
  readonly fileLength: number;
}

/** Places that were taken, one behind the other. */
export interface Place {
  /** Of the first of them, bytes. */
  readonly position: number;
  /** How many there are. */
  readonly count: number;
  /** The file holds zeros there: they were never used. */
  readonly isZero: boolean;
  /** There was something there before, which the table in the file may still lead to. */
  readonly isHole: boolean;
}

/** The free places of an image that is open for writing. They are counted from the area's origin. */
export class FreeSpace {
  readonly #area: DataArea;
  /** Holes in ascending order, none next to another, from `#head` on. */
  #starts: number[] = [];
  #ends: number[] = [];
  #head = 0;
  /** Behind the last place that is, or was, in use. */
  #end: number;
  /** Behind the last place in the file. */
  #capacity: number;
  /** From here on nothing was ever in use, and all is zeros. */
  #untouched: number;
  /** As `#end`, in bytes: some of the older images have clusters between two places. */
  #dataEnd: number;

  /** `used` are the positions of the clusters in use, ascending. */
  constructor(area: DataArea, used: Float64Array) {
    this.#area = area;
    const { start, origin, clusterSize, fileLength } = area;
    let end = 0;
    for (const position of used) {
      const first = Math.max(Math.floor((position - origin) / clusterSize), 0);
      if (first > end) {
        this.#starts.push(end);
        this.#ends.push(first);
      }
      end = Math.max(end, divideUp(Math.max(position + clusterSize - origin, 0), clusterSize));
    }
    this.#end = end;
    this.#dataEnd = Math.max(start, (used.at(-1) ?? -clusterSize) + clusterSize);
    this.#capacity = Math.max(end, divideUp(Math.max(fileLength - origin, 0), clusterSize));
    // What lies behind the data may be anything.
    this.#untouched = this.#capacity;
  }

  /** Where the data end, bytes: the file need not be longer. */
  get dataEnd(): number {
    const last = this.#ends.length - 1;
    if (last < this.#head || this.#ends[last] !== this.#end) return this.#dataEnd;
    const { start, origin, clusterSize } = this.#area;
    return Math.max(start, origin + this.#starts[last]! * clusterSize);
  }

  /** Where the next places will be if the file has to grow for them, bytes. */
  get growsAt(): number {
    return this.#area.origin + this.#end * this.#area.clusterSize;
  }

  /** Says that the file has been made longer by `count` places of zeros. */
  grown(count: number): void {
    this.#capacity += count;
  }

  /** Takes up to `most` places that follow one another; `undefined` if the file has to grow first. */
  take(most: number): Place | undefined {
    const { origin, clusterSize } = this.#area;
    const isHole = this.#head < this.#starts.length;
    const start = isHole ? this.#starts[this.#head]! : this.#end;
    const holeEnd = isHole ? this.#ends[this.#head]! : start;
    const count = Math.min(most, (holeEnd === this.#end ? this.#capacity : holeEnd) - start);
    if (count <= 0) return undefined;
    const end = start + count;
    if (isHole) {
      if (end < holeEnd) this.#starts[this.#head] = end;
      else if (++this.#head === this.#starts.length) this.#clearHoles();
    }
    const isZero = start >= this.#untouched;
    if (end > this.#end) {
      this.#end = end;
      this.#dataEnd = origin + end * clusterSize;
    }
    this.#untouched = Math.max(this.#untouched, end);
    return { position: origin + start * clusterSize, count, isZero, isHole };
  }

  /** Takes the place behind all others, in the file or not; answers with its position. */
  append(): number {
    const position = this.growsAt;
    this.#end++;
    this.#capacity = Math.max(this.#capacity, this.#end);
    this.#untouched = Math.max(this.#untouched, this.#end);
    this.#dataEnd = position + this.#area.clusterSize;
    return position;
  }

  /** Gives back the place of a cluster that the disk does not have any more, or never had. */
  free(position: number): void {
    const { origin, clusterSize } = this.#area;
    const start = Math.max(divideUp(position - origin, clusterSize), 0);
    const end = Math.floor((position + clusterSize - origin) / clusterSize);
    if (end > start) this.#addHole(start, end);
  }

  #clearHoles(): void {
    [this.#starts, this.#ends, this.#head] = [[], [], 0];
  }

  #addHole(start: number, end: number): void {
    // The first hole that ends at or behind the new one's begin.
    let [low, high] = [this.#head, this.#ends.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ends[middle]! < start) low = middle + 1;
      else high = middle;
    }
    let next = low;
    while (next < this.#starts.length && this.#starts[next]! <= end) {
      start = Math.min(start, this.#starts[next]!);
      end = Math.max(end, this.#ends[next]!);
      next++;
    }
    this.#starts.splice(low, next - low, start);
    this.#ends.splice(low, next - low, end);
  }
}

/** The area of an image's data: in tables that count clusters, places are multiples of a cluster. */
export function dataArea(
  start: number,
  clusterSize: number,
  entryUnit: number,
  fileLength: number,
): DataArea {
  return { start, origin: alignUp(start, entryUnit), clusterSize, fileLength };
}
