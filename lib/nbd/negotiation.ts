/**
 * The messages before data are transmitted: greeting, options and replies to them.
 *
 * @module
 */
import {
  readSafeU64BE,
  readU16BE,
  readU32BE,
  readU64BE,
  UnsafeIntegerError,
  writeU16BE,
  writeU32BE,
  writeU64BE,
} from "../bytes/endian.ts";
import { GREETING_MAGIC, INFO, LIMIT, NEWSTYLE_MAGIC, OPTION_REPLY_MAGIC } from "./constants.ts";
import { NbdProtocolError } from "./errors.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Bytes of the greeting of a newstyle server, flags included. */
export const GREETING_LENGTH = 18;
/** Bytes of an option without its data. */
export const OPTION_HEADER_LENGTH = 16;
/** Bytes of a reply to an option without its data. */
export const OPTION_REPLY_HEADER_LENGTH = 20;
/** Zeros behind the answer to `EXPORT_NAME` and in an oldstyle greeting. */
export const PADDING_LENGTH = 124;

/** The greeting of a newstyle server. */
export function encodeGreeting(flags: number): Uint8Array {
  const bytes = new Uint8Array(GREETING_LENGTH);
  writeU64BE(bytes, 0, GREETING_MAGIC);
  writeU64BE(bytes, 8, NEWSTYLE_MAGIC);
  writeU16BE(bytes, 16, flags);
  return bytes;
}

/** An option with its data. */
export function encodeOption(option: number, data: Uint8Array = new Uint8Array()): Uint8Array {
  const bytes = new Uint8Array(OPTION_HEADER_LENGTH + data.length);
  writeU64BE(bytes, 0, NEWSTYLE_MAGIC);
  writeU32BE(bytes, 8, option);
  writeU32BE(bytes, 12, data.length);
  bytes.set(data, OPTION_HEADER_LENGTH);
  return bytes;
}

/** The fields in front of an option's data. */
export interface OptionHeader {
  /** As it came; {@linkcode NEWSTYLE_MAGIC} if all is well. */
  readonly magic: bigint;
  /** Number of the option. */
  readonly option: number;
  /** Bytes of the data: to be checked before they are read. */
  readonly length: number;
}

/** Reads the 16 bytes in front of an option's data. */
export function decodeOptionHeader(bytes: Uint8Array): OptionHeader {
  return {
    magic: readU64BE(bytes, 0),
    option: readU32BE(bytes, 8),
    length: readU32BE(bytes, 12),
  };
}

/** A reply to an option with its data. */
export function encodeOptionReply(
  option: number,
  type: number,
  data: Uint8Array | string = new Uint8Array(),
): Uint8Array {
  const payload = typeof data === "string" ? encoder.encode(data) : data;
  const bytes = new Uint8Array(OPTION_REPLY_HEADER_LENGTH + payload.length);
  writeU64BE(bytes, 0, OPTION_REPLY_MAGIC);
  writeU32BE(bytes, 8, option);
  writeU32BE(bytes, 12, type);
  writeU32BE(bytes, 16, payload.length);
  bytes.set(payload, OPTION_REPLY_HEADER_LENGTH);
  return bytes;
}

/** The fields in front of the data of a reply to an option. */
export interface OptionReplyHeader {
  /** As it came; {@linkcode OPTION_REPLY_MAGIC} if all is well. */
  readonly magic: bigint;
  /** The option that it answers. */
  readonly option: number;
  /** Type of the reply. */
  readonly type: number;
  /** Bytes of the data: to be checked before they are read. */
  readonly length: number;
}

/** Reads the 20 bytes in front of a reply's data. */
export function decodeOptionReplyHeader(bytes: Uint8Array): OptionReplyHeader {
  return {
    magic: readU64BE(bytes, 0),
    option: readU32BE(bytes, 8),
    type: readU32BE(bytes, 12),
    length: readU32BE(bytes, 16),
  };
}

/** What a client wants to know of an export. */
export interface InfoRequest {
  /** Name of the export, `""` for the default one. */
  readonly name: string;
  /** Kinds of information that it asks for. */
  readonly kinds: readonly number[];
}

/** The data of `INFO` and `GO`. */
export function encodeInfoRequest({ name, kinds }: InfoRequest): Uint8Array {
  const text = encoder.encode(name);
  const bytes = new Uint8Array(4 + text.length + 2 + 2 * kinds.length);
  writeU32BE(bytes, 0, text.length);
  bytes.set(text, 4);
  const at = 4 + text.length;
  writeU16BE(bytes, at, kinds.length);
  kinds.forEach((kind, i) => writeU16BE(bytes, at + 2 + 2 * i, kind));
  return bytes;
}

