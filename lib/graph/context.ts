/**
 * What drivers get from whoever opens or creates images with them.
 *
 * @module
 */
import type { ChildRole, DriverContext, FormatDriver } from "../block/driver.ts";
import { ImageError } from "../block/error.ts";
import { childAccess, type NodeAccess, type OpenMode } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import type { OptionSet } from "../block/options.ts";
import type { Environment } from "./environment.ts";
import { gateOf } from "./gate.ts";
import { type ProtocolName, protocolOf } from "./registry.ts";
import { describeProtocol, type ShownName } from "./shown_names.ts";

/** Called when a file was created beside the image itself. */
export type CreatedFile = (name: ProtocolName, isNew: boolean) => void;

/** What opens the children that options name. */
export type ChildOpeners = Pick<DriverContext, "openChild" | "requireChild" | "countChildren">;

/** The context of an image. Without `onCreate` no files can be created. */
export function driverContext(
  filename: string,
  mode: OpenMode,
  environment: Environment,
  { looksForeign, onCreate, shown = { text: filename }, ...children }: {
    readonly looksForeign?: ((head: Uint8Array) => boolean) | undefined;
    readonly onCreate?: CreatedFile;
    /** The image's name, which changes once everything below it is known. */
    readonly shown?: ShownName;
  } & ChildOpeners = {},
): DriverContext {
  const gate = gateOf(environment);
  return {
    get filename() {
      return shown.text;
    },
    mode,
    untrusted: environment.untrusted,
    secret: (id) => findSecret(id, environment),
    object: (id) => environment.objects?.get(id),
    report: environment.report,
    signal: environment.signal,
    warn: environment.warn,
    ...(looksForeign === undefined ? {} : { looksForeign }),
    ...children,
    async openFile(role, child) {
      gate.pass({ role, filename: child, image: filename });
      const name = protocolOf(child, { prefixes: gate.allowsProtocol(role) });
      return await openLocked(name, belowFormat(mode), roleAccess(role, mode), environment);
    },
    async createFile(role, child, options) {
      if (onCreate === undefined) throw new Error("files are created with images only");
      const name = protocolOf(child);
      onCreate(name, await createBelow(name, options, mode, environment));
      return await openLocked(name, belowFormat(mode), roleAccess(role, mode), environment);
    },
  };
}

/**
 * The bytes of a secret.
 *
 * @throws {ImageError} `No secret with id '<id>'`
 */
export function findSecret(id: string, { secrets }: Environment): Uint8Array {
  const secret = secrets?.get(id);
  if (secret !== undefined) return secret;
  throw new ImageError(`No secret with id '${id}'`, { errno: "EINVAL", field: "key-secret" });
}

/**
 * How files below a format are opened. Whether a guest's discards may reach
 * them is decided in the format; what the format itself deallocates (freed
 * clusters) always may. Even for a look at the format they are read.
 */
export function belowFormat(mode: OpenMode): OpenMode {
  return { ...belowFilter(mode), unmap: true };
}

/** How nodes below a filter are opened: they are read, whatever they have behind them. */
export function belowFilter(mode: OpenMode): OpenMode {
  return { ...mode, metadataOnly: false, noBacking: false };
}

/** Opens the file of a name. */
export async function openProtocol(
  { protocol, filename }: ProtocolName,
  mode: OpenMode,
  environment: Environment,
): Promise<BlockNode> {
  const driver = await protocol.load();
  const shown = { text: filename };
  const node = await driver.open(filename, driverContext(filename, mode, environment, { shown }));
  shown.text = describeProtocol(node, new Map());
  return node;
}

/** Opens the file of a name and locks it. */
export async function openLocked(
  name: ProtocolName,
  mode: OpenMode,
  access: NodeAccess,
  environment: Environment,
): Promise<BlockNode> {
  const node = await openProtocol(name, mode, environment);
  try {
    await node.lock?.(access);
    return node;
  } catch (error) {
    await closeAfterError(node);
    throw error;
  }
}

/** Closes a node because of an error, which is the one to know of whatever else goes wrong now. */
export async function closeAfterError(node: BlockNode): Promise<void> {
  try {
    await node[Symbol.asyncDispose]();
  } catch {
    // The first error counts.
  }
}

/** Makes the file of a name, with what its protocol knows of the options; answers whether it is new. */
export async function createBelow(
  { protocol, filename }: ProtocolName,
  options: OptionSet,
  mode: OpenMode,
  environment: Environment,
): Promise<boolean> {
  const driver = await protocol.load();
  // Only names of protocols that can create get here.
  return await driver.create!(
    filename,
    options.restrictedTo(driver.createOptions!),
    driverContext(filename, mode, environment),
  );
}

/** Whether others may write the file below an image as far as the image goes. */
export function sharesFile({ transparent, sharesFile = false }: FormatDriver): boolean {
  return transparent || sharesFile;
}

/**
 * What an image needs of a file of its own; a file of mere guest data may be written by others, and so may
 * a header that does not change in normal use.
 */
export function roleAccess(role: ChildRole, mode: OpenMode): NodeAccess {
  const access = childAccess(mode, role === "header");
  if (role !== "data-file" || mode.exclusive) return access;
  return { uses: access.uses, unshares: access.unshares.filter((other) => other !== "write") };
}
