/**
 * Changing the virtual size. Command-line reference, section 13.6.
 *
 * @module
 */
import { ImageError } from "../block/error.ts";
import { READ_ONLY } from "../block/mode.ts";
import type { Preallocation } from "../block/node.ts";
import { requireDiskLength } from "../block/range.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { type ImageReference, openImage } from "../graph/open.ts";

/** How to resize. */
export interface ResizeOptions {
  /** Bytes; with `relative` added to (1) or subtracted from (-1) the present size. */
  readonly size: number | bigint;
  /** 0 absolute, 1 grow by, -1 shrink by. */
  readonly relative?: -1 | 0 | 1;
  /** Data beyond the new end may be lost. */
  readonly shrink?: boolean;
  /** For the added part. */
  readonly preallocation?: Preallocation;
}

/** The warning that comes with the refusal to shrink. */
export const SHRINK_WARNING: string =
  "Shrinking an image will delete all data beyond the shrunken image's end. " +
  "Before performing such an operation, make sure there is no important data there.";

/**
 * Changes an image's virtual size. To refuse to shrink comes with a warning, to be printed after the error.
 *
 * ```ts
 * import { createImage, imageInfo, resizeImage } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const filename = await Deno.makeTempFile();
 * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
 * await resizeImage({ filename }, { size: 512 * 1024, relative: 1 });
 * assertEquals((await imageInfo({ filename }))[0]?.virtualSize, 1536 * 1024);
 * await Deno.remove(filename);
 * ```
 *
 * @throws {ImageError}
 */
export async function resizeImage(
  image: ImageReference,
  { size, relative = 0, shrink = false, preallocation = "off" }: ResizeOptions,
  environment: Environment = QUIET,
): Promise<void> {
  const mode = { ...READ_ONLY, writable: true, resizing: true };
  await using node = await openImage(image, mode, environment);
  const refuse = (message: string, field: string) =>
    new ImageError(message, { errno: "EINVAL", file: node.filename, field });
  const before = node.length;
  // 64 bits are all that there is, so an overflow is no positive size either.
  const wanted = BigInt.asIntN(
    64,
    relative === 0 ? BigInt(size) : BigInt(before) + BigInt(relative) * BigInt(size),
  );
  if (wanted <= 0n) throw refuse("New image size must be positive", "size");
  const after = Number(wanted);
  if (after <= before && preallocation !== "off") {
    throw refuse("Preallocation can only be used for growing images", "preallocation");
  }
  if (after < before && !shrink) {
    environment.warn(SHRINK_WARNING);
    throw refuse("Use the --shrink option to perform a shrink operation.", "size");
  }
  requireDiskLength(wanted);
  await node.resize(after, preallocation);
}