/**
 * Reads the data of `INFO` and `GO`.
 *
 * @throws {NbdProtocolError} if lengths do not add up, or the name is no name.
 */
export function decodeInfoRequest(bytes: Uint8Array): InfoRequest {
  const fields = new Fields(bytes, "Inconsistent lengths in option info");
  const name = fields.name("Unexpected embedded NUL in option info");
  const kinds = Array.from({ length: fields.count(fields.u16(), 2) }, () => fields.u16());
  fields.end();
  return { name, kinds };
}

/** Contexts of an export that a client asks for. */
export interface ContextRequest {
  /** Name of the export. */
  readonly name: string;
  /** Names of contexts, or the beginnings of them. */
  readonly queries: readonly string[];
}

/** The data of `SET_META_CONTEXT` and `LIST_META_CONTEXT`. */
export function encodeContextRequest({ name, queries }: ContextRequest): Uint8Array {
  const texts = [name, ...queries].map((text) => encoder.encode(text));
  const length = texts.reduce((sum, text) => sum + 4 + text.length, 4);
  const bytes = new Uint8Array(length);
  let at = 0;
  texts.forEach((text, i) => {
    writeU32BE(bytes, at, text.length);
    bytes.set(text, at + 4);
    at += 4 + text.length;
    if (i > 0) return;
    writeU32BE(bytes, at, queries.length);
    at += 4;
  });
  return bytes;
}

/**
 * Reads the data of `SET_META_CONTEXT` and `LIST_META_CONTEXT`.
 *
 * @throws {NbdProtocolError} if lengths do not add up, or the name is no name.
 */
export function decodeContextRequest(bytes: Uint8Array, option: string): ContextRequest {
  const fields = new Fields(bytes, `Inconsistent lengths in option ${option}`);
  const name = fields.name(`Unexpected embedded NUL in option ${option}`);
  const queries = Array.from({ length: fields.count(fields.u32(), 4) }, () => fields.text());
  fields.end();
  return { name, queries };
}

/** A context that a server tells of. */
export interface MetaContext {
  /** What block status replies call it, for this connection. */
  readonly id: number;
  /** Its name. */
  readonly name: string;
}

/** The data of a `META_CONTEXT` reply. */
export function encodeMetaContext({ id, name }: MetaContext): Uint8Array {
  const text = encoder.encode(name);
  const bytes = new Uint8Array(4 + text.length);
  writeU32BE(bytes, 0, id);
  bytes.set(text, 4);
  return bytes;
}

/**
 * Reads the data of a `META_CONTEXT` reply.
 *
 * @throws {NbdProtocolError} if they are too short.
 */
export function decodeMetaContext(bytes: Uint8Array): MetaContext {
  if (bytes.length < 4) throw new NbdProtocolError("meta context reply is too short");
  return { id: readU32BE(bytes, 0), name: decoder.decode(bytes.subarray(4)) };
}

/** The data of a `SERVER` reply: an export's name and what it is. */
export function encodeServerReply(name: string, description = ""): Uint8Array {
  const text = encoder.encode(name);
  const details = encoder.encode(description);
  const bytes = new Uint8Array(4 + text.length + details.length);
  writeU32BE(bytes, 0, text.length);
  bytes.set(text, 4);
  bytes.set(details, 4 + text.length);
  return bytes;
}

/**
 * Reads the name of an export out of a `SERVER` reply.
 *
 * @throws {NbdProtocolError} if lengths do not add up.
 */
export function decodeServerReply(bytes: Uint8Array): string {
  if (bytes.length < 4) throw new NbdProtocolError("incorrect option length");
  const length = readU32BE(bytes, 0);
  if (length > bytes.length - 4) throw new NbdProtocolError("incorrect option name length");
  return decoder.decode(bytes.subarray(4, 4 + length));
}

/** Size and abilities of an export. */
export interface ExportInfo {
  /** Bytes. */
  readonly size: number;
  /** Transmission flags. */
  readonly flags: number;
}

/** What requests an export takes, in bytes. */
export interface BlockSizes {
  /** Offsets and lengths are multiples of this power of two. */
  readonly minimum: number;
  /** Requests of this many bytes do well. */
  readonly preferred: number;
  /** Data of a read or write. */
  readonly maximum: number;
}

/** One thing that a server tells of an export. */
export type ExportDetail =
  | { readonly kind: "export"; readonly info: ExportInfo }
  | { readonly kind: "text"; readonly number: number; readonly text: string }
  | { readonly kind: "block size"; readonly sizes: BlockSizes }
  | { readonly kind: "unknown"; readonly number: number };

