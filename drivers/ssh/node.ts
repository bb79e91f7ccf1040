import { ImageError } from "../../lib/block/error.ts";
import type { OpenMode } from "../../lib/block/mode.ts";
import type {
  BlockNode,
  Extent,
  NodeAddress,
  NodeLimits,
  Preallocation,
  ZeroFlags,
} from "../../lib/block/node.ts";
import { requireWritable } from "../../lib/block/range.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import type { FileStatus, OpenFile } from "./remote_file.ts";
import type { SftpSession } from "./session.ts";

const SECTOR = 512;

/** Zeros are written in parts of this length at most, bytes. */
const ZERO_STEP = 1 << 20;

/** What a node is made of; it closes file and session. */
export interface RemoteParts {
  /** The connection, of this node alone. */
  readonly session: SftpSession;
  /** Open for what `mode` says. */
  readonly file: OpenFile;
  /** As it was when it was opened. */
  readonly status: FileStatus;
  /** The name as messages show it. */
  readonly filename: string;
  /** How to get at it again. */
  readonly address: NodeAddress;
  /** Whether it is written, and when flushed. */
  readonly mode: OpenMode;
  /** Prints a warning. */
  readonly warn: (text: string) => void;
  /** The server's host, for the warning. */
  readonly host: string;
}

/** A file on an SFTP server. Where its holes are nobody can ask: all of it counts as data. */
export class SshNode implements BlockNode {
  readonly driver = "ssh";
  readonly filename: string;
  readonly address: NodeAddress;
  readonly readOnly: boolean;
  readonly limits: NodeLimits = { requestAlignment: 1, clusterSize: 0, zeroAlignment: 0 };
  readonly children: BlockNode["children"] = [];
  readonly #session: SftpSession;
  readonly #file: OpenFile;
  readonly #isRegular: boolean;
  readonly #mode: OpenMode;
  readonly #warn: (text: string) => void;
  readonly #host: string;
  /** How long the file is for sure, bytes. */
  #size: number;
  /** How long it may be, with writes that are on their way or failed. */
  #reach: number;
  /** Something was written since the last flush. */
  #dirty = false;
  #warned = false;
  #isClosed = false;

  /** Takes over an open file. */
  constructor({ session, file, status, filename, address, mode, warn, host }: RemoteParts) {
    this.#session = session;
    this.#file = file;
    this.#size = this.#reach = status.size;
    this.#isRegular = status.isRegular;
    this.filename = filename;
    this.address = address;
    this.readOnly = !mode.writable;
    this.#mode = mode;
    this.#warn = warn;
    this.#host = host;
  }

  get length(): number {
    return alignUp(this.#size, SECTOR);
  }

  get exactLength(): number {
    return this.#size;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    const size = this.#size;
    const inside = Math.min(Math.max(size - offset, 0), into.length);
    const count = inside === 0 ? 0 : await this.#file.read(offset, into.subarray(0, inside));
    if (count < inside) {
      throw new ImageError(
        `'${this.filename}' has shrunk from ${size} to at most ${offset + count} bytes while it ` +
          "was in use",
        { errno: "EIO", file: this.filename },
      );
    }
    into.fill(0, inside);
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    requireWritable(this);
    if (from.length === 0) return;
    const end = alignUp(offset + from.length, SECTOR);
    // The file ends where a sector does, as the reference leaves it.
    const bytes = end > this.#reach && end > offset + from.length
      ? padded(from, end - offset)
      : from;
    this.#dirty = true;
    this.#reach = Math.max(this.#reach, offset + bytes.length);
    await this.#file.write(offset, bytes);
    this.#size = Math.max(this.#size, offset + bytes.length);
    if (this.#mode.cache.writethrough) await this.flush();
  }

  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    requireWritable(this);
    if (length === 0) return;
    const inside = Math.min(Math.max(this.#reach - offset, 0), length);
    if (inside > 0 && flags.noFallback === true) {
      throw ImageError.fromErrno("ENOTSUP", { file: this.filename });
    }
    // What lies behind the end need not be written to read as zeros.
    if (inside < length) await this.#grow(offset + length);
    const zeros = new Uint8Array(Math.min(inside, ZERO_STEP));
    for (let done = 0; done < inside; done += ZERO_STEP) {
      await this.write(offset + done, zeros.subarray(0, Math.min(inside - done, ZERO_STEP)));
    }
  }

  discard(): Promise<void> {
    // The protocol has nothing for it.
    return Promise.resolve();
  }

  extent(offset: number, length: number): Promise<Extent> {
    return Promise.resolve({ length, state: "data", compressed: false, file: this, offset });
  }

  async flush(): Promise<void> {
    if (this.readOnly || this.#mode.cache.noFlush) return;
    if (!this.#file.canSync && !this.#warned) {
      this.#warned = true;
      this.#warn(`ssh server ${this.#host} does not support fsync`);
    }
    await this.#file.sync();
    this.#dirty = false;
  }

  async resize(length: number, how: Preallocation): Promise<void> {
    requireWritable(this);
    if (how !== "off") {
      throw new ImageError(`Unsupported preallocation mode '${how}'`, {
        errno: "ENOTSUP",
        file: this.filename,
      });
    }
    if (length > this.#size) return await this.#grow(length);
    if (length === this.#size) return;
    this.#dirty = true;
    await this.#file.shrink(length);
    this.#size = this.#reach = length;
  }

  allocatedSize(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  readsZeroWhenNew(): Promise<boolean> {
    return Promise.resolve(this.#isRegular);
  }

  /**
   * Brings what was written to stable storage, and ends the connection.
   *
   * @throws {ImageError} if something that was written may not be there.
   */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await using _session = this.#session;
    if (this.#dirty) await this.flush();
    // Whoever has read everything need not care how the server takes leave.
    await this.#file.close().catch((error) => {
      if (!this.readOnly) throw error;
    });
  }

  /**
   * Makes the file longer by writing its last byte. Setting the length would cut off what others write
   * behind it at the same time.
   */
  async #grow(length: number): Promise<void> {
    await this.write(length - 1, new Uint8Array(1));
  }
}

function padded(bytes: Uint8Array, length: number): Uint8Array {
  const longer = new Uint8Array(length);
  longer.set(bytes);
  return longer;
}
