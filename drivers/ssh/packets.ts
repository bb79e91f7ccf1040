/**
 * Packets of the SSH File Transfer Protocol, version 3 (draft-ietf-secsh-filexfer-02): the few that reading
 * and writing one file takes. All integers are big-endian; a string is its length in 32 bits and its bytes.
 *
 * @module
 */
import { readU32BE, readU64BE, writeU32BE, writeU64BE } from "../../lib/bytes/endian.ts";

/** Types of packets (section 3). */
export const PacketType = {
  INIT: 1,
  VERSION: 2,
  OPEN: 3,
  CLOSE: 4,
  READ: 5,
  WRITE: 6,
  FSTAT: 8,
  FSETSTAT: 10,
  REMOVE: 13,
  STATUS: 101,
  HANDLE: 102,
  DATA: 103,
  ATTRS: 105,
  EXTENDED: 200,
} as const;

/** What a status says (section 7). */
export const StatusCode = {
  OK: 0,
  EOF: 1,
  NO_SUCH_FILE: 2,
  PERMISSION_DENIED: 3,
  FAILURE: 4,
  BAD_MESSAGE: 5,
  NO_CONNECTION: 6,
  CONNECTION_LOST: 7,
  OP_UNSUPPORTED: 8,
} as const;

/** How a file is opened (section 6.3). */
export const OpenFlag = { READ: 1, WRITE: 2, CREATE: 8, TRUNCATE: 16, EXCLUSIVE: 32 } as const;

/** Which attributes a packet has (section 5). */
const AttributeFlag = { SIZE: 1, OWNER: 2, PERMISSIONS: 4 } as const;

/** The version of the protocol that is spoken here. */
export const SFTP_VERSION = 3;

/** The longest packet that is taken from a server, bytes after the length; every server keeps below. */
export const MAX_PACKET = 64 << 10;

/** The most bytes of a file that one packet carries: what every server takes (section 3). */
export const MAX_DATA = 32 << 10;

/** What a server sent is no SFTP, or no answer to what it was asked. */
export class SftpProtocolError extends Error {
  /** Tells it from other errors where classes do not. */
  override readonly name = "SftpProtocolError";
}

/** A field of a packet: 32 bits, 64 bits, or a string. */
export type Field = number | bigint | string | Uint8Array;

const encoder = new TextEncoder();

/** A whole packet, its length in front. */
export function encodePacket(type: number, fields: readonly Field[]): Uint8Array {
  const parts = fields.map((field) => typeof field === "string" ? encoder.encode(field) : field);
  let length = 1;
  for (const part of parts) length += fieldLength(part);
  const packet = new Uint8Array(4 + length);
  writeU32BE(packet, 0, length);
  packet[4] = type;
  let at = 5;
  for (const part of parts) {
    if (typeof part === "number") {
      writeU32BE(packet, at, part);
    } else if (typeof part === "bigint") {
      writeU64BE(packet, at, part);
    } else {
      writeU32BE(packet, at, part.length);
      packet.set(part, at + 4);
    }
    at += fieldLength(part);
  }
  return packet;
}

function fieldLength(part: number | bigint | Uint8Array): number {
  if (typeof part === "number") return 4;
  return typeof part === "bigint" ? 8 : 4 + part.length;
}

/** The fields of a packet that came, one after the other; none reaches beyond the packet. */
export class PacketFields {
  readonly #bytes: Uint8Array;
  #at = 0;

