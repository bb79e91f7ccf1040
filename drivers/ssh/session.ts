import { ImageError } from "../../lib/block/error.ts";
import {
  encodePacket,
  type Field,
  PacketFields,
  PacketReader,
  PacketType,
  SFTP_VERSION,
  SftpProtocolError,
} from "./packets.ts";
import { readRefusal } from "./status.ts";
import { PATIENCE, type Patience, type Transport } from "./transport.ts";

/** Extensions that are remembered; what a packet holds is the bound, this is one of common sense. */
const MAX_EXTENSIONS = 256;

/** Requests that are on their way at a time. With 32 KiB each they fill SSH's own window. */
const MAX_IN_FLIGHT = 64;

/** The most that is handed to the connection at once, bytes, unless one packet is longer. */
const MAX_BATCH = 128 << 10;

interface Pending {
  /** Type of the packet that answers. */
  readonly expects: number;
  readonly patience: number;
  readonly answer: (fields: PacketFields) => void;
  readonly fail: (error: unknown) => void;
}

/** A request as the session takes it. */
export interface SftpRequest<T> {
  /** Type of the packet. */
  readonly type: number;
  /** What follows its number. */
  readonly fields: readonly Field[];
  /** Type of the packet that answers, unless a status tells of a failure. */
  readonly expects: number;
  /** Reads the answer, whose fields are gone afterwards. What it throws is the session's end. */
  readonly take: (fields: PacketFields) => T;
  /** Milliseconds; that of requests unless given. */
  readonly patience?: number;
}

/**
 * A conversation with an SFTP server: requests with numbers, answered in any order, many at a time. The first
 * thing that goes wrong with the connection ends it, and every request fails with the same error.
 */
export class SftpSession implements AsyncDisposable {
  readonly #transport: Transport;
  readonly #patience: Patience;
  readonly #reader: PacketReader;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #pending = new Map<number, Pending>();
  readonly #waiting: (() => void)[] = [];
  readonly #outgoing: Uint8Array[] = [];
  #extensions: ReadonlyMap<string, string> = new Map();
  #inFlight = 0;
  #lastId = 0;
  #sending = false;
  #failure: unknown;
  #isClosing = false;
  #receiving: Promise<void> = Promise.resolve();
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** When something came or went last. */
  #progress = 0;

  private constructor(transport: Transport, patience: Patience) {
    this.#transport = transport;
    this.#patience = patience;
    this.#reader = new PacketReader(transport.readable);
    this.#writer = transport.writable.getWriter();
  }

  /**
   * Greets the server. The transport is ended if it fails, and with the session.
   *
   * @throws {ImageError} if there is no connection, no SFTP, or no answer in time.
   */
  static async start(transport: Transport, patience: Patience = PATIENCE): Promise<SftpSession> {
    const session = new SftpSession(transport, patience);
    await session.#greet();
    session.#receiving = session.#receive();
    return session;
  }

  /** The extensions that the server offers, with their versions. */
  get extensions(): ReadonlyMap<string, string> {
    return this.#extensions;
  }

  /** How long requests wait. */
  get patience(): Patience {
    return this.#patience;
  }

  /**
   * Asks the server for something, after what was asked for before.
   *
   * @throws {SftpStatusError} if it refuses.
   * @throws {ImageError} if the connection is gone.
   */
  async request<T>(request: SftpRequest<T>): Promise<T> {
    await this.#enter();
    try {
      if (this.#failure !== undefined) throw this.#failure;
      return await this.#ask(request);
    } finally {
      this.#leave();
    }
  }

  /** Ends the conversation. Requests that are not answered fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosing) return;
    this.#isClosing = true;
    const isWell = this.#failure === undefined;
    // The other end leaves when it hears no more.
    if (isWell) this.#writer.close().catch(() => {});
    this.#stop(new ImageError("The connection was closed", { errno: "ECANCELED" }));
    await this.#transport.end(isWell ? "gracefully" : "at once");
    await this.#letGo();
    await this.#receiving;
  }

  #ask<T>({ type, fields, expects, take, patience }: SftpRequest<T>): Promise<T> {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const id = this.#lastId = (this.#lastId + 1) >>> 0;
    if (this.#pending.size === 0) this.#progress = performance.now();
    this.#pending.set(id, {
      expects,
      patience: patience ?? this.#patience.request,
      answer: (answer) => resolve(take(answer)),
      fail: reject,
    });
    this.#watch();
    this.#outgoing.push(encodePacket(type, [id, ...fields]));
    if (!this.#sending) this.#send();
    return promise;
  }

  /** Waits until there is room for one more request. */
  async #enter(): Promise<void> {
    if (this.#inFlight < MAX_IN_FLIGHT) {
      this.#inFlight++;
      return;
    }
    await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  #leave(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#inFlight--;
    else next();
  }

