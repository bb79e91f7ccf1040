import { ImageError } from "./error.ts";
import type { BlockNode } from "./node.ts";

/** Nobody reads beyond: file offsets are signed, and the reference keeps them a good way off the last one. */
const OFFSET_LIMIT = 2 ** 63 - 2 ** 30;

/**
 * Fills `into` from `offset` of a file; what lies past the file's end reads as
 * zeros, as it does for metadata and data of most formats.
 *
 * @throws {ImageError} `EIO` for a range that no file has.
 */
export async function readPadded(
  file: BlockNode,
  offset: number,
  into: Uint8Array,
): Promise<void> {
  if (offset + into.length >= OFFSET_LIMIT) throw ImageError.fromErrno("EIO");
  const available = Math.min(Math.max(file.length - offset, 0), into.length);
  if (available > 0) await file.read(offset, into.subarray(0, available));
  into.fill(0, available);
}
