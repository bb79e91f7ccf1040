import type { BlockNode } from "../../lib/block/node.ts";

/**
 * Fills `into` from `offset` of a file; what lies past the file's end reads as
 * zeros, as it does for all metadata and data of this format (introduction of
 * the format's reference).
 */
export async function readPadded(
  file: BlockNode,
  offset: number,
  into: Uint8Array,
): Promise<void> {
  const available = Math.min(Math.max(file.length - offset, 0), into.length);
  if (available > 0) await file.read(offset, into.subarray(0, available));
  into.fill(0, available);
}
