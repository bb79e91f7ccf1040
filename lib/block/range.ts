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

/** The longest disk that the reference knows of, bytes. */
const MAX_LENGTH = 2n ** 63n - 2n ** 30n;

/**
 * Checks that a disk may have a length that was asked for, signed and exact. What passes may still be
 * too long for a format or a file.
 *
 * @throws {ImageError} `Image size cannot be negative`, `offset(…) exceeds maximum(…)`
 */
export function requireDiskLength(length: bigint): void {
  if (length >= 0n && length <= MAX_LENGTH) return;
  throw new ImageError(
    length < 0n
      ? "Image size cannot be negative"
      : `offset(${length}) exceeds maximum(${MAX_LENGTH})`,
    { errno: "EIO", field: "size" },
  );
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
