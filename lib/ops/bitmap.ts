/**
 * Changing the dirty bitmaps of an image. Command-line reference, section 13.3.
 *
 * @module
 */
import { findBitmap, requireConsistent } from "../block/bitmap.ts";
import type { BitmapStore } from "../block/capabilities.ts";
import { ImageError } from "../block/error.ts";
import { READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { fileIdentity, filesOf } from "../graph/identity.ts";
import { type ImageReference, openImage } from "../graph/open.ts";

/** One thing to do to a bitmap. */
export type BitmapAction =
  | {
    /**
     * `add` makes it, enabled and with nothing dirty; `remove` deletes it; `clear` makes everything
     * clean; `enable` and `disable` make it follow writes to the disk, or not.
     */
    readonly action: "add" | "remove" | "clear" | "enable" | "disable";
  }
  | {
    /** Makes dirty what is dirty in another bitmap, of whatever granularity. */
    readonly action: "merge";
    /** Name of that bitmap. */
    readonly from: string;
  };

/** What to do to which bitmap. */
export interface BitmapOptions {
  /** Name of the bitmap. */
  readonly bitmap: string;
  /** Done in this order; those before one that fails stay done. */
  readonly actions: readonly BitmapAction[];
  /**
   * Bytes of the disk for a bit of a bitmap that is added: a power of two from 512 to 2 GiB. `undefined` or 0:
   * the cluster size, but at least 4 KiB and at most 64 KiB.
   */
  readonly granularity?: number | undefined;
  /** The image that has the bitmaps to merge, if it is another one. */
  readonly source?: ImageReference | undefined;
}

const MIN_GRANULARITY = 512;
/** Granularities are numbers of 32 bits. */
const GRANULARITY_LIMIT = 2 ** 32;
const DEFAULT_GRANULARITY = { min: 4096, max: 65536 };

/**
 * Changes a dirty bitmap of an image. Backing files are left alone.
 *
 * ```ts
 * import { changeBitmap, createImage, imageInfo } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const filename = await Deno.makeTempFile();
 * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
 * await changeBitmap({ filename }, {
 *   bitmap: "since-monday",
 *   granularity: 4096,
 *   actions: [{ action: "add" }, { action: "disable" }],
 * });
 * const [info] = await imageInfo({ filename });
 * assertEquals(info?.details?.specific?.data["bitmaps"], [
 *   { flags: [], name: "since-monday", granularity: 4096 },
 * ]);
 * await Deno.remove(filename);
 * ```
 *
 * @throws {ImageError} `Operation <action> on bitmap <name> failed: …`, `Error while closing the image: …`,
 * and for images that cannot be opened.
 */
export async function changeBitmap(
  image: ImageReference,
  options: BitmapOptions,
  environment: Environment = QUIET,
): Promise<void> {
  const mode = { ...READ_ONLY, noBacking: true };
  const target = await openImage(image, { ...mode, writable: true }, environment);
  try {
    if (options.source === undefined) {
      await applyActions(target, target, options, environment);
    } else {
      await using source = await openImage(options.source, mode, environment);
      refuseSame(target, source, options.source);
      await applyActions(target, source, options, environment);
    }
  } catch (error) {
    try {
      await close(target);
    } catch (closing) {
      environment.report(ImageError.from(closing).message, true);
    }
    throw error;
  }
  await close(target);
}

/** Closing is when bitmaps are stored. */
async function close(target: BlockNode): Promise<void> {
  try {
    await target[Symbol.asyncDispose]();
  } catch (error) {
    throw ImageError.from(error).prefixed("Error while closing the image: ");
  }
}

/** Where there are no locks to tell. */
function refuseSame(target: BlockNode, source: BlockNode, { filename }: ImageReference): void {
  const written = new Set([...filesOf(target)].map(fileIdentity));
  for (const file of filesOf(source)) {
    if (!written.has(fileIdentity(file))) continue;
    throw new ImageError(`Could not open '${filename}': Failed to get shared "write" lock`, {
      errno: "EAGAIN",
      hint: `Is another process using the image [${file.filename}]?`,
      file: filename,
    });
  }
}

async function applyActions(
  target: BlockNode,
  source: BlockNode,
  { bitmap, actions, granularity }: BitmapOptions,
  environment: Environment,
): Promise<void> {
  for (const step of actions) {
    environment.signal?.throwIfAborted();
    try {
      await applyAction(target, source, bitmap, step, granularity);
    } catch (error) {
      throw ImageError.from(error).prefixed(
        `Operation ${step.action} on bitmap ${bitmap} failed: `,
      );
    }
  }
}

async function applyAction(
  target: BlockNode,
  source: BlockNode,
  name: string,
  step: BitmapAction,
  granularity: number | undefined,
): Promise<void> {
  switch (step.action) {
    case "add":
      return addBitmap(target, { name, granularity, enabled: true });
    case "remove":
      return await writableStore(target, name).remove!(name);
    case "clear":
      return writableStore(target, name).clear!(name);
    case "enable":
      return writableStore(target, name).setEnabled!(name, true);
    case "disable":
      return writableStore(target, name).setEnabled!(name, false);
    case "merge":
      return await mergeBitmap({ node: target, name }, { node: source, name: step.from });
  }
}

/** The bitmaps of an image that is open for writing, among which is one of this name. */
function writableStore(node: BlockNode, name: string): BitmapStore {
  findBitmap(node.bitmaps, name);
  return node.bitmaps!;
}

/**
 * Adds a bitmap to an image that is open for writing; it is stored when the image is closed.
 *
 * @throws {ImageError} if it cannot have this one.
 */
export function addBitmap(
  node: BlockNode,
  { name, granularity, enabled }: {
    readonly name: string;
    readonly granularity?: number | undefined;
    readonly enabled: boolean;
  },
): void {
  const refuse = (message: string, errno: "EINVAL" | "ENOTSUP" = "EINVAL") =>
    new ImageError(message, { errno, file: node.filename, field: "bitmap" });
  if (name === "") throw refuse("Bitmap name cannot be empty");
  const size = granularity || defaultGranularity(node);
  if (size < MIN_GRANULARITY || size >= GRANULARITY_LIMIT || !Number.isInteger(Math.log2(size))) {
    throw refuse("Granularity must be power of 2 and at least 512");
  }
  if (node.withoutBitmaps !== undefined) {
    throw refuse(
      `Can't make bitmap '${name}' persistent in '${node.filename}': ${node.withoutBitmaps}`,
    );
  }
  if (node.bitmaps?.add === undefined) {
    throw refuse(
      `Can't store persistent bitmaps to ${node.filename}: Operation not supported`,
      "ENOTSUP",
    );
  }
  node.bitmaps.add({ name, granularity: size, enabled });
}

function defaultGranularity({ limits }: BlockNode): number {
  const { min, max } = DEFAULT_GRANULARITY;
  return limits.clusterSize === 0 ? max : Math.min(Math.max(limits.clusterSize, min), max);
}

/** A bitmap of an open image. */
export interface BitmapOfNode {
  /** The image. */
  readonly node: BlockNode;
  /** Its bitmap's name. */
  readonly name: string;
}

/**
 * Makes dirty in `target` what is dirty in `source`. If it fails while bits are read, more than before may
 * be dirty.
 *
 * @throws {ImageError} if one is missing or not consistent, or if the disks have different sizes.
 */
export async function mergeBitmap(target: BitmapOfNode, source: BitmapOfNode): Promise<void> {
  const to = findBitmap(target.node.bitmaps, target.name);
  const from = findBitmap(source.node.bitmaps, source.name);
  requireConsistent(to);
  requireConsistent(from);
  const [size, sourceSize] = [target.node.length, source.node.length];
  if (size !== sourceSize) {
    throw new ImageError(
      `Bitmaps are of different sizes (destination size is ${size}, source size is ${sourceSize}) ` +
        "and can't be merged",
      { errno: "EINVAL", field: target.name },
    );
  }
  const mark = target.node.bitmaps!.marker!(target.name);
  await source.node.bitmaps!.visitDirty!(source.name, mark);
}
