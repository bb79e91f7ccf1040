/** An NBD client that says exactly what a test wants it to say, and keeps every byte of the answers. */

import {
  CHUNK_DONE,
  COMMAND,
  HANDSHAKE,
  OPTION,
  REPLY,
  REPLY_ERROR_BIT,
} from "../lib/nbd/constants.ts";
import {
  decodeOptionReplyHeader,
  encodeContextRequest,
  encodeInfoRequest,
  encodeOption,
  GREETING_LENGTH,
  OPTION_REPLY_HEADER_LENGTH,
  PADDING_LENGTH,
} from "../lib/nbd/negotiation.ts";
import { StreamReader } from "../lib/nbd/stream.ts";
import {
  decodeError,
  decodeReplyHeader,
  encodeRequest,
  replyHeaderLength,
} from "../lib/nbd/transmission.ts";
import { crc32c } from "../lib/bytes/crc32c.ts";
import { readU32BE } from "../lib/bytes/endian.ts";

/** A reply to an option. */
export interface OptionReply {
  /** Its type. */
  readonly type: number;
  /** What it carries. */
  readonly data: Uint8Array;
}

/** A part of a reply to a request. */
export interface Chunk {
  /** Its type; `"simple"` for a reply that is no chunk. */
  readonly type: number | "simple";
  /** What it carries; the data of a simple reply to a read. */
  readonly payload: Uint8Array;
  /** A number of the wire; 0 for none. */
  readonly error: number;
}

/** A request; what is left out is 0. */
export interface TalkRequest {
  readonly command: number;
  readonly flags?: number;
  readonly offset?: number | bigint;
  readonly length?: number | bigint;
  /** What follows: data of a write, or a payload. */
  readonly data?: Uint8Array;
}

/** From how many bytes on a transcript has no more than their sum. */
const LONG = 4096;

/** Bytes as a transcript has them; of long ones what tells them apart from all that are likely. */
function shown(bytes: Uint8Array): string {
  if (bytes.length < LONG) return bytes.toHex();
  return `${bytes.length} bytes with CRC ${crc32c(bytes)}`;
}

const decoder = new TextDecoder();

/** One connection. Disposing of it closes it without a word. */
export class NbdTalk implements Disposable {
  /** What the server sent, a line of hexadecimal digits for each message. */
  readonly transcript: string[] = [];
  /** Replies are chunks. */
  structured = false;
  /** Lengths have 64 bits. */
  extended = false;
  readonly #connection: Deno.Conn;
  readonly #reader: StreamReader;
  #cookie = 0n;

  private constructor(connection: Deno.Conn) {
    this.#connection = connection;
    this.#reader = new StreamReader(connection);
  }

  /** Connects to a Unix socket. */
  static async connect(path: string): Promise<NbdTalk> {
    return new NbdTalk(await Deno.connect({ transport: "unix", path }));
  }

  /** Connects and gets through the handshake for the export of a name, as far as it is asked for. */
  static async begin(
    path: string,
    options: {
      readonly name?: string;
      readonly style?: "simple" | "structured" | "extended";
      readonly contexts?: readonly string[];
    } = {},
  ): Promise<NbdTalk> {
    const talk = await NbdTalk.connect(path);
    await talk.goTo(options.name ?? "", options);
    return talk;
  }

  /** Talks over a connection that was made. */
  static over(connection: Deno.Conn): NbdTalk {
    return new NbdTalk(connection);
  }

  /** Gets through the handshake for the export of a name. */
  async goTo(
    name: string,
    { style = "structured", contexts = [] }: {
      readonly style?: "simple" | "structured" | "extended";
      readonly contexts?: readonly string[];
    } = {},
  ): Promise<void> {
    await this.greet();
    if (style === "structured") await this.option(OPTION.structuredReply);
    if (style === "extended") await this.option(OPTION.extendedHeaders);
    if (contexts.length > 0) {
      await this.option(OPTION.setMetaContext, encodeContextRequest({ name, queries: contexts }));
    }
    const replies = await this.option(OPTION.go, encodeInfoRequest({ name, kinds: [3] }));
    if (replies.at(-1)?.type !== REPLY.ack) throw new Error(`refused: ${this.transcript.at(-1)}`);
  }

