import type { BlockNode } from "./node.ts";

/** Bytes that all of the nodes below take together; `undefined` if one of them does not know. */
export async function allocatedSum(
  { children }: Pick<BlockNode, "children">,
): Promise<number | undefined> {
  let sum = 0;
  for (const { node } of children) {
    const size = await node.allocatedSize();
    if (size === undefined) return undefined;
    sum += size;
  }
  return sum;
}
