/**
 * Where a remote file is: from `ssh://[user@]host[:port]/path` names and from options.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { NodeAddress } from "../../lib/block/node.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";
import { formatJson } from "../../lib/bytes/json.ts";

/** How the server's key is checked; without it as the user's OpenSSH is set up. */
export type HostKeyCheck = "none" | "known hosts";

/** Which kind of addresses of the host to use. */
export type AddressFamily = "any" | "inet" | "inet6";

/** Where to connect to. */
export interface Destination {
  /** Name or address, or an alias that the user's OpenSSH knows. */
  readonly host: string;
  /** Left to the user's OpenSSH where absent. */
  readonly port: number | undefined;
  /** Left to the user's OpenSSH where absent. */
  readonly user: string | undefined;
  /** Addresses that count. */
  readonly family: AddressFamily;
  /** Left to the user's OpenSSH where absent. */
  readonly hostKeyCheck: HostKeyCheck | undefined;
}

/** A remote file. */
export interface RemoteFile {
  /** Where it is. */
  readonly destination: Destination;
  /** As the server takes it: without a slash in front it is relative to the user's home. */
  readonly path: string;
  /** What name or options say, by the options' keys, as far as the disk's content depends on it. */
  readonly options: Readonly<Record<string, string>>;
}

/** Runtime options. */
export const OPEN_OPTIONS: readonly OptionSpec[] = [
  { name: "host", type: "str", help: "Host to connect to", strong: true },
  { name: "port", type: "num", help: "Port to connect to", strong: true },
  { name: "path", type: "str", help: "Path of the image on the host", strong: true },
  { name: "user", type: "str", help: "User as which to connect", strong: true },
  { name: "host_key_check", type: "str", help: "How to check the host's key", strong: true },
  { name: "host-key-check.", type: "str", help: "How to check the host's key: mode" },
  { name: "server.", type: "str", help: "Server: host, port, ipv4, ipv6" },
];

const SERVER_KEYS = new Set([
  "host",
  "port",
  "ipv4",
  "ipv6",
  "to",
  "numeric",
  "keep-alive",
  "mptcp",
]);

/** Those that a name cannot say. */
const UNNAMEABLE_KEYS = ["server.ipv4", "server.ipv6", "server.to", "server.numeric"];

const MAX_PORT = 65535;

/**
 * Reads an `ssh:` name.
 *
 * @throws {ImageError} for a name that is none.
 */
export function parseName(filename: string, warn: (text: string) => void): RemoteFile {
  const options: Record<string, string> = {};
  const url = parseUrl(filename);
  if (url.hostname === "") throw invalid("missing hostname in URI", "host");
  if (url.pathname === "") throw invalid("missing remote path in URI", "path");
  const user = url.password === "" ? url.username : `${url.username}:${url.password}`;
  if (user !== "") options["user"] = unescaped(user, filename);
  options["host"] = unescaped(url.hostname.replace(/^\[(.*)\]$/, "$1"), filename);
  if (url.port !== "") options["port"] = url.port;
  options["path"] = unescaped(url.pathname, filename);
  for (const [key, value] of url.searchParams) {
    if (key === "host_key_check") options[key] = value;
    else warn(`Unsupported parameter '${key}' in URI`);
  }
  return readFields(new Map(Object.entries(options)));
}

function parseUrl(filename: string): URL {
  // What no name needs would be taken out of it silently; spaces are part of the path.
  const text = /[\p{Cc}]/u.test(filename) ? "" : filename.replaceAll(" ", "%20");
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === "ssh:") return url;
  throw invalid(`'${filename}' is no valid ssh://[user@]host[:port]/path`, "filename");
}

function unescaped(text: string, filename: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid(`'${filename}' is no valid ssh://[user@]host[:port]/path`, "filename");
  }
}

/**
 * Reads options.
 *
 * @throws {ImageError} for what is missing, unknown, or cannot be had here.
 */
export function parseOptions(options: OptionSet): RemoteFile {
  options.settled();
  return readFields(new Map(options.keys("").map((key) => [key, options.text(key)!])));
}

function readFields(given: ReadonlyMap<string, string>): RemoteFile {
  const { host, port } = readServer(given);
  const path = given.get("path");
  if (path === undefined) throw invalid("Parameter 'path' is missing", "path");
  if (path.includes("\0")) throw invalid("A path cannot contain a null byte", "path");
  const user = given.get("user");
  requireHost(host);
  if (user !== undefined) requireUser(user);
  const destination: Destination = {
    host,
    port,
    user,
    family: readFamily(given),
    hostKeyCheck: readHostKeyCheck(given),
  };
  const strong = Array.from(given).filter(([key]) => !key.startsWith("host-key-check."));
  return { destination, path, options: Object.fromEntries(strong) };
}

function readServer(given: ReadonlyMap<string, string>): Pick<Destination, "host" | "port"> {
  for (const key of given.keys()) {
    if (key.startsWith("server.") && !SERVER_KEYS.has(key.slice("server.".length))) {
      throw invalid(`Parameter '${key}' is unexpected`, key);
    }
  }
  const host = given.get("host");
  if (host !== undefined) {
    const port = given.get("port");
    return { host, port: port === undefined ? undefined : readPort(port, "port") };
  }
  if (given.has("port")) throw invalid("port may not be used without host", "port");
  if (!Array.from(given.keys()).some((key) => key.startsWith("server."))) {
    throw invalid("Parameter 'server' is missing", "server");
  }
  const [serverHost, serverPort] = [given.get("server.host"), given.get("server.port")];
  if (serverHost === undefined) throw invalid("Parameter 'server.host' is missing", "server.host");
  if (serverPort === undefined) throw invalid("Parameter 'server.port' is missing", "server.port");
  return { host: serverHost, port: readPort(serverPort, "server.port") };
}

