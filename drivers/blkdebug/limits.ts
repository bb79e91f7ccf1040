/**
 * What requests a debugging node takes, so that what is above it can be seen to keep to it.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";
import { alignDown } from "../../lib/bytes/align.ts";

const INT_MAX = 2 ** 31 - 1;
/** What zero writes that have to be done with data write at once, bytes. */
const BOUNCE = 16 << 20;

/** The options. */
export const LIMIT_OPTIONS: readonly OptionSpec[] = [
  { name: "align", type: "size", help: "Requests are multiples of this, a power of two" },
  { name: "max-transfer", type: "size", help: "The longest read or write" },
  { name: "opt-write-zero", type: "size", help: "Zero writes are multiples of this" },
  { name: "max-write-zero", type: "size", help: "The longest zero write" },
  { name: "opt-discard", type: "size", help: "Discards are multiples of this" },
  { name: "max-discard", type: "size", help: "The longest discard" },
].map((spec) => ({ ...spec, type: "size", strong: true }));

/** Limits of requests. All in bytes. */
export interface RequestLimits {
  /** Offsets and lengths are multiples of this. */
  readonly align: number;
  /** The longest read or write. */
  readonly transfer: number;
  /** Zero writes that are no multiples of this are done with data. */
  readonly zeroAlign: number;
  /** The longest zero write. */
  readonly zero: number;
  /** The longest write of zeros as data. */
  readonly bounce: number;
  /** Discards that are shorter are left out. */
  readonly discardAlign: number;
  /** The longest discard. */
  readonly discard: number;
}

/**
 * Reads the options; `below` is the unit of the node below.
 *
 * @throws {ImageError} `Cannot meet constraints with <option> <value>`
 */
export function readLimits(options: OptionSet, below: number): RequestLimits {
  const read = (name: string, isRight: (value: number) => boolean): number | undefined => {
    const value = options.exact(name) ?? 0n;
    if (value === 0n) return undefined;
    const number = Number(value);
    if (value < BigInt(INT_MAX) && isRight(number)) return number;
    throw new ImageError(`Cannot meet constraints with ${name} ${value}`, {
      errno: "EINVAL",
      field: name,
    });
  };
  const multipleOf = (unit: number) => (value: number) => value % unit === 0;
  const align = Math.max(read("align", isPowerOfTwo) ?? 1, below);
  const transfer = read("max-transfer", multipleOf(align)) ?? alignDown(INT_MAX, align);
  const zeroAlign = Math.max(read("opt-write-zero", multipleOf(align)) ?? 0, align);
  const zero = read("max-write-zero", multipleOf(zeroAlign)) ?? alignDown(INT_MAX, zeroAlign);
  const discardAlign = Math.max(read("opt-discard", multipleOf(align)) ?? 0, align);
  const discard = read("max-discard", multipleOf(discardAlign)) ??
    alignDown(Number.MAX_SAFE_INTEGER, discardAlign);
  return {
    align,
    transfer,
    zeroAlign,
    zero,
    bounce: Math.min(transfer, BOUNCE),
    discardAlign,
    discard,
  };
}

function isPowerOfTwo(value: number): boolean {
  return (value & (value - 1)) === 0;
}

/** A part of a request. */
export interface Piece {
  /** Where it begins, bytes. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** Cuts a run into pieces of at most `most` bytes. */
export function* piecesOf(offset: number, length: number, most: number): Generator<Piece> {
  for (const end = offset + length; offset < end;) {
    const piece = { offset, length: Math.min(end - offset, most) };
    yield piece;
    offset += piece.length;
  }
}

/**
 * Cuts a run at the first and at the last multiple of `unit` in it; what lies between them is in pieces of
 * at most `most` bytes, itself a multiple of the unit.
 */
export function* alignedPieces(
  offset: number,
  length: number,
  unit: number,
  most: number,
): Generator<Piece> {
  const end = offset + length;
  const first = Math.min(Math.ceil(offset / unit) * unit, end);
  if (first > offset) yield { offset, length: first - offset };
  const last = Math.max(alignDown(end, unit), first);
  yield* piecesOf(first, last - first, most);
  if (end > last) yield { offset: last, length: end - last };
}
