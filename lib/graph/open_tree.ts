/**
 * Opening nodes as a tree of options says: each takes the options that it knows, hands those of its
 * children down, and refuses what is left.
 *
 * @module
 */
import type { ChildRequest, FormatEntry, ProtocolEntry } from "../block/driver.ts";
import { ImageError } from "../block/error.ts";
import { childAccess } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { bridgeTo } from "./bridges.ts";
import {
  belowFilter,
  belowFormat,
  type ChildOpeners,
  closeAfterError,
  driverContext,
  sharesFile,
} from "./context.ts";
import type { Environment } from "./environment.ts";
import { FormatImage, refuseOthers, takeChild, withSettings } from "./format_image.ts";
import type { NodeNames } from "./node_names.ts";
import { JSON_PREFIX, NodeOptions } from "./node_options.ts";
import {
  type Inherited,
  inheritedMode,
  type NodeSettings,
  takeOptions,
  takeSettings,
} from "./node_settings.ts";
import {
  findFormat,
  findProtocol,
  nameFor,
  probeFile,
  type ProtocolName,
  protocolOf,
} from "./registry.ts";
import type { Request, Surroundings } from "./request.ts";
import { describeProtocol, lowestFile, strongOptions } from "./shown_names.ts";

/** What a node was opened as. */
export type Origin = Pick<Request, "filename" | "options">;

const origins = new WeakMap<BlockNode, Origin>();

/** What an image was opened as, to open it once more; `undefined` for a node that has a name of its own. */
export function originOf(node: BlockNode): Origin | undefined {
  return origins.get(node);
}

/** As deep as JSON texts nest; dotted keys could go on. */
const MAX_DEPTH = 1024;

const FILENAME = "filename";
const FILE = "file";
const BACKING = "backing";

/**
 * Opens a node with everything below and behind it. Nothing stays open when it throws.
 *
 * @throws {ImageError} the bare reason.
 */
export async function openTree(
  request: Request,
  from: Inherited,
  around: Surroundings,
): Promise<BlockNode> {
  const { options, depth } = request;
  if (depth > MAX_DEPTH) {
    throw new ImageError(`Nodes are nested more than ${MAX_DEPTH} levels deep`, {
      errno: "ELOOP",
    });
  }
  const origin: Origin | undefined = request.as === "image"
    ? { filename: request.filename, options: options.copy() }
    : undefined;
  let { filename } = request;
  if (filename?.startsWith(JSON_PREFIX)) {
    options.addMissing(NodeOptions.fromJson(filename));
    filename = undefined;
  }
  const name = options.text("driver");
  const format = name === undefined ? undefined : findFormat(name);
  const protocol = name === undefined ? undefined : findProtocol(name);
  if (name !== undefined && format === undefined && protocol === undefined) {
    throw new ImageError(`Unknown driver '${name}'`, {
      errno: "EINVAL",
      field: "driver",
      hint: bridgeTo(name),
    });
  }
  const inherited = inheritedMode(options, from);
  const isProtocol = name === undefined ? request.as === "file" : protocol !== undefined;
  const opened = { ...request, filename };
  const node = isProtocol
    ? await openProtocolNode(opened, protocol, inherited, around)
    : await openFormatNode(opened, format, inherited, around);
  if (origin !== undefined) origins.set(node, origin);
  return node;
}

async function openProtocolNode(
  request: Request,
  protocol: ProtocolEntry | undefined,
  inherited: Inherited,
  around: Surroundings,
): Promise<BlockNode> {
  const { environment, trail, nodes } = around;
  const { options, filename } = request;
  const name = protocolName(filename, options, protocol);
  const settings = takeSettings(options, inherited);
  requireFreeName(settings, nodes);
  const driver = await name.protocol.load();
  const specs = driver.openOptions ?? [];
  const strong = strongOptions(options, specs);
  const own = takeOptions(options, specs);
  if (!name.protocol.keepsPrefix) options.delete(FILENAME);
  const shown = { text: name.filename };
  const context = driverContext(name.filename, settings.mode, environment, {
    shown,
    ...childOpeners(request, settings, around),
  });
  const node = await driver.open(name.filename, context, own);
  try {
    own.settled();
    const isNamed = name.protocol.prefixes.length > 0;
    const what = isNamed ? `protocol '${driver.name}' doesn't` : `format '${driver.name}' does not`;
    refuseOthers(options, `Block ${what} support`);
    shown.text = describeProtocol(node, strong);
    if (request.as === "image") {
      trail.enter(node, filename ?? node.filename);
      await node.lock?.(childAccess(settings.mode, true));
    }
    return withSettings(node, settings, nodes);
  } catch (error) {
    await closeAfterError(node);
    throw error;
  }
}

