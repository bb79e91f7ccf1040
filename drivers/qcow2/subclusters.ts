/**
 * The bitmaps of extended L2 entries (section 5): the lower half of the word
 * says which of the 32 subclusters are stored, the upper half which read as
 * zeros.
 *
 * @module
 */

/** Subclusters of a cluster with extended L2 entries. */
export const SUBCLUSTERS = 32;

/** All bits of half a bitmap. */
export const ALL_SUBCLUSTERS = 0xffffffff;

/** The bits of subclusters `first` to `end` (exclusive), unsigned. */
export function subclusterBits(first: number, end: number): number {
  if (end <= first) return 0;
  const count = end - first;
  return (count === 32 ? ALL_SUBCLUSTERS : (2 ** count - 1) << first) >>> 0;
}

/** How many bits from `first` on are set in a row. */
export function bitRun(bits: number, first: number): number {
  const clear = ~bits >>> first;
  // What the shift brings in looks like set bits: the run may seem to go on behind the last one.
  const run = clear === 0 ? 32 : trailingZeros(clear);
  return Math.min(run, 32 - first);
}

/** Zero bits below the lowest set one; 32 for 0. */
export function trailingZeros(bits: number): number {
  return bits === 0 ? 32 : 31 - Math.clz32(bits & -bits);
}
