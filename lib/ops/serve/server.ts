/**
 * Clients come and go.
 *
 * @module
 */
import type { BlockNode } from "../../block/node.ts";
import { StreamReader, StreamWriter } from "../../nbd/stream.ts";
import type { Endpoint } from "./endpoint.ts";
import type { DiskExport } from "./export.ts";
import { Handshake } from "./handshake.ts";
import { BufferPool } from "./shares.ts";
import { Transmission } from "./transmission.ts";

/** A client has to say what it wants within this time, milliseconds. */
const HANDSHAKE_TIME = 10_000;

/** How long a client waits for another to leave before it is told that there is no room, milliseconds. */
const WAITING_TIME = 5000;

/** When the server stops, clients get this long to take their answers, milliseconds. */
const FAREWELL_TIME = 2000;

/** Clients that have not said yet what they want, or wait for their turn. More wait to be accepted. */
const MOST_UNDECIDED = 128;

/** Pause after a client could not be accepted, for lack of something that may be there later, milliseconds. */
const ACCEPT_PAUSE = 100;

/** How clients are treated. */
export interface ServerSettings {
  /** Clients at a time, 0 for any number. */
  readonly shared: number;
  /** Stop when the last client has left. */
  readonly once: boolean;
  /** Stops the server when it is aborted. */
  readonly signal?: AbortSignal | undefined;
}

/** A connected client. */
interface Client {
  readonly connection: Deno.Conn;
  /** After the handshake. */
  transmission?: Transmission;
}

/** A running server. Disposing of it stops it. */
export class NbdServer implements AsyncDisposable {
  /** Where clients find the export: `nbd://127.0.0.1:10809/name`. */
  readonly uri: string;
  /**
   * Resolves when the server has stopped and the image is closed.
   *
   * Rejects with an {@linkcode ImageError} if the image could not be closed.
   */
  readonly finished: Promise<void>;
  readonly #endpoint: Endpoint;
  readonly #disk: DiskExport;
  readonly #settings: ServerSettings;
  readonly #pool = new BufferPool();
  readonly #clients = new Map<Client, Promise<void>>();
  readonly #stopped = Promise.withResolvers<void>();
  #stopping = false;
  /** Clients after the handshake. */
  #served = 0;
  /** Those that wait until one of these leaves. */
  readonly #waiting = new Set<() => void>();
  /** Lets the next client in. */
  #roomForMore: (() => void) | undefined;

  /** Begins to accept clients. The node is closed at the end. */
  constructor(endpoint: Endpoint, node: BlockNode, disk: DiskExport, settings: ServerSettings) {
    this.#endpoint = endpoint;
    this.#disk = disk;
    this.#settings = settings;
    this.uri = endpoint.uri(disk.name);
    this.finished = this.#run(node);
    // Whoever disposes of the server learns of it.
    this.finished.catch(() => {});
  }

  /**
   * Lets nobody else in, gives those who are there their answers and closes the image.
   *
   * @throws {ImageError} if that fails.
   */
  async stop(): Promise<void> {
    this.#beginToStop();
    await this.finished;
  }

  /** As {@linkcode stop}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #run(node: BlockNode): Promise<void> {
    const { signal } = this.#settings;
    const onAbort = () => this.#beginToStop();
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
    try {
      const accepting = this.#accept();
      await this.#stopped.promise;
      signal?.removeEventListener("abort", onAbort);
      this.#endpoint.listener.close();
      await accepting;
      await this.#dismiss();
    } finally {
      await node[Symbol.asyncDispose]();
    }
  }

  #beginToStop(): void {
    this.#stopping = true;
    this.#stopped.resolve();
    this.#roomForMore?.();
    for (const wake of this.#waiting) wake();
  }

  async #accept(): Promise<void> {
    while (!this.#stopping) {
      if (this.#clients.size - this.#served >= MOST_UNDECIDED) {
        await new Promise<void>((resolve) => this.#roomForMore = resolve);
        continue;
      }
      let connection: Deno.Conn;
      try {
        connection = await this.#endpoint.listener.accept();
      } catch {
        // Closed, or out of file handles: those who are there may leave some.
        if (!this.#stopping) await new Promise((resolve) => setTimeout(resolve, ACCEPT_PAUSE));
        continue;
      }
      const client = { connection };
      this.#clients.set(client, this.#serve(client));
    }
  }

  /** Serves one client from the first to the last word. Never throws. */
  async #serve(client: Client): Promise<void> {
    const { connection } = client;
    let isServed = false;
    let deadline: ReturnType<typeof setTimeout> | undefined;
    try {
      if ("setNoDelay" in connection) {
        const tcp = connection as Deno.TcpConn;
        tcp.setNoDelay(true);
        // Clients that vanish without a word give their place back some day.
        tcp.setKeepAlive(true);
      }
      const reader = new StreamReader(connection);
      const writer = new StreamWriter(connection);
      deadline = setTimeout(() => close(connection), HANDSHAKE_TIME);
      const admit = async () => isServed ||= await this.#enter();
      const agreement = await new Handshake(reader, writer, this.#disk, admit).run();
      clearTimeout(deadline);
      if (agreement === undefined) return;
      const transmission = new Transmission(reader, writer, this.#disk, agreement, this.#pool);
      client.transmission = transmission;
      await transmission.run();
    } catch {
      // Whatever it is, it concerns this client alone: it is gone, or it is no client.
    } finally {
      clearTimeout(deadline);
      close(connection);
      this.#clients.delete(client);
      this.#roomForMore?.();
      if (isServed) this.#leave();
    }
  }

  /** Waits until there is room for one more to be served; `false` if there will be none. */
  async #enter(): Promise<boolean> {
    const { shared } = this.#settings;
    const end = performance.now() + WAITING_TIME;
    while (!this.#stopping && shared > 0 && this.#served >= shared) {
      const left = end - performance.now();
      if (left <= 0) return false;
      await this.#vacancy(left);
    }
    if (this.#stopping) return false;
    this.#served++;
    return true;
  }

  /** Waits until a client leaves, the server stops, or for this many milliseconds. */
  #vacancy(most: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = () => {
      clearTimeout(timer);
      this.#waiting.delete(wake);
      resolve();
    };
    const timer = setTimeout(wake, most);
    this.#waiting.add(wake);
    return promise;
  }

  #leave(): void {
    this.#served--;
    // The one that waits longest.
    const [wake] = this.#waiting;
    wake?.();
    if (this.#settings.once && this.#served === 0 && wake === undefined) {
      this.#beginToStop();
    }
  }

  /** Gives all clients the answers that they wait for, or the time for it is over. */
  async #dismiss(): Promise<void> {
    const leaving = [...this.#clients].map(async ([{ connection, transmission }, served]) => {
      const farewell = transmission?.stop().then(() => close(connection)) ?? close(connection);
      await farewell;
      await served;
    });
    const deadline = setTimeout(() => {
      for (const { connection } of this.#clients.keys()) close(connection);
    }, FAREWELL_TIME);
    await Promise.all(leaving);
    clearTimeout(deadline);
  }
}

function close(connection: Deno.Conn): void {
  try {
    connection.close();
  } catch {
    // Closed before.
  }
}
