/**
 * What is agreed upon with a client before it sends requests (NBD protocol, "Fixed newstyle negotiation").
 *
 * @module
 */
import {
  EXPORT_FLAG,
  HANDSHAKE,
  INFO,
  LIMIT,
  NEWSTYLE_MAGIC,
  OPTION,
  REPLY,
  REPLY_ERROR,
} from "../../nbd/constants.ts";
import { NbdProtocolError } from "../../nbd/errors.ts";
import {
  type ContextRequest,
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
} from "../../nbd/negotiation.ts";
import { readU32BE } from "../../bytes/endian.ts";
import type { StreamReader, StreamWriter } from "../../nbd/stream.ts";
import { optionWord } from "../../nbd/words.ts";
import type { DiskExport } from "./export.ts";
import type { MetaContext } from "./meta_contexts.ts";

/** How replies look: the older kinds carry less. */
export type ReplyStyle = "simple" | "structured" | "extended";

/** A context that block status replies are about, under the number that they call it. */
export interface SelectedContext {
  /** The number. */
  readonly id: number;
  /** The context. */
  readonly context: MetaContext;
}

/** What client and server agreed upon. */
export interface Agreement {
  /** How replies look. */
  readonly style: ReplyStyle;
  /** What block status tells; nothing if empty. */
  readonly contexts: readonly SelectedContext[];
}

/** Data of an option that are looked at, bytes; longer ones are passed over. */
const LONGEST_OPTION = 1 << 16;

/** Characters of a name that an error repeats. */
const SHOWN_NAME = 80;

const NO_DATA = new Uint8Array();

/** Haggles with one client. */
export class Handshake {
  readonly #reader: StreamReader;
  readonly #writer: StreamWriter;
  readonly #disk: DiskExport;
  readonly #admit: () => Promise<boolean>;
  #style: ReplyStyle = "simple";
  #contexts: readonly SelectedContext[] = [];

  /**
   * `admit` is asked when the client is about to begin with requests, and answers whether there is room
   * for it.
   */
  constructor(
    reader: StreamReader,
    writer: StreamWriter,
    disk: DiskExport,
    admit: () => Promise<boolean>,
  ) {
    this.#reader = reader;
    this.#writer = writer;
    this.#disk = disk;
    this.#admit = admit;
  }

