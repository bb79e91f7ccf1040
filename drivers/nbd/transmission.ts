/**
 * Requests under way on one connection. NBD reference, section 3.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { readSafeU64BE, readU32BE, UnsafeIntegerError } from "../../lib/bytes/endian.ts";
import {
  CHUNK,
  CHUNK_DONE,
  CHUNK_ERROR_BIT,
  COMMAND,
  COMMAND_FLAG,
  LIMIT,
} from "../../lib/nbd/constants.ts";
import { errnoFromWire, NbdClosedError, NbdProtocolError } from "../../lib/nbd/errors.ts";
import {
  type ChunkHeader,
  decodeError,
  decodeFirstStatus,
  decodeHole,
  decodeReplyHeader,
  encodeRequest,
  replyHeaderLength,
} from "../../lib/nbd/transmission.ts";
import type { Session } from "./handshake.ts";

/** Requests under way at a time, at most. */
export const MOST_REQUESTS = 16;

/** Payload of a chunk that is not data, bytes. */
const MAX_PAYLOAD = 1000;

/** Parts of a read that came out of order, at most. */
const MAX_PARTS = 1024;

/** The connection is gone, and with it what was under way. */
export class ConnectionLostError extends Error {
  /** Tells it from other errors where classes do not. */
  override readonly name = "ConnectionLostError";
  /** The server does not keep to the protocol: another connection would be no better. */
  readonly isFinal: boolean;

  /** For this reason. */
  constructor(cause: unknown) {
    super("The connection to the server is lost", { cause });
    this.isFinal = cause instanceof NbdProtocolError;
  }
}

/** A run with one status. */
export interface Status {
  /** Bytes, at least 1, at most what was asked for. */
  readonly length: number;
  /** What the context says; 32 bits. */
  readonly flags: number;
}

/** A range of an export, bytes. */
interface Range {
  readonly offset: number;
  readonly length: number;
}

/** What a request is waiting for. */
interface Expected extends Range {
  /** Where the data of a read go. */
  readonly into?: Uint8Array;
  /** The data that are there. */
  readonly parts?: Parts;
  /** The answer of a status request is not there before it came. */
  status?: Status | "none";
  error?: ImageError;
  resolve(): void;
  reject(error: unknown): void;
}

/** Sends requests and hands out replies, which come in any order. */
export class Transmission {
  /** What was agreed upon. */
  readonly session: Session;
  readonly #expected = new Map<bigint, Expected>();
  /** Who waits for another request to end. */
  readonly #queue: (() => void)[] = [];
  #sent = 0n;
  #lost: ConnectionLostError | undefined;

  /** Takes the connection of a session over. */
  constructor(session: Session) {
    this.session = session;
    this.#receive();
  }

  /** Why nothing works here any more; `undefined` as long as it does. */
  get lost(): ConnectionLostError | undefined {
    return this.#lost;
  }

  /** Fills `into`, at most 32 MiB, from `offset`. The range lies within the export. */
  async read(offset: number, into: Uint8Array): Promise<void> {
    const parts = new Parts();
    await this.#request(COMMAND.read, { offset, length: into.length }, { into, parts });
  }

  /** Writes at most 32 MiB. */
  async write(offset: number, from: Uint8Array, flags: number): Promise<void> {
    await this.#request(COMMAND.write, { offset, length: from.length }, { flags, data: from });
  }

  /** A request without data in either direction. */
  async command(command: number, offset: number, length: number, flags: number): Promise<void> {
    await this.#request(command, { offset, length }, { flags });
  }

