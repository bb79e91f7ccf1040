/**
 * Requests and replies while data are transmitted.
 *
 * @module
 */
import {
  readU16BE,
  readU32BE,
  readU64BE,
  viewOf,
  writeU16BE,
  writeU32BE,
  writeU64BE,
} from "../bytes/endian.ts";
import { CHUNK, CHUNK_DONE, MAGIC } from "./constants.ts";
import { NbdProtocolError } from "./errors.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Bytes of a request without its data. */
export const REQUEST_LENGTH = 28;
/** Bytes of a request with a 64-bit length, without its data. */
export const EXTENDED_REQUEST_LENGTH = 32;
/** Bytes of a simple reply without its data. */
export const SIMPLE_REPLY_LENGTH = 16;
/** Bytes of a chunk without its payload. */
export const CHUNK_HEADER_LENGTH = 20;
/** Bytes of a chunk with a 64-bit length, without its payload. */
export const EXTENDED_CHUNK_HEADER_LENGTH = 32;

/** A request. */
export interface NbdRequest {
  /** What for. */
  readonly command: number;
  /** Command flags. */
  readonly flags: number;
  /** What the reply will repeat. */
  readonly cookie: bigint;
  /** First byte. 64 bits, unsigned. */
  readonly offset: bigint;
  /** Bytes; of data for writes. 64 bits at most, unsigned. */
  readonly length: bigint;
}

/** A request without its data; `extended` if both sides agreed upon 64-bit lengths. */
export function encodeRequest(request: NbdRequest, extended: boolean): Uint8Array {
  const bytes = new Uint8Array(extended ? EXTENDED_REQUEST_LENGTH : REQUEST_LENGTH);
  writeU32BE(bytes, 0, extended ? MAGIC.extendedRequest : MAGIC.request);
  writeU16BE(bytes, 4, request.flags);
  writeU16BE(bytes, 6, request.command);
  writeU64BE(bytes, 8, request.cookie);
  writeU64BE(bytes, 16, request.offset);
  if (extended) writeU64BE(bytes, 24, request.length);
  else writeU32BE(bytes, 24, Number(request.length));
  return bytes;
}

/** A request as it came. */
export interface ReceivedRequest extends NbdRequest {
  /** {@linkcode MAGIC}`.request` or `.extendedRequest` if all is well. */
  readonly magic: number;
}

/** Reads a request without its data: 28 bytes, or 32 if `extended`. */
export function decodeRequest(bytes: Uint8Array, extended: boolean): ReceivedRequest {
  return {
    magic: readU32BE(bytes, 0),
    flags: readU16BE(bytes, 4),
    command: readU16BE(bytes, 6),
    cookie: readU64BE(bytes, 8),
    offset: readU64BE(bytes, 16),
    length: extended ? readU64BE(bytes, 24) : BigInt(readU32BE(bytes, 24)),
  };
}

/** A simple reply without the data of a read; `error` is a number of the wire, 0 for none. */
export function encodeSimpleReply(cookie: bigint, error: number): Uint8Array {
  const bytes = new Uint8Array(SIMPLE_REPLY_LENGTH);
  writeU32BE(bytes, 0, MAGIC.simpleReply);
  writeU32BE(bytes, 4, error);
  writeU64BE(bytes, 8, cookie);
  return bytes;
}

/** The fields in front of a chunk's payload. */
export interface ChunkHeader {
  /** {@linkcode CHUNK_DONE} if it is the last. */
  readonly flags: number;
  /** Type of the payload. */
  readonly type: number;
  /** The request that it answers. */
  readonly cookie: bigint;
  /** Bytes of the payload. 64 bits at most, unsigned: to be checked before anything is read. */
  readonly length: bigint;
}

/** The request that a chunk answers, as far as its header repeats it. */
export interface Answered {
  /** What the request has. */
  readonly cookie: bigint;
  /** The request's offset where both sides agreed upon 64-bit lengths, `undefined` elsewhere. */
  readonly extendedOffset: bigint | undefined;
}

