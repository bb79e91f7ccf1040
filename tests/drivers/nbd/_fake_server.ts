import {
  ALLOCATION,
  BASE_ALLOCATION,
  CHUNK,
  COMMAND,
  COMMAND_FLAG,
  EXPORT_FLAG,
  GREETING_MAGIC,
  OLDSTYLE_MAGIC,
  OPTION,
  REPLY,
  REPLY_ERROR,
} from "../../../lib/nbd/constants.ts";
import { NbdClosedError } from "../../../lib/nbd/errors.ts";
import {
  type BlockSizes,
  decodeContextRequest,
  decodeInfoRequest,
  decodeOptionHeader,
  encodeDetail,
  encodeExportInfo,
  encodeGreeting,
  encodeMetaContext,
  encodeOptionReply,
  encodeServerReply,
  OPTION_HEADER_LENGTH,
  PADDING_LENGTH,
} from "../../../lib/nbd/negotiation.ts";
import { type Connection, StreamReader, StreamWriter } from "../../../lib/nbd/stream.ts";
import {
  type Answered,
  decodeRequest,
  encodeBlockStatus,
  encodeChunkHeader,
  encodeDataHeader,
  encodeError,
  encodeHole,
  encodeNone,
  encodeSimpleReply,
  EXTENDED_REQUEST_LENGTH,
  REQUEST_LENGTH,
} from "../../../lib/nbd/transmission.ts";
import { writeU32BE, writeU64BE } from "../../../lib/bytes/endian.ts";

/** All that an export can do. */
export const ALL_FLAGS = EXPORT_FLAG.hasFlags | EXPORT_FLAG.flush | EXPORT_FLAG.fua |
  EXPORT_FLAG.trim | EXPORT_FLAG.writeZeroes | EXPORT_FLAG.fastZero;

/** What a request is, as the server sees it. */
export interface SeenRequest {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
}

/** What to do instead of what a good server does; answers whether it did. */
export type Misbehaviour = (
  request: SeenRequest & { readonly cookie: bigint; readonly data: Uint8Array | undefined },
  server: FakeServer,
) => Promise<boolean> | boolean;

/** What a server is like. */
export interface FakeServerOptions {
  readonly style?: "oldstyle" | "newstyle" | "fixed";
  /** Newer than all of them is one that does `extended` headers. */
  readonly replies?: "simple" | "structured" | "extended";
  /** Knows `GO`. */
  readonly knowsGo?: boolean;
  readonly hasContext?: boolean;
  readonly name?: string;
  readonly flags?: number;
  readonly blockSizes?: BlockSizes;
  /** Replies to options that are not what they should be: number of the option → messages. */
  readonly answers?: Readonly<Record<number, readonly Uint8Array[]>>;
  readonly misbehave?: Misbehaviour;
}

/** A server that does as it is told, over bytes in memory. Zero sectors are holes. */
export class FakeServer {
  readonly bytes: Uint8Array;
  /** What was asked for, in the order in which it came. */
  readonly seen: SeenRequest[] = [];
  readonly writer: StreamWriter;
  readonly #reader: StreamReader;
  readonly #options: FakeServerOptions;
  #extended = false;
  #structured = false;
  /** When it has ended, for whatever reason. */
  readonly ended: Promise<void>;