  /** The first run with one status. Only for sessions with a context. */
  async status(offset: number, length: number): Promise<Status> {
    const { status } = await this.#request(COMMAND.blockStatus, { offset, length }, {
      flags: COMMAND_FLAG.requestOne,
      status: "none",
    });
    if (typeof status !== "object") {
      throw new ImageError("Server did not reply with any status extents", { errno: "EIO" });
    }
    return status;
  }

  /** Takes leave of the server and ends the connection. What is under way fails. */
  async close(): Promise<void> {
    const { writer } = this.session.channel;
    if (this.#lost === undefined) {
      const goodbye = encodeRequest(
        { command: COMMAND.disconnect, flags: 0, cookie: 0n, offset: 0n, length: 0n },
        this.session.extended,
      );
      // Not waited for if there is something before it that nobody takes.
      if (this.#expected.size === 0) await writer.send(goodbye).catch(() => {});
    }
    this.abort(new Error("closed"));
  }

  /** Ends the connection. What is under way fails. */
  abort(reason: unknown): void {
    if (this.#lost !== undefined) return;
    this.#lost = new ConnectionLostError(reason);
    try {
      this.session.channel.connection.close();
    } catch {
      // It is closed already.
    }
    for (const { reject } of this.#expected.values()) reject(this.#lost);
    this.#expected.clear();
    for (const go of this.#queue.splice(0)) go();
  }

  async #request(
    command: number,
    { offset, length }: Range,
    { flags = 0, data, ...expected }:
      & { flags?: number; data?: Uint8Array }
      & Pick<Expected, "into" | "parts" | "status">,
  ): Promise<Expected> {
    while (this.#expected.size >= MOST_REQUESTS && this.#lost === undefined) {
      await new Promise<void>((resolve) => this.#queue.push(resolve));
    }
    if (this.#lost !== undefined) throw this.#lost;
    const cookie = ++this.#sent;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const entry: Expected = { offset, length, ...expected, resolve, reject };
    this.#expected.set(cookie, entry);
    const { extended, channel } = this.session;
    const header = encodeRequest({
      command,
      flags: data !== undefined && extended ? flags | COMMAND_FLAG.payloadLength : flags,
      cookie,
      offset: BigInt(offset),
      length: BigInt(length),
    }, extended);
    const sent = data === undefined
      ? channel.writer.send(header)
      : channel.writer.send(header, data);
    sent.catch((error) => this.abort(error));
    await promise;
    // Data must not change while they are being sent, which an early answer does not wait for.
    if (data !== undefined) await sent.catch(() => {});
    return entry;
  }

  #finish(cookie: bigint, { error, resolve, reject }: Expected): void {
    this.#expected.delete(cookie);
    if (error === undefined) resolve();
    else reject(error);
    this.#queue.shift()?.();
  }

  async #receive(): Promise<void> {
    const { reader } = this.session.channel;
    try {
      while (this.#lost === undefined && await reader.more()) await this.#receiveReply();
      this.abort(new NbdClosedError());
    } catch (error) {
      this.abort(error);
    }
  }

  async #receiveReply(): Promise<void> {
    const { reader } = this.session.channel;
    const headerLength = replyHeaderLength(readU32BE(await reader.peek(4), 0));
    const header = decodeReplyHeader(await reader.take(headerLength));
    const { cookie } = header;
    const entry = this.#expected.get(cookie);
    if (entry === undefined) throw new NbdProtocolError(`Unexpected cookie ${cookie}`);
    if (header.kind === "chunk") {
      await this.#receiveChunk(header, entry);
      return;
    }
    const { error } = header;
    const { into, status } = entry;
    if (this.session.structured && (into ?? status) !== undefined) {
      throw new NbdProtocolError(
        "Protocol error: simple reply when structured reply chunk was expected",
      );
    }
    if (error !== 0) entry.error ??= remoteError(error);
    else if (into !== undefined) await reader.fill(into);
    this.#finish(cookie, entry);
  }

  async #receiveChunk(header: ChunkHeader, entry: Expected): Promise<void> {
    if (!this.session.structured) {
      throw new NbdProtocolError(
        "Protocol error: structured reply chunk when none was agreed upon",
      );
    }
    const { cookie, type, flags } = header;
    // Not final: the reference thinks that the next connection may do better.
    if (header.length > LIMIT.transfer + 8) throw new Error("A chunk is longer than any request");
    const length = Number(header.length);
    const isDone = (flags & CHUNK_DONE) !== 0;
    if (type === CHUNK.data) await this.#receiveData(length, entry);
    else {
      if (length > MAX_PAYLOAD) throw new NbdProtocolError("Payload too large");
      // Looked at before anything else is read.
      this.#takePayload(type, await this.session.channel.reader.take(length), isDone, entry);
    }
    if (!isDone) return;
    if (entry.parts !== undefined && entry.error === undefined && !entry.parts.cover(entry)) {
      throw new NbdProtocolError("Protocol error: server sent less than was asked for");
    }
    this.#finish(cookie, entry);
  }

  async #receiveData(length: number, entry: Expected): Promise<void> {
    const { into, parts } = entry;
    const { reader } = this.session.channel;
    if (into === undefined || parts === undefined || length < 9) {
      throw new NbdProtocolError("Protocol error: invalid payload for NBD_REPLY_TYPE_OFFSET_DATA");
    }
    const range = { offset: safeOffset(await reader.take(8)), length: length - 8 };
    const at = placeWithin(range, entry);
    await reader.fill(into.subarray(at, at + range.length));
    parts.add(range);
  }

  #takePayload(type: number, payload: Uint8Array, isDone: boolean, entry: Expected): void {
    if ((type & CHUNK_ERROR_BIT) !== 0) {
      entry.error ??= remoteError(decodeError(payload).error);
      return;
    }
    switch (type) {
      case CHUNK.none:
        if (payload.length > 0 || !isDone) {
          throw new NbdProtocolError(
            "Protocol error: NBD_REPLY_TYPE_NONE with payload or more to come",
          );
        }
        return;
      case CHUNK.hole: {
        const { into, parts } = entry;
        if (into === undefined || parts === undefined) break;
        const range = { offset: safeOffset(payload), length: decodeHole(payload).length };
        const at = placeWithin(range, entry);
        into.fill(0, at, at + range.length);
        parts.add(range);
        return;
      }
      case CHUNK.blockStatus:
      case CHUNK.blockStatusExtended:
        if (entry.status === undefined) break;
        if (entry.status !== "none") {
          throw new NbdProtocolError("Several BLOCK_STATUS chunks in reply");
        }
        entry.status = this.#status(payload, type === CHUNK.blockStatusExtended, entry);
        return;
    }
    throw new NbdProtocolError(`Unexpected reply type ${type} for this command`);
  }

  #status(payload: Uint8Array, wide: boolean, { length: most }: Range): Status {
    const { context, length, flags } = decodeFirstStatus(payload, wide);
    if (context !== this.session.contextId) {
      throw new NbdProtocolError(
        `Protocol error: unexpected context id ${context} for NBD_REPLY_TYPE_BLOCK_STATUS`,
      );
    }
    if (length === 0n) {
      throw new NbdProtocolError("Protocol error: server sent status chunk with zero length");
    }
    return {
      length: length > BigInt(most) ? most : Number(length),
      flags: flags > 0xffff_ffffn ? 0xffff_ffff : Number(flags),
    };
  }
}

