/**
 * Comparing byte arrays, 64 bits at a time and at any alignment of either.
 *
 * @module
 */
import { viewOf } from "./endian.ts";

/** Whether both arrays have the same length and the same bytes. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && firstDifference(a, b, 1) === -1;
}

/**
 * The first sector of `step` bytes in which `a` and `b` differ, as its offset, or -1 when the bytes that both have are
 * equal. Lengths are not compared. With `step` 1 it is the first byte. Throws `RangeError` for a step that is no
 * positive integer.
 */
export function firstDifference(a: Uint8Array, b: Uint8Array, step = 1): number {
  if (!(Number.isInteger(step) && step > 0)) throw new RangeError(`a sector of ${step} bytes`);
  const end = Math.min(a.length, b.length);
  let at = equalPrefix(viewOf(a), viewOf(b), end);
  while (at < end && a[at] === b[at]) at++;
  return at === end ? -1 : at - at % step;
}

/** An offset up to which both views are equal, at most 31 bytes before the first difference or `end`. */
function equalPrefix(a: DataView, b: DataView, end: number): number {
  let at = 0;
  for (const last = end - 32; at <= last; at += 32) {
    const any = (a.getBigInt64(at, true) ^ b.getBigInt64(at, true)) |
      (a.getBigInt64(at + 8, true) ^ b.getBigInt64(at + 8, true)) |
      (a.getBigInt64(at + 16, true) ^ b.getBigInt64(at + 16, true)) |
      (a.getBigInt64(at + 24, true) ^ b.getBigInt64(at + 24, true));
    if (any !== 0n) break;
  }
  return at;
}
