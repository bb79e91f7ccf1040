/**
 * From a name to an open image with everything below and behind it. Command-line reference, section 4.
 *
 * @module
 */
import type { FormatDriver, FormatEntry } from "../block/driver.ts";
import { ImageError } from "../block/error.ts";
import { childAccess, type OpenMode } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { type OptionPair, OptionSet } from "../block/options.ts";
import { errnoText } from "../io/errno.ts";
import { belowFormat, closeAfterError, driverContext, openProtocol } from "./context.ts";
import type { Environment } from "./environment.ts";
import { gateOf } from "./gate.ts";
import { BackingTrail } from "./identity.ts";
import { resolveRelative } from "./names.ts";
import { findFormat, findProtocol, nameFor, probeFile, probeHead, protocolOf } from "./registry.ts";

/** Names an image to open. */
export interface ImageReference {
  /** File name, as given. */
  readonly filename: string;
  /** Format; probed if absent. */
  readonly format?: string | undefined;
  /** `filename` is a list of options (`--image-opts`) and no name. Not together with `format`. */
  readonly imageOptions?: boolean;
}

/**
 * How to open a node, as a tree of options says it. A file name and a format are the smallest one.
 */
export interface NodeSource {
  /** Name of the file below. */
  readonly filename: string;
  /** Name of the format, or of a protocol for the bare file; probed if absent. */
  readonly driver?: string | undefined;
  /** Runtime options of the driver. */
  readonly options?: readonly OptionPair[];
  /** The backing file to use instead of the stored one; `null` for none. */
  readonly backing?: NodeSource | null;
}

/**
 * Opens an image with everything below and behind it. Nothing stays open when it throws.
 *
 * @throws {ImageError} `Could not open '<name>': <reason>`
 */
export async function openImage(
  image: ImageReference,
  mode: OpenMode,
  environment: Environment,
): Promise<BlockNode> {
  try {
    return await openNode({ filename: image.filename, driver: image.format }, mode, environment);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw error.prefixed(`Could not open '${image.filename}': `);
  }
}

/**
 * Opens a node as {@linkcode openImage} does, but throws the bare reason. `trail` holds the images that
 * this one is behind.
 */
export async function openNode(
  source: NodeSource,
  mode: OpenMode,
  environment: Environment,
  trail: BackingTrail = new BackingTrail(),
): Promise<BlockNode> {
  const { driver: name } = source;
  let format = name === undefined ? undefined : findFormat(name);
  const bare = name === undefined || format !== undefined ? undefined : findProtocol(name);
  if (name !== undefined && format === undefined && bare === undefined) {
    throw new ImageError(`Unknown driver '${name}'`, { errno: "EINVAL", field: "driver" });
  }
  if (mode.forceShare && mode.writable) {
    throw new ImageError("force-share=on can only be used with read-only images", {
      errno: "EINVAL",
    });
  }
  const file = bare === undefined
    ? await openProtocol(protocolOf(source.filename), belowFormat(mode), environment)
    : await openProtocol(
      { protocol: bare, filename: nameFor(bare, source.filename) },
      mode,
      environment,
    );
  try {
    trail.enter(file, source.filename);
    if (bare !== undefined) {
      await file.lock?.(childAccess(mode, true));
      return file;
    }
    const isProbed = format === undefined;
    format ??= await probeFile(file);
    const driver = await format.load();
    await file.lock?.(childAccess(mode, driver.transparent));
    const node = await openFormat(driver, file, source, mode, environment, isProbed && format);
    const whole = await withBacking(node, source, mode, environment, trail);
    sources.set(whole, source);
    return whole;
  } catch (error) {
    // A node that was opened on the file has closed it; closing it again does nothing.
    await closeAfterError(file);
    throw error;
  }
}

/** What open images were opened as. */
const sources = new WeakMap<BlockNode, NodeSource>();

/**
 * Closes the backing file of an open image and opens it again in another mode, which is how it becomes
 * writable. The image has no backing file afterwards if that fails.
 *
 * @throws {ImageError} the bare reason.
 */
export async function reopenBacking(
  image: BlockNode,
  mode: OpenMode,
  environment: Environment,
): Promise<BlockNode> {
  const link = image.backing!;
  const before = link.node!;
  const source = sources.get(before);
  if (source === undefined) throw new Error("only what was opened here can be opened again");
  link.attach(null);
  await before[Symbol.asyncDispose]();
  // That nobody named the format was told when it was opened for the first time, if it mattered.
  let isOpen = false;
  const node = await openNode(source, mode, {
    ...environment,
    report(line, fromProgram) {
      if (isOpen || source.driver !== undefined) environment.report(line, fromProgram);
    },
  });
  isOpen = true;
  link.attach(node);
  return node;
}

async function openFormat(
  driver: FormatDriver,
  file: BlockNode,
  source: NodeSource,
  mode: OpenMode,
  environment: Environment,
  probed: FormatEntry | false,
): Promise<BlockNode> {
  const context = driverContext(file.filename, mode, environment, {
    looksForeign: probed ? (head) => probeHead(head, "") !== probed : undefined,
  });
  try {
    const options = new OptionSet(driver.openOptions, source.options);
    return await driver.open(file, options, context);
  } catch (error) {
    // A driver that gives no reason of its own.
    if (error instanceof ImageError && error.errno && error.message === errnoText(error.errno)) {
      throw error.prefixed(`Could not open '${file.filename}': `);
    }
    throw error;
  }
}

/** Opens the backing file of an open image, and closes the image if that fails. */
async function withBacking(
  node: BlockNode,
  source: NodeSource,
  mode: OpenMode,
  environment: Environment,
  trail: BackingTrail,
): Promise<BlockNode> {
  if (mode.metadataOnly || mode.noBacking || source.backing === null) return node;
  const link = node.backing;
  if (link === undefined || (link.name === "" && source.backing === undefined)) return node;
  try {
    const behind = source.backing ?? backingSource(node, environment);
    const backingMode: OpenMode = { ...mode, writable: false, resizing: false };
    link.attach(await openNode(behind, backingMode, environment, trail));
    return node;
  } catch (error) {
    await closeAfterError(node);
    if (!(error instanceof ImageError)) throw error;
    throw error.prefixed("Could not open backing file: ");
  }
}

/** What an image stores of its backing file, as a source. */
function backingSource(node: BlockNode, environment: Environment): NodeSource {
  const { name, format } = node.backing!;
  gateOf(environment).pass({ role: "backing", filename: name, image: node.filename });
  return { filename: resolveRelative(node.filename, name), driver: format };
}
