/**
 * What names and options of NBD exports mean. NBD reference, section 1.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { NodeAddress } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { DEFAULT_PORT, LIMIT } from "../../lib/nbd/constants.ts";

/** Where a server listens. */
export type ServerAddress =
  | { readonly type: "inet"; readonly host: string; readonly port: string }
  | { readonly type: "unix"; readonly path: string };

/** An export of a server. */
export interface ExportAddress {
  /** The server. */
  readonly server: ServerAddress;
  /** Name of the export; `undefined` if none was given, which asks for the default one. */
  readonly export: string | undefined;
}

/** The keys of options that say what a name would. */
const NAMED = ["path", "host", "port", "export", "server."] as const;

const PREFIX = "nbd:";
const EXPORT_SEPARATOR = ":exportname=";

/**
 * The export that a name or options mean; `filename` is `""` where options alone do.
 *
 * @throws {ImageError} for what names no server.
 */
export function exportAddress(filename: string, options: OptionSet): ExportAddress {
  if (filename !== "") {
    const given = options.keys("").find((key) => NAMED.some((name) => key.startsWith(name)));
    if (given !== undefined) {
      throw invalid(`Option '${given}' cannot be used with a file name`, given);
    }
  }
  const parsed = filename === ""
    ? undefined
    : filename.includes("://")
    ? parseUri(filename)
    : parseLegacyName(filename);
  const address = parsed ?? {
    server: optionServer(options),
    export: options.string("export"),
  };
  if (new TextEncoder().encode(address.export ?? "").length > LIMIT.text) {
    throw invalid("export name too long to send to server", "export");
  }
  return address;
}

/** How a node of this export is shown, and opened again. */
export function shownAddress(
  { server, export: name }: ExportAddress,
  options: OptionSet,
): NodeAddress {
  const given = ["server.", "path", "host", "port", "export", "tls-creds", "tls-hostname"]
    .flatMap((key) => options.keys(key))
    .map((key) => [key, options.text(key)!] as const);
  const isNamed = given.some(([key]) => !key.startsWith("tls-"));
  return {
    exact: exactName(server, name),
    options: Object.fromEntries(isNamed ? given : [...given, ...addressOptions(server, name)]),
    noFolder: "Cannot generate a base directory for NBD nodes",
  };
}

/** What connection errors call a server. */
export function serverName(server: ServerAddress): string {
  return server.type === "unix" ? server.path : `${server.host}:${server.port}`;
}

function exactName(server: ServerAddress, name: string | undefined): string {
  if (server.type === "unix") {
    const path = name === undefined ? "" : `/${name}`;
    return `nbd+unix://${path}?socket=${server.path}`;
  }
  return `nbd://${server.host}:${server.port}${name === undefined ? "" : `/${name}`}`;
}

function addressOptions(
  server: ServerAddress,
  name: string | undefined,
): (readonly [string, string])[] {
  const exportOption = name === undefined ? [] : [["export", name] as const];
  const address = Object.entries(server).map(([key, value]) => [`server.${key}`, value] as const);
  return [...address, ...exportOption];
}

/** `nbd://host:port/export`, `nbd+unix:///export?socket=path`. */
function parseUri(uri: string): ExportAddress {
  const match = /^([a-z+]+):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?$/s.exec(uri);
  if (match === null) throw noUrl();
  const [, scheme, authority = "", path = "", query] = match;
  const exportName = path.length > 1 ? decode(path.slice(1)) : undefined;
  if (scheme === "nbd+unix") {
    if (authority !== "") throw noUrl();
    const socket = socketOf(query ?? "");
    return { server: { type: "unix", path: socket }, export: exportName };
  }
  if ((scheme !== "nbd" && scheme !== "nbd+tcp") || (query ?? "") !== "") throw noUrl();
  const server = /^(?:[^@]*@)?(?:\[([^\]]*)\]|([^:[\]]*))(?::([0-9]*))?$/s.exec(authority);
  const host = decode(server?.[1] ?? server?.[2] ?? "");
  const port = Number(server?.[3] ?? 0);
  if (server === null || host === "" || port > 65535) throw noUrl();
  return {
    server: { type: "inet", host, port: String(port === 0 ? DEFAULT_PORT : port) },
    export: exportName,
  };
}

