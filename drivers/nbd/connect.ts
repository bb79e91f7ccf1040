/**
 * From the address of an export to a session with its server.
 *
 * @module
 */
import { ImageError, reasonText } from "../../lib/block/error.ts";
import { errnoOf } from "../../lib/io/errno.ts";
import type { Connection } from "../../lib/nbd/stream.ts";
import { type ServerAddress, serverName } from "./address.ts";
import {
  type Channel,
  channelOver,
  type HandshakeRequest,
  type Session,
  shakeHands,
} from "./handshake.ts";
import type { TlsClient } from "./tls.ts";

/** How to connect. */
export interface SessionOptions {
  /** Encrypts; absent where that is not wanted. */
  readonly tls: TlsClient | undefined;
  /** Ends the attempt. */
  readonly signal: AbortSignal | undefined;
}

/**
 * Connects, and agrees upon an export.
 *
 * @throws {ImageError} `Failed to connect to '…': …`, `address resolution failed for …`, and what
 * {@linkcode shakeHands} throws; the signal's reason when it is aborted.
 */
export async function openSession(
  server: ServerAddress,
  wanted: Omit<HandshakeRequest, "startTls">,
  { tls, signal }: SessionOptions,
): Promise<Session> {
  const request = tls === undefined
    ? wanted
    : { ...wanted, startTls: (channel: Channel) => tls.start(channel) };
  const connection = await unlessAborted(dial(server, tls), signal, (late) => late.close());
  const hangUp = () => connection.close();
  signal?.addEventListener("abort", hangUp);
  try {
    return await shakeHands(channelOver(connection), request);
  } catch (error) {
    try {
      connection.close();
    } catch {
      // By the signal, already.
    }
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener("abort", hangUp);
  }
}

/** A promise's result, or the signal's reason; `tidy` gets what nobody waits for any more. */
async function unlessAborted<T>(
  promise: Promise<T>,
  signal: AbortSignal | undefined,
  tidy: (result: T) => void,
): Promise<T> {
  if (signal === undefined) return await promise;
  let onAbort: () => void = () => {};
  const abortion = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort);
  });
  try {
    signal.throwIfAborted();
    return await Promise.race([promise, abortion]);
  } catch (error) {
    promise.then(tidy, () => {});
    throw error;
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

async function dial(server: ServerAddress, tls: TlsClient | undefined): Promise<Connection> {
  if (tls !== undefined) {
    const place = server.type === "unix"
      ? { path: server.path }
      : { host: server.host || "localhost", port: portNumber(server) };
    return await connected(server, () => tls.dial(place));
  }
  if (server.type === "unix") {
    return await connected(server, () => {
      return Deno.connect({ transport: "unix", path: server.path });
    });
  }
  const port = portNumber(server);
  const connection = await connected(server, () => {
    return Deno.connect({ hostname: server.host || "localhost", port });
  });
  // Requests are small and must not wait for one another.
  connection.setNoDelay(true);
  return connection;
}

async function connected<C>(server: ServerAddress, connect: () => Promise<C>): Promise<C> {
  try {
    return await connect();
  } catch (error) {
    const name = serverName(server);
    if (error instanceof Error && /lookup address|resolve|getaddrinfo/i.test(error.message)) {
      throw unresolved(name, "Name or service not known", error);
    }
    throw new ImageError(`Failed to connect to '${name}': ${reasonText(error)}`, {
      errno: errnoOf(error) ?? "EIO",
      file: name,
      cause: error,
    });
  }
}

function portNumber(server: ServerAddress & { readonly type: "inet" }): number {
  const name = serverName(server);
  if (!/^[0-9]+$/.test(server.port)) {
    throw unresolved(name, "Servname not supported for ai_socktype");
  }
  const port = Number(server.port);
  if (port > 65535) throw unresolved(name, "Name or service not known");
  return port;
}

function unresolved(name: string, reason: string, cause?: unknown): ImageError {
  return new ImageError(`address resolution failed for ${name}: ${reason}`, {
    errno: "EINVAL",
    file: name,
    cause,
  });
}
