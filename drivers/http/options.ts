/**
 * Runtime options of files on web servers (cli.md, 4.3), and what they come to.
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";

const SECTOR = 512;
const DEFAULT_READAHEAD = 256 << 10;

/** Seconds. */
const DEFAULT_TIMEOUT = 5;
const MAX_TIMEOUT = 10_000n;

/** All of them. */
export const OPEN_OPTIONS: readonly OptionSpec[] = [
  { name: "url", type: "str", help: "URL of the file", strong: true },
  { name: "readahead", type: "size", help: "Bytes that are read ahead, a multiple of 512" },
  { name: "sslverify", type: "bool", help: "Verify the server's certificate", strong: true },
  { name: "timeout", type: "num", help: "Seconds that a request may take, 0 for no limit" },
  { name: "cookie", type: "str", help: "Cookies to send with each request", strong: true },
  { name: "cookie-secret", type: "str", help: "ID of a secret that holds them", strong: true },
  { name: "username", type: "str", help: "Name to give to the server", strong: true },
  { name: "password-secret", type: "str", help: "ID of the secret for that name", strong: true },
  { name: "proxy-username", type: "str", help: "Name to give to the proxy", strong: true },
  {
    name: "proxy-password-secret",
    type: "str",
    help: "ID of the secret for that name",
    strong: true,
  },
];

/** What to ask a server for, and how. */
export interface HttpSettings {
  /** As given, and as messages show it. */
  readonly url: string;
  /** Without the name and password that the URL may have. */
  readonly address: URL;
  /** Sent to the server that the URL names, and to no other one. */
  readonly headers: Readonly<Record<string, string>>;
  /** Bytes to read ahead. */
  readonly readahead: number;
  /** Milliseconds that a request may take, `Infinity` for no limit. */
  readonly timeout: number;
  /** Whether certificates are verified, where there are any. */
  readonly verifies: boolean;
}

/**
 * Reads the options of a node; `filename` is its name if it has one.
 *
 * @throws {ImageError} for the first that is wrong, in the order in which the reference finds it.
 */
export function readOptions(
  driver: string,
  filename: string,
  options: OptionSet | undefined,
  context: DriverContext,
): HttpSettings {
  options?.settled();
  const readahead = options?.exact("readahead") ?? BigInt(DEFAULT_READAHEAD);
  if (readahead % BigInt(SECTOR) !== 0n) {
    throw invalid(`HTTP_READAHEAD_SIZE ${readahead} is not a multiple of ${SECTOR}`, "readahead");
  }
  const timeout = options?.exact("timeout") ?? BigInt(DEFAULT_TIMEOUT);
  if (timeout > MAX_TIMEOUT) {
    throw invalid("timeout parameter is too large or negative", "timeout");
  }
  const verifies = options?.has("sslverify") ? options.flag("sslverify") : true;
  const cookie = readCookie(options, context);
  const url = options?.string("url") ?? (filename === "" ? undefined : filename);
  if (url === undefined) throw invalid("curl block driver requires an 'url' option", "url");
  if (!url.startsWith(`${driver}://`)) {
    throw invalid(
      `${driver} curl driver cannot handle the URL '${url}' (does not start with '${driver}://')`,
      "url",
    );
  }
  const address = readUrl(url);
  const authorization = readCredentials(address, options, context);
  address.username = "";
  address.password = "";
  address.hash = "";
  refuseProxyNames(options, context);
  if (!verifies && driver === "https") throw unverified();
  return {
    url,
    address,
    headers: {
      ...(cookie === undefined ? {} : { cookie: headerValue(cookie, "cookie") }),
      ...(authorization === undefined ? {} : { authorization }),
    },
    readahead: Number(readahead),
    timeout: timeout === 0n ? Infinity : Number(timeout) * 1000,
    verifies,
  };
}

function readUrl(url: string): URL {
  try {
    return new URL(url);
  } catch (cause) {
    throw new ImageError(`CURL: Error opening file: '${url}' is no URL`, {
      errno: "EINVAL",
      field: "url",
      cause,
    });
  }
}

function readCookie(options: OptionSet | undefined, context: DriverContext): Bytes | undefined {
  const cookie = options?.string("cookie");
  const secret = options?.string("cookie-secret");
  if (cookie !== undefined && secret !== undefined) {
    throw invalid("curl driver cannot handle both cookie and cookie secret", "cookie");
  }
  if (secret !== undefined) return secretText(secret, context);
  return cookie === undefined ? undefined : encode(cookie);
}

/** The options' name and password count before those of the URL. */
function readCredentials(
  address: URL,
  options: OptionSet | undefined,
  context: DriverContext,
): string | undefined {
  const username = options?.string("username");
  const secret = options?.string("password-secret");
  const password = secret === undefined ? undefined : secretText(secret, context);
  const hasOwn = username !== undefined || password !== undefined;
  if (!hasOwn && address.username === "" && address.password === "") return undefined;
  const name = hasOwn ? encode(username ?? "") : percentDecoded(address.username);
  const word = hasOwn ? password ?? encode("") : percentDecoded(address.password);
  return `Basic ${new Uint8Array([...name, 0x3a, ...word]).toBase64()}`;
}

/** A proxy, and the name for it, are the environment's affair here, which a process gives up at its start. */
function refuseProxyNames(options: OptionSet | undefined, context: DriverContext): void {
  const secret = options?.string("proxy-password-secret");
  if (secret !== undefined) secretText(secret, context);
  for (const field of ["proxy-username", "proxy-password-secret"]) {
    if (!options?.has(field)) continue;
    throw new ImageError(`The option '${field}' is not supported`, {
      errno: "ENOTSUP",
      field,
      hint: "The name and the password for a proxy can be given where the proxy is:\n" +
        "http_proxy=http://USER:PASSWORD@HOST:PORT in the environment, or https_proxy.",
    });
  }
}

/** @throws {ImageError} in place of connecting to whoever answers. */
export function unverified(): ImageError {
  return new ImageError("Certificates are always verified: sslverify=off is not supported", {
    errno: "ENOTSUP",
    field: "sslverify",
    hint:
      "A certificate of your own is trusted if DENO_CERT=FILE names its authority, one of the\n" +
      "system if DENO_TLS_CA_STORE=system is in the environment.",
  });
}

type Bytes = Uint8Array<ArrayBufferLike>;

function secretText(id: string, context: DriverContext): Bytes {
  const bytes = context.secret(id);
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new ImageError(`Data from secret ${id} is not valid UTF-8`, { errno: "EINVAL", cause });
  }
  return bytes;
}

function encode(text: string): Bytes {
  return new TextEncoder().encode(text);
}

function percentDecoded(text: string): Bytes {
  const bytes = encode(text);
  const decoded: number[] = [];
  for (let at = 0; at < bytes.length; at++) {
    const code = /^%[0-9a-fA-F]{2}$/.test(String.fromCharCode(...bytes.subarray(at, at + 3)))
      ? parseInt(String.fromCharCode(bytes[at + 1]!, bytes[at + 2]!), 16)
      : undefined;
    decoded.push(code ?? bytes[at]!);
    if (code !== undefined) at += 2;
  }
  return new Uint8Array(decoded);
}

/** Header fields are bytes; what would end one does not get into it. */
function headerValue(bytes: Bytes, field: string): string {
  if (bytes.some((byte) => byte === 0 || byte === 0x0a || byte === 0x0d)) {
    throw invalid(`The option '${field}' has a line break in it`, field);
  }
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

function invalid(message: string, field: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}