  /** Sends bytes. */
  async send(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length;) at += await this.#connection.write(bytes.subarray(at));
  }

  /** Takes the greeting and answers it with client flags. */
  async greet(flags: number = HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes): Promise<void> {
    await this.#take(GREETING_LENGTH);
    await this.send(Uint8Array.of(flags >>> 24, flags >>> 16, flags >>> 8, flags));
  }

  /** Sends an option and takes all replies to it. */
  async option(option: number, data?: Uint8Array): Promise<OptionReply[]> {
    await this.send(encodeOption(option, data));
    const replies: OptionReply[] = [];
    for (;;) {
      const header = (await this.#reader.take(OPTION_REPLY_HEADER_LENGTH)).slice();
      const { type, length } = decodeOptionReplyHeader(header);
      const reply = { type, data: (await this.#reader.take(length)).slice() };
      this.#keep(header, reply.data);
      replies.push(reply);
      if (type !== REPLY.ack && type < REPLY_ERROR_BIT) continue;
      if (type === REPLY.ack && option === OPTION.structuredReply) this.structured = true;
      if (type === REPLY.ack && option === OPTION.extendedHeaders) this.extended = true;
      return replies;
    }
  }

  /** The text of the error that an option ends with. */
  async refusal(option: number, data?: Uint8Array): Promise<string> {
    const last = (await this.option(option, data)).at(-1)!;
    return last.type < REPLY_ERROR_BIT ? "" : decoder.decode(last.data);
  }

  /** Begins in the old way; answers with size and flags. */
  async exportName(name: string, { padded = false } = {}): Promise<Uint8Array> {
    await this.send(encodeOption(OPTION.exportName, new TextEncoder().encode(name)));
    return await this.#take(10 + (padded ? PADDING_LENGTH : 0));
  }

  /** Sends a request and takes the reply to it, of which nothing else is under way. */
  async request(request: TalkRequest): Promise<Chunk[]> {
    await this.sendRequest(request);
    return await this.reply(request);
  }

  /** Only sends a request. */
  async sendRequest(request: TalkRequest): Promise<void> {
    const { command, flags = 0, offset = 0, length = request.data?.length ?? 0, data } = request;
    const header = encodeRequest({
      command,
      flags,
      cookie: ++this.#cookie,
      offset: BigInt(offset),
      length: BigInt(length),
    }, this.extended);
    await this.send(header);
    if (data !== undefined) await this.send(data);
  }

  /** Takes the next reply, which is to `request`. */
  async reply({ command, length = 0 }: TalkRequest): Promise<Chunk[]> {
    const chunks: Chunk[] = [];
    for (;;) {
      const start = (await this.#reader.take(4)).slice();
      const rest = await this.#reader.take(replyHeaderLength(readU32BE(start, 0)) - 4);
      const bytes = new Uint8Array([...start, ...rest]);
      const header = decodeReplyHeader(bytes);
      const hasData = header.kind === "simple" && header.error === 0 && command === COMMAND.read;
      const size = header.kind === "chunk" ? Number(header.length) : hasData ? Number(length) : 0;
      const payload = new Uint8Array(size);
      await this.#reader.fill(payload);
      this.#keep(bytes, payload);
      if (header.kind === "simple") {
        return [...chunks, { type: "simple", payload, error: header.error }];
      }
      const isError = (header.type & 0x8000) !== 0;
      chunks.push({
        type: header.type,
        payload,
        error: isError ? decodeError(payload).error : 0,
      });
      if ((header.flags & CHUNK_DONE) !== 0) return chunks;
    }
  }

  /** Waits for the server to close the connection; answers with how many bytes came before that. */
  async ended(): Promise<number> {
    let count = 0;
    try {
      for (; await this.#reader.more(); count++) await this.#reader.take(1);
    } catch (error) {
      // It may do so without looking at all that was sent.
      if (!(error instanceof Deno.errors.ConnectionReset)) throw error;
    }
    this.transcript.push("end");
    return count;
  }

  /** Takes leave. */
  async bye(): Promise<void> {
    await this.sendRequest({ command: COMMAND.disconnect });
    await this.ended();
  }

  [Symbol.dispose](): void {
    this.#connection.close();
  }

  async #take(length: number): Promise<Uint8Array> {
    const bytes = (await this.#reader.take(length)).slice();
    this.#keep(bytes);
    return bytes;
  }

  #keep(...parts: readonly Uint8Array[]): void {
    this.transcript.push(parts.map(shown).join(" "));
  }
}
