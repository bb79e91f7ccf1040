/**
 * Comparing byte arrays, 64 bits at a time.
 *
 * @module
 */

/** Whether both arrays have the same length and the same bytes. */
export function equalBytes(_a: Uint8Array, _b: Uint8Array): boolean {
  throw new Error("being written");
}

/**
 * The first sector of `step` bytes in which `a` and `b` differ, as its offset, or -1 when the bytes that both have are
 * equal. Lengths are not compared. With `step` 1 it is the first byte.
 */
export function firstDifference(_a: Uint8Array, _b: Uint8Array, _step = 1): number {
  throw new Error("being written");
}