/** The header of a chunk for a payload of `length` bytes. */
export function encodeChunkHeader(
  { cookie, extendedOffset }: Answered,
  type: number,
  length: number,
  done: boolean,
): Uint8Array {
  const extended = extendedOffset !== undefined;
  const bytes = new Uint8Array(extended ? EXTENDED_CHUNK_HEADER_LENGTH : CHUNK_HEADER_LENGTH);
  writeU32BE(bytes, 0, extended ? MAGIC.extendedReply : MAGIC.structuredReply);
  writeU16BE(bytes, 4, done ? CHUNK_DONE : 0);
  writeU16BE(bytes, 6, type);
  writeU64BE(bytes, 8, cookie);
  if (extended) {
    writeU64BE(bytes, 16, extendedOffset);
    writeU64BE(bytes, 24, length);
  } else {
    writeU32BE(bytes, 16, length);
  }
  return bytes;
}

/** A chunk without content, which ends a reply. */
export function encodeNone(answered: Answered): Uint8Array {
  return encodeChunkHeader(answered, CHUNK.none, 0, true);
}

/** What stands in front of the data of an `OFFSET_DATA` chunk: its header and the offset in the export. */
export function encodeDataHeader(
  answered: Answered,
  offset: number,
  length: number,
  done: boolean,
): Uint8Array {
  return join(encodeChunkHeader(answered, CHUNK.data, 8 + length, done), u64(offset));
}

/** An `OFFSET_HOLE` chunk: `length` bytes, below 2^32, that read as zeros. */
export function encodeHole(
  answered: Answered,
  offset: number,
  length: number,
  done: boolean,
): Uint8Array {
  const payload = new Uint8Array(12);
  writeU64BE(payload, 0, offset);
  writeU32BE(payload, 8, length);
  return join(encodeChunkHeader(answered, CHUNK.hole, payload.length, done), payload);
}

/** A chunk that ends a reply with an error, a number of the wire, and a text for whoever reads logs. */
export function encodeError(answered: Answered, error: number, text = ""): Uint8Array {
  const message = encoder.encode(text);
  const payload = new Uint8Array(6 + message.length);
  writeU32BE(payload, 0, error);
  writeU16BE(payload, 4, message.length);
  payload.set(message, 6);
  return join(encodeChunkHeader(answered, CHUNK.error, payload.length, true), payload);
}

/** A run of bytes with one status in one context. */
export interface StatusRun {
  /** Bytes. */
  readonly length: number;
  /** What the context says of them; 32 bits, in extended replies 64 as far as they are safe. */
  readonly flags: number;
}

/** A chunk with the status of a range in one context, extended if the connection is. */
export function encodeBlockStatus(
  answered: Answered,
  context: number,
  runs: readonly StatusRun[],
  done: boolean,
): Uint8Array {
  const extended = answered.extendedOffset !== undefined;
  const [head, unit] = extended ? [8, 16] : [4, 8];
  const payload = new Uint8Array(head + runs.length * unit);
  writeU32BE(payload, 0, context);
  if (extended) writeU32BE(payload, 4, runs.length);
  runs.forEach(({ length, flags }, i) => {
    const at = head + i * unit;
    if (extended) {
      writeU64BE(payload, at, length);
      writeU64BE(payload, at + 8, flags);
    } else {
      writeU32BE(payload, at, length);
      writeU32BE(payload, at + 4, flags);
    }
  });
  const type = extended ? CHUNK.blockStatusExtended : CHUNK.blockStatus;
  return join(encodeChunkHeader(answered, type, payload.length, done), payload);
}

/** A reply's header, of whichever kind. */
export type ReplyHeader =
  | { readonly kind: "simple"; readonly cookie: bigint; readonly error: number }
  | ({ readonly kind: "chunk" } & ChunkHeader);

/**
 * How many bytes of header begin with these 4: the number is all that a reader has to trust.
 *
 * @throws {NbdProtocolError} for a magic number that no reply begins with.
 */
export function replyHeaderLength(magic: number): number {
  switch (magic) {
    case MAGIC.simpleReply:
      return SIMPLE_REPLY_LENGTH;
    case MAGIC.structuredReply:
      return CHUNK_HEADER_LENGTH;
    case MAGIC.extendedReply:
      return EXTENDED_CHUNK_HEADER_LENGTH;
    default:
      throw new NbdProtocolError(`invalid magic (got 0x${magic.toString(16)})`);
  }
}

