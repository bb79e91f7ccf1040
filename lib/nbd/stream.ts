/**
 * Reading and writing whole messages on a connection.
 *
 * @module
 */
import { NbdClosedError } from "./errors.ts";

/** What `Deno.Conn` and the like can do. */
export interface Connection {
  /** Reads some bytes, at least 1; `null` at the end. */
  read(into: Uint8Array): Promise<number | null>;
  /** Writes some bytes, and says how many. */
  write(from: Uint8Array): Promise<number>;
  /** Ends it; reads and writes under way fail. */
  close(): void;
}

/** Headers come in pieces of this many bytes; data go where they belong without a detour. */
const BUFFER_LENGTH = 64 * 1024;

/** Reads exact numbers of bytes. One read at a time. */
export class StreamReader {
  readonly #connection: Connection;
  readonly #buffer = new Uint8Array(BUFFER_LENGTH);
  #start = 0;
  #end = 0;

  /** Reads from `connection`, which stays the caller's. */
  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Bytes that came and were not asked for yet. */
  get buffered(): number {
    return this.#end - this.#start;
  }

  /**
   * Waits until there is a byte to read, or the connection has ended, and says which: `false` at the end.
   */
  async more(): Promise<boolean> {
    return this.buffered > 0 || await this.#fill();
  }

  /**
   * The next `length` bytes, at most 64 KiB, which are good until the next read and will be read again.
   *
   * @throws {NbdClosedError} if the connection ends before.
   */
  async peek(length: number): Promise<Uint8Array> {
    if (length > BUFFER_LENGTH) throw new RangeError(`${length} is more than fits at once`);
    while (this.buffered < length) {
      if (!await this.#fill()) throw new NbdClosedError();
    }
    return this.#buffer.subarray(this.#start, this.#start + length);
  }

  /**
   * The next `length` bytes, at most 64 KiB, which are good until the next read.
   *
   * @throws {NbdClosedError} if the connection ends before.
   */
  async take(length: number): Promise<Uint8Array> {
    const bytes = await this.peek(length);
    this.#start += length;
    return bytes;
  }

  /**
   * Fills `into`.
   *
   * @throws {NbdClosedError} if the connection ends before.
   */
  async fill(into: Uint8Array): Promise<void> {
    let at = Math.min(into.length, this.buffered);
    into.set(this.#buffer.subarray(this.#start, this.#start + at));
    this.#start += at;
    while (at < into.length) {
      const count = await this.#connection.read(into.subarray(at));
      if (count === null) throw new NbdClosedError();
      at += count;
    }
  }

  /**
   * Passes over `length` bytes.
   *
   * @throws {NbdClosedError} if the connection ends before.
   */
  async skip(length: number): Promise<void> {
    for (let rest = length; rest > 0;) {
      const step = Math.min(rest, BUFFER_LENGTH);
      await this.take(step);
      rest -= step;
    }
  }

  async #fill(): Promise<boolean> {
    if (this.#start === this.#end) this.#start = this.#end = 0;
    if (this.#end === BUFFER_LENGTH) {
      this.#buffer.copyWithin(0, this.#start, this.#end);
      this.#end -= this.#start;
      this.#start = 0;
    }
    const count = await this.#connection.read(this.#buffer.subarray(this.#end));
    if (count === null) return false;
    this.#end += count;
    return true;
  }
}

/** A header and data are sent as one piece if they are no longer than this. */
const JOINED_LENGTH = 16 * 1024;

/** Writes whole messages, one after the other however many are given at a time. */
export class StreamWriter {
  readonly #connection: Connection;
  #last: Promise<void> = Promise.resolve();

  /** Writes to `connection`, which stays the caller's. */
  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /**
   * Writes the parts of a message, in a piece as far as others are concerned. Resolves when nothing looks
   * at the parts any more. Fails, like all later ones, if the connection does not take it.
   */
  send(...parts: readonly Uint8Array[]): Promise<void> {
    const sent = this.#last.then(() => this.#send(parts));
    this.#last = sent;
    // Whoever waits for a message learns of the error; that nobody waits is none.
    sent.catch(() => {});
    return sent;
  }

  async #send(parts: readonly Uint8Array[]): Promise<void> {
    const total = parts.reduce((sum, { length }) => sum + length, 0);
    if (parts.length > 1 && total <= JOINED_LENGTH) {
      await this.#writeAll(concat(parts, total));
      return;
    }
    for (const part of parts) await this.#writeAll(part);
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      at += await this.#connection.write(at === 0 ? bytes : bytes.subarray(at));
    }
  }
}

function concat(parts: readonly Uint8Array[], total: number): Uint8Array {
  const joined = new Uint8Array(total);
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}
