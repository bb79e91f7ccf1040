import { ImageError } from "./error.ts";
import type { BlockNode } from "./node.ts";

/**
 * Checks that a request lies within a node.
 *
 * @throws {ImageError} `EIO` if it does not.
 */
export function requireRange(node: BlockNode, offset: number, length: number): void {
  if (offset >= 0 && length >= 0 && offset + length <= node.length) return;
  throw ImageError.fromErrno("EIO", { file: node.filename });
}

/**
 * Checks that a node may be written.
 *
 * @throws {ImageError} `EPERM` if it was opened read-only.
 */
export function requireWritable(node: BlockNode): void {
  if (!node.readOnly) return;
  throw new ImageError(`'${node.filename}' is opened read-only`, {
    errno: "EPERM",
    file: node.filename,
  });
}