/** What the file is called, and who reaches it. */
function protocolName(
  filename: string | undefined,
  options: NodeOptions,
  protocol: ProtocolEntry | undefined,
): ProtocolName {
  if (filename !== undefined) {
    if (options.has(FILENAME)) {
      throw new ImageError("Can't specify 'file' and 'filename' options at the same time", {
        errno: "EINVAL",
        field: FILENAME,
      });
    }
    if (protocol === undefined) return protocolOf(filename);
    return { protocol, filename: nameFor(protocol, filename) };
  }
  const text = options.text(FILENAME);
  // Where a name is more than the name of a file it takes the place of options and is none.
  if (protocol?.keepsPrefix) return { protocol, filename: "" };
  if (protocol !== undefined) return { protocol, filename: text ?? "" };
  if (text !== undefined) return protocolOf(text, { prefixes: false });
  throw unknownDriver();
}

function unknownDriver(): ImageError {
  return new ImageError("Must specify either driver or file", { errno: "EINVAL" });
}

async function openFormatNode(
  request: Request,
  named: FormatEntry | undefined,
  inherited: Inherited,
  around: Surroundings,
): Promise<BlockNode> {
  const { options } = request;
  const noBacking = takeNoBacking(options, around.environment);
  const below = named?.isFilter ? belowFilter : belowFormat;
  const file = await openFile(request, { ...inherited, mode: below(inherited.mode) }, around);
  try {
    if (file === undefined && named === undefined) throw unknownDriver();
    const format = named ?? await probeFile(file!);
    const driver = await format.load();
    const settings = takeSettings(options, inherited);
    requireFreeName(settings, around.nodes);
    if (file === undefined) {
      throw new ImageError('A block device must be specified for "file"', { errno: "EINVAL" });
    }
    if (settings.mode.writable && file.readOnly) {
      throw new ImageError("Block node is read-only", { errno: "EACCES", file: file.filename });
    }
    const lowest = lowestFile(file);
    if (request.as === "image") around.trail.enter(lowest, request.filename ?? lowest.filename);
    await file.lock?.(childAccess(settings.mode, sharesFile(driver)));
    const probed = named === undefined ? format : undefined;
    const image = new FormatImage(request, driver, file, settings, around, {
      open: openChild,
      openers: childOpeners(request, settings, around),
    });
    return await image.open(probed, noBacking);
  } catch (error) {
    // A node that was opened on the file has closed it; closing it again does nothing.
    if (file !== undefined) await closeAfterError(file);
    throw error;
  }
}

/** Whether the options say that there is no backing file. */
function takeNoBacking(options: NodeOptions, environment: Environment): boolean {
  const value = options.get(BACKING);
  if (value !== null && value !== "") return false;
  if (value === "") {
    environment.warn(
      'Use of "backing": "" is deprecated; use "backing": null instead',
    );
  }
  options.delete(BACKING);
  return true;
}

/** The file below a format node; `undefined` if nobody says which. */
async function openFile(
  { filename, options, depth }: Request,
  inherited: Inherited,
  around: Surroundings,
): Promise<BlockNode | undefined> {
  const reference = options.text(FILE);
  const child = options.takeChild(FILE);
  options.delete(FILE);
  if (reference === undefined && filename === undefined && child.isEmpty) return undefined;
  return await openChild(
    reference,
    { filename, options: child, as: "file", depth: depth + 1 },
    inherited,
    around,
  );
}

/** Opens a child, or finds the node that it is. */
async function openChild(
  reference: string | undefined,
  request: Request,
  inherited: Inherited,
  around: Surroundings,
): Promise<BlockNode> {
  if (reference === undefined) return await openTree(request, inherited, around);
  if (request.filename !== undefined || !request.options.isEmpty) {
    throw new ImageError(
      "Cannot reference an existing block device with additional options or a new filename",
      { errno: "EINVAL" },
    );
  }
  return around.nodes.find(reference);
}

/** Opens the children that a node cannot do without. */
function childOpeners(
  { options, depth }: Request,
  settings: NodeSettings,
  around: Surroundings,
): ChildOpeners {
  const { mode } = settings;
  return {
    async requireChild({ name, as, filename: implied, readOnly }: ChildRequest) {
      const { reference, options: child } = takeChild(options, name);
      const filename = reference === undefined ? implied : undefined;
      if (reference === undefined && filename === undefined && child.isEmpty) {
        throw new ImageError(`A block device must be specified for "${name}"`, {
          errno: "EINVAL",
          field: name,
        });
      }
      const below = belowFilter(mode);
      const node = await openChild(
        reference,
        { filename, options: child, as, depth: depth + 1 },
        {
          ...settings,
          mode: readOnly ? { ...below, writable: false, resizing: false } : below,
        },
        { ...around, trail: around.trail.branch() },
      );
      try {
        await node.lock?.(childAccess({ ...mode, writable: mode.writable && !readOnly }, true));
        return node;
      } catch (error) {
        await closeAfterError(node);
        throw error;
      }
    },
    countChildren(name) {
      const numbers = new Set(options.copy().takeChild(name).keys.map((key) => key.split(".")[0]));
      for (let i = 0; i < numbers.size; i++) if (!numbers.has(String(i))) return undefined;
      return numbers.size;
    },
  };
}

function requireFreeName({ nodeName }: NodeSettings, nodes: NodeNames): void {
  if (nodeName !== undefined) nodes.require(nodeName);
}