/**
 * Reads a reply's header, as many bytes as {@linkcode replyHeaderLength} says.
 *
 * @throws {NbdProtocolError} as that does.
 */
export function decodeReplyHeader(bytes: Uint8Array): ReplyHeader {
  const magic = readU32BE(bytes, 0);
  const headerLength = replyHeaderLength(magic);
  const cookie = readU64BE(bytes, 8);
  if (headerLength === SIMPLE_REPLY_LENGTH) {
    return { kind: "simple", cookie, error: readU32BE(bytes, 4) };
  }
  return {
    kind: "chunk",
    cookie,
    flags: readU16BE(bytes, 4),
    type: readU16BE(bytes, 6),
    length: magic === MAGIC.extendedReply ? readU64BE(bytes, 24) : BigInt(readU32BE(bytes, 16)),
  };
}

/** What an error chunk says. */
export interface ReplyError {
  /** A number of the wire, not 0. */
  readonly error: number;
  /** What the server adds, `""` if nothing. */
  readonly text: string;
}

/**
 * Reads the payload of an error chunk of either type.
 *
 * @throws {NbdProtocolError} if lengths do not add up, or there is no error.
 */
export function decodeError(payload: Uint8Array): ReplyError {
  if (payload.length < 6) {
    throw new NbdProtocolError("Protocol error: invalid payload for structured error");
  }
  const error = readU32BE(payload, 0);
  if (error === 0) {
    throw new NbdProtocolError(
      "Protocol error: server sent structured error chunk with error = 0",
    );
  }
  const length = readU16BE(payload, 4);
  if (length > payload.length - 6) {
    throw new NbdProtocolError(
      "Protocol error: server sent structured error chunk with incorrect message length",
    );
  }
  return { error, text: decoder.decode(payload.subarray(6, 6 + length)) };
}

/** Where a run of zeros lies in the export. */
export interface Hole {
  /** First byte. 64 bits, unsigned. */
  readonly offset: bigint;
  /** Bytes. */
  readonly length: number;
}

/**
 * Reads the payload of an `OFFSET_HOLE` chunk.
 *
 * @throws {NbdProtocolError} for another length than it has.
 */
export function decodeHole(payload: Uint8Array): Hole {
  if (payload.length !== 12) {
    throw new NbdProtocolError("Protocol error: invalid payload for NBD_REPLY_TYPE_OFFSET_HOLE");
  }
  return { offset: readU64BE(payload, 0), length: readU32BE(payload, 8) };
}

/** The first run of a block status reply as it came. */
export interface FirstStatus {
  /** The context that it is of. */
  readonly context: number;
  /** Bytes. 64 bits at most, unsigned. */
  readonly length: bigint;
  /** What the context says. 64 bits at most. */
  readonly flags: bigint;
  /** How many runs there are. */
  readonly count: number;
}

/**
 * Reads the first run out of a block status payload.
 *
 * @throws {NbdProtocolError} if lengths do not add up, or there is no run.
 */
export function decodeFirstStatus(payload: Uint8Array, wide: boolean): FirstStatus {
  const [head, unit] = wide ? [8, 16] : [4, 8];
  const view = viewOf(payload);
  const count = (payload.length - head) / unit;
  const isWhole = Number.isInteger(count) && count >= 1 && (!wide || view.getUint32(4) === count);
  if (!isWhole) {
    throw new NbdProtocolError("Protocol error: invalid payload for NBD_REPLY_TYPE_BLOCK_STATUS");
  }
  return {
    context: view.getUint32(0),
    length: wide ? view.getBigUint64(8) : BigInt(view.getUint32(4)),
    flags: wide ? view.getBigUint64(16) : BigInt(view.getUint32(8)),
    count,
  };
}

function u64(value: number): Uint8Array {
  const bytes = new Uint8Array(8);
  writeU64BE(bytes, 0, value);
  return bytes;
}

function join(head: Uint8Array, tail: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(head.length + tail.length);
  bytes.set(head);
  bytes.set(tail, head.length);
  return bytes;
}
