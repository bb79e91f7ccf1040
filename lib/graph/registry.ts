/**
 * Finding drivers: by their own names, by file names, by content.
 *
 * @module
 */
import {
  DEFAULT_FORMAT,
  DEFAULT_PROTOCOL,
  FILTERS,
  FORMATS,
  PROTOCOLS,
} from "../../drivers/mod.ts";
import type { FormatDriver, FormatEntry, ProtocolDriver, ProtocolEntry } from "../block/driver.ts";
import { ImageError } from "../block/error.ts";
import type { BlockNode } from "../block/node.ts";
import { bridgeTo } from "./bridges.ts";
import { protocolPrefix, withoutPrefix } from "./names.ts";

export { DEFAULT_FORMAT };

/** How much of a file probing looks at, bytes. */
export const PROBE_LENGTH = 512;

/** The format, or filter, of this name. */
export function findFormat(name: string): FormatEntry | undefined {
  const isIt = (format: FormatEntry) => format.name === name;
  return FORMATS.find(isIt) ?? FILTERS.find(isIt);
}

/** The protocol of this name. */
export function findProtocol(name: string): ProtocolEntry | undefined {
  return PROTOCOLS.find((protocol) => protocol.name === name);
}

/** A file name taken apart. */
export interface ProtocolName {
  /** The protocol that reaches the file. */
  readonly protocol: ProtocolEntry;
  /** The name as that protocol takes it. */
  readonly filename: string;
}

/**
 * The protocol that a file name selects. Without `prefixes` a colon has no meaning; names of devices
 * are known all the same.
 *
 * @throws {ImageError} `Unknown protocol '…'`
 */
export function protocolOf(filename: string, { prefixes = true } = {}): ProtocolName {
  let device: ProtocolEntry | undefined;
  let best = 0;
  for (const protocol of PROTOCOLS) {
    const score = protocol.probeDevice?.(filename) ?? 0;
    if (score > best) [device, best] = [protocol, score];
  }
  if (device !== undefined) return { protocol: device, filename };
  const prefix = prefixes ? protocolPrefix(filename) : undefined;
  if (prefix === undefined) return { protocol: findProtocol(DEFAULT_PROTOCOL)!, filename };
  const protocol = PROTOCOLS.find(({ prefixes }) => prefixes.includes(prefix));
  if (protocol === undefined) {
    throw new ImageError(`Unknown protocol '${prefix}'`, {
      errno: "EINVAL",
      hint: bridgeTo(prefix),
    });
  }
  return { protocol, filename: protocol.keepsPrefix ? filename : withoutPrefix(filename, prefix) };
}

/** A file name for a protocol that was chosen otherwise: a prefix that names it is taken off. */
export function nameFor(protocol: ProtocolEntry, filename: string): string {
  const prefix = protocolPrefix(filename);
  return prefix !== undefined && !protocol.keepsPrefix && protocol.prefixes.includes(prefix)
    ? withoutPrefix(filename, prefix)
    : filename;
}

/** The format that suits these first 512 bytes best. */
export function probeHead(head: Uint8Array, filename: string): FormatEntry {
  let found: FormatEntry | undefined;
  let best = 0;
  for (const format of FORMATS) {
    const score = format.probe(head, filename);
    if (score > best) [found, best] = [format, score];
  }
  return found ?? findFormat(DEFAULT_FORMAT)!;
}

/**
 * The format that the content of a file suggests.
 *
 * @throws {ImageError} `Could not read image for determining its format: …`
 */
export async function probeFile(file: BlockNode): Promise<FormatEntry> {
  if (file.length === 0) return findFormat(DEFAULT_FORMAT)!;
  const head = new Uint8Array(PROBE_LENGTH);
  try {
    await file.read(0, head);
  } catch (error) {
    throw ImageError.from(error, { file: file.filename }).prefixed(
      "Could not read image for determining its format: ",
    );
  }
  return probeHead(head, file.filename);
}

/**
 * The format to create an image in. The name of a protocol stands for the bare file.
 *
 * @throws {ImageError} `Unknown file format '…'`, `Format driver '…' does not support image creation`
 */
export async function creatableFormat(name: string): Promise<FormatDriver> {
  const [entry, bare] = [findFormat(name), findProtocol(name)];
  if (entry === undefined && bare === undefined) {
    throw new ImageError(`Unknown file format '${name}'`, { errno: "EINVAL", field: "format" });
  }
  const driver = await entry?.load() ?? bareFormat(await bare!.load());
  if (driver.createOptions === undefined) {
    throw new ImageError(`Format driver '${name}' does not support image creation`, {
      errno: "ENOTSUP",
      field: "format",
    });
  }
  return driver;
}

/** A protocol in the place of a format: the file is all that there is. */
function bareFormat({ name, createOptions }: ProtocolDriver): FormatDriver {
  return {
    name,
    transparent: true,
    ...(createOptions === undefined ? {} : { createOptions }),
    openOptions: [],
    open: (file) => Promise.resolve(file),
    async create({ createBase }) {
      await using _file = await createBase();
    },
  };
}
