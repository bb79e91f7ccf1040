/**
 * Finding zero bytes.
 *
 * The scan ORs four 64-bit words a step: as fast as memory delivers, in the main thread and in workers, on plain and
 * on shared buffers, and without loading `node:buffer`.
 *
 * @module
 */

/** A run of sectors that are all zero, or of which none is. */
export interface ZeroRun {
  /** Whether all bytes of the run are zero; if not, every sector of the run has a byte that is not. */
  zero: boolean;
  /** Length of the run in bytes. */
  length: number;
}

/** Whether every byte is zero; true for an empty array. */
export function isZero(_bytes: Uint8Array): boolean {
  throw new Error("being written");
}

/** The index of the first byte that is not zero, or -1. */
export function firstNonZero(_bytes: Uint8Array): number {
  throw new Error("being written");
}

/**
 * The run that begins at `offset` of `bytes`, in sectors of `step` bytes counted from `offset`; the last sector may be
 * short. `length` is 0 only when `offset` is the end.
 */
export function zeroRun(_bytes: Uint8Array, _offset: number, _step: number): ZeroRun {
  throw new Error("being written");
}
