/**
 * Making images. Command-line reference, section 9.
 *
 * @module
 */
import { ImageError } from "../block/error.ts";
import { READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { type OptionPair, OptionSet, type OptionSpec } from "../block/options.ts";
import { createNode, type CreateTarget, createTarget } from "../graph/create.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { fileIdentity, filesOf, pathIdentity } from "../graph/identity.ts";
import { resolveRelative } from "../graph/names.ts";
import { openNode } from "../graph/open.ts";
import { creatableFormat, DEFAULT_FORMAT } from "../graph/registry.ts";

/** What to create. */
export interface CreateOptions {
  /** Target name. */
  readonly filename: string;
  /** Format, default `raw`. */
  readonly format?: string | undefined;
  /** Virtual size, bytes; default: the `size` option, else the backing file's. */
  readonly size?: number | bigint | undefined;
  /** Backing file name as it will be stored. */
  readonly backing?: string | undefined;
  /** Its format. */
  readonly backingFormat?: string | undefined;
  /** Do not open the backing file. */
  readonly unsafeBacking?: boolean;
  /** `-o` options, in order. */
  readonly options?: readonly OptionPair[];
  /** Called with the "Formatting …" line (no newline) just before anything is made. */
  readonly announce?: (line: string) => void;
}

const SIZE = "size";
const BACKING_FILE = "backing_file";
const BACKING_FORMAT = "backing_fmt";

/**
 * Makes an image. What is there under its name is lost, but only once everything is known to be right
 * that can be known before.
 *
 * ```ts
 * import { createImage, imageInfo } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const dir = await Deno.makeTempDir();
 * await createImage({ filename: `${dir}/base.raw`, size: 1024 * 1024 });
 * await createImage({
 *   filename: `${dir}/overlay.qcow2`,
 *   format: "qcow2",
 *   backing: "base.raw",
 *   backingFormat: "raw",
 *   options: [["cluster_size", "128k"]],
 * });
 * const [info] = await imageInfo({ filename: `${dir}/overlay.qcow2` });
 * assertEquals(info?.details?.clusterSize, 131072);
 * await Deno.remove(dir, { recursive: true });
 * ```
 *
 * @throws {ImageError} prefixed with `<file>: ` as `create` prints it.
 */
export async function createImage(
  request: CreateOptions,
  environment: Environment = QUIET,
): Promise<void> {
  const { filename } = request;
  try {
    const format = await creatableFormat(request.format ?? DEFAULT_FORMAT);
    const target = await createTarget(format, filename);
    const options = givenOptions(target, request);
    await useBacking(target, options, request, environment);
    const size = options.exact(SIZE);
    // All bits set mean "none" to the reference.
    if (size === undefined || BigInt.asIntN(64, size) === -1n) {
      throw new ImageError("Image creation needs a size parameter", {
        errno: "EINVAL",
        field: SIZE,
      });
    }
    request.announce?.(announcement(target, options));
    await createNode(target, options, environment);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw error.prefixed(`${filename}: `);
  }
}

/**
 * The options that `create -o help` lists: the format's, and with a file name the protocol's too. Sorted.
 *
 * @throws {ImageError} for a format or protocol that cannot create.
 */
export async function describeCreateOptions(
  format: string,
  filename?: string,
): Promise<readonly OptionSpec[]> {
  const driver = await creatableFormat(format);
  const specs = filename === undefined
    ? driver.createOptions ?? []
    : (await createTarget(driver, filename)).specs;
  // As whole lines sort: `compat6=` stands before `compat=`.
  return [...new OptionSet(specs).specs].sort((a, b) => `${a.name}=` < `${b.name}=` ? -1 : 1);
}

/** The options as given, in the order in which the reference finds fault with them. */
function givenOptions(target: CreateTarget, request: CreateOptions): OptionSet {
  const { format, specs } = target;
  const options = new OptionSet(specs, request.options);
  if (request.size !== undefined) {
    if (options.has(SIZE)) {
      throw new ImageError("The image size must be specified only once", {
        errno: "EINVAL",
        field: SIZE,
      });
    }
    options.setSize(SIZE, request.size);
  }
  const setIfKnown = (key: string, value: string | undefined, what: string) => {
    if (value === undefined) return;
    if (!specs.some((spec) => spec.name === key)) {
      throw new ImageError(`${what} not supported for file format '${format.name}'`, {
        errno: "ENOTSUP",
        field: key,
      });
    }
    options.set(key, value);
  };
  setIfKnown(BACKING_FILE, request.backing, "Backing file");
  setIfKnown(BACKING_FORMAT, request.backingFormat, "Backing file format");
  return options;
}

/** Checks the backing file, and takes its size where none was given. */
async function useBacking(
  target: CreateTarget,
  options: OptionSet,
  { unsafeBacking }: CreateOptions,
  environment: Environment,
): Promise<void> {
  const { filename } = target;
  const backing = options.string(BACKING_FILE);
  if (backing === undefined) return;
  if (backing === filename) throw sameAsBacking(filename);
  if (backing === "") {
    throw new ImageError("Expected backing file name, got empty string", {
      errno: "EINVAL",
      field: BACKING_FILE,
    });
  }
  const format = options.string(BACKING_FORMAT);
  if (unsafeBacking) {
    if (format === undefined) throw missingFormat(undefined);
    return;
  }
  await using node = await openBacking(resolveRelative(filename, backing), format, environment);
  if (format === undefined) throw missingFormat(node);
  // The name may be another one, the file must not be: making the image would empty it.
  const identity = pathIdentity(target.name.filename);
  if (identity !== undefined && filesOf(node).some((file) => fileIdentity(file) === identity)) {
    throw sameAsBacking(filename);
  }
  if (!options.has(SIZE)) options.setSize(SIZE, node.length);
}

async function openBacking(
  filename: string,
  format: string | undefined,
  environment: Environment,
): Promise<BlockNode> {
  try {
    return await openNode(
      { filename, driver: format },
      { ...READ_ONLY, forceShare: true },
      environment,
    );
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const hints = [error.hint, "Could not open backing image."];
    throw new ImageError(error.message, {
      errno: error.errno,
      file: error.file,
      field: error.field,
      hint: hints.filter((line) => line !== undefined).join("\n"),
      cause: error,
    });
  }
}

function missingFormat(backing: BlockNode | undefined): ImageError {
  return new ImageError("Backing file specified without backing format", {
    errno: "EINVAL",
    field: BACKING_FORMAT,
    hint: backing === undefined ? undefined : `Detected format of ${backing.driver}.`,
  });
}

function sameAsBacking(filename: string): ImageError {
  return new ImageError(
    "Error: Trying to create an image with the same filename as the backing file",
    { errno: "EINVAL", field: BACKING_FILE, file: filename },
  );
}

function announcement({ filename, format }: CreateTarget, options: OptionSet): string {
  const words = Array.from(options.printable(), ([key, value]) => ` ${key}=${value}`);
  return `Formatting '${filename}', fmt=${format.name}${words.join("")}`;
}