  constructor(connection: Connection, bytes: Uint8Array, options: FakeServerOptions = {}) {
    this.bytes = bytes;
    this.#options = options;
    this.#reader = new StreamReader(connection);
    this.writer = new StreamWriter(connection);
    this.ended = this.#run().catch((error) => {
      if (!(error instanceof NbdClosedError)) throw error;
    }).finally(() => connection.close());
  }

  /** What replies to a request repeat. */
  answering(cookie: bigint, offset: number): Answered {
    return { cookie, extendedOffset: this.#extended ? BigInt(offset) : undefined };
  }

  async #run(): Promise<void> {
    const { style = "fixed", flags = ALL_FLAGS } = this.#options;
    const info = encodeExportInfo({ size: this.bytes.length, flags });
    if (style === "oldstyle") {
      const greeting = new Uint8Array(28 + PADDING_LENGTH);
      writeU64BE(greeting, 0, GREETING_MAGIC);
      writeU64BE(greeting, 8, OLDSTYLE_MAGIC);
      writeU64BE(greeting, 16, this.bytes.length);
      writeU32BE(greeting, 24, flags);
      await this.writer.send(greeting);
    } else {
      await this.writer.send(encodeGreeting(style === "fixed" ? 1 : 0));
      await this.#reader.take(4);
      while (await this.#option(info)) { /* The next one. */ }
    }
    while (await this.#request()) { /* The next one. */ }
  }

  /** Whether there is another one to come. */
  async #option(info: Uint8Array): Promise<boolean> {
    const { option, length } = decodeOptionHeader(await this.#reader.take(OPTION_HEADER_LENGTH));
    const data = Uint8Array.from(await this.#reader.take(length));
    const send = (type: number, payload?: Uint8Array | string) =>
      this.writer.send(encodeOptionReply(option, type, payload));
    const own = this.#options.answers?.[option];
    if (own !== undefined) {
      for (const message of own) await this.writer.send(message);
      return true;
    }
    const { replies = "extended", knowsGo = true, hasContext = true, name = "" } = this.#options;
    switch (option) {
      case OPTION.exportName:
        await this.writer.send(info, new Uint8Array(PADDING_LENGTH));
        return false;
      case OPTION.abort:
        await send(REPLY.ack);
        return true;
      case OPTION.list:
        await send(REPLY.server, encodeServerReply(name, "fake"));
        await send(REPLY.ack);
        return true;
      case OPTION.extendedHeaders:
        this.#extended = this.#structured = replies === "extended";
        await send(this.#extended ? REPLY.ack : REPLY_ERROR.unsupported);
        return true;
      case OPTION.structuredReply:
        this.#structured = replies !== "simple";
        await send(this.#structured ? REPLY.ack : REPLY_ERROR.unsupported);
        return true;
      case OPTION.setMetaContext: {
        const { queries } = decodeContextRequest(data, "set meta context");
        if (hasContext && queries.includes(BASE_ALLOCATION)) {
          await send(REPLY.metaContext, encodeMetaContext({ id: 7, name: BASE_ALLOCATION }));
        }
        await send(REPLY.ack);
        return true;
      }
      case OPTION.go: {
        if (!knowsGo) {
          await send(REPLY_ERROR.unsupported);
          return true;
        }
        if (decodeInfoRequest(data).name !== name) {
          await send(REPLY_ERROR.unknown, "no such thing");
          return true;
        }
        const { blockSizes } = this.#options;
        if (blockSizes !== undefined) {
          await send(REPLY.info, encodeDetail({ kind: "block size", sizes: blockSizes }));
        }
        const { flags = ALL_FLAGS } = this.#options;
        await send(REPLY.info, encodeDetail({ kind: "text", number: 2, text: "fake" }));
        await send(
          REPLY.info,
          encodeDetail({ kind: "export", info: { size: this.bytes.length, flags } }),
        );
        await send(REPLY.ack);
        return false;
      }
      default:
        await send(REPLY_ERROR.unsupported);
        return true;
    }
  }

  /** Whether there is another one to come. */
  async #request(): Promise<boolean> {
    const header = await this.#reader.take(
      this.#extended ? EXTENDED_REQUEST_LENGTH : REQUEST_LENGTH,
    );
    const { command, flags, cookie, ...range } = decodeRequest(header, this.#extended);
    const [offset, length] = [Number(range.offset), Number(range.length)];
    let data: Uint8Array | undefined;
    if (command === COMMAND.write) await this.#reader.fill(data = new Uint8Array(length));
    this.seen.push({ command, flags, offset, length });
    if (command === COMMAND.disconnect) return false;
    const request = { command, flags, offset, length, cookie, data };
    if (await this.#options.misbehave?.(request, this)) return true;
    if (offset + length > this.bytes.length) await this.fail(cookie, offset, 28);
    else await this.#serve(request);
    return true;
  }

  /** Answers with an error, a number of the wire. */
  async fail(cookie: bigint, offset: number, error: number): Promise<void> {
    await this.writer.send(
      this.#structured
        ? encodeError(this.answering(cookie, offset), error, "because")
        : encodeSimpleReply(cookie, error),
    );
  }

  /** Says that all is well. */
  async done(cookie: bigint, offset: number): Promise<void> {
    await this.writer.send(
      this.#extended ? encodeNone(this.answering(cookie, offset)) : encodeSimpleReply(cookie, 0),
    );
  }

  async #serve(
    { command, flags, offset, length, cookie, data }: Parameters<Misbehaviour>[0],
  ): Promise<void> {
    const range = this.bytes.subarray(offset, offset + length);
    switch (command) {
      case COMMAND.read:
        return await this.#read(cookie, offset, range);
      case COMMAND.write:
        range.set(data!);
        break;
      case COMMAND.writeZeroes:
        if ((flags & COMMAND_FLAG.fastZero) !== 0) return await this.fail(cookie, offset, 95);
        range.fill(0);
        break;
      case COMMAND.trim:
        range.fill(0);
        break;
      case COMMAND.blockStatus: {
        const isHole = range[0] === 0;
        let run = range.findIndex((byte) => (byte === 0) !== isHole);
        if (run < 0) run = length;
        const state = isHole ? ALLOCATION.hole | ALLOCATION.zero : 0;
        const runs = [{ length: run, flags: state }];
        await this.writer.send(encodeBlockStatus(this.answering(cookie, offset), 7, runs, true));
        return;
      }
    }
    await this.done(cookie, offset);
  }

  /** In two parts, the second first, and zeros as holes. */
  async #read(cookie: bigint, offset: number, range: Uint8Array): Promise<void> {
    if (!this.#structured) return await this.writer.send(encodeSimpleReply(cookie, 0), range);
    const answered = this.answering(cookie, offset);
    const half = Math.floor(range.length / 2);
    const parts = half === 0 ? [[0, range.length]] : [[half, range.length], [0, half]];
    for (const [i, [start, end]] of parts.entries()) {
      const part = range.slice(start, end);
      const isLast = i === parts.length - 1;
      if (part.every((byte) => byte === 0)) {
        await this.writer.send(encodeHole(answered, offset + start!, part.length, isLast));
      } else {
        const header = encodeDataHeader(answered, offset + start!, part.length, isLast);
        await this.writer.send(header, part);
      }
    }
  }

  /** Sends a chunk of any kind. */
  async chunk(
    cookie: bigint,
    offset: number,
    type: number,
    payload: Uint8Array,
    { done = true, length = payload.length }: { done?: boolean; length?: number } = {},
  ): Promise<void> {
    const header = encodeChunkHeader(this.answering(cookie, offset), type, length, done);
    await this.writer.send(header, payload);
  }
}

export { CHUNK, COMMAND };
