/**
 * A connection that comes back. NBD reference, section 3.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { Session } from "./handshake.ts";
import { ConnectionLostError, Transmission } from "./transmission.ts";

/** How to hold on to a server. */
export interface LinkOptions {
  /** Connects, and agrees upon the same export once more. */
  connect(signal: AbortSignal): Promise<Session>;
  /** For how long requests wait for a connection to come back, milliseconds; 0: they fail at once. */
  readonly reconnectDelay: number;
  /** Requests fail with its reason once it is aborted. */
  readonly signal?: AbortSignal | undefined;
}

/** Pauses between attempts, milliseconds. */
const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 2000;

/** Runs requests on the connection that there is, or on the one that takes its place. */
export class Link {
  readonly #options: LinkOptions;
  readonly #first: Session;
  #transmission: Transmission;
  /** Until when requests wait; `undefined` while there is a connection, or no loss was seen yet. */
  #waitUntil: number | undefined;
  #attempt: Promise<void> | undefined;
  /** Why there will be no other connection. */
  #end: unknown;
  readonly #closing = new AbortController();
  readonly #onAbort: () => void;

  /** Begins with a session. */
  constructor(first: Session, options: LinkOptions) {
    this.#options = options;
    this.#first = first;
    this.#transmission = new Transmission(first);
    const { signal } = options;
    this.#onAbort = () => this.#stop(signal!.reason);
    signal?.addEventListener("abort", this.#onAbort);
  }

  /**
   * Runs a request, again if it has to be: after a loss nobody knows what became of it. So it is one that
   * may be done twice.
   *
   * @throws {ImageError} `EIO` if there is no connection for too long.
   */
  async run<T>(request: (transmission: Transmission) => Promise<T>): Promise<T> {
    const { reconnectDelay, signal } = this.#options;
    // A server that takes connections only to lose them would be tried for ever.
    let until: number | undefined;
    while (true) {
      signal?.throwIfAborted();
      const transmission = await this.#current();
      try {
        return await request(transmission);
      } catch (error) {
        signal?.throwIfAborted();
        if (!(error instanceof ConnectionLostError)) throw error;
        if (error.isFinal) this.#end ??= error;
        const now = performance.now();
        until ??= now + reconnectDelay;
        if (this.#end !== undefined || now >= until) throw unreachable(error);
      }
    }
  }

  /** Takes leave of the server. Requests under way fail. */
  async close(): Promise<void> {
    this.#options.signal?.removeEventListener("abort", this.#onAbort);
    this.#end ??= new Error("closed");
    this.#closing.abort();
    await this.#transmission.close();
    await this.#attempt;
  }

  #stop(reason: unknown): void {
    this.#end ??= reason;
    this.#closing.abort();
    this.#transmission.abort(reason);
  }

  async #current(): Promise<Transmission> {
    if (this.#transmission.lost === undefined) return this.#transmission;
    if (this.#transmission.lost.isFinal) this.#end ??= this.#transmission.lost;
    if (this.#end !== undefined) throw unreachable(this.#end);
    const { reconnectDelay, signal } = this.#options;
    this.#waitUntil ??= performance.now() + reconnectDelay;
    this.#attempt ??= this.#reconnect();
    const rest = this.#waitUntil - performance.now();
    if (rest > 0) await atMost(this.#attempt, rest);
    signal?.throwIfAborted();
    if (this.#transmission.lost !== undefined) throw unreachable(this.#transmission.lost);
    return this.#transmission;
  }

  /** Tries until there is a connection, or nobody wants one any more. Never throws. */
  async #reconnect(): Promise<void> {
    const { signal } = this.#closing;
    for (let pause = FIRST_PAUSE; this.#end === undefined;) {
      try {
        const session = await this.#options.connect(signal);
        if (this.#end !== undefined || !isSameExport(session, this.#first)) {
          session.channel.connection.close();
          this.#end ??= new Error("the export is another one");
          break;
        }
        this.#transmission = new Transmission(session);
        this.#waitUntil = undefined;
        break;
      } catch {
        // There will be another attempt.
      }
      await atMost(aborted(signal), pause);
      pause = Math.min(2 * pause, LONGEST_PAUSE);
    }
    this.#attempt = undefined;
  }
}

/** Whether whoever uses one of them can go on with the other. */
function isSameExport(a: Session, b: Session): boolean {
  return a.size === b.size && a.flags === b.flags &&
    a.blockSizes?.minimum === b.blockSizes?.minimum &&
    (a.contextId === undefined) === (b.contextId === undefined);
}

function unreachable(cause: unknown): ImageError {
  return ImageError.fromErrno("EIO", { cause });
}

/** Waits for a promise that does not fail, but for no longer than some milliseconds. */
async function atMost(promise: Promise<unknown>, milliseconds: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<void>((resolve) => timer = setTimeout(resolve, milliseconds));
  await Promise.race([promise, timeout]);
  clearTimeout(timer);
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) =>
    signal.addEventListener("abort", () => resolve(), { once: true })
  );
}
