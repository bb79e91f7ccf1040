/**
 * The reply to a request, in whichever form client and server agreed upon.
 *
 * @module
 */
import type { StreamWriter } from "../../nbd/stream.ts";
import {
  type Answered,
  encodeBlockStatus,
  encodeDataHeader,
  encodeError,
  encodeHole,
  encodeNone,
  encodeSimpleReply,
  type ReceivedRequest,
  type StatusRun,
} from "../../nbd/transmission.ts";
import type { ReplyStyle } from "./handshake.ts";
import { type DataBuffer, HEADROOM } from "./shares.ts";

/** Characters of a text that goes with an error. */
const LONGEST_TEXT = 1000;

/** The reply to one request. Nothing comes after what finishes it. */
export class Answer {
  readonly #cookie: bigint;
  readonly #answered: Answered;
  readonly #style: ReplyStyle;
  readonly #writer: StreamWriter;
  #finished = false;
  #broken = false;

  /** Answers `request` by way of `writer`. */
  constructor(request: ReceivedRequest, style: ReplyStyle, writer: StreamWriter) {
    this.#cookie = request.cookie;
    this.#answered = {
      cookie: request.cookie,
      extendedOffset: style === "extended" ? request.offset : undefined,
    };
    this.#style = style;
    this.#writer = writer;
  }

  /** All of it is on its way. */
  get finished(): boolean {
    return this.#finished;
  }

  /** The client cannot be reached any more. */
  get broken(): boolean {
    return this.#broken;
  }

  /** It was done, and there is nothing more to say. */
  async success(): Promise<void> {
    // Simple replies are allowed for all but reads and block status, and are the shorter ones.
    await this.#send(
      this.#style === "extended" ? encodeNone(this.#answered) : encodeSimpleReply(this.#cookie, 0),
      true,
    );
  }

  /** It was not done; `error` is a number of the wire. */
  async error(error: number, text: string): Promise<void> {
    await this.#send(
      this.#style === "simple"
        ? encodeSimpleReply(this.#cookie, error)
        : encodeError(this.#answered, error, text.slice(0, LONGEST_TEXT)),
      true,
    );
  }

  /** Data from `offset` on. The buffer is free when this is done. */
  async data({ whole, data }: DataBuffer, offset: number, done: boolean): Promise<void> {
    if (data.length === 0 && this.#style !== "simple") {
      return await this.#send(encodeNone(this.#answered), true);
    }
    const header = this.#style === "simple"
      ? encodeSimpleReply(this.#cookie, 0)
      : encodeDataHeader(this.#answered, offset, data.length, done);
    const begin = HEADROOM - header.length;
    whole.set(header, begin);
    await this.#send(whole.subarray(begin, HEADROOM + data.length), done);
  }

  /** Zeros from `offset` on. */
  async hole(offset: number, length: number, done: boolean): Promise<void> {
    await this.#send(encodeHole(this.#answered, offset, length, done), done);
  }

  /** What the context of this number has to say. */
  async status(context: number, runs: readonly StatusRun[], done: boolean): Promise<void> {
    await this.#send(encodeBlockStatus(this.#answered, context, runs, done), done);
  }

  async #send(bytes: Uint8Array, done: boolean): Promise<void> {
    this.#finished ||= done;
    try {
      await this.#writer.send(bytes);
    } catch (error) {
      this.#broken = true;
      throw error;
    }
  }
}
