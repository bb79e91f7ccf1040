/**
 * Bitmaps that a copy takes along (`convert --bitmaps`). Command-line reference, section 12.3.
 *
 * @module
 */
import { ImageError } from "../../block/error.ts";
import type { BlockNode } from "../../block/node.ts";
import type { Environment } from "../../graph/environment.ts";
import { addBitmap, mergeBitmap } from "../bitmap.ts";

/** What to do with bitmaps that nobody can rely on. */
export interface BitmapCopyOptions {
  /** Leave them out, with a warning, rather than fail. */
  readonly skipBroken: boolean;
}

/**
 * Makes sure that the bitmaps of a source can be copied.
 *
 * @throws {ImageError} if it can have none, or has one that was not closed properly.
 */
export function requireCopyableBitmaps(source: BlockNode, { skipBroken }: BitmapCopyOptions): void {
  if (source.bitmaps === undefined) {
    throw new ImageError("Source lacks bitmap support", {
      errno: "ENOTSUP",
      file: source.filename,
    });
  }
  const broken = source.bitmaps.list().findLast(({ consistent }) => !consistent);
  if (skipBroken || broken === undefined) return;
  throw new ImageError(`Cannot copy inconsistent bitmap '${broken.name}'`, {
    errno: "EINVAL",
    hint: "Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete it",
    file: source.filename,
    field: broken.name,
  });
}

/**
 * Adds the bitmaps of `source` to `target`, which stores them when it is closed.
 *
 * @throws {ImageError} for the first that cannot be added or filled; it is not in the target then.
 */
export async function copyBitmaps(
  source: BlockNode,
  target: BlockNode,
  { skipBroken }: BitmapCopyOptions,
  environment: Environment,
): Promise<void> {
  // The last one first, as the reference does, and as warnings and failures show.
  for (const { name, granularity, enabled, consistent } of source.bitmaps!.list().toReversed()) {
    if (skipBroken && !consistent) {
      environment.warn(`Skipping inconsistent bitmap '${name}'`);
      continue;
    }
    try {
      addBitmap(target, { name, granularity, enabled });
    } catch (error) {
      throw ImageError.from(error).prefixed(`Failed to create bitmap ${name}: `);
    }
    try {
      await mergeBitmap({ node: target, name }, { node: source, name });
    } catch (error) {
      await target.bitmaps!.remove!(name);
      throw ImageError.from(error).prefixed(`Failed to populate bitmap ${name}: `);
    }
  }
}
