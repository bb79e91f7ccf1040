/**
 * What drivers and operations say alike of dirty bitmaps.
 *
 * @module
 */
import type { BitmapInfo, BitmapStore } from "./capabilities.ts";
import { ImageError } from "./error.ts";

/**
 * The bitmap of a name.
 *
 * @throws {ImageError} `ENOENT` if there is none.
 */
export function findBitmap(store: BitmapStore | undefined, name: string): BitmapInfo {
  const found = store?.list().find((bitmap) => bitmap.name === name);
  if (found !== undefined) return found;
  throw new ImageError(`Dirty bitmap '${name}' not found`, { errno: "ENOENT", field: name });
}

/**
 * Makes sure that a bitmap was closed properly by those who had it before.
 *
 * @throws {ImageError} `EINVAL` if it was not: nobody knows what it has missed.
 */
export function requireConsistent({ name, consistent }: BitmapInfo): void {
  if (consistent) return;
  throw new ImageError(`Bitmap '${name}' is inconsistent and cannot be used`, {
    errno: "EINVAL",
    hint: "Try block-dirty-bitmap-remove to delete this bitmap from disk",
    field: name,
  });
}
