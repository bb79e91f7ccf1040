import { OptionSet } from "../../../lib/block/options.ts";
import { CACHE_MODES, type OpenMode, READ_ONLY } from "../../../lib/block/mode.ts";
import { BASE_ALLOCATION } from "../../../lib/nbd/constants.ts";
import { channelOver, type Session, shakeHands } from "../../../drivers/nbd/handshake.ts";
import { Link } from "../../../drivers/nbd/link.ts";
import { NbdNode } from "../../../drivers/nbd/node.ts";
import { shownAddress } from "../../../drivers/nbd/address.ts";
import { FakeServer, type FakeServerOptions } from "./_fake_server.ts";
import { type Pipe, pipe, type PipeOptions } from "./_pipe.ts";

/** May be written, and freed. */
export const WRITABLE: OpenMode = { ...READ_ONLY, writable: true, unmap: true };

/** Writes are through. */
export const THROUGH: OpenMode = { ...WRITABLE, cache: CACHE_MODES["writethrough"]! };

/** A node over a fake server. */
export interface Opened {
  readonly node: NbdNode;
  /** The server of each connection, the last one last. */
  readonly servers: FakeServer[];
  /** The connections. */
  readonly pipes: Pipe[];
}

/** How it is opened. */
export interface OpenFakeOptions extends FakeServerOptions, PipeOptions {
  readonly mode?: OpenMode;
  /** Milliseconds. */
  readonly reconnectDelay?: number;
  /** What is wrong with later connections; throws to refuse one. */
  readonly reconnect?: (attempt: number) => FakeServerOptions;
  readonly signal?: AbortSignal;
  /** Called with each connection before anything is said on it. */
  readonly onPipe?: (line: Pipe) => void;
}

/** Opens an export of `bytes`. */
export async function openFake(
  bytes: Uint8Array,
  { mode = WRITABLE, reconnectDelay = 0, reconnect, signal, onPipe, ...options }: OpenFakeOptions =
    {},
): Promise<Opened> {
  const servers: FakeServer[] = [];
  const pipes: Pipe[] = [];
  const connect = async (): Promise<Session> => {
    const later = servers.length === 0 ? {} : reconnect?.(servers.length) ?? {};
    const line = pipe(options);
    pipes.push(line);
    onPipe?.(line);
    const server = new FakeServer(line.server, bytes, { ...options, ...later });
    // What goes wrong there is what the client has to bear.
    server.ended.catch(() => {});
    servers.push(server);
    const request = { name: options.name ?? "", context: BASE_ALLOCATION };
    try {
      return await shakeHands(channelOver(line.client), request);
    } catch (error) {
      line.end();
      throw error;
    }
  };
  const session = await connect();
  const link = new Link(session, { connect, reconnectDelay, signal });
  const address = { server: { type: "unix", path: "/s" }, export: undefined } as const;
  const node = new NbdNode(link, session, {
    filename: () => "fake",
    address: shownAddress(address, new OptionSet([])),
    mode,
  });
  return { node, servers, pipes };
}