/** The one parameter that there is; of several with its name the last counts. */
function socketOf(query: string): string {
  let socket: string | undefined;
  for (const piece of query.split("&")) {
    if (piece === "") continue;
    const equals = piece.indexOf("=");
    const [key, value] = equals < 0
      ? [piece, ""]
      : [piece.slice(0, equals), piece.slice(equals + 1)];
    if (decode(key) !== "socket") throw noUrl();
    socket = decode(value);
  }
  if (socket === undefined) throw noUrl();
  return socket;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    if (error instanceof URIError) throw noUrl();
    throw error;
  }
}

/** `nbd:host:port:exportname=name`, `nbd:unix:path:exportname=name`; `undefined` for a name of nothing. */
function parseLegacyName(filename: string): ExportAddress | undefined {
  if (!filename.startsWith(PREFIX)) {
    throw invalid(`File name string for NBD must start with '${PREFIX}'`, "filename");
  }
  const rest = filename.slice(PREFIX.length);
  const split = rest.indexOf(EXPORT_SEPARATOR);
  const place = split < 0 ? rest : rest.slice(0, split);
  const name = split < 0 ? undefined : rest.slice(split + EXPORT_SEPARATOR.length);
  if (name === "" || place === "") return undefined;
  if (place.startsWith("unix:")) {
    return { server: { type: "unix", path: place.slice("unix:".length) }, export: name };
  }
  const match = /^(?:\[([^\]]+)\]|([^:]*)):(.+)$/s.exec(place);
  if (match === null) throw invalid(`error parsing address '${place}'`, "filename");
  return {
    server: { type: "inet", host: match[1] ?? match[2]!, port: match[3]! },
    export: name,
  };
}

/** The options that each type of address takes, those that it needs first. */
const SERVER_KEYS = {
  inet: {
    needs: ["host", "port"],
    takes: ["numeric", "to", "ipv4", "ipv6", "keep-alive", "mptcp"],
  },
  unix: { needs: ["path"], takes: ["abstract", "tight"] },
} as const;

function optionServer(options: OptionSet): ServerAddress {
  const [path, host, port] = ["path", "host", "port"].map((key) => options.string(key));
  const given = options.keys("server.");
  const isLegacy = (path ?? host ?? port) !== undefined;
  if (isLegacy && given.length > 0) {
    throw invalid("Cannot use 'server' and path/host/port at the same time", "server");
  }
  if (path !== undefined) {
    if (host !== undefined) {
      throw invalid("path and host may not be used at the same time", "path");
    }
    if (port !== undefined) throw invalid("port may not be used without host", "port");
    return { type: "unix", path };
  }
  if (host !== undefined) return { type: "inet", host, port: port ?? String(DEFAULT_PORT) };
  if (given.length === 0) throw invalid("NBD server address missing", "server");
  return typedServer(options, given);
}

function typedServer(options: OptionSet, given: readonly string[]): ServerAddress {
  const value = (key: string) => options.string(`server.${key}`);
  const type = value("type");
  if (type === undefined) throw invalid("Parameter 'type' is missing", "server.type");
  if (type === "vsock" || type === "fd") {
    throw new ImageError(`Servers of type '${type}' are not supported`, {
      errno: "ENOTSUP",
      field: "server.type",
    });
  }
  if (type !== "inet" && type !== "unix") {
    throw invalid(`Parameter 'type' does not accept value '${type}'`, "server.type");
  }
  const { needs, takes } = SERVER_KEYS[type];
  for (const key of needs) {
    if (value(key) === undefined) throw invalid(`Parameter '${key}' is missing`, `server.${key}`);
  }
  const known: readonly string[] = ["type", ...needs, ...takes];
  for (const key of given) {
    const name = key.slice("server.".length);
    if (!known.includes(name)) throw invalid(`Parameter '${name}' is unexpected`, key);
  }
  if (type === "inet") return { type, host: value("host")!, port: value("port")! };
  if (["on", "yes", "true", "y"].includes(value("abstract") ?? "")) {
    throw new ImageError("Abstract sockets are not supported", {
      errno: "ENOTSUP",
      field: "server.abstract",
    });
  }
  return { type, path: value("path")! };
}

function noUrl(): ImageError {
  return invalid("No valid URL specified", "filename");
}

function invalid(message: string, field: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}
