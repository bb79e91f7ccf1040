/**
 * Where the server can be reached.
 *
 * @module
 */
import { ImageError, reasonText } from "../../block/error.ts";
import { errnoOf } from "../../io/errno.ts";
import { DEFAULT_PORT } from "../../nbd/constants.ts";

/** Where to listen: a Unix socket to be made, or a port. */
export type ServeAddress =
  | {
    /** Path of the socket. Nothing may be there yet. */
    readonly socket: string;
  }
  | {
    /** Name or address of this machine, default 127.0.0.1: nobody else can connect then. */
    readonly host?: string;
    /** Number, default 10809; 0 takes a free one. */
    readonly port?: number;
  };

/** The only machine that can connect unless told. */
const LOOPBACK = "127.0.0.1";

/** A place where clients connect. */
export interface Endpoint {
  /** Takes clients. A Unix socket is removed when it is closed. */
  readonly listener: Deno.Listener;
  /** Where clients find an export of this name. */
  uri(name: string): string;
}

/**
 * Begins to listen.
 *
 * @throws {ImageError} `Failed to listen on '<where>': <reason>`
 */
export async function listen(address: ServeAddress): Promise<Endpoint> {
  if ("socket" in address) return await listenOnSocket(address.socket);
  const { host = LOOPBACK, port = DEFAULT_PORT } = address;
  const shown = host.includes(":") ? `[${host}]` : host;
  try {
    const listener = Deno.listen({ hostname: host, port });
    const { port: actual } = listener.addr;
    return { listener, uri: (name) => `nbd://${shown}:${actual}${pathOf(name)}` };
  } catch (error) {
    throw failure(`${shown}:${port}`, error);
  }
}

async function listenOnSocket(path: string): Promise<Endpoint> {
  let listener: Deno.Listener;
  try {
    listener = Deno.listen({ transport: "unix", path });
  } catch (error) {
    if (errnoOf(error) !== "EADDRINUSE") throw failure(path, error);
    throw new ImageError(`Failed to listen on '${path}': ${reasonText(error)}`, {
      errno: "EADDRINUSE",
      file: path,
      hint: await whatIsThere(path),
      cause: error,
    });
  }
  const full = path.startsWith("/") ? path : `${Deno.cwd()}/${path}`;
  const query = encodeURIComponent(full).replaceAll("%2F", "/");
  return { listener, uri: (name) => `nbd+unix://${pathOf(name) || "/"}?socket=${query}` };
}

/** Advice for a path where something is already. */
async function whatIsThere(path: string): Promise<string> {
  try {
    if (!(await Deno.lstat(path)).isSocket) {
      return "A file of this name exists, and it is no socket.";
    }
    const probe = await Deno.connect({ transport: "unix", path });
    probe.close();
    return "Another server listens there.";
  } catch (error) {
    if (errnoOf(error) !== "ECONNREFUSED") return "Something of this name exists.";
    return "It is a socket without a server: remove it if the server that made it is gone.";
  }
}

function failure(where: string, error: unknown): ImageError {
  const message = `Failed to listen on '${where}': ${reasonText(error)}`;
  return new ImageError(message, { errno: errnoOf(error), file: where, cause: error });
}

function pathOf(name: string): string {
  return name === "" ? "" : `/${encodeURIComponent(name).replaceAll("%2F", "/")}`;
}
