/**
 * Bits of a dirty bitmap, where they are stored (section 5 of the format's reference).
 *
 * @module
 */
import { during } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { readU64LE } from "../../lib/bytes/endian.ts";
import { SECTOR } from "./header.ts";

/** A bitmap in a file. All in bytes. */
export interface StoredBitmap {
  /** UUID. */
  readonly name: string;
  /** Bytes of the disk for a bit. */
  readonly granularity: number;
  /** Length of the disk. */
  readonly diskLength: number;
  /** The bits lie in pieces of this size. */
  readonly clusterSize: number;
  /** For each piece 64 bits: where it is, or what all of its bits are. */
  readonly table: Uint8Array;
}

/** Entries of pieces that are nowhere, as all of their bits are the same. */
const [ALL_CLEAR, ALL_SET] = [0n, 1n];

const STEP = 1 << 20;

/** Calls `visit` for every run of dirty bytes of the disk, in order. */
export async function visitDirty(
  file: BlockNode,
  { granularity, diskLength, clusterSize, table }: StoredBitmap,
  visit: (offset: number, length: number) => void,
): Promise<void> {
  const runs = new Runs(granularity, diskLength, visit);
  const bits = Math.ceil(diskLength / granularity);
  const pieceBits = clusterSize * 8;
  const buffer = new Uint8Array(Math.min(STEP, clusterSize));
  for (let piece = 0; piece * pieceBits < bits; piece++) {
    const first = piece * pieceBits;
    const end = Math.min(first + pieceBits, bits);
    const entry = readU64LE(table, piece * 8);
    if (entry === ALL_CLEAR) continue;
    if (entry === ALL_SET) {
      runs.add(first, end);
      continue;
    }
    const position = Number(entry) * SECTOR;
    for (let bit = first; bit < end; bit += buffer.length * 8) {
      const count = Math.min(buffer.length * 8, end - bit);
      const bytes = buffer.subarray(0, Math.ceil(count / 8));
      await during(
        "Failed to read bitmap data cluster",
        () => readPadded(file, position + (bit - first) / 8, bytes),
      );
      addBits(bytes, bit, count, runs);
    }
  }
  runs.end();
}

/** Adds the runs of set bits among the first `count`; the first bit's number is `start`. */
function addBits(bytes: Uint8Array, start: number, count: number, runs: Runs): void {
  for (let at = 0; at < count; at += 8) {
    const byte = bytes[at >> 3]!;
    if (byte === 0) continue;
    if (byte === 0xff && at + 8 <= count) {
      runs.add(start + at, start + at + 8);
      continue;
    }
    for (let bit = at; bit < Math.min(at + 8, count); bit++) {
      if ((byte >> (bit - at) & 1) !== 0) runs.add(start + bit, start + bit + 1);
    }
  }
}

/** Joins runs of bits that follow one another. */
class Runs {
  readonly #granularity: number;
  readonly #diskLength: number;
  readonly #visit: (offset: number, length: number) => void;
  #first = 0;
  #end = 0;

  constructor(
    granularity: number,
    diskLength: number,
    visit: (offset: number, length: number) => void,
  ) {
    this.#granularity = granularity;
    this.#diskLength = diskLength;
    this.#visit = visit;
  }

  add(first: number, end: number): void {
    if (first !== this.#end) {
      this.end();
      this.#first = first;
    }
    this.#end = end;
  }

  /** Tells of the last run. */
  end(): void {
    const offset = this.#first * this.#granularity;
    const end = Math.min(this.#end * this.#granularity, this.#diskLength);
    if (end > offset) this.#visit(offset, end - offset);
    this.#first = this.#end;
  }
}
