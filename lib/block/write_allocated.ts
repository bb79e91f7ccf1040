/**
 * Writes of nodes that give out space for others to fill: they fill it
 * themselves.
 *
 * @module
 */
import type { BlockNode } from "./node.ts";
import type { Allocation } from "./plan.ts";

/** Fills `length` bytes or less of a file with a part of what is to be written. */
export type Fill = (file: BlockNode, offset: number, part: Uint8Array) => Promise<void>;

const plainly: Fill = (file, offset, part) => file.write(offset, part);

/**
 * Writes all of `from` at the guest's `offset`, allocation by allocation. An allocation that cannot be
 * filled is abandoned, and what made it fail is thrown.
 */
export async function writeAllocated(
  allocate: (offset: number, length: number) => Promise<Allocation>,
  offset: number,
  from: Uint8Array,
  fill: Fill = plainly,
): Promise<void> {
  for (let done = 0; done < from.length;) {
    const allocation = await allocate(offset + done, from.length - done);
    const part = from.subarray(done, done + allocation.length);
    try {
      await fill(allocation.file, allocation.offset, part);
    } catch (error) {
      await allocation.abandon();
      throw error;
    }
    await allocation.publish();
    done += part.length;
  }
}
