/**
 * Reading the disk, and telling where it is.
 *
 * @module
 */
import { readPadded } from "../../lib/block/read_padded.ts";
import type { ParallelsImage } from "./image.ts";

/** A run of the disk. */
export interface Run {
  /** Bytes. */
  readonly length: number;
  /** Where they are in the file; `undefined` if they are nowhere. */
  readonly position: number | undefined;
}

/** How far the disk goes on like at `offset`, at most for `most` bytes, and where that is in the file. */
export function runAt(
  { table, header: { clusterSize } }: ParallelsImage,
  offset: number,
  most: number,
): Run {
  const first = Math.floor(offset / clusterSize);
  const skip = offset - first * clusterSize;
  const end = Math.floor((offset + most - 1) / clusterSize) + 1;
  const start = table.get(first);
  let next = first + 1;
  if (start === 0) next = table.nextUsed(next, end);
  else while (next < end && table.get(next) === start + (next - first) * clusterSize) next++;
  const length = Math.min((next - first) * clusterSize - skip, most);
  return { length, position: start === 0 ? undefined : start + skip };
}

/** Fills `into` from `offset` of the disk. */
export async function readAt(
  image: ParallelsImage,
  offset: number,
  into: Uint8Array,
): Promise<void> {
  for (let done = 0; done < into.length;) {
    const { length, position } = runAt(image, offset + done, into.length - done);
    const part = into.subarray(done, done + length);
    if (position === undefined) await readThrough(image, offset + done, part);
    else await readPadded(image.file, position, part);
    done += length;
  }
}

/** Fills `into` with what shows where nothing is allocated. */
export async function readThrough(
  { backing }: ParallelsImage,
  offset: number,
  into: Uint8Array,
): Promise<void> {
  if (backing === null) into.fill(0);
  else await readPadded(backing, offset, into);
}
