/**
 * From a connection to an export: the client's side of the haggling. NBD reference, section 2.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { readU16BE, readU32BE, readU64BE, writeU32BE } from "../../lib/bytes/endian.ts";
import {
  EXPORT_FLAG,
  GREETING_MAGIC,
  HANDSHAKE,
  INFO,
  LIMIT,
  NEWSTYLE_MAGIC,
  OLDSTYLE_MAGIC,
  OPTION,
  OPTION_REPLY_MAGIC,
  REPLY,
  REPLY_ERROR,
} from "../../lib/nbd/constants.ts";
import { NbdClosedError, NbdProtocolError } from "../../lib/nbd/errors.ts";
import {
  type BlockSizes,
  decodeDetail,
  decodeExportInfo,
  decodeMetaContext,
  decodeOptionReplyHeader,
  decodeServerReply,
  encodeContextRequest,
  encodeInfoRequest,
  encodeOption,
  type ExportInfo,
  OPTION_REPLY_HEADER_LENGTH,
  PADDING_LENGTH,
} from "../../lib/nbd/negotiation.ts";
import { type Connection, StreamReader, StreamWriter } from "../../lib/nbd/stream.ts";
import { optionWord, replyWord } from "../../lib/nbd/words.ts";
import { invalid, isError, Refusal, refused, requireBlockSizes, serverError } from "./refusal.ts";

/** A connection and the means to use it. */
export interface Channel {
  /** The connection itself. */
  readonly connection: Connection;
  /** Reads from it. */
  readonly reader: StreamReader;
  /** Writes to it. */
  readonly writer: StreamWriter;
}

/** A channel over a connection on which nothing was read yet. */
export function channelOver(connection: Connection): Channel {
  return {
    connection,
    reader: new StreamReader(connection),
    writer: new StreamWriter(connection),
  };
}

/** What the client wants. */
export interface HandshakeRequest {
  /** Name of the export, `""` for the default one. */
  readonly name: string;
  /** The context to ask the status of blocks in. */
  readonly context: string;
  /** Turns the channel into an encrypted one; absent where that is not wanted. */
  readonly startTls?: (channel: Channel) => Promise<Channel>;
}

/** What both sides agreed upon. */
export interface Session extends ExportInfo {
  /** What to go on with: another than at the begin, if encrypted. */
  readonly channel: Channel;
  /** What requests the server takes; `undefined` if it did not say. */
  readonly blockSizes: BlockSizes | undefined;
  /** Replies come in chunks. */
  readonly structured: boolean;
  /** Lengths have 64 bits. */
  readonly extended: boolean;
  /** The number of the context; `undefined` if the server does not have it. */
  readonly contextId: number | undefined;
}

/**
 * Agrees with a server upon an export. The connection stays the caller's, whatever happens.
 *
 * @throws {ImageError} for what the server refuses, and for what is not NBD.
 */
export async function shakeHands(channel: Channel, request: HandshakeRequest): Promise<Session> {
  const handshake = new Handshake(channel, request);
  try {
    return await handshake.run();
  } catch (error) {
    throw handshake.explain(error);
  }
}

/** What is known while options are haggled over. */
interface Agreed {
  readonly extended: boolean;
  readonly structured: boolean;
  readonly contextId: number | undefined;
}

/** A reply to an option, its data already here. */
interface OptionReply {
  readonly type: number;
  readonly data: Uint8Array;
}

class Handshake {
  #channel: Channel;
  readonly #request: HandshakeRequest;
  /** What a connection that ends now leaves unread. */
  #reading = "initial magic";

  constructor(channel: Channel, request: HandshakeRequest) {
    this.#channel = channel;
    this.#request = request;
  }

  explain(error: unknown): unknown {
    if (error instanceof ImageError) return error;
    if (error instanceof NbdClosedError) {
      return new ImageError(`Failed to read ${this.#reading}: ${error.message}`, {
        errno: "EINVAL",
        cause: error,
      });
    }
    if (error instanceof NbdProtocolError) return invalid(error.message, error);
    return ImageError.from(error).prefixed(
      `Failed to read ${this.#reading}: Unable to read from socket: `,
    );
  }

