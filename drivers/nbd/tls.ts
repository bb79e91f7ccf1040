/**
 * Encrypted connections. They go through Node's sockets: Deno's own take no client certificates once a
 * connection is there, and no encryption on Unix sockets.
 *
 * @module
 */
import type * as Net from "node:net";
import type * as Tls from "node:tls";
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { UserObject } from "../../lib/block/user_object.ts";
import { errnoOf, errnoText } from "../../lib/io/errno.ts";
import type { Connection } from "../../lib/nbd/stream.ts";
import type { ServerAddress } from "./address.ts";
import { type Channel, channelOver } from "./handshake.ts";

/** What the options say of TLS. */
export interface TlsOptions {
  /** Id of the credentials. */
  readonly id: string;
  /** Name that the server's certificate must have, if not the host's. */
  readonly hostname: string | undefined;
}

/** Connects so that the connection can be encrypted later. */
export interface TlsClient {
  /** Connects to a socket, or to a port of a host. */
  dial(
    place: { readonly path: string } | { readonly host: string; readonly port: number },
  ): Promise<
    Connection
  >;
  /** Encrypts a connection of its own. */
  start(channel: Channel): Promise<Channel>;
}

const X509 = "tls-creds-x509";
const PSK = "tls-creds-psk";

/**
 * What encrypts connections to a server with the credentials that the user defined.
 *
 * @throws {ImageError} for credentials that are not there, or not fit for a client.
 */
export async function tlsClient(
  server: ServerAddress,
  { id, hostname }: TlsOptions,
  context: DriverContext,
): Promise<TlsClient> {
  const credentials = findCredentials(id, context);
  const name = hostname ?? (server.type === "inet" ? server.host : undefined);
  if (name === undefined) throw invalid("No hostname for certificate validation", "tls-hostname");
  const secure = await readCredentials(credentials, context);
  const [net, tls] = await Promise.all([import("node:net"), import("node:tls")]);
  return {
    async dial(place) {
      const socket = net.connect(place);
      socket.setNoDelay(true);
      await event(socket, "connect");
      return new SocketConnection(socket);
    },
    async start({ connection }) {
      if (!(connection instanceof SocketConnection)) throw new TypeError("not a connection of TLS");
      const socket = tls.connect({ ...secure, socket: connection.release(), ...nameOptions(name) });
      try {
        await event(socket, "secureConnect");
      } catch (error) {
        socket.destroy();
        throw handshakeError(error, name);
      }
      return channelOver(new SocketConnection(socket));
    },
  };
}

function findCredentials(id: string, context: DriverContext): UserObject {
  const object = context.object?.(id);
  if (object === undefined) {
    throw invalid(
      isSecret(id, context)
        ? `Object with id '${id}' is not TLS credentials`
        : `No TLS credentials with id '${id}'`,
      "tls-creds",
    );
  }
  if (object.type !== X509 && object.type !== PSK) {
    throw invalid(`Object with id '${id}' is not TLS credentials`, "tls-creds");
  }
  if ((object.properties.get("endpoint") ?? "client") !== "client") {
    throw invalid("Expected TLS credentials for a client endpoint", "tls-creds");
  }
  if (object.type === PSK) {
    throw new ImageError("TLS with pre-shared keys is not supported", {
      errno: "ENOTSUP",
      field: "tls-creds",
      hint: "Certificates are (tls-creds-x509), and another program can connect instead:\n" +
        "  nbdkit -U SOCKET nbd 'uri=nbds://USER@HOST/EXPORT?tls-psk-file=FILE'\n" +
        "and then name nbd+unix:///?socket=SOCKET",
    });
  }
  return object;
}

function isSecret(id: string, context: DriverContext): boolean {
  try {
    context.secret(id);
    return true;
  } catch (error) {
    if (error instanceof ImageError) return false;
    throw error;
  }
}

/** What a folder of credentials holds for a client. A certificate of its own it need not have. */
async function readCredentials(
  { properties }: UserObject,
  context: DriverContext,
): Promise<Tls.SecureContextOptions & { readonly rejectUnauthorized: boolean }> {
  if (properties.has("priority")) {
    throw new ImageError("The priority of TLS credentials is not supported", {
      errno: "ENOTSUP",
      field: "priority",
    });
  }
  const dir = properties.get("dir") ?? "";
  const ca = readCredential(`${dir}/ca-cert.pem`);
  const cert = readCredential(`${dir}/client-cert.pem`, true);
  const key = readCredential(`${dir}/client-key.pem`, true);
  const rejectUnauthorized = !["off", "no", "false", "n"].includes(
    properties.get("verify-peer") ?? "on",
  );
  if (cert === undefined || key === undefined) return { ca, rejectUnauthorized };
  const password = properties.get("passwordid");
  return {
    ca,
    cert,
    key: password === undefined ? key : await decryptKey(key, context.secret(password)),
    rejectUnauthorized,
  };
}

