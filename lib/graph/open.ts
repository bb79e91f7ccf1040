/**
 * From a name or options to an open image with everything below and behind it. Command-line reference,
 * section 4.
 *
 * @module
 */
import type { OpenMode } from "../block/mode.ts";
import { ImageError } from "../block/error.ts";
import type { BlockNode } from "../block/node.ts";
import { closeAfterError } from "./context.ts";
import type { Environment } from "./environment.ts";
import { BackingTrail } from "./identity.ts";
import { nodesIn } from "./node_names.ts";
import { NodeOptions } from "./node_options.ts";
import { openTree, type Origin, originOf } from "./open_tree.ts";

/** Names an image to open. */
export interface ImageReference {
  /** File name, as given. */
  readonly filename: string;
  /** Format; probed if absent. */
  readonly format?: string | undefined;
  /** `filename` is a list of options (`--image-opts`) and no name. Not together with `format`. */
  readonly imageOptions?: boolean;
  /** More options, as an option list would have them: `encrypt.key-secret`. Not together with a list. */
  readonly options?: Readonly<Record<string, string>>;
}

/** How to open a node: a name, a format, and options. */
export interface NodeSource {
  /** Name of the file below; without it the options say what there is. */
  readonly filename?: string | undefined;
  /** Name of the format, or of a protocol for the bare file; probed if absent. */
  readonly driver?: string | undefined;
  /** Options of the node and those below it. */
  readonly options?: NodeOptions;
  /** `null`: no backing file, whatever the image says. */
  readonly backing?: null;
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
  const source = sourceOf(image, mode, environment);
  try {
    return await openNode(source, mode, environment);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw error.prefixed(`Could not open '${image.filename}': `);
  }
}

const FORCE_SHARE = "force-share";

function sourceOf(
  { filename, format, imageOptions = false, options = {} }: ImageReference,
  mode: OpenMode,
  environment: Environment,
): NodeSource {
  if (!imageOptions) {
    return { filename, driver: format, options: new NodeOptions(Object.entries(options)) };
  }
  if (format !== undefined) throw contradiction("--image-opts and --format are mutually exclusive");
  const list = NodeOptions.fromList(filename, environment.warn);
  const share = list.get(FORCE_SHARE);
  if (mode.forceShare && share !== undefined && share !== "on") {
    throw contradiction("--force-share/-U conflicts with image options");
  }
  return { options: list };
}

function contradiction(message: string): ImageError {
  return new ImageError(message, { errno: "EINVAL" });
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
  const options = source.options?.copy() ?? new NodeOptions();
  if (source.driver !== undefined) options.set("driver", source.driver);
  if (source.backing === null) options.set("backing", null);
  return await openWhole({ filename: source.filename, options }, mode, environment, trail);
}

async function openWhole(
  { filename, options }: Origin,
  mode: OpenMode,
  environment: Environment,
  trail: BackingTrail,
): Promise<BlockNode> {
  const node = await openTree(
    { filename, options: options.copy(), as: "image", depth: 0 },
    { mode, written: mode.writable, autoReadOnly: false },
    { environment, trail, nodes: nodesIn(environment.scope ?? {}) },
  );
  if (!mode.writable || !node.readOnly) return node;
  await closeAfterError(node);
  throw new ImageError("Block node is read-only", { errno: "EACCES" });
}

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
  const origin = originOf(before);
  if (origin === undefined) {
    throw new ImageError("A backing file that others use by its name cannot become writable", {
      errno: "ENOTSUP",
      file: before.filename,
    });
  }
  link.attach(null);
  await before[Symbol.asyncDispose]();
  // That nobody named the format was told when it was opened for the first time, if it mattered.
  let isOpen = false;
  const node = await openWhole(origin, mode, {
    ...environment,
    report(line, fromProgram) {
      if (isOpen || origin.options.has("driver")) environment.report(line, fromProgram);
    },
  }, new BackingTrail());
  isOpen = true;
  link.attach(node);
  return node;
}