/** The parts of a read that are there, in the order of the export, neighbours joined. */
class Parts {
  readonly #runs: { start: number; end: number }[] = [];

  /** @throws {NbdProtocolError} for bytes that came before. */
  add({ offset: start, length }: Range): void {
    const end = start + length;
    const runs = this.#runs;
    let at = runs.length;
    while (at > 0 && runs[at - 1]!.start >= end) at--;
    const before = runs[at - 1];
    if (before !== undefined && before.end > start) {
      throw new NbdProtocolError("Protocol error: server sent the same bytes twice");
    }
    const after = runs[at];
    if (before?.end === start) {
      before.end = end;
      if (after?.start !== end) return;
      before.end = after.end;
      runs.splice(at, 1);
    } else if (after?.start === end) {
      after.start = start;
    } else {
      if (runs.length >= MAX_PARTS) throw new NbdProtocolError("Too many chunks in reply");
      runs.splice(at, 0, { start, end });
    }
  }

  /** Whether all of a range is there. */
  cover({ offset, length }: Range): boolean {
    const [run] = this.#runs;
    return this.#runs.length === 1 && run!.start === offset && run!.end === offset + length;
  }
}

/** Where a part begins within what was asked for. */
function placeWithin(part: Range, { offset, length }: Range): number {
  const isWithin = part.length > 0 && part.offset >= offset &&
    part.offset + part.length <= offset + length;
  if (!isWithin) {
    throw new NbdProtocolError("Protocol error: server sent chunk exceeding requested region");
  }
  return part.offset - offset;
}

function safeOffset(bytes: Uint8Array): number {
  try {
    return readSafeU64BE(bytes, 0);
  } catch (error) {
    if (error instanceof UnsafeIntegerError || error instanceof RangeError) {
      throw new NbdProtocolError("Protocol error: server sent chunk exceeding requested region");
    }
    throw error;
  }
}

function remoteError(error: number): ImageError {
  return ImageError.fromErrno(errnoFromWire(error));
}