function readPort(text: string, key: string): number {
  if (!/^\d+$/.test(text)) throw invalid("Use only numeric port value", key);
  const port = Number(text);
  if (port > 0 && port <= MAX_PORT) return port;
  throw invalid(`${text} is no port: they go from 1 to ${MAX_PORT}`, key);
}

function readFamily(given: ReadonlyMap<string, string>): AddressFamily {
  const v4 = readFlag(given, "server.ipv4");
  const v6 = readFlag(given, "server.ipv6");
  for (const key of ["server.numeric", "server.keep-alive", "server.mptcp"]) {
    if (readFlag(given, key)) {
      throw new ImageError(`'${key}' is up to the ssh program's own configuration`, {
        errno: "ENOTSUP",
        field: key,
      });
    }
  }
  if (v4 === false && v6 === false) {
    throw invalid("At least one of 'server.ipv4' and 'server.ipv6' has to be on", "server.ipv4");
  }
  if (v4 === v6) return "any";
  return v4 === true || v6 === false ? "inet" : "inet6";
}

function readFlag(given: ReadonlyMap<string, string>, key: string): boolean | undefined {
  const text = given.get(key);
  if (text === undefined) return undefined;
  if (["on", "yes", "true", "y"].includes(text)) return true;
  if (["off", "no", "false", "n"].includes(text)) return false;
  throw invalid(`Parameter '${key}' expects 'on' or 'off'`, key);
}

/** The old option and the one in a URI go before the others. */
function readHostKeyCheck(given: ReadonlyMap<string, string>): HostKeyCheck | undefined {
  const prefix = "host-key-check.";
  const old = given.get("host_key_check");
  if (old !== undefined) {
    if (old === "no") return "none";
    if (old === "yes") return "known hosts";
    if (/^(?:md5|sha1|sha256):/.test(old)) throw noHashes();
    throw invalid(`unknown host_key_check setting (${old})`, "host_key_check");
  }
  const keys = Array.from(given.keys()).filter((key) => key.startsWith(prefix));
  if (keys.length === 0) return undefined;
  const mode = given.get(`${prefix}mode`);
  if (mode === undefined) throw invalid(`Parameter '${prefix}mode' is missing`, `${prefix}mode`);
  if (mode === "hash") throw noHashes();
  if (mode !== "none" && mode !== "known_hosts") {
    throw invalid(`Parameter 'mode' does not accept value '${mode}'`, `${prefix}mode`);
  }
  const other = keys.find((key) => key !== `${prefix}mode`);
  if (other !== undefined) throw invalid(`Parameter '${other}' is unexpected`, other);
  return mode === "none" ? "none" : "known hosts";
}

function noHashes(): ImageError {
  return new ImageError("Host keys are checked by OpenSSH, which does not take hashes of them", {
    errno: "ENOTSUP",
    field: "host-key-check",
    hint: "Put the host's key into ~/.ssh/known_hosts instead.",
  });
}

/**
 * The user's configuration may hand host and user to a shell (`ProxyCommand`), and ssh reads more into a
 * host than its name (`user@host`, `ssh://…`). So both are kept to what names are made of.
 */
const NOT_IN_HOSTS = /[\p{Cc}\s'"`$\\;&<>|(){}[\]@/]/u;
const NOT_IN_USERS = /[\p{Cc}\s'"`$;&<>|(){}]|\\$/u;

function requireHost(host: string): void {
  if (host === "") throw invalid("no hostname was specified", "host");
  if (!host.startsWith("-") && !NOT_IN_HOSTS.test(host)) return;
  throw invalid(`'${host}' is no host's name`, "host");
}

function requireUser(user: string): void {
  if (user !== "" && !user.startsWith("-") && !NOT_IN_USERS.test(user)) return;
  throw invalid(`'${user}' is no user's name`, "user");
}

function invalid(message: string, field: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}

/** Who is at the other end, for messages. */
export function peerName({ user, host, port }: Destination): string {
  return `${user === undefined ? "" : `${user}@`}${bracketed(host)}${
    port === undefined ? "" : `:${port}`
  }`;
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

/** What the user's OpenSSH makes of a destination that does not say it. */
export interface Defaults {
  /** Where nobody else says it. */
  readonly user: string | undefined;
  /** Where nobody else says it. */
  readonly port: number | undefined;
}

/** How messages show a remote file, and how to get at it again. */
export function describeRemoteFile(
  { destination, path, options }: RemoteFile,
  defaults: Defaults,
): { readonly filename: string; readonly address: NodeAddress } {
  const unnameable = UNNAMEABLE_KEYS.some((key) => key in options) || !path.startsWith("/") ||
    destination.host.includes("%");
  const check = options["host_key_check"];
  const user = destination.user ?? defaults.user;
  const peer = peerName({
    ...destination,
    user: user?.replaceAll(/[%/?#]/g, encodeURIComponent),
    port: destination.port ?? defaults.port,
  });
  const query = check === undefined ? "" : `?host_key_check=${check}`;
  const exact = unnameable ? undefined : `ssh://${peer}${escapedPath(path)}${query}`;
  const json = () => `json:${formatJson({ driver: "ssh", ...options }, "compact")}`;
  return { filename: exact ?? json(), address: { exact, options } };
}

/** What would end the path, or begin an escape; all else a name can have as it is. */
function escapedPath(path: string): string {
  return path.replaceAll(/[%?#\p{Cc}]/gu, (character) => encodeURIComponent(character));
}