function readCredential(path: string): string;
function readCredential(path: string, isOptional: true): string | undefined;
function readCredential(path: string, isOptional = false): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    if (isOptional && errno === "ENOENT") return undefined;
    throw new ImageError(`Unable to access credentials ${path}: ${errnoText(errno)}`, {
      errno,
      file: path,
      cause: error,
    });
  }
}

async function decryptKey(key: string, password: Uint8Array): Promise<string> {
  const { createPrivateKey } = await import("node:crypto");
  const passphrase = new TextDecoder().decode(password);
  try {
    return createPrivateKey({ key, passphrase }).export({ format: "pem", type: "pkcs8" }) as string;
  } catch (error) {
    throw invalid("Unable to import the private key: is the password right?", "passwordid", error);
  }
}

/** Addresses have no server names, but certificates can have addresses. */
function nameOptions(name: string): Tls.ConnectionOptions {
  const isAddress = /^[0-9.]+$/.test(name) || name.includes(":");
  return isAddress ? { host: name } : { host: name, servername: name };
}

function handshakeError(error: unknown, name: string): ImageError {
  const text = error instanceof Error ? error.message : String(error);
  if (/NotValidForName|altnames|ALTNAME/i.test(text)) {
    return invalid(`Certificate does not match the hostname ${name}`, "tls-hostname", error);
  }
  if (/UnknownIssuer|unable to|self.signed/i.test(text)) {
    return invalid("The certificate hasn't got a known issuer", "tls-creds", error);
  }
  return invalid(`TLS handshake failed: ${text}`, "tls-creds", error);
}

/** Waits for an event, or throws what goes wrong before. */
function event(socket: Net.Socket, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (end: () => void) => () => {
      socket.off(name, done);
      socket.off("error", failed);
      socket.off("close", closed);
      end();
    };
    let error: unknown;
    const done = settle(resolve);
    const closed = settle(() => reject(error ?? new Deno.errors.ConnectionReset("closed")));
    const fail = settle(() => reject(error));
    const failed = (reason: Error) => {
      error = reason;
      fail();
    };
    socket.on(name, done);
    socket.on("error", failed);
    socket.on("close", closed);
  });
}

/** A socket of Node's as a connection. */
class SocketConnection implements Connection {
  readonly #socket: Net.Socket;
  #rest: Uint8Array = new Uint8Array();
  #failure: unknown;
  #isEnded = false;
  #wake: () => void = () => {};
  readonly #onReadable = () => this.#wake();
  readonly #onEnd = () => {
    this.#isEnded = true;
    this.#wake();
  };
  readonly #onError = (error: Error) => {
    this.#failure = error;
    this.#wake();
  };

  constructor(socket: Net.Socket) {
    this.#socket = socket;
    socket.on("readable", this.#onReadable);
    socket.on("end", this.#onEnd);
    socket.on("close", this.#onEnd);
    socket.on("error", this.#onError);
  }

  /** The socket, for another to go on with. */
  release(): Net.Socket {
    const socket = this.#socket;
    socket.off("readable", this.#onReadable);
    socket.off("end", this.#onEnd);
    socket.off("close", this.#onEnd);
    socket.off("error", this.#onError);
    return socket;
  }

  async read(into: Uint8Array): Promise<number | null> {
    while (this.#rest.length === 0) {
      const woken = new Promise<void>((resolve) => this.#wake = resolve);
      const chunk = this.#socket.read() as Uint8Array | null;
      if (chunk !== null) this.#rest = chunk;
      else if (this.#failure !== undefined) throw this.#failure;
      else if (this.#isEnded) return null;
      else await woken;
    }
    const count = Math.min(into.length, this.#rest.length);
    into.set(this.#rest.subarray(0, count));
    this.#rest = this.#rest.subarray(count);
    return count;
  }

  write(from: Uint8Array): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#socket.write(from, (error) => error ? reject(error) : resolve(from.length));
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}

function invalid(message: string, field: string, cause?: unknown): ImageError {
  return new ImageError(message, { errno: "EINVAL", field, cause });
}
