/**
 * Requests of one client and the answers to them.
 *
 * @module
 */
import { ImageError } from "../../block/error.ts";
import { readU32BE, readU64BE } from "../../bytes/endian.ts";
import { COMMAND, COMMAND_FLAG, LIMIT, MAGIC } from "../../nbd/constants.ts";
import { NbdProtocolError, wireError } from "../../nbd/errors.ts";
import type { StreamReader, StreamWriter } from "../../nbd/stream.ts";
import {
  decodeRequest,
  EXTENDED_REQUEST_LENGTH,
  type ReceivedRequest,
  REQUEST_LENGTH,
} from "../../nbd/transmission.ts";
import { commandWord } from "../../nbd/words.ts";
import type { Errno } from "../../io/errno.ts";
import type { DiskExport } from "./export.ts";
import type { Agreement, SelectedContext } from "./handshake.ts";
import { Budget, type BufferPool, CONNECTION_LIMIT, PIECE } from "./memory.ts";
import { Answer } from "./answer.ts";
import { StatusRuns } from "./status_runs.ts";

/** Requests of a client that are worked on at once; the others wait in the connection. */
const MOST_AT_ONCE = 16;

/** Bytes of a request's data that belong to no request that can be answered, and are passed over. */
const LONGEST_SKIP = LIMIT.transfer;

const { read, write, disconnect, flush, trim, cache, writeZeroes, blockStatus } = COMMAND;

/** The flags that commands take beside {@linkcode COMMAND_FLAG}`.fua` for those that write. */
const FLAGS: Readonly<Record<number, number>> = {
  [read]: COMMAND_FLAG.dontFragment,
  [write]: 0,
  [flush]: 0,
  [trim]: 0,
  [cache]: 0,
  [writeZeroes]: COMMAND_FLAG.noHole | COMMAND_FLAG.fastZero,
  [blockStatus]: COMMAND_FLAG.requestOne,
};

/** A request whose range was checked. */
interface CheckedRequest {
  readonly command: number;
  readonly flags: number;
  /** First byte. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
  readonly answer: Answer;
  /** What a block status is to tell. */
  readonly contexts: readonly SelectedContext[];
}

/** Why a request is not done. */
class Refusal extends Error {
  readonly errno: Errno;

  constructor(errno: Errno, message: string) {
    super(message);
    this.errno = errno;
  }
}

/** Serves a client after the handshake. */
export class Transmission {
  readonly #reader: StreamReader;
  readonly #writer: StreamWriter;
  readonly #disk: DiskExport;
  readonly #agreement: Agreement;
  readonly #pool: BufferPool;
  readonly #slots = new Budget(MOST_AT_ONCE);
  readonly #memory = new Budget(CONNECTION_LIMIT);
  readonly #running = new Set<Promise<void>>();
  #stopping = false;

  /** Nothing happens before {@linkcode run}. */
  constructor(
    reader: StreamReader,
    writer: StreamWriter,
    disk: DiskExport,
    agreement: Agreement,
    pool: BufferPool,
  ) {
    this.#reader = reader;
    this.#writer = writer;
    this.#disk = disk;
    this.#agreement = agreement;
    this.#pool = pool;
  }

