/**
 * Changing the options of an image in place. Command-line reference, section 13.1.
 *
 * @module
 */
import type { FormatDriver } from "../block/driver.ts";
import { ImageError } from "../block/error.ts";
import { type CacheMode, READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { type OptionPair, OptionSet, type OptionSpec } from "../block/options.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { type ImageReference, openImage } from "../graph/open.ts";
import { findFormat, findProtocol } from "../graph/registry.ts";
import type { Progress } from "./progress.ts";

/** How to amend. */
export interface AmendOptions {
  /** The options and their new values; those that are not given stay as they are. */
  readonly options: readonly OptionPair[];
  /** Allow what nobody can undo: to erase the last key of an encrypted image. */
  readonly force?: boolean;
  /** How the host caches the image, default writeback. */
  readonly cache?: CacheMode;
  /** Called as the work gets on; the fraction may go back when the length of a next part gets known. */
  readonly onProgress?: Progress;
}

/**
 * Changes options of an image that exists, such as its version or the width of its refcounts. A smaller
 * `size` cuts the disk without further questions.
 *
 * ```ts
 * import { amendImage, createImage, imageInfo } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const filename = await Deno.makeTempFile();
 * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
 * await amendImage({ filename }, { options: [["refcount_bits", "8"]] });
 * const [info] = await imageInfo({ filename });
 * assertEquals(info?.details?.specific?.data["refcount-bits"], 8);
 * await Deno.remove(filename);
 * ```
 *
 * @throws {ImageError} `Format driver '…' does not support option amendment`, what opening throws, and
 * what the format refuses.
 */
export async function amendImage(
  image: ImageReference,
  { options, force = false, cache = READ_ONLY.cache, onProgress }: AmendOptions,
  environment: Environment = QUIET,
): Promise<void> {
  const node = await openForAmending(image, cache, environment);
  await using _closed = node;
  const driver = await amendableDriver(node.driver);
  const set = typedOptions(driver, options);
  onProgress?.(0);
  try {
    // A node without it was opened by a driver without options.
    await node.amender!.amend(set, { force, onProgress });
  } finally {
    onProgress?.(1);
  }
}

/**
 * The options that images of a format can be given later, sorted. The format is `format`, or that of an
 * image, which is opened as for {@linkcode amendImage}.
 *
 * @throws {ImageError} `Unknown file format '…'`, `Format driver '…' does not support option amendment`
 */
export async function describeAmendOptions(
  of: { readonly format: string } | { readonly image: ImageReference; readonly cache?: CacheMode },
  environment: Environment = QUIET,
): Promise<{ readonly format: string; readonly options: readonly OptionSpec[] }> {
  if ("format" in of) return describe(await amendableDriver(of.format));
  await using node = await openForAmending(of.image, of.cache ?? READ_ONLY.cache, environment);
  return describe(await amendableDriver(node.driver));
}

function describe(
  { name, amendOptions = [] }: FormatDriver,
): { format: string; options: readonly OptionSpec[] } {
  const options = [...amendOptions].sort((a, b) => `${a.name}=` < `${b.name}=` ? -1 : 1);
  return { format: name, options };
}

function openForAmending(
  image: ImageReference,
  cache: CacheMode,
  environment: Environment,
): Promise<BlockNode> {
  return openImage(image, { ...READ_ONLY, writable: true, resizing: true, cache }, environment);
}

async function amendableDriver(name: string): Promise<FormatDriver> {
  const entry = findFormat(name);
  if (entry === undefined && findProtocol(name) === undefined) {
    throw new ImageError(`Unknown file format '${name}'`, { errno: "EINVAL", field: "format" });
  }
  const driver = await entry?.load();
  if (driver?.amendOptions === undefined) {
    throw new ImageError(`Format driver '${name}' does not support option amendment`, {
      errno: "ENOTSUP",
      field: "format",
    });
  }
  return driver;
}

/** The values with their types. What only a new image can be given is told so. */
function typedOptions(driver: FormatDriver, pairs: readonly OptionPair[]): OptionSet {
  const specs = driver.amendOptions!;
  try {
    return new OptionSet(specs, pairs);
  } catch (error) {
    if (!(error instanceof ImageError) || !isCreatable(driver, pairs)) throw error;
    throw new ImageError(error.message, {
      errno: error.errno,
      field: error.field,
      hint: [error.hint, "This option is only supported for image creation"]
        .filter((line) => line !== undefined).join("\n"),
      cause: error,
    });
  }
}

function isCreatable(
  { amendOptions = [], createOptions = [] }: FormatDriver,
  pairs: readonly OptionPair[],
): boolean {
  try {
    new OptionSet([...amendOptions, ...createOptions], pairs);
    return true;
  } catch {
    return false;
  }
}
