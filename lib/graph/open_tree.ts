/**
 * Opening nodes as a tree of options says: each takes the options that it knows, hands those of its
 * children down, and refuses what is left.
 *
 * @module
 */
import type {
  ChildRequest,
  ChildRole,
  FormatDriver,
  FormatEntry,
  ProtocolEntry,
} from "../block/driver.ts";
import { ImageError } from "../block/error.ts";
import { childAccess, type OpenMode } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import type { OptionSpec } from "../block/options.ts";
import { errnoText } from "../io/errno.ts";
import { bridgeTo } from "./bridges.ts";
import {
  belowFilter,
  belowFormat,
  type ChildOpeners,
  closeAfterError,
  driverContext,
  roleAccess,
  sharesFile,
} from "./context.ts";
import { detectingZeroes } from "./detect_zeroes.ts";
import type { Environment } from "./environment.ts";
import { gateOf } from "./gate.ts";
import type { BackingTrail } from "./identity.ts";
import { resolveRelative } from "./names.ts";
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
  probeHead,
  type ProtocolName,
  protocolOf,
} from "./registry.ts";
import {
  describeFormat,
  describeProtocol,
  lowestFile,
  type ShownName,
  strongOptions,
} from "./shown_names.ts";

/** A node that is to be opened. */
export interface Request {
  /** Name of the file, whose prefix counts; without it the options say what there is. */
  readonly filename?: string | undefined;
  /** What opens the node takes out what it knows. */
  readonly options: NodeOptions;
  /** An image, whose format is probed if nobody names it, or a file below one. */
  readonly as: "image" | "file";
  /** How many nodes it is below. */
  readonly depth: number;
}

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

/** What opening needs all the way down. */
export interface Surroundings {
  /** Diagnostics, secrets, trust. */
  readonly environment: Environment;
  /** The images that the node is behind. */
  readonly trail: BackingTrail;
  /** The nodes that options can refer to. */
  readonly nodes: NodeNames;
}

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
    const image = new FormatImage(request, driver, file, settings, around);
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