  /** Hands over what is to be sent, many small packets at once. */
  async #send(): Promise<void> {
    this.#sending = true;
    try {
      // Whoever asks for more in this turn of the loop is to come along.
      await Promise.resolve();
      while (this.#outgoing.length > 0) {
        await this.#writer.write(takeBatch(this.#outgoing));
        this.#progress = performance.now();
      }
    } catch {
      // A server that does not listen has also stopped talking; why is found out there.
    } finally {
      this.#sending = false;
    }
  }

  async #greet(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timeout = new Promise<never>((_, reject) => {
      const { connect } = this.#patience;
      timer = setTimeout(() => reject(this.#timedOut(connect)), connect);
    });
    const greeting = this.#exchangeVersions();
    // If time is up this ends with the connection, and nobody listens any more.
    greeting.catch(() => {});
    try {
      await Promise.race([greeting, timeout]);
    } catch (error) {
      const known = await this.#explained(error, "before");
      this.#stop(known);
      await this.#transport.end("at once");
      await this.#letGo();
      throw known;
    } finally {
      clearTimeout(timer);
    }
  }

  async #exchangeVersions(): Promise<void> {
    // Nobody waits for it: a server that is not there yet need not take it.
    this.#writer.write(encodePacket(PacketType.INIT, [SFTP_VERSION])).catch(() => {});
    const packet = await this.#reader.next();
    if (packet === undefined) throw new Ended();
    if (packet[0] !== PacketType.VERSION) {
      throw new SftpProtocolError(`a packet of type ${packet[0]} came in place of the version`);
    }
    const fields = new PacketFields(packet.subarray(1));
    const version = fields.u32();
    if (version !== SFTP_VERSION) {
      throw new SftpProtocolError(`it speaks version ${version}, not ${SFTP_VERSION}`);
    }
    const extensions = new Map<string, string>();
    while (!fields.atEnd && extensions.size < MAX_EXTENSIONS) {
      extensions.set(fields.text(), fields.text());
    }
    this.#extensions = extensions;
  }

  /** Hands answers to those who wait for them until there are no more. */
  async #receive(): Promise<void> {
    try {
      while (true) {
        const packet = await this.#reader.next();
        if (packet === undefined) throw new Ended();
        this.#progress = performance.now();
        this.#dispatch(packet);
      }
    } catch (error) {
      if (this.#isClosing || this.#failure !== undefined) return;
      // New requests are no use while the reason is looked for.
      this.#stop(await this.#explained(error, "after"));
      await this.#transport.end("at once");
      await this.#letGo();
    }
  }

  #dispatch(packet: Uint8Array): void {
    const type = packet[0]!;
    const fields = new PacketFields(packet.subarray(1));
    const id = fields.u32();
    const pending = this.#pending.get(id);
    if (pending === undefined) {
      throw new SftpProtocolError(`there is an answer to a request ${id} that was not made`);
    }
    const refusal = type === PacketType.STATUS ? readRefusal(fields) : undefined;
    if (refusal === undefined) {
      if (type !== pending.expects) {
        throw new SftpProtocolError(`a packet of type ${type} answers a request of another kind`);
      }
      pending.answer(fields);
    } else {
      pending.fail(refusal);
    }
    this.#pending.delete(id);
    if (this.#pending.size === 0) return this.#unwatch();
    if (pending.patience === this.#patience.request) return;
    // The others are not waited for as long as this one.
    this.#unwatch();
    this.#watch();
  }

  /** Sees to it that a server that says nothing is given up. */
  #watch(): void {
    if (this.#timer !== undefined) return;
    const limit = Math.max(...Array.from(this.#pending.values(), ({ patience }) => patience));
    const rest = Math.max(this.#progress + limit - performance.now(), 1);
    this.#timer = setTimeout(() => this.#look(), rest);
  }

  #unwatch(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #look(): void {
    this.#timer = undefined;
    if (this.#pending.size === 0) return;
    const limit = Math.max(...Array.from(this.#pending.values(), ({ patience }) => patience));
    if (performance.now() - this.#progress < limit) return this.#watch();
    this.#stop(this.#timedOut(limit));
    this.#receiving = Promise.all([
      this.#receiving,
      this.#transport.end("at once"),
      this.#letGo(),
    ]).then(() => {});
  }

  /** Fails everything that waits and all that will be asked for. */
  #stop(failure: unknown): void {
    this.#failure ??= failure;
    this.#unwatch();
    this.#outgoing.length = 0;
    const pending = Array.from(this.#pending.values());
    this.#pending.clear();
    for (const { fail } of pending) fail(this.#failure);
  }

  async #letGo(): Promise<void> {
    // What is gone cannot be closed any more, which is all right.
    await Promise.allSettled([this.#reader.cancel(), this.#writer.abort()]);
  }

  #timedOut(patience: number): ImageError {
    const seconds = Math.ceil(patience / 1000);
    return new ImageError(
      `No answer from the ssh server '${this.#transport.peer}' for ${seconds} s`,
      { errno: "ETIMEDOUT" },
    );
  }

  /** What went wrong, in words for users. */
  async #explained(error: unknown, when: "before" | "after"): Promise<unknown> {
    const { peer } = this.#transport;
    if (error instanceof SftpProtocolError) {
      return new ImageError(`The ssh server '${peer}' does not speak SFTP: ${error.message}`, {
        errno: "EPROTO",
        cause: error,
      });
    }
    if (error instanceof ImageError) return error;
    const { reason, hint } = await this.#transport.explain();
    const what = when === "before"
      ? `Could not connect to the ssh server '${peer}'`
      : `The connection to the ssh server '${peer}' was lost`;
    return new ImageError(`${what}: ${reason}`, { hint, cause: error });
  }
}

/** The server said its last word. */
class Ended extends Error {}

/** The first packets as one array of bytes. */
function takeBatch(packets: Uint8Array[]): Uint8Array {
  let count = 0;
  let length = 0;
  do length += packets[count++]!.length; while (
    count < packets.length && length + packets[count]!.length <= MAX_BATCH
  );
  const taken = packets.splice(0, count);
  if (taken.length === 1) return taken[0]!;
  const batch = new Uint8Array(length);
  let at = 0;
  for (const packet of taken) {
    batch.set(packet, at);
    at += packet.length;
  }
  return batch;
}
