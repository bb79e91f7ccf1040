import { ImageError } from "../../lib/block/error.ts";
import type { Errno } from "../../lib/io/errno.ts";
import {
  type Attributes,
  decodeAttributes,
  type Field,
  MAX_DATA,
  modeAttribute,
  NO_ATTRIBUTES,
  OpenFlag,
  type PacketFields,
  PacketType,
  SftpProtocolError,
  sizeAttribute,
  StatusCode,
} from "./packets.ts";
import type { SftpSession } from "./session.ts";
import { SftpStatusError } from "./status.ts";

/** The extension by which files are brought to stable storage, OpenSSH's PROTOCOL section 4.6. */
const FSYNC = "fsync@openssh.com";

/** The longest handle that a server may give (section 4 of the protocol), bytes. */
const MAX_HANDLE = 256;

/** New files can be read by all and written by their owner, as far as the server's umask allows. */
const NEW_FILE_MODE = 0o644;

/** How a remote file is opened. */
export type OpenHow = "reading" | "writing" | "creating" | "emptying";

const OPEN_FLAGS: Readonly<Record<OpenHow, number>> = {
  reading: OpenFlag.READ,
  writing: OpenFlag.READ | OpenFlag.WRITE,
  creating: OpenFlag.READ | OpenFlag.WRITE | OpenFlag.CREATE | OpenFlag.EXCLUSIVE,
  emptying: OpenFlag.READ | OpenFlag.WRITE | OpenFlag.CREATE | OpenFlag.TRUNCATE,
};

const DIRECTORY = 0o040000;
const REGULAR = 0o100000;
const KIND = 0o170000;

/** What is known of an open file. */
export interface FileStatus {
  /** Bytes. */
  readonly size: number;
  /** Its space reads as zeros until it is written. */
  readonly isRegular: boolean;
}

/** A file that is open on a server. Reads and writes go there in packets, many at a time. */
export class OpenFile {
  readonly #session: SftpSession;
  readonly #handle: Uint8Array;
  readonly #path: string;

  private constructor(session: SftpSession, handle: Uint8Array, path: string) {
    this.#session = session;
    this.#handle = handle;
    this.#path = path;
  }

  /**
   * Opens a file.
   *
   * @throws {ImageError} `failed to open remote file '…': …`
   */
  static async open(session: SftpSession, path: string, how: OpenHow): Promise<OpenFile> {
    const attributes = how === "creating" || how === "emptying"
      ? modeAttribute(NEW_FILE_MODE)
      : NO_ATTRIBUTES;
    const handle = await inWords("open", path, () =>
      session.request({
        type: PacketType.OPEN,
        fields: [path, OPEN_FLAGS[how], ...attributes],
        expects: PacketType.HANDLE,
        take: readHandle,
      }));
    return new OpenFile(session, handle, path);
  }

  /** Whether {@linkcode sync} does anything. */
  get canSync(): boolean {
    return this.#session.extensions.has(FSYNC);
  }

  /**
   * What kind of file it is, and how long.
   *
   * @throws {ImageError} if it is a folder, if the server does not say how long it is, or says too much.
   */
  async status(): Promise<FileStatus> {
    const { size, mode } = await this.#attributes();
    if (mode !== undefined && (mode & KIND) === DIRECTORY) {
      throw ImageError.fromErrno("EISDIR", { file: this.#path });
    }
    if (size === undefined || size > BigInt(Number.MAX_SAFE_INTEGER - 511)) {
      const length = size === undefined ? "an unknown length" : `a length of ${size} bytes`;
      throw new ImageError(`remote file '${this.#path}' has ${length}`, {
        errno: "EFBIG",
        file: this.#path,
      });
    }
    return { size: Number(size), isRegular: mode !== undefined && (mode & KIND) === REGULAR };
  }

  /** Fills `into`; answers with how much of it there was before the end of the file. */
  async read(offset: number, into: Uint8Array): Promise<number> {
    const counts = await allDone(pieces(into), (piece, at) => this.#read(offset + at, piece));
    let total = 0;
    for (const [i, count] of counts.entries()) {
      total += count;
      // What may come behind the end is of no interest.
      if (count < pieceLength(into, i)) break;
    }
    return total;
  }

  /** Writes all of `from`. */
  async write(offset: number, from: Uint8Array): Promise<void> {
    await allDone(pieces(from), (piece, at) =>
      this.#simple("write to", {
        type: PacketType.WRITE,
        fields: [BigInt(offset + at), piece],
      }));
  }

  /**
   * Cuts off what lies behind a length. Nobody may write there meanwhile.
   *
   * @throws {ImageError} `failed to shrink remote file '…': …`
   */
  async shrink(size: number): Promise<void> {
    await this.#simple("shrink", { type: PacketType.FSETSTAT, fields: sizeAttribute(size) });
    // There are servers that set some attributes only, and say nothing of the others.
    if ((await this.status()).size === size) return;
    throw new ImageError(`failed to shrink remote file '${this.#path}'`, {
      errno: "ENOTSUP",
      file: this.#path,
    });
  }

  /** Everything written so far is on stable storage when this resolves, if the server has the extension. */
  async sync(): Promise<void> {
    if (!this.canSync) return;
    await inWords("sync", this.#path, () =>
      this.#session.request({
        type: PacketType.EXTENDED,
        fields: [FSYNC, this.#handle],
        expects: PacketType.STATUS,
        take: () => {},
        patience: this.#session.patience.flush,
      }));
  }

