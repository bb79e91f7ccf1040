/**
 * Which bytes of a disk count as zeros. Raw reference, section 5, "Sparse detection in convert".
 *
 * @module
 */
import { isZero, zeroRun } from "../../bytes/zero_scan.ts";
import type { DataRun } from "./job.ts";

/** How zeros are looked for in data. All in bytes. */
export interface SparseRule {
  /** Runs of zeros begin and end at multiples of this power of two, or at the end of what was read. */
  readonly block: number;
  /** Between data, shorter runs of zeros count as data. */
  readonly shortest: number;
}

const SECTOR = 512;

/**
 * The rule for a smallest run of zeros, and a target that takes requests of a certain alignment. `null`:
 * everything is data.
 */
export function sparseRule(smallest: number, requestAlignment: number): SparseRule | null {
  if (smallest === 0) return null;
  const block = Math.max(2 ** Math.floor(Math.log2(smallest)), requestAlignment, SECTOR);
  return { block, shortest: smallest };
}

/** Whether pieces that begin at multiples of `size` give the same result as a whole. */
export function isPiecewise(rule: SparseRule | null, size: number): boolean {
  return rule === null || (rule.shortest <= rule.block && rule.block <= size);
}

/** The data in `bytes`, which lie on the disk from `offset` on: what remains is zero and may be left out. */
export function dataRuns(bytes: Uint8Array, offset: number, rule: SparseRule | null): DataRun[] {
  if (rule === null) return bytes.length === 0 ? [] : [{ start: 0, length: bytes.length }];
  const { block, shortest } = rule;
  const runs: DataRun[] = [];
  let start = -1;
  let end = -1;
  const add = (zero: boolean, at: number, length: number) => {
    if (zero) return;
    if (start >= 0 && at - end < shortest) end = at + length;
    else {
      if (start >= 0) runs.push({ start, length: end - start });
      [start, end] = [at, at + length];
    }
  };
  let at = Math.min((block - offset % block) % block, bytes.length);
  if (at > 0) add(isZero(bytes.subarray(0, at)), 0, at);
  while (at < bytes.length) {
    const { zero, length } = zeroRun(bytes, at, block);
    add(zero, at, length);
    at += length;
  }
  if (start >= 0) runs.push({ start, length: end - start });
  return runs;
}