/** The data of an `INFO` reply. */
export function encodeDetail(detail: ExportDetail): Uint8Array {
  switch (detail.kind) {
    case "export": {
      const bytes = new Uint8Array(12);
      writeU16BE(bytes, 0, INFO.export);
      bytes.set(encodeExportInfo(detail.info), 2);
      return bytes;
    }
    case "block size": {
      const bytes = new Uint8Array(14);
      writeU16BE(bytes, 0, INFO.blockSize);
      writeU32BE(bytes, 2, detail.sizes.minimum);
      writeU32BE(bytes, 6, detail.sizes.preferred);
      writeU32BE(bytes, 10, detail.sizes.maximum);
      return bytes;
    }
    default: {
      const text = encoder.encode(detail.kind === "text" ? detail.text : "");
      const bytes = new Uint8Array(2 + text.length);
      writeU16BE(bytes, 0, detail.number);
      bytes.set(text, 2);
      return bytes;
    }
  }
}

/**
 * Reads the data of an `INFO` reply. What the sizes say is for the caller to judge.
 *
 * @throws {NbdProtocolError} for a length that does not suit the kind.
 */
export function decodeDetail(bytes: Uint8Array): ExportDetail {
  if (bytes.length < 2) {
    throw new NbdProtocolError(`NBD_REP_INFO length ${bytes.length} is too short`);
  }
  const number = readU16BE(bytes, 0);
  const data = bytes.subarray(2);
  switch (number) {
    case INFO.export:
      if (data.length !== 10) {
        throw new NbdProtocolError(
          `remaining export info len ${data.length} is unexpected size`,
        );
      }
      return { kind: "export", info: decodeExportInfo(data) };
    case INFO.blockSize:
      if (data.length !== 12) {
        throw new NbdProtocolError(
          `remaining export info len ${data.length} is unexpected size`,
        );
      }
      return {
        kind: "block size",
        sizes: {
          minimum: readU32BE(data, 0),
          preferred: readU32BE(data, 4),
          maximum: readU32BE(data, 8),
        },
      };
    case INFO.name:
    case INFO.description:
      return { kind: "text", number, text: decoder.decode(data) };
    default:
      return { kind: "unknown", number };
  }
}

/** Size and flags of an export as `EXPORT` information and the answer to `EXPORT_NAME` have them: 10 bytes. */
export function encodeExportInfo({ size, flags }: ExportInfo): Uint8Array {
  const bytes = new Uint8Array(10);
  writeU64BE(bytes, 0, size);
  writeU16BE(bytes, 8, flags);
  return bytes;
}

/**
 * Reads size and flags of an export, 10 bytes.
 *
 * @throws {NbdProtocolError} for a size above 2^53 - 1.
 */
export function decodeExportInfo(bytes: Uint8Array): ExportInfo {
  try {
    return { size: readSafeU64BE(bytes, 0), flags: readU16BE(bytes, 8) };
  } catch (error) {
    if (!(error instanceof UnsafeIntegerError)) throw error;
    throw new NbdProtocolError(`export length ${error.value} is too large`, { cause: error });
  }
}

/** Takes fields off the front of an option's data. */
class Fields {
  readonly #bytes: Uint8Array;
  readonly #inconsistent: string;
  #at = 0;

  constructor(bytes: Uint8Array, inconsistent: string) {
    this.#bytes = bytes;
    this.#inconsistent = inconsistent;
  }

  u16(): number {
    return readU16BE(this.#bytes, this.#take(2));
  }

  u32(): number {
    return readU32BE(this.#bytes, this.#take(4));
  }

  /** A count of items that take at least `least` bytes each. */
  count(count: number, least: number): number {
    if (count * least > this.#bytes.length - this.#at) this.#fail();
    return count;
  }

  /** A text behind its length. */
  text(): string {
    const length = this.u32();
    const at = this.#take(length);
    return decoder.decode(this.#bytes.subarray(at, at + length));
  }

  /** The name of an export, which is no longer than names are and has no NUL in it. */
  name(embeddedNul: string): string {
    const length = this.u32();
    if (length > LIMIT.text) throw new NbdProtocolError(`Invalid name length: ${length}`);
    const at = this.#take(length);
    const name = this.#bytes.subarray(at, at + length);
    if (name.includes(0)) throw new NbdProtocolError(embeddedNul);
    return decoder.decode(name);
  }

  end(): void {
    if (this.#at !== this.#bytes.length) this.#fail();
  }

  #take(length: number): number {
    const at = this.#at;
    if (length > this.#bytes.length - at) this.#fail();
    this.#at += length;
    return at;
  }

  #fail(): never {
    throw new NbdProtocolError(this.#inconsistent);
  }
}