  /**
   * What was agreed upon, or `undefined` if the client wants nothing more.
   *
   * @throws {NbdProtocolError} for what no client of this protocol sends.
   * @throws {NbdClosedError} if the client is gone.
   */
  async run(): Promise<Agreement | undefined> {
    await this.#writer.send(encodeGreeting(HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes));
    const flags = readU32BE(await this.#reader.take(4), 0);
    if ((flags & ~(HANDSHAKE.fixedNewstyle | HANDSHAKE.noZeroes)) !== 0) {
      throw new NbdProtocolError(`unknown client flags 0x${flags.toString(16)}`);
    }
    const isFixed = (flags & HANDSHAKE.fixedNewstyle) !== 0;
    const padded = (flags & HANDSHAKE.noZeroes) === 0;
    for (;;) {
      const { magic, option, length } = decodeOptionHeader(
        await this.#reader.take(OPTION_HEADER_LENGTH),
      );
      if (magic !== NEWSTYLE_MAGIC) throw new NbdProtocolError("Bad magic received");
      if (length > LIMIT.option) {
        throw new NbdProtocolError(`len (${length}) is larger than max len (${LIMIT.option})`);
      }
      if (option === OPTION.exportName) return await this.#exportName(length, padded);
      if (!isFixed) throw new NbdProtocolError(`unexpected option ${option}`);
      if (length > LONGEST_OPTION) {
        await this.#reader.skip(length);
        await this.#reply(option, REPLY_ERROR.tooBig, `option '${optionWord(option)}' is too long`);
        continue;
      }
      const data = length === 0 ? NO_DATA : await this.#reader.take(length);
      if (option === OPTION.abort) {
        await this.#reply(option, REPLY.ack);
        return undefined;
      }
      let isAgreed: boolean;
      try {
        isAgreed = await this.#option(option, data);
      } catch (error) {
        if (!(error instanceof NbdProtocolError)) throw error;
        await this.#reply(option, REPLY_ERROR.invalid, error.message);
        continue;
      }
      if (isAgreed) return this.#agreement();
    }
  }

  /** The old way to begin: it has no errors. */
  async #exportName(length: number, padded: boolean): Promise<Agreement> {
    if (length > LIMIT.text) throw new NbdProtocolError(`Invalid name length: ${length}`);
    const name = new TextDecoder().decode(await this.#reader.take(length));
    if (name !== this.#disk.name) throw new NbdProtocolError(notPresent(name));
    if (this.#style === "extended") {
      throw new NbdProtocolError("Extended headers already negotiated");
    }
    if (!await this.#admit()) throw new NbdProtocolError("too many clients");
    const info = encodeExportInfo({ size: this.#disk.size, flags: this.#exportFlags(false) });
    const answer = new Uint8Array(info.length + (padded ? PADDING_LENGTH : 0));
    answer.set(info);
    await this.#writer.send(answer);
    return this.#agreement();
  }

  #agreement(): Agreement {
    return { style: this.#style, contexts: this.#contexts };
  }

  /** Answers an option; `true` when requests are to come next. */
  async #option(option: number, data: Uint8Array): Promise<boolean> {
    switch (option) {
      case OPTION.list:
        requireNone(option, data);
        await this.#reply(
          option,
          REPLY.server,
          encodeServerReply(this.#disk.name, this.#disk.description),
        );
        await this.#reply(option, REPLY.ack);
        return false;
      case OPTION.startTls:
        requireNone(option, data);
        await this.#reply(option, REPLY_ERROR.policy, "TLS not configured");
        return false;
      case OPTION.info:
      case OPTION.go:
        return await this.#info(option, data);
      case OPTION.structuredReply:
        requireNone(option, data);
        if (this.#style === "extended") {
          await this.#reply(
            option,
            REPLY_ERROR.extendedHeadersRequired,
            "extended headers already negotiated",
          );
          return false;
        }
        if (this.#style === "structured") {
          throw new NbdProtocolError("structured reply already negotiated");
        }
        this.#style = "structured";
        await this.#reply(option, REPLY.ack);
        return false;
      case OPTION.extendedHeaders:
        requireNone(option, data);
        if (this.#style === "extended") {
          throw new NbdProtocolError("extended headers already negotiated");
        }
        this.#style = "extended";
        await this.#reply(option, REPLY.ack);
        return false;
      case OPTION.listMetaContext:
      case OPTION.setMetaContext:
        await this.#metaContexts(option, data);
        return false;
      default:
        await this.#reply(
          option,
          REPLY_ERROR.unsupported,
          `Unsupported option ${option} (${optionWord(option)})`,
        );
        return false;
    }
  }

  async #info(option: number, data: Uint8Array): Promise<boolean> {
    const { name, kinds } = decodeInfoRequest(data);
    if (!await this.#isKnown(option, name)) return false;
    const isGo = option === OPTION.go;
    if (isGo && !await this.#admit()) {
      await this.#reply(
        option,
        REPLY_ERROR.policy,
        "as many clients as there may be are connected",
      );
      return false;
    }
    const disk = this.#disk;
    const { blocks } = disk;
    // Who does not ask for sizes sends whatever it likes, which is done as well.
    const minimum = kinds.includes(INFO.blockSize) ? blocks.minimum : 1;
    const details: readonly Uint8Array[] = [
      ...kinds.includes(INFO.name)
        ? [encodeDetail({ kind: "text", number: INFO.name, text: disk.name })]
        : [],
      ...disk.description !== undefined
        ? [encodeDetail({ kind: "text", number: INFO.description, text: disk.description })]
        : [],
      encodeDetail({ kind: "block size", sizes: { ...blocks, minimum } }),
      encodeDetail({
        kind: "export",
        info: { size: disk.size, flags: this.#exportFlags(!isGo) },
      }),
    ];
    for (const detail of details) await this.#reply(option, REPLY.info, detail);
    await this.#reply(option, REPLY.ack);
    return isGo;
  }

  async #metaContexts(option: number, data: Uint8Array): Promise<void> {
    const isSet = option === OPTION.setMetaContext;
    if (isSet && this.#style === "simple") {
      throw new NbdProtocolError(
        `request option '${optionWord(option)}' when structured reply is not negotiated`,
      );
    }
    const request = decodeContextRequest(data, optionWord(option));
    // What was chosen before is no more, even if nothing takes its place.
    if (isSet) this.#contexts = [];
    if (!await this.#isKnown(option, request.name)) return;
    const found = matching(this.#disk.contexts, request, isSet);
    if (isSet) this.#contexts = found;
    for (const { id, context: { name } } of found) {
      await this.#reply(
        option,
        REPLY.metaContext,
        encodeMetaContext({ id: isSet ? id : 0, name }),
      );
    }
    await this.#reply(option, REPLY.ack);
  }

  async #isKnown(option: number, name: string): Promise<boolean> {
    if (name === this.#disk.name) return true;
    await this.#reply(option, REPLY_ERROR.unknown, notPresent(name));
    return false;
  }

  /** What the export can do for this client. `anyContexts`: tell what it could do with some contexts. */
  #exportFlags(anyContexts: boolean): number {
    const { readOnly, shared } = this.#disk;
    const withPayload = this.#style === "extended" && (anyContexts || this.#contexts.length > 0);
    return EXPORT_FLAG.hasFlags | EXPORT_FLAG.flush | EXPORT_FLAG.fua | EXPORT_FLAG.cache |
      (readOnly
        ? EXPORT_FLAG.readOnly
        : EXPORT_FLAG.trim | EXPORT_FLAG.writeZeroes | EXPORT_FLAG.fastZero) |
      (shared ? EXPORT_FLAG.multiConn : 0) |
      (this.#style === "simple" ? 0 : EXPORT_FLAG.dontFragment) |
      (withPayload ? EXPORT_FLAG.blockStatusPayload : 0);
  }

  async #reply(option: number, type: number, data?: Uint8Array | string): Promise<void> {
    await this.#writer.send(encodeOptionReply(option, type, data));
  }
}

function requireNone(option: number, data: Uint8Array): void {
  if (data.length === 0) return;
  throw new NbdProtocolError(`option '${optionWord(option)}' has unexpected length`);
}

function notPresent(name: string): string {
  const shown = name.length > SHOWN_NAME ? `${name.slice(0, SHOWN_NAME)}...` : name;
  return `export '${shown}' not present`;
}

/** The contexts that are asked for: by their full names or, to list them, by a namespace too. */
function matching(
  contexts: readonly MetaContext[],
  { queries }: ContextRequest,
  fullNames: boolean,
): SelectedContext[] {
  const isMeant = ({ name }: MetaContext) =>
    queries.includes(name) ||
    (!fullNames &&
      (queries.length === 0 ||
        queries.some((query) => query.endsWith(":") && name.startsWith(query))));
  return contexts.map((context, id) => ({ id, context })).filter(({ context }) => isMeant(context));
}