/** A child as options name it: taken out of them. */
function takeChild(
  options: NodeOptions,
  name: string,
): { readonly reference: string | undefined; readonly options: NodeOptions } {
  const reference = options.text(name);
  const child = options.takeChild(name);
  options.delete(name);
  return { reference, options: child };
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

/** What the settings make of an open node. */
function withSettings(
  node: BlockNode,
  { nodeName, detectZeroes }: NodeSettings,
  nodes: NodeNames,
): BlockNode {
  const detecting = detectZeroes === "off" || node.readOnly
    ? node
    : detectingZeroes(node, detectZeroes === "unmap");
  return nodeName === undefined ? detecting : nodes.add(nodeName, detecting);
}

/** @throws {ImageError} `<beginning> the option '…'` for the first option that nobody took. */
function refuseOthers(options: NodeOptions, beginning: string): void {
  const [key] = options.keys;
  if (key === undefined) return;
  throw new ImageError(`${beginning} the option '${key}'`, { errno: "EINVAL", field: key });
}

/** An image on its way from an open file to an open node. */
class FormatImage {
  readonly #request: Request;
  readonly #driver: FormatDriver;
  readonly #file: BlockNode;
  readonly #settings: NodeSettings;
  readonly #around: Surroundings;
  readonly #shown: ShownName;

  constructor(
    request: Request,
    driver: FormatDriver,
    file: BlockNode,
    settings: NodeSettings,
    around: Surroundings,
  ) {
    this.#request = request;
    this.#driver = driver;
    this.#file = file;
    this.#settings = settings;
    this.#around = around;
    this.#shown = { text: file.filename };
  }

  /** `probed` is the format if nobody named it. */
  async open(probed: FormatEntry | undefined, noBacking: boolean): Promise<BlockNode> {
    const { options } = this.#request;
    const { mode } = this.#settings;
    const driver = this.#driver;
    const specs: readonly OptionSpec[] = driver.openOptions;
    const strong = strongOptions(options, specs);
    const own = takeOptions(options, specs);
    const context = driverContext(this.#file.filename, mode, this.#around.environment, {
      looksForeign: probed && ((head) => probeHead(head, "") !== probed),
      openChild: (name) => this.#openChild(name),
      ...childOpeners(this.#request, this.#settings, this.#around),
      shown: this.#shown,
    });
    const node = await inWords(this.#file, () => driver.open(this.#file, own, context));
    try {
      own.settled();
      if (mode.metadataOnly) {
        // What the driver did not need is not wrong either.
        for (const child of driver.optionalChildren ?? []) takeChild(this.#request.options, child);
      }
      const backing = await this.#attachBacking(node, noBacking);
      this.#shown.text = describeFormat(node, { strong, backing });
      refuseOthers(options, `Block format '${driver.name}' does not support`);
      return withSettings(node, this.#settings, this.#around.nodes);
    } catch (error) {
      await closeAfterError(node);
      throw error;
    }
  }

  async #openChild(name: ChildRole): Promise<BlockNode | undefined> {
    const { reference, options } = takeChild(this.#request.options, name);
    if (reference === undefined && options.isEmpty) return undefined;
    const { mode } = this.#settings;
    const node = await openChild(
      reference,
      { options, as: "file", depth: this.#request.depth + 1 },
      { ...this.#settings, mode: belowFormat(mode) },
      this.#around,
    );
    try {
      await node.lock?.(roleAccess(name, mode));
      return node;
    } catch (error) {
      await closeAfterError(node);
      throw error;
    }
  }

  /** Opens the backing file; answers with it, or with `null`, if it is not the one that the image says. */
  async #attachBacking(node: BlockNode, noBacking: boolean): Promise<BlockNode | null | undefined> {
    const { mode } = this.#settings;
    // What is behind a filter is attached below it.
    const link = node.filtered === undefined ? node.backing : undefined;
    const stored = link?.name ?? "";
    if (mode.metadataOnly || mode.noBacking) return undefined;
    if (noBacking) return stored === "" ? undefined : null;
    const { reference, options } = takeChild(this.#request.options, BACKING);
    const isImplicit = reference === undefined && options.isEmpty;
    if (isImplicit && stored === "") return undefined;
    const filename = reference !== undefined || options.has(`${FILE}.${FILENAME}`)
      ? undefined
      : this.#storedBacking(node);
    if (link === undefined) {
      throw new ImageError("Driver doesn't support backing files", { errno: "EINVAL" });
    }
    if (reference === undefined && link.format !== undefined && !options.has("driver")) {
      options.set("driver", link.format);
    }
    const behind = await this.#openBacking(reference, filename, options);
    link.attach(behind);
    return isImplicit || behind.filename === stored ? undefined : behind;
  }

  async #openBacking(
    reference: string | undefined,
    filename: string | undefined,
    options: NodeOptions,
  ): Promise<BlockNode> {
    const { mode } = this.#settings;
    const below: OpenMode = { ...mode, writable: false, resizing: false, unmap: true };
    try {
      return await openChild(
        reference,
        { filename, options, as: "image", depth: this.#request.depth },
        { mode: below, written: false, autoReadOnly: false },
        this.#around,
      );
    } catch (error) {
      throw ofBacking(error);
    }
  }

  /** The name of the backing file that the image stores, as seen from here. */
  #storedBacking(node: BlockNode): string | undefined {
    const name = node.backing?.name ?? "";
    if (name === "") return undefined;
    const gate = gateOf(this.#around.environment);
    try {
      gate.pass({ role: BACKING, filename: name, image: this.#shown.text });
    } catch (error) {
      throw ofBacking(error);
    }
    return besideFile(lowestFile(node), name);
  }
}

/** The name by which to open what an image refers to, whose bytes are in `file`. */
function besideFile({ filename, address }: BlockNode, name: string): string {
  const resolved = resolveRelative(filename, name);
  if (address?.noFolder === undefined || resolved === name) return resolved;
  throw new ImageError(address.noFolder, { errno: "ENOTSUP", file: filename });
}

function ofBacking(error: unknown): unknown {
  return error instanceof ImageError ? error.prefixed("Could not open backing file: ") : error;
}

/** Gives a driver's errors that have no reason of their own more words. */
async function inWords(file: BlockNode, open: () => Promise<BlockNode>): Promise<BlockNode> {
  try {
    return await open();
  } catch (error) {
    if (error instanceof ImageError && error.errno && error.message === errnoText(error.errno)) {
      throw error.prefixed(`Could not open '${file.filename}': `);
    }
    throw error;
  }
}
