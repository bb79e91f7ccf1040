/**
 * The NBD protocol: exports of network block devices. NBD reference.
 *
 * @module
 */
import type { DriverContext, ProtocolDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { OptionSet, type OptionSpec } from "../../lib/block/options.ts";
import { BASE_ALLOCATION, EXPORT_FLAG, LIMIT } from "../../lib/nbd/constants.ts";
import { exportAddress, type ServerAddress, shownAddress } from "./address.ts";
import { openSession } from "./connect.ts";
import type { Session } from "./handshake.ts";
import { Link } from "./link.ts";
import { NbdNode } from "./node.ts";
import type { TlsClient } from "./tls.ts";

const OPEN_OPTIONS: readonly OptionSpec[] = [
  { name: "host", type: "str", help: "Server's host, over TCP", strong: true },
  { name: "port", type: "str", help: "Server's port, with host", strong: true },
  { name: "path", type: "str", help: "Server's Unix socket", strong: true },
  { name: "export", type: "str", help: "Name of the export", strong: true },
  { name: "tls-creds", type: "str", help: "Id of an object with TLS credentials", strong: true },
  {
    name: "tls-hostname",
    type: "str",
    help: "Name that the server's certificate has",
    strong: true,
  },
  { name: "server.", type: "str", help: "Server's address", strong: true },
  { name: "x-dirty-bitmap", type: "str", help: "Context that the state of blocks is taken from" },
  { name: "reconnect-delay", type: "num", help: "Seconds to wait for a lost connection" },
  { name: "open-timeout", type: "num", help: "Seconds to try to connect" },
];

/** Exports of NBD servers. They cannot be made, but they can stand in for a new file. */
export const nbd: ProtocolDriver = {
  name: "nbd",
  createOptions: [
    { name: "size", type: "size", help: "Virtual disk size" },
    { name: "preallocation", type: "str", help: "How space is provided (allowed values: off)" },
  ],
  openOptions: OPEN_OPTIONS,
  open: (filename, context, options) => open(filename, context, options),
  async create(filename, options, context) {
    const { overwriteExport } = await import("./create.ts");
    return await overwriteExport(filename, options, context, open);
  },
};

const NO_OPTIONS = new OptionSet(OPEN_OPTIONS);

async function open(
  filename: string,
  context: DriverContext,
  options: OptionSet = NO_OPTIONS,
): Promise<BlockNode> {
  options.settled();
  const address = exportAddress(filename, options);
  const bitmap = options.string("x-dirty-bitmap");
  if (new TextEncoder().encode(bitmap ?? "").length > LIMIT.text) {
    throw new ImageError("x-dirty-bitmap query too long to send to server", {
      errno: "EINVAL",
      field: "x-dirty-bitmap",
    });
  }
  const { server } = address;
  const tls = await tlsOf(server, options, context);
  const request = { name: address.export ?? "", context: bitmap ?? BASE_ALLOCATION };
  const connect = (signal: AbortSignal | undefined) =>
    openSession(server, request, { tls, signal });
  const session = await patiently(connect, seconds(options, "open-timeout"), context.signal);
  try {
    requireSuitable(session, bitmap, context);
  } catch (error) {
    session.channel.connection.close();
    throw error;
  }
  const link = new Link(session, {
    connect,
    reconnectDelay: seconds(options, "reconnect-delay"),
    signal: context.signal,
  });
  return new NbdNode(link, session, {
    filename: () => context.filename,
    address: shownAddress(address, options),
    mode: context.mode,
  });
}

/** Milliseconds of an option that counts seconds, 32 bits of it. */
function seconds(options: OptionSet, key: string): number {
  return Number(BigInt.asUintN(32, options.exact(key) ?? 0n)) * 1000;
}

/** What turns the connection into an encrypted one, if the options ask for it. */
async function tlsOf(
  server: ServerAddress,
  options: OptionSet,
  context: DriverContext,
): Promise<TlsClient | undefined> {
  const id = options.string("tls-creds");
  const hostname = options.string("tls-hostname");
  if (id === undefined) return undefined;
  const { tlsClient } = await import("./tls.ts");
  return await tlsClient(server, { id, hostname }, context);
}

const PAUSE = 200;

/** Tries to connect for some milliseconds, or just once. */
async function patiently(
  connect: (signal: AbortSignal | undefined) => Promise<Session>,
  milliseconds: number,
  signal: AbortSignal | undefined,
): Promise<Session> {
  if (milliseconds === 0) return await connect(signal);
  // Not `AbortSignal.timeout`: that would keep what waits for nothing else alive.
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(), Math.min(milliseconds, MAX_TIMER));
  const either = signal === undefined ? timeout.signal : AbortSignal.any([timeout.signal, signal]);
  let last: unknown = ImageError.fromErrno("ETIMEDOUT");
  try {
    while (true) {
      try {
        return await connect(either);
      } catch (error) {
        signal?.throwIfAborted();
        if (timeout.signal.aborted) throw last;
        last = error;
      }
      await pause(PAUSE, either);
      signal?.throwIfAborted();
      if (timeout.signal.aborted) throw last;
    }
  } finally {
    clearTimeout(timer);
  }
}

/** The longest time that timers know, milliseconds. */
const MAX_TIMER = 2 ** 31 - 1;

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end);
  });
}

/** @throws {ImageError} in the reference's words, which say little. */
function requireSuitable(
  { flags, contextId }: Session,
  bitmap: string | undefined,
  { mode, filename }: DriverContext,
): void {
  const failed = (errno: "EINVAL" | "EACCES", hint?: string) =>
    ImageError.fromErrno(errno, { file: filename, hint }).prefixed("Could not open image: ");
  if (bitmap !== undefined && contextId === undefined) {
    throw failed("EINVAL", `requested x-dirty-bitmap ${bitmap} not found`);
  }
  if (mode.writable && (flags & EXPORT_FLAG.readOnly) !== 0) throw failed("EACCES");
}