  /**
   * Does what the client asks for until it takes its leave. Nothing is under way any more at the end.
   *
   * @throws {NbdProtocolError} for what no client of this protocol sends.
   * @throws {NbdClosedError} if the client is gone without a word in the middle of a request.
   */
  async run(): Promise<void> {
    const extended = this.#agreement.style === "extended";
    const headerLength = extended ? EXTENDED_REQUEST_LENGTH : REQUEST_LENGTH;
    const magic = extended ? MAGIC.extendedRequest : MAGIC.request;
    try {
      while (await this.#reader.more()) {
        const request = decodeRequest(await this.#reader.take(headerLength), extended);
        if (request.magic !== magic) {
          const [got, expected] = [request.magic, magic].map((number) => number.toString(16));
          throw new NbdProtocolError(`invalid magic (got 0x${got}, expected 0x${expected})`);
        }
        if (request.command === disconnect) return;
        await this.#slots.take(1);
        await this.#begin(request);
      }
    } finally {
      await this.#idle();
    }
  }

  /** Waits for what is under way. From now on requests are refused. */
  async stop(): Promise<void> {
    this.#stopping = true;
    await this.#idle();
  }

  /** Waits until nothing is under way. */
  async #idle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  /** Takes the data of a request and lets it run; it gives its slot back. */
  async #begin(received: ReceivedRequest): Promise<void> {
    const answer = new Answer(received, this.#agreement.style, this.#writer);
    let request: CheckedRequest;
    try {
      request = await this.#check(received, answer);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      this.#track(answer.error(wireError(error.errno), error.message));
      return;
    }
    if (request.command === write) {
      const writes = await this.#takeData(request);
      this.#track(this.#finish(request, Promise.all(writes)));
      return;
    }
    const bytes = this.#memoryFor(request);
    if (bytes > 0) await this.#memory.take(bytes);
    const work = this.#work(request).finally(() => {
      if (bytes > 0) this.#memory.give(bytes);
    });
    this.#track(this.#finish(request, work));
  }

  #track(done: Promise<void>): void {
    // Nobody is left to be told if the answer does not arrive; the reader finds out on its own.
    const running = done.catch(() => {}).finally(() => {
      this.#running.delete(running);
      this.#slots.give(1);
    });
    this.#running.add(running);
  }

  /** Sends what became of a request. */
  async #finish({ command, flags, answer }: CheckedRequest, work: Promise<unknown>): Promise<void> {
    try {
      await work;
      if ((flags & COMMAND_FLAG.fua) !== 0 && isWriting(command)) await this.#disk.flush();
    } catch (error) {
      if (answer.broken) throw error;
      const { errno, message } = ImageError.from(error);
      await answer.error(wireError(errno ?? "EIO"), message);
      return;
    }
    if (!answer.finished) await answer.success();
  }

  /**
   * Whether a request can be done.
   *
   * @throws {Refusal} if not; its data were passed over.
   */
  async #check(received: ReceivedRequest, answer: Answer): Promise<CheckedRequest> {
    const { command, flags, offset, length } = received;
    const hasPayload = command === write ||
      (this.#agreement.style === "extended" && (flags & COMMAND_FLAG.payloadLength) !== 0);
    if (hasPayload && length > LONGEST_SKIP) {
      // What follows is data of which nobody wants to see the end.
      await answer.error(wireError("EINVAL"), tooLong(length));
      throw new NbdProtocolError(tooLong(length));
    }
    let isTaken = !hasPayload;
    try {
      if (this.#stopping) throw new Refusal("ESHUTDOWN", "server is shutting down");
      const allowed = FLAGS[command];
      if (allowed === undefined) {
        throw new Refusal("EINVAL", `invalid request type (${command}) received`);
      }
      const payloadFlag = hasPayload && (command === write || command === blockStatus)
        ? COMMAND_FLAG.payloadLength
        : 0;
      const known = allowed | COMMAND_FLAG.fua | payloadFlag;
      const unknown = this.#agreement.style === "simple"
        ? flags & ~(known & ~(COMMAND_FLAG.dontFragment | COMMAND_FLAG.requestOne))
        : flags & ~known;
      if (unknown !== 0) {
        const word = `unsupported flags for command ${commandWord(command)}`;
        throw new Refusal("EINVAL", `${word} (got 0x${flags.toString(16)})`);
      }
      if (isWriting(command) && this.#disk.readOnly) {
        throw new Refusal("EPERM", "Export is read-only");
      }
      if ((command === read || command === cache) && length > LIMIT.transfer) {
        throw new Refusal("EINVAL", tooLong(length));
      }
      let contexts = this.#agreement.contexts;
      let wanted = length;
      if (command === blockStatus) {
        if (contexts.length === 0) throw new Refusal("EINVAL", "CMD_BLOCK_STATUS not negotiated");
        if (hasPayload) {
          isTaken = true;
          [wanted, contexts] = await this.#takeStatusPayload(Number(length), contexts);
        }
        if (wanted === 0n) throw new Refusal("EINVAL", "need non-zero length");
      }
      const size = BigInt(this.#disk.size);
      if (command !== flush && offset + wanted > size) {
        throw new Refusal(
          command === write || command === writeZeroes ? "ENOSPC" : "EINVAL",
          `operation past EOF; From: ${offset}, Len: ${wanted}, Size: ${size}`,
        );
      }
      return {
        command,
        flags,
        offset: command === flush ? 0 : Number(offset),
        length: command === flush ? 0 : Number(wanted),
        answer,
        contexts,
      };
    } catch (error) {
      if (error instanceof Refusal && !isTaken) await this.#reader.skip(Number(length));
      throw error;
    }
  }

  /** A block status for some of the contexts only: the length that is meant, and these. */
  async #takeStatusPayload(
    length: number,
    selected: readonly SelectedContext[],
  ): Promise<[wanted: bigint, contexts: readonly SelectedContext[]]> {
    const invalid = () => new Refusal("EINVAL", "CMD_BLOCK_STATUS payload not valid");
    const count = (length - 8) / 4;
    if (!(Number.isInteger(count) && count >= 0 && count <= selected.length)) {
      await this.#reader.skip(length);
      throw invalid();
    }
    const payload = await this.#reader.take(length);
    const ids = new Set(Array.from({ length: count }, (_, i) => readU32BE(payload, 8 + 4 * i)));
    const contexts = selected.filter(({ id }) => ids.has(id));
    // A number twice, or one that none has.
    if (contexts.length !== count || count === 0) throw invalid();
    return [readU64BE(payload, 0), contexts];
  }

  /**
   * Takes the data of a write, and answers with the writing of their parts: what came is written while the
   * rest is on its way.
   */
  async #takeData({ offset, length }: CheckedRequest): Promise<readonly Promise<void>[]> {
    const writes: Promise<void>[] = [];
    for (let at = 0; at < length; at += PIECE) {
      const part = Math.min(PIECE, length - at);
      await this.#memory.take(part);
      const buffer = this.#pool.take(part);
      try {
        await this.#reader.fill(buffer.data);
      } catch (error) {
        await Promise.allSettled(writes);
        throw error;
      }
      const writing = this.#disk.write(offset + at, buffer.data).finally(() => {
        this.#pool.give(buffer);
        this.#memory.give(part);
      });
      // Looked at together with all others.
      writing.catch(() => {});
      writes.push(writing);
    }
    return writes;
  }

  /** Bytes of data that a request has in memory at a time. */
  #memoryFor({ command, length, flags }: CheckedRequest): number {
    if (command !== read) return 0;
    return this.#isWhole(flags) ? length : Math.min(length, PIECE);
  }

  /** Whether the data of a read have to be sent as one. */
  #isWhole(flags: number): boolean {
    return this.#agreement.style === "simple" || (flags & COMMAND_FLAG.dontFragment) !== 0;
  }

  async #work(request: CheckedRequest): Promise<void> {
    const { command, flags, offset, length } = request;
    switch (command) {
      case read:
        return await (this.#isWhole(flags) || length === 0
          ? this.#readWhole(request)
          : this.#readRuns(request));
      case flush:
        return await this.#disk.flush();
      case trim:
        return await this.#disk.trim(offset, length);
      case writeZeroes:
        return await this.#disk.writeZeroes(offset, length, {
          unmap: (flags & COMMAND_FLAG.noHole) === 0,
          fast: (flags & COMMAND_FLAG.fastZero) !== 0,
        });
      case blockStatus:
        return await this.#status(request);
      default:
        // What is cached is the host's business.
        return;
    }
  }

  async #readWhole({ offset, length, answer }: CheckedRequest): Promise<void> {
    const buffer = this.#pool.take(length);
    try {
      if (length > 0) await this.#disk.read(offset, buffer.data);
      await answer.data(buffer, offset, true);
    } finally {
      this.#pool.give(buffer);
    }
  }

  async #readRuns({ offset, length, answer }: CheckedRequest): Promise<void> {
    const end = offset + length;
    for await (const run of this.#disk.runs(offset, length, PIECE)) {
      const isLast = run.start + run.length === end;
      if (run.zero) {
        await answer.hole(run.start, run.length, isLast);
        continue;
      }
      const buffer = this.#pool.take(run.length);
      try {
        await this.#disk.read(run.start, buffer.data);
        await answer.data(buffer, run.start, isLast);
      } finally {
        this.#pool.give(buffer);
      }
    }
  }

  async #status({ flags, offset, length, answer, contexts }: CheckedRequest): Promise<void> {
    const most = (flags & COMMAND_FLAG.requestOne) !== 0 ? 1 : undefined;
    const found: [id: number, runs: StatusRuns][] = [];
    for (const { id, context } of contexts) {
      const runs = new StatusRuns(most);
      await context.status(offset, length, (part, status) => runs.add(part, status));
      found.push([id, runs]);
    }
    for (const [i, [id, runs]] of found.entries()) {
      await answer.status(id, runs.list, i === found.length - 1);
    }
  }
}

function isWriting(command: number): boolean {
  return command === write || command === trim || command === writeZeroes;
}

function tooLong(length: bigint): string {
  return `len (${length}) is larger than max len (${LIMIT.transfer})`;
}
