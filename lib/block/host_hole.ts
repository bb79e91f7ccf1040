import type { BlockNode } from "./node.ts";

/**
 * Whether bytes that a format stores are a hole in their file, and for how many bytes that is so. What
 * lies behind the end of the file is a hole.
 */
export async function hostHole(
  file: BlockNode,
  offset: number,
  length: number,
): Promise<{ readonly length: number; readonly hole: boolean }> {
  const available = Math.min(length, file.length - offset);
  if (available <= 0) return { length, hole: true };
  const below = await file.extent(offset, available);
  const hole = below.state !== "data" || below.hole === true;
  // Behind the end of the file there are only zeros.
  const toTheEnd = hole && below.length === available;
  return { length: toTheEnd ? length : below.length, hole };
}