  async run(): Promise<Session> {
    const greeting = await this.#take(8, "initial magic");
    const initial = readU64BE(greeting, 0);
    if (initial !== GREETING_MAGIC) {
      throw invalid(`Bad initial magic received: 0x${hex64(initial)}`);
    }
    const magic = readU64BE(await this.#take(8, "server magic"), 0);
    if (magic === OLDSTYLE_MAGIC) return await this.#oldstyle();
    if (magic !== NEWSTYLE_MAGIC) throw invalid(`Bad server magic received: 0x${hex64(magic)}`);
    return await this.#newstyle();
  }

  async #oldstyle(): Promise<Session> {
    const { name, startTls } = this.#request;
    if (startTls !== undefined) throw invalid("Server does not support STARTTLS");
    if (name !== "") throw invalid("Server does not support non-empty export names");
    const size = this.#size(await this.#take(8, "export length"));
    const flags = readU32BE(await this.#take(4, "export flags"), 0);
    if (flags > 0xffff) throw invalid(`Unexpected export flags 0x${flags.toString(16)}`);
    await this.#skip(PADDING_LENGTH, "reserved block");
    return this.#session({ size, flags }, PLAIN, undefined);
  }

  #size(bytes: Uint8Array): number {
    const padded = new Uint8Array(10);
    padded.set(bytes);
    return decodeExportInfo(padded).size;
  }

  async #newstyle(): Promise<Session> {
    const { startTls, name } = this.#request;
    const flags = readU16BE(await this.#take(2, "server flags"), 0);
    const fixed = (flags & HANDSHAKE.fixedNewstyle) !== 0;
    const noZeroes = (flags & HANDSHAKE.noZeroes) !== 0;
    const answer = new Uint8Array(4);
    writeU32BE(answer, 0, flags & (HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes));
    await this.#send(answer);
    if (!fixed) {
      if (startTls !== undefined) throw invalid("Server does not support STARTTLS");
      return await this.#exportName(PLAIN, noZeroes);
    }
    try {
      if (startTls !== undefined) await this.#startTls(startTls);
      const extended = await this.#simpleOption(OPTION.extendedHeaders);
      const structured = extended || await this.#simpleOption(OPTION.structuredReply);
      const contextId = structured ? await this.#metaContext() : undefined;
      const agreed: Agreed = { extended, structured, contextId };
      const session = await this.#go(agreed);
      if (session !== undefined) return session;
      await this.#requireListed(name);
      return await this.#exportName(agreed, noZeroes);
    } catch (error) {
      // Nobody waits for an answer to it.
      if (error instanceof Refusal) await this.#send(encodeOption(OPTION.abort)).catch(() => {});
      throw error;
    }
  }