  /** Gives the handle back. */
  async close(): Promise<void> {
    await this.#simple("close", { type: PacketType.CLOSE, fields: [] });
  }

  #attributes(): Promise<Attributes> {
    return inWords("look at", this.#path, () =>
      this.#session.request({
        type: PacketType.FSTAT,
        fields: [this.#handle],
        expects: PacketType.ATTRS,
        take: decodeAttributes,
      }));
  }

  async #simple(
    what: string,
    { type, fields }: { readonly type: number; readonly fields: readonly Field[] },
  ): Promise<void> {
    await inWords(what, this.#path, () =>
      this.#session.request({
        type,
        fields: [this.#handle, ...fields],
        expects: PacketType.STATUS,
        take: () => {},
      }));
  }

  /** Servers may answer with less than was asked for. */
  async #read(offset: number, into: Uint8Array): Promise<number> {
    let done = 0;
    while (done < into.length) {
      const rest = into.subarray(done);
      const count = await this.#readOnce(offset + done, rest);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  /** 0 at the end of the file. */
  async #readOnce(offset: number, into: Uint8Array): Promise<number> {
    try {
      return await this.#session.request({
        type: PacketType.READ,
        fields: [this.#handle, BigInt(offset), into.length],
        expects: PacketType.DATA,
        take: (fields) => takeData(fields, into),
      });
    } catch (error) {
      if (error instanceof SftpStatusError && error.code === StatusCode.EOF) return 0;
      throw refused(error, "read", this.#path);
    }
  }
}

/**
 * Removes a file.
 *
 * @throws {ImageError} `failed to remove remote file '…': …`
 */
export async function removeRemoteFile(session: SftpSession, path: string): Promise<void> {
  await inWords("remove", path, () =>
    session.request({
      type: PacketType.REMOVE,
      fields: [path],
      expects: PacketType.STATUS,
      take: () => {},
    }));
}

function readHandle(fields: PacketFields): Uint8Array {
  const handle = fields.bytes();
  if (handle.length <= MAX_HANDLE) return handle.slice();
  throw new SftpProtocolError(`a handle has ${handle.length} bytes`);
}

function takeData(fields: PacketFields, into: Uint8Array): number {
  const data = fields.bytes();
  if (data.length === 0 || data.length > into.length) {
    throw new SftpProtocolError(`${data.length} bytes came where ${into.length} were asked for`);
  }
  into.set(data);
  return data.length;
}

/** The parts of a buffer that one packet each carries. */
function* pieces(buffer: Uint8Array): Generator<[piece: Uint8Array, at: number]> {
  for (let at = 0; at < buffer.length; at += MAX_DATA) {
    yield [buffer.subarray(at, at + MAX_DATA), at];
  }
}

function pieceLength(buffer: Uint8Array, index: number): number {
  return Math.min(MAX_DATA, buffer.length - index * MAX_DATA);
}

/** Does something with all pieces at a time; nothing goes on any more when it throws. */
async function allDone<T>(
  parts: Iterable<[piece: Uint8Array, at: number]>,
  body: (piece: Uint8Array, at: number) => Promise<T>,
): Promise<T[]> {
  const results = await Promise.allSettled(Array.from(parts, ([piece, at]) => body(piece, at)));
  return results.map((result) => {
    if (result.status === "rejected") throw result.reason;
    return result.value;
  });
}

async function inWords<T>(what: string, path: string, body: () => Promise<T>): Promise<T> {
  try {
    return await body();
  } catch (error) {
    throw refused(error, what, path);
  }
}

const ERRNO: Readonly<Record<number, Errno>> = {
  [StatusCode.NO_SUCH_FILE]: "ENOENT",
  [StatusCode.PERMISSION_DENIED]: "EACCES",
  [StatusCode.OP_UNSUPPORTED]: "ENOTSUP",
};

/** What a server refused, with the file's name. */
function refused(error: unknown, what: string, path: string): unknown {
  if (!(error instanceof SftpStatusError)) return error;
  return new ImageError(
    `failed to ${what} remote file '${path}': SFTP server: ${error.message} ` +
      `(sftp error code: ${error.code})`,
    { errno: ERRNO[error.code] ?? "EIO", file: path, cause: error },
  );
}
