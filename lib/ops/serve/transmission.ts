/**
 * Requests of one client and the answers to them.
 *
 * @module
 */
import { ImageError } from "../../block/error.ts";
import { errnoText } from "../../io/errno.ts";
import { COMMAND, COMMAND_FLAG, LIMIT, MAGIC } from "../../nbd/constants.ts";
import { NbdProtocolError, wireError } from "../../nbd/errors.ts";
import type { StreamReader, StreamWriter } from "../../nbd/stream.ts";
import {
  decodeRequest,
  EXTENDED_REQUEST_LENGTH,
  type ReceivedRequest,
  REQUEST_LENGTH,
} from "../../nbd/transmission.ts";
import { Answer } from "./answer.ts";
import type { DiskExport } from "./export.ts";
import type { Agreement } from "./handshake.ts";
import { StatusRuns } from "./meta_contexts.ts";
import {
  type CheckedRequest,
  checkRequest,
  hasPayload,
  isWriting,
  Refusal,
  tooLong,
} from "./requests.ts";
import { Budget, type BufferPool, CONNECTION_LIMIT, PIECE } from "./shares.ts";

/** Requests of a client that are worked on at once; the others wait in the connection. */
const MOST_AT_ONCE = 16;

/** Data beside those of writes that are looked at, bytes; what is longer is wrong. */
const LONGEST_PAYLOAD = 1 << 16;

const { read, write, disconnect, flush, trim, writeZeroes, blockStatus } = COMMAND;

/** What to tell clients of a failure: no more than they need, and no names of files. */
const FAILURES: Readonly<Record<number, string>> = {
  [read]: "reading from file failed",
  [write]: "writing to file failed",
  [flush]: "flush failed",
  [trim]: "discard failed",
  [writeZeroes]: "writing to file failed",
  [blockStatus]: "unable to query block status",
};

/** A request that is worked on. */
interface Job extends CheckedRequest {
  readonly answer: Answer;
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
    const { command, length } = received;
    const answer = new Answer(received, this.#agreement.style, this.#writer);
    let payload: Uint8Array | undefined;
    if (hasPayload(received, this.#agreement.style)) {
      if (length > LIMIT.transfer) {
        // What follows is data of which nobody wants to see the end.
        await answer.error(wireError("EINVAL"), tooLong(length));
        throw new NbdProtocolError(tooLong(length));
      }
      if (command !== write) payload = await this.#takePayload(Number(length));
    }
    let job: Job;
    try {
      if (this.#stopping) throw new Refusal("ESHUTDOWN", "server is shutting down");
      job = { ...checkRequest(received, payload, this.#agreement, this.#disk), answer };
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (command === write) await this.#reader.skip(Number(length));
      this.#track(answer.error(wireError(error.errno), error.message));
      return;
    }
    if (command === write) {
      const writes = await this.#takeData(job);
      this.#track(this.#finish(job, Promise.all(writes)));
      return;
    }
    const bytes = this.#memoryFor(job);
    if (bytes > 0) await this.#memory.take(bytes);
    const work = this.#work(job).finally(() => {
      if (bytes > 0) this.#memory.give(bytes);
    });
    this.#track(this.#finish(job, work));
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
  async #finish({ command, flags, answer }: Job, work: Promise<unknown>): Promise<void> {
    try {
      await work;
      if ((flags & COMMAND_FLAG.fua) !== 0 && isWriting(command)) await this.#disk.flush();
    } catch (error) {
      if (answer.broken) throw error;
      const { errno = "EIO" } = ImageError.from(error);
      await answer.error(wireError(errno), `${FAILURES[command]}: ${errnoText(errno)}`);
      return;
    }
    if (!answer.finished) await answer.success();
  }

  /** What follows a request that is no write. Of what is too long nothing is left. */
  async #takePayload(length: number): Promise<Uint8Array> {
    if (length <= LONGEST_PAYLOAD) return await this.#reader.take(length);
    await this.#reader.skip(length);
    return new Uint8Array();
  }

  /**
   * Takes the data of a write, and answers with the writing of their parts: what came is written while the
   * rest is on its way.
   */
  async #takeData({ offset, length }: Job): Promise<readonly Promise<void>[]> {
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
  #memoryFor({ command, length, flags }: Job): number {
    if (command !== read) return 0;
    return this.#isWhole(flags) ? length : Math.min(length, PIECE);
  }

  /** Whether the data of a read have to be sent as one. */
  #isWhole(flags: number): boolean {
    return this.#agreement.style === "simple" || (flags & COMMAND_FLAG.dontFragment) !== 0;
  }

  async #work(job: Job): Promise<void> {
    const { command, flags, offset, length } = job;
    switch (command) {
      case read:
        return await (this.#isWhole(flags) || length === 0
          ? this.#readWhole(job)
          : this.#readRuns(job));
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
        return await this.#status(job);
      default:
        // What is cached is the host's business.
        return;
    }
  }

  async #readWhole({ offset, length, answer }: Job): Promise<void> {
    const buffer = this.#pool.take(length);
    try {
      if (length > 0) await this.#disk.read(offset, buffer.data);
      await answer.data(buffer, offset, true);
    } finally {
      this.#pool.give(buffer);
    }
  }

  async #readRuns({ offset, length, answer }: Job): Promise<void> {
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

  async #status({ flags, offset, length, answer, contexts }: Job): Promise<void> {
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
