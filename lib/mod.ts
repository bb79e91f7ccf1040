/**
 * Disk images for programs: what the `qimg` commands do, as functions, and open images to read and write.
 *
 * It needs nothing but Deno, and no configuration: import it by its URL. A program needs the permission
 * to read the images and, to make or change them, to write them; with the permission for ffi it also sees
 * holes and locks images as `qemu-img` does.
 *
 * ```ts
 * import { convertImage, createImage, imageInfo, openImage } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const dir = await Deno.makeTempDir();
 *
 * // Make a disk and write something to it.
 * await createImage({ filename: `${dir}/disk.qcow2`, format: "qcow2", size: 64 * 1024 * 1024 });
 * {
 *   await using disk = await openImage(`${dir}/disk.qcow2`, { writable: true });
 *   await disk.write(512, new TextEncoder().encode("hello"));
 * }
 *
 * // Read it back.
 * {
 *   await using disk = await openImage(`${dir}/disk.qcow2`);
 *   const bytes = new Uint8Array(5);
 *   await disk.read(512, bytes);
 *   assertEquals(new TextDecoder().decode(bytes), "hello");
 * }
 *
 * // Change its format.
 * await convertImage({
 *   sources: [{ filename: `${dir}/disk.qcow2` }],
 *   target: `${dir}/disk.raw`,
 *   targetFormat: "raw",
 * });
 * const [info] = await imageInfo({ filename: `${dir}/disk.raw`, format: "raw" });
 * assertEquals(info?.virtualSize, 64 * 1024 * 1024);
 *
 * await Deno.remove(dir, { recursive: true });
 * ```
 *
 * Sizes and offsets are in bytes. Everything that goes wrong with an image is an {@linkcode ImageError}
 * whose message is fit for users.
 *
 * @module
 */
export { type ByteRange, Image, openImage, type OpenOptions } from "./ops/image.ts";
export { createImage, type CreateOptions } from "./ops/create.ts";
export { convertImage, type ConvertOptions } from "./ops/convert.ts";
export {
  CompareError,
  compareImages,
  type CompareOptions,
  type CompareResult,
} from "./ops/compare.ts";
export { type BitmapAction, type BitmapOptions, changeBitmap } from "./ops/bitmap.ts";
export { amendImage, type AmendOptions } from "./ops/amend.ts";
export { checkImage, type CheckOptions, type CheckOutcome } from "./ops/check.ts";
export { type ImageInfo, imageInfo, type InfoOptions } from "./ops/info.ts";
export { type MapEntry, mapImage, type MapOptions } from "./ops/map.ts";
export { benchImage, type BenchOptions, type BenchResult } from "./ops/bench.ts";
export { measureImage, type MeasureOptions } from "./ops/measure.ts";
export { commitImage, type CommitOptions } from "./ops/commit.ts";
export { rebaseImage, type RebaseOptions } from "./ops/rebase.ts";
export { resizeImage, type ResizeOptions } from "./ops/resize.ts";
export {
  applySnapshot,
  createSnapshot,
  type CreateSnapshotOptions,
  deleteSnapshot,
  listSnapshots,
  type SnapshotOptions,
  type SnapshotSelector,
} from "./ops/snapshot.ts";
export {
  type NbdServer,
  type ServeAddress,
  serveImage,
  type ServeOptions,
} from "./ops/serve/mod.ts";
export type { Progress } from "./ops/progress.ts";
export type { ImageReference } from "./graph/open.ts";
export { type Environment, QUIET } from "./graph/environment.ts";
export type { SecretStore } from "./block/secret.ts";
export type { ObjectStore, UserObject } from "./block/user_object.ts";
export { ImageError, type ImageErrorDetails } from "./block/error.ts";
export { CACHE_MODES, type CacheMode } from "./block/mode.ts";
export type { OptionPair } from "./block/options.ts";
export type { MeasureResult } from "./block/driver.ts";
export type { Preallocation } from "./block/node.ts";
export type {
  BitmapInfo,
  CheckResult,
  ImageDetails,
  InfoValue,
  RepairMode,
  SnapshotInfo,
} from "./block/capabilities.ts";
export type { Errno } from "./io/errno.ts";