  /** The fields in `bytes`, which are not copied. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  /** Whether nothing is left. */
  get atEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  /**
   * An integer of 32 bits.
   *
   * @throws {SftpProtocolError} if the packet ends before.
   */
  u32(): number {
    return readU32BE(this.#bytes, this.#take(4));
  }

  /**
   * An integer of 64 bits.
   *
   * @throws {SftpProtocolError} if the packet ends before.
   */
  u64(): bigint {
    return readU64BE(this.#bytes, this.#take(8));
  }

  /**
   * The bytes of a string, not copied.
   *
   * @throws {SftpProtocolError} if the packet ends before.
   */
  bytes(): Uint8Array {
    const length = this.u32();
    const at = this.#take(length);
    return this.#bytes.subarray(at, at + length);
  }

  /** A string as text, whatever its bytes are. */
  text(): string {
    return new TextDecoder().decode(this.bytes());
  }

  #take(length: number): number {
    const at = this.#at;
    if (length > this.#bytes.length - at) {
      throw new SftpProtocolError("a packet is shorter than its fields");
    }
    this.#at = at + length;
    return at;
  }
}

/** What is known of a remote file. */
export interface Attributes {
  /** Bytes; `undefined` where the server does not say. */
  readonly size: bigint | undefined;
  /** Kind and permissions as in `st_mode`; `undefined` where the server does not say. */
  readonly mode: number | undefined;
}

/** Reads attributes as far as they are of interest here. */
export function decodeAttributes(fields: PacketFields): Attributes {
  const flags = fields.u32();
  const size = (flags & AttributeFlag.SIZE) !== 0 ? fields.u64() : undefined;
  if ((flags & AttributeFlag.OWNER) !== 0) fields.u64();
  const mode = (flags & AttributeFlag.PERMISSIONS) !== 0 ? fields.u32() : undefined;
  return { size, mode };
}

/** Attributes of which nothing is said. */
export const NO_ATTRIBUTES: readonly Field[] = [0];

/** Attributes that say how long a file is to be. */
export function sizeAttribute(size: number): readonly Field[] {
  return [AttributeFlag.SIZE, BigInt(size)];
}

/** Attributes that say what the owner and others may do with a new file. */
export function modeAttribute(mode: number): readonly Field[] {
  return [AttributeFlag.PERMISSIONS, mode];
}

/** Takes packets out of a stream of bytes. */
export class PacketReader {
  readonly #source: ReadableStreamDefaultReader<Uint8Array>;
  /** What came and is no whole packet yet: never more than one packet and one read. */
  #held = new Uint8Array(0);
  #isFirst = true;

  /** Reads from `source` alone, until it ends or {@linkcode cancel} is called. */
  constructor(source: ReadableStream<Uint8Array>) {
    this.#source = source.getReader();
  }

  /**
   * The next packet without its length, or `undefined` at the end of the stream, a packet cut off there
   * included.
   *
   * @throws {SftpProtocolError} for a length that no packet has.
   */
  async next(): Promise<Uint8Array | undefined> {
    while (true) {
      const packet = this.#cut();
      if (packet !== undefined) return packet;
      const { done, value } = await this.#source.read();
      if (done) return undefined;
      this.#held = this.#held.length === 0 ? value.slice() : joined(this.#held, value);
    }
  }

  /** Ends reading; a packet that is waited for is `undefined`. */
  async cancel(): Promise<void> {
    this.#held = new Uint8Array(0);
    await this.#source.cancel();
  }

  #cut(): Uint8Array | undefined {
    const held = this.#held;
    if (held.length < 4) return undefined;
    const length = readU32BE(held, 0);
    if (length === 0 || length > MAX_PACKET) throw this.#refused(length);
    if (held.length < 4 + length) return undefined;
    this.#isFirst = false;
    this.#held = held.subarray(4 + length);
    return held.subarray(4, 4 + length);
  }

  /** Login shells that greet everybody are the usual reason. */
  #refused(length: number): SftpProtocolError {
    const text = this.#isFirst ? printable(this.#held) : "";
    if (text === "") return new SftpProtocolError(`a packet claims to have ${length} bytes`);
    return new SftpProtocolError(
      `the server sent '${text}' first; its login shell must print nothing for a session without terminal`,
    );
  }
}

function joined(head: Uint8Array, tail: Uint8Array): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(head.length + tail.length);
  whole.set(head);
  whole.set(tail, head.length);
  return whole;
}

const SHOWN_TEXT = 60;

/** The first line if the bytes are text, else `""`. */
function printable(bytes: Uint8Array): string {
  const start = new TextDecoder().decode(bytes.subarray(0, SHOWN_TEXT)).trimStart();
  return /^[^\p{Cc}\p{Cf}\uFFFD]{4,}/u.exec(start)?.[0].trimEnd() ?? "";
}
