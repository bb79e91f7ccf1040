/**
 * Finding zero bytes.
 *
 * The scan ORs eight 64-bit words a step through a `DataView`: as fast as typed arrays of words, which an odd
 * `byteOffset` forbids, in the main thread and in workers, on plain and on shared buffers, and without loading
 * `node:buffer`. Resizable and growable buffers are twenty times slower, here as in any loop.
 *
 * @module
 */
import { viewOf } from "./endian.ts";

/** A run of sectors that are all zero, or of which none is. */
export interface ZeroRun {
  /** Whether all bytes of the run are zero; if not, every sector of the run has a byte that is not. */
  zero: boolean;
  /** Length of the run in bytes. */
  length: number;
}

/** Whether every byte is zero; true for an empty array. */
export function isZero(bytes: Uint8Array): boolean {
  return isZeroView(viewOf(bytes), 0, bytes.length);
}

/** The index of the first byte that is not zero, or -1. */
export function firstNonZero(bytes: Uint8Array): number {
  const view = viewOf(bytes);
  const block = 4096;
  for (let from = 0; from < bytes.length; from += block) {
    const to = Math.min(from + block, bytes.length);
    if (isZeroView(view, from, to)) continue;
    for (let at = from; at < to; at++) {
      if (bytes[at] !== 0) return at;
    }
  }
  return -1;
}

/**
 * The run that begins at `offset` of `bytes`, in sectors of `step` bytes counted from `offset`; the last sector may be
 * short. `length` is 0 only when `offset` is the end. Throws `RangeError` for an offset outside the array, or a step
 * that is no positive integer.
 */
export function zeroRun(bytes: Uint8Array, offset: number, step: number): ZeroRun {
  if (!(Number.isInteger(step) && step > 0)) throw new RangeError(`a sector of ${step} bytes`);
  if (!(offset >= 0 && offset <= bytes.length)) {
    throw new RangeError(`offset ${offset} is outside of ${bytes.length} bytes`);
  }
  const view = viewOf(bytes);
  const end = bytes.length;
  let at = Math.min(offset + step, end);
  const zero = isZeroView(view, offset, at);
  while (at < end) {
    const next = Math.min(at + step, end);
    if (isZeroView(view, at, next) !== zero) break;
    at = next;
  }
  return { zero, length: at - offset };
}

/** Whether the bytes from `from` up to `to` are zero. Byte order is of no matter, but naming one spares a swap. */
function isZeroView(view: DataView, from: number, to: number): boolean {
  let at = from;
  // Data mostly show in their first word what they are.
  if (to - at >= 8 && view.getBigInt64(at, true) !== 0n) return false;
  for (const last = to - 64; at <= last; at += 64) {
    const any = view.getBigInt64(at, true) | view.getBigInt64(at + 8, true) |
      view.getBigInt64(at + 16, true) | view.getBigInt64(at + 24, true) |
      view.getBigInt64(at + 32, true) | view.getBigInt64(at + 40, true) |
      view.getBigInt64(at + 48, true) | view.getBigInt64(at + 56, true);
    if (any !== 0n) return false;
  }
  for (const last = to - 8; at <= last; at += 8) {
    if (view.getBigInt64(at, true) !== 0n) return false;
  }
  for (; at < to; at++) {
    if (view.getUint8(at) !== 0) return false;
  }
  return true;
}
