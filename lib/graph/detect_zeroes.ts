import type { BlockNode } from "../block/node.ts";
import { isZero } from "../bytes/zero_scan.ts";
import { standIn } from "./stand_in.ts";

/**
 * A node whose writes of nothing but zeros become zero writes, which may take space back if `unmap` says
 * so (`detect-zeroes`).
 *
 * Nobody else is allowed to fill its files: what they write would not be looked at.
 */
export function detectingZeroes(node: BlockNode, unmap: boolean): BlockNode {
  return standIn(node, {
    allocator: undefined,
    async write(offset: number, from: Uint8Array): Promise<void> {
      if (from.length > 0 && isZero(from)) {
        await node.writeZeroes(offset, from.length, { unmap });
      } else {
        await node.write(offset, from);
      }
    },
  });
}