  async #startTls(start: NonNullable<HandshakeRequest["startTls"]>): Promise<void> {
    await this.#send(encodeOption(OPTION.startTls));
    const reply = await this.#reply(OPTION.startTls);
    if (reply.type !== REPLY.ack) {
      if (reply.type === REPLY_ERROR.unsupported) {
        throw refused("Server don't support STARTTLS option");
      }
      this.#requireNoError(OPTION.startTls, reply);
      throw refused(
        `Server answered option ${OPTION.startTls} (starttls) with unexpected reply ` +
          `${reply.type} (${replyWord(reply.type)})`,
      );
    }
    if (reply.data.length > 0) {
      throw refused(`Start TLS response was not zero ${reply.data.length}`);
    }
    // What came before the encryption could be anybody's.
    if (this.#channel.reader.buffered > 0) {
      throw invalid("Server sent data in front of the TLS handshake");
    }
    this.#channel = await start(this.#channel);
  }

  /** Asks for an ability; whether the server has it. */
  async #simpleOption(option: number): Promise<boolean> {
    await this.#send(encodeOption(option));
    const { type, data } = await this.#reply(option);
    if (isError(type)) return false;
    if (type !== REPLY.ack) {
      throw refused(
        `Server answered option ${option} (${optionWord(option)}) with unexpected reply ` +
          `${type} (${replyWord(type)})`,
      );
    }
    if (data.length > 0) {
      throw refused(
        `Option ${option} ('${optionWord(option)}') response length is ${data.length} ` +
          "(it should be zero)",
      );
    }
    return true;
  }

  async #metaContext(): Promise<number | undefined> {
    const { name, context } = this.#request;
    const option = OPTION.setMetaContext;
    await this.#send(encodeOption(option, encodeContextRequest({ name, queries: [context] })));
    let reply = await this.#reply(option);
    let id: number | undefined;
    if (reply.type === REPLY.metaContext) {
      const found = decodeMetaContext(reply.data);
      if (found.name !== context) {
        throw refused(
          `Failed to negotiate meta context '${context}', server answered with different ` +
            `context '${found.name}'`,
        );
      }
      id = found.id;
      reply = await this.#reply(option);
      if (reply.type === REPLY.metaContext) {
        throw refused("Server answered with more than one context");
      }
    }
    if (isError(reply.type)) return undefined;
    if (reply.type !== REPLY.ack) {
      throw refused(`Unexpected reply type ${reply.type}, expected ${REPLY.ack}`);
    }
    if (reply.data.length > 0) {
      throw refused(`Unexpected length ${reply.data.length} to ACK response`);
    }
    return id;
  }

  /** `undefined` if the server does not know the option. */
  async #go(agreed: Agreed): Promise<Session | undefined> {
    const option = OPTION.go;
    const data = encodeInfoRequest({ name: this.#request.name, kinds: [INFO.blockSize] });
    await this.#send(encodeOption(option, data));
    let info: ExportInfo | undefined;
    let sizes: BlockSizes | undefined;
    while (true) {
      const reply = await this.#reply(option);
      if (reply.type === REPLY_ERROR.unsupported) return undefined;
      this.#requireNoError(option, reply);
      if (reply.type === REPLY.ack) {
        if (reply.data.length > 0) throw refused("server sent invalid NBD_REP_ACK");
        if (info === undefined) throw refused("broken server omitted NBD_INFO_EXPORT");
        return this.#session(info, agreed, sizes);
      }
      if (reply.type !== REPLY.info) {
        throw refused(
          `unexpected reply type ${reply.type} (${replyWord(reply.type)}), expected 3 (info)`,
        );
      }
      const detail = this.#decoded(() => decodeDetail(reply.data));
      if (detail.kind === "export") info = detail.info;
      else if (detail.kind === "block size") sizes = detail.sizes;
    }
  }

  /** What was haggled over is left with a word, also if it makes no sense. */
  #decoded<T>(decode: () => T): T {
    try {
      return decode();
    } catch (error) {
      if (error instanceof NbdProtocolError) throw refused(error.message);
      throw error;
    }
  }

  async #requireListed(name: string): Promise<void> {
    await this.#send(encodeOption(OPTION.list));
    let isListed = false;
    let count = 0;
    while (true) {
      const reply = await this.#reply(OPTION.list);
      // A server need not tell.
      if (isError(reply.type)) return;
      if (reply.type === REPLY.ack) break;
      if (reply.type !== REPLY.server) {
        throw refused(`Unexpected reply type ${reply.type} expected ${REPLY.server}`);
      }
      count++;
      if (this.#decoded(() => decodeServerReply(reply.data)) === name) isListed = true;
    }
    if (count > 0 && !isListed) throw refused(`No export with name '${name}' available`);
  }

  async #exportName(agreed: Agreed, noZeroes: boolean): Promise<Session> {
    const name = new TextEncoder().encode(this.#request.name);
    await this.#send(encodeOption(OPTION.exportName, name));
    const size = await this.#take(8, "export length");
    const info = {
      size: this.#size(size),
      flags: readU16BE(await this.#take(2, "export flags"), 0),
    };
    if (!noZeroes) await this.#skip(PADDING_LENGTH, "reserved block");
    return this.#session(info, agreed, undefined);
  }

  #session(info: ExportInfo, agreed: Agreed, sizes: BlockSizes | undefined): Session {
    const { size, flags } = info;
    if (sizes !== undefined) requireBlockSizes(sizes, size);
    // Without the first flag the others mean nothing.
    const known = (flags & EXPORT_FLAG.hasFlags) === 0 ? 0 : flags;
    return { size, flags: known, ...agreed, blockSizes: sizes, channel: this.#channel };
  }

  /** The next reply to an option. Its data are at most 32 MiB, and a text at most 4 KiB. */
  async #reply(option: number): Promise<OptionReply> {
    const bytes = await this.#take(OPTION_REPLY_HEADER_LENGTH, "option reply");
    const header = decodeOptionReplyHeader(bytes);
    if (header.magic !== OPTION_REPLY_MAGIC) throw refused("Unexpected option reply magic");
    if (header.option !== option) {
      throw refused(
        `Unexpected option type ${header.option} (${optionWord(header.option)}), ` +
          `expected ${option} (${optionWord(option)})`,
      );
    }
    if (header.length > MAX_REPLY) {
      throw refused(
        `option reply length ${header.length} is too long`,
      );
    }
    this.#reading = "option reply";
    // A copy, for the next read takes the reader's bytes back.
    const data = Uint8Array.from(await this.#channel.reader.take(header.length));
    return { type: header.type, data };
  }

  /** @throws {ImageError} for a reply that is an error. */
  #requireNoError(option: number, { type, data }: OptionReply): void {
    if (!isError(type)) return;
    throw serverError(option, type, new TextDecoder().decode(data));
  }

  async #take(length: number, what: string): Promise<Uint8Array> {
    this.#reading = what;
    return await this.#channel.reader.take(length);
  }

  async #skip(length: number, what: string): Promise<void> {
    this.#reading = what;
    await this.#channel.reader.skip(length);
  }

  async #send(bytes: Uint8Array): Promise<void> {
    await this.#channel.writer.send(bytes);
  }
}

/** Nothing. */
const PLAIN: Agreed = { extended: false, structured: false, contextId: undefined };

/** Data of a reply, bytes: no reply that is asked for here is longer than a name and a text. */
const MAX_REPLY = 4 + 2 * LIMIT.text;

function hex64(value: bigint): string {
  return value.toString(16).padStart(16, "0");
}
