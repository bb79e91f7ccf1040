/**
 * From an open file to the open node of the image in it, with the backing file that it says, or that options
 * name.
 *
 * @module
 */
import type { ChildRole, FormatDriver, FormatEntry } from "../block/driver.ts";
import { ImageError } from "../block/error.ts";
import type { OpenMode } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import type { OptionSpec } from "../block/options.ts";
import { errnoText } from "../io/errno.ts";
import {
  belowFormat,
  type ChildOpeners,
  closeAfterError,
  driverContext,
  roleAccess,
} from "./context.ts";
import { detectingZeroes } from "./detect_zeroes.ts";
import { gateOf } from "./gate.ts";
import { resolveRelative } from "./names.ts";
import type { NodeNames } from "./node_names.ts";
import type { NodeOptions } from "./node_options.ts";
import { type NodeSettings, takeOptions } from "./node_settings.ts";
import { probeHead } from "./registry.ts";
import type { OpenChild, Request, Surroundings } from "./request.ts";
import { describeFormat, lowestFile, type ShownName, strongOptions } from "./shown_names.ts";

const FILENAME = "filename";
const FILE = "file";
const BACKING = "backing";

/** How an image gets its children. */
export interface Children {
  /** Opens one. */
  readonly open: OpenChild;
  /** Opens those that the driver asks for. */
  readonly openers: ChildOpeners;
}

/** A child as options name it: taken out of them. */
export function takeChild(
  options: NodeOptions,
  name: string,
): { readonly reference: string | undefined; readonly options: NodeOptions } {
  const reference = options.text(name);
  const child = options.takeChild(name);
  options.delete(name);
  return { reference, options: child };
}

/** What the settings make of an open node. */
export function withSettings(
  node: BlockNode,
  { nodeName, detectZeroes }: NodeSettings,
  nodes: NodeNames,
): BlockNode {
  const detecting = detectZeroes === "off" || node.readOnly
    ? node
    : detectingZeroes(node, detectZeroes === "unmap");
  return nodeName === undefined ? detecting : nodes.add(nodeName, detecting);
}

/**
 * Refuses what nobody took.
 *
 * @throws {ImageError} `<beginning> the option '…'` for the first option that nobody took.
 */
export function refuseOthers(options: NodeOptions, beginning: string): void {
  const [key] = options.keys;
  if (key === undefined) return;
  throw new ImageError(`${beginning} the option '${key}'`, { errno: "EINVAL", field: key });
}

/** An image on its way from an open file to an open node. */
export class FormatImage {
  readonly #request: Request;
  readonly #driver: FormatDriver;
  readonly #file: BlockNode;
  readonly #settings: NodeSettings;
  readonly #around: Surroundings;
  readonly #children: Children;
  readonly #shown: ShownName;

  /** An image on `file`, which is closed with it. */
  constructor(
    request: Request,
    driver: FormatDriver,
    file: BlockNode,
    settings: NodeSettings,
    around: Surroundings,
    children: Children,
  ) {
    this.#request = request;
    this.#driver = driver;
    this.#file = file;
    this.#settings = settings;
    this.#around = around;
    this.#children = children;
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
      ...this.#children.openers,
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
    const node = await this.#children.open(
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
      return await this.#children.open(
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
