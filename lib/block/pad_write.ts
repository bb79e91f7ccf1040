import { alignDown, alignUp } from "../bytes/align.ts";

/** What is done when a write does not begin or end with a unit, in this order. */
export type PaddingStep = "head" | "after_head" | "tail" | "after_tail";

/** A write of whole units. */
export interface PaddedWrite {
  /** Where it begins, a multiple of the unit. */
  readonly offset: number;
  /** What is written. */
  readonly bytes: Uint8Array;
}

/**
 * Makes a write one of whole units of `unit` bytes: what lies around it in the first and the last of them
 * is read first. Nobody else may write them meanwhile.
 *
 * @param end The end of the node, bytes: nothing is read or written behind it.
 * @param read Reads whole units, or up to `end`.
 * @param step Told of what comes next.
 */
export async function padWrite(
  offset: number,
  from: Uint8Array,
  { unit, end, read, step = () => {} }: {
    readonly unit: number;
    readonly end: number;
    readonly read: (offset: number, into: Uint8Array) => Promise<void>;
    readonly step?: (step: PaddingStep) => void;
  },
): Promise<PaddedWrite> {
  const first = alignDown(offset, unit);
  const behind = Math.max(Math.min(alignUp(offset + from.length, unit), end), offset + from.length);
  const head = offset - first;
  const tail = behind - offset - from.length;
  if (head === 0 && tail === 0) return { offset, bytes: from };
  const bytes = new Uint8Array(behind - first);
  const isOne = bytes.length <= unit || (head > 0 && tail > 0 && bytes.length <= 2 * unit);
  if (isOne) {
    if (head > 0) step("head");
    if (tail > 0) step("tail");
    await read(first, bytes);
    if (head > 0) step("after_head");
    if (tail > 0) step("after_tail");
  } else {
    if (head > 0) {
      step("head");
      await read(first, bytes.subarray(0, unit));
      step("after_head");
    }
    if (tail > 0) {
      const last = alignDown(offset + from.length, unit);
      step("tail");
      await read(last, bytes.subarray(last - first));
      step("after_tail");
    }
  }
  bytes.set(from, head);
  return { offset: first, bytes };
}
