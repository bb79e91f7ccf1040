import type { ImageDetails } from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { NodeAccess, OpenMode } from "../../lib/block/mode.ts";
import type {
  BlockNode,
  Extent,
  LocalFile,
  NodeLimits,
  Preallocation,
  ZeroFlags,
} from "../../lib/block/node.ts";
import { requireWritable } from "../../lib/block/range.ts";
import { alignUp, isAligned } from "../../lib/bytes/align.ts";
import { HostError } from "../../lib/io/errno.ts";
import type { HostFile } from "../../lib/io/host_file.ts";
import { type NativeFile, openNative } from "../../lib/io/native.ts";
import { imageError } from "./_errors.ts";
import type * as growth from "./growth.ts";
import { changeLock, type FileLock, lockFile } from "./locking.ts";

const SECTOR = 512;

/** All requests are done when they return: one promise answers them all. */
const DONE = Promise.resolve();

/** What writing needs beside the file itself; loaded for those who write. */
export type Growth = Pick<typeof growth, "setFileLength" | "writeZeroBytes">;

/** How a file is opened. */
export interface FileSettings {
  /** Cache, unmapping. */
  readonly mode: OpenMode;
  /** What writing needs; `undefined` if nothing is written. */
  readonly growth: Growth | undefined;
  /** Whether other users are told and looked for. */
  readonly locks: boolean;
}

/** What the two kinds of nodes of this driver differ in. */
export interface FileKind {
  /** The driver's name. */
  readonly driver: string;
  /** A device has a length of its own and no holes. */
  readonly isDevice: boolean;
}

/**
 * An open file or device of the host.
 *
 * Requests are synchronous inside (see `lib/io/host_file.ts`) and need not keep to `[0, length)`:
 * formats read beyond the end of their file, which gives zeros, and write there, which grows it.
 */
export class FileNode implements BlockNode {
  readonly driver: string;
  readonly filename: string;
  readonly readOnly: boolean;
  readonly limits: NodeLimits;
  readonly children: BlockNode["children"] = [];
  readonly local: LocalFile;
  readonly fixedLength: boolean;
  readonly #host: HostFile;
  readonly #mode: OpenMode;
  readonly #growth: Growth | undefined;
  /** The length in bytes as far as this node knows: others may have made the file longer. */
  #size: number;
  /** Something was written since the last flush. */
  #dirty = false;
  /** `null` until it is needed, `undefined` if there is none. */
  #native: NativeFile | undefined | null = null;
  readonly #locks: boolean;
  #lock: FileLock | undefined;

  /** Takes over an open file. Throws `HostError`. */
  constructor(kind: FileKind, host: HostFile, { mode, growth, locks }: FileSettings) {
    this.#growth = growth;
    this.#locks = locks;
    this.driver = kind.driver;
    this.fixedLength = kind.isDevice;
    this.filename = host.path;
    this.readOnly = !host.writable;
    this.limits = { requestAlignment: host.alignment, clusterSize: 0, zeroAlignment: 0 };
    this.local = {
      path: absolutePath(host.path),
      direct: host.direct,
      sync: mode.cache.writethrough,
    };
    this.#host = host;
    this.#mode = mode;
    this.#size = host.size();
  }

  get length(): number {
    return alignUp(this.exactLength, SECTOR);
  }

  get exactLength(): number {
    // Workers with handles of their own may have written past the end. A device never changes.
    if (!this.readOnly && !this.fixedLength) {
      this.#size = this.#onHost(() => this.#host.size());
    }
    return this.#size;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#request(() => {
      const count = this.#host.readAt(offset, into);
      if (count === into.length) return;
      this.#requireNotShrunk(offset + count);
      into.fill(0, count);
    });
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    return this.#request(() => {
      this.#requireExact(offset + from.length);
      this.#beginWriting();
      this.#host.writeAt(offset, from);
      this.#size = Math.max(this.#size, offset + from.length);
    });
  }

  /** Damaged images may lead anywhere: a file that long could not be told the length of any more. */
  #requireExact(end: number): void {
    if (!Number.isSafeInteger(end + SECTOR)) {
      throw ImageError.fromErrno("EFBIG", { file: this.filename });
    }
  }

  writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    return this.#request(() => {
      if (length === 0) return;
      this.#requireExact(offset + length);
      this.#beginWriting();
      const done = this.fixedLength
        ? this.#zeroDevice(offset, length)
        : this.#zeroNatively(offset, length, flags.unmap && this.#mode.unmap);
      if (!done) this.#zeroByWriting(offset, length, flags.noFallback === true);
    });
  }

  reserve(offset: number, length: number): Promise<void> {
    return this.#request(() => {
      this.#beginWriting();
      // Where the file system cannot, it stays a hole.
      this.#openNative()?.allocate(offset, length);
    });
  }

  discard(offset: number, length: number): Promise<void> {
    if (!this.#mode.unmap || length === 0) return DONE;
    return this.#request(() => {
      this.#beginWriting();
      const native = this.#openNative();
      if (native === undefined) return;
      // No support is no error: nobody counts on the space.
      if (!this.fixedLength) native.punchHole(offset, length);
      else if (isAligned(offset, SECTOR) && isAligned(length, SECTOR)) {
        native.discardDevice(offset, length);
      }
    });
  }

  extent(offset: number, length: number): Promise<Extent> {
    try {
      return Promise.resolve(this.#extent(offset, length));
    } catch (error) {
      return Promise.reject(imageError(error, this.filename));
    }
  }

  flush(): Promise<void> {
    if (this.readOnly || this.#mode.cache.noFlush) return DONE;
    return this.#request(() => this.#sync());
  }

  resize(length: number, how: Preallocation): Promise<void> {
    return this.#request(() => {
      const { setFileLength } = this.#beginWriting();
      if (!this.fixedLength) {
        const before = this.exactLength;
        setFileLength(this.#host, this.#openNative(), before, length, how);
        this.#size = this.#host.size();
        return;
      }
      if (how !== "off") {
        throw new ImageError(
          `Preallocation mode '${how}' unsupported for this non-regular file`,
          { errno: "ENOTSUP", file: this.filename },
        );
      }
      if (length > this.#size) {
        throw new ImageError("Cannot grow device files", { errno: "EINVAL", file: this.filename });
      }
    });
  }

  allocatedSize(): Promise<number | undefined> {
    try {
      return Promise.resolve(this.#host.stat().allocated);
    } catch (error) {
      return Promise.reject(imageError(error, this.filename));
    }
  }

  lock(access: NodeAccess): Promise<void> {
    if (!this.#locks) return DONE;
    return this.#request(() => {
      if (this.#lock !== undefined) changeLock(this.#host, this.#lock, access);
      else if (access.uses.length + access.unshares.length > 0) {
        this.#lock = lockFile(this.#host, this.#openNative(), access);
      }
    });
  }

  readsZeroWhenNew(): Promise<boolean> {
    return Promise.resolve(!this.fixedLength);
  }

  details(): Promise<ImageDetails> {
    // Both kinds call themselves so here.
    const type = "file";
    try {
      const hint = this.fixedLength ? undefined : this.#openNative()?.extentSizeHint();
      const data = hint === undefined || hint === 0 ? {} : { "extent-size-hint": hint };
      return Promise.resolve({ dirty: false, specific: { type, data } });
    } catch (error) {
      return Promise.reject(imageError(error, this.filename));
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#request(() => {
      try {
        if (this.#dirty && !this.#mode.cache.noFlush) this.#sync();
      } finally {
        this.#dirty = false;
        this.#lock?.[Symbol.dispose]();
        this.#lock = undefined;
        this.#native?.close();
        this.#host.close();
      }
    });
  }

  /** Runs a synchronous request and answers as if it were not. */
  #request(body: () => void): Promise<void> {
    try {
      body();
      return DONE;
    } catch (error) {
      return Promise.reject(imageError(error, this.filename));
    }
  }

  #onHost<T>(body: () => T): T {
    try {
      return body();
    } catch (error) {
      throw imageError(error, this.filename);
    }
  }

  #sync(): void {
    try {
      this.#host.datasync();
    } catch (error) {
      // What has nothing to store things on, such as `/dev/null`.
      if (!(this.fixedLength && error instanceof HostError && error.errno === "EINVAL")) {
        throw error;
      }
    }
    this.#dirty = false;
  }

  #beginWriting(): Growth {
    requireWritable(this);
    this.#dirty = true;
    return this.#growth!;
  }

  #openNative(): NativeFile | undefined {
    if (this.#native === null) this.#native = openNative(this.#host);
    return this.#native;
  }

  /** After a read that ended at `end`: whether there were bytes there when the file was opened. */
  #requireNotShrunk(end: number): void {
    if (end >= this.#size) return;
    const size = this.#host.size();
    if (end < size) throw new ImageError("Short read", { errno: "EIO", file: this.filename });
    throw new ImageError(
      `'${this.filename}' has shrunk from ${this.#size} to ${size} bytes while it was in use`,
      { errno: "EIO", file: this.filename },
    );
  }

  #extent(offset: number, length: number): Extent {
    const native = this.fixedLength ? undefined : this.#openNative();
    const run = native === undefined
      ? dataBefore(this.exactLength, offset, length)
      : native.dataRun(offset, length);
    let runLength = run.length;
    const unit = this.limits.requestAlignment;
    if (run.data && unit > 1) {
      // Direct I/O reads whole units, also where the file ends within one.
      runLength = Math.min(alignUp(offset + runLength, unit) - offset, length);
    }
    return {
      length: runLength,
      state: run.data ? "data" : "zero",
      compressed: false,
      file: this,
      offset,
    };
  }

  /** Raw reference, section 5. Whether it was done. */
  #zeroNatively(offset: number, length: number, unmap: boolean): boolean {
    const native = this.#openNative();
    if (native === undefined) return false;
    const end = offset + length;
    const isDone = (unmap && native.punchHole(offset, length)) ||
      native.zeroRange(offset, length) ||
      (native.punchHole(offset, length) && native.allocate(offset, length)) ||
      (offset >= this.exactLength && native.allocate(offset, length));
    // A hole punched behind the end leaves the file as short as it was.
    if (isDone && end > this.exactLength) this.#host.truncate(end);
    return isDone;
  }

  #zeroDevice(offset: number, length: number): boolean {
    // The page cache would not know of it.
    if (!this.#mode.cache.direct) return false;
    if (!isAligned(offset, SECTOR) || !isAligned(length, SECTOR)) return false;
    return this.#openNative()?.zeroDevice(offset, length) ?? false;
  }

  #zeroByWriting(offset: number, length: number, noFallback: boolean): void {
    const end = offset + length;
    const size = this.exactLength;
    const inside = this.fixedLength ? length : Math.max(Math.min(end, size) - offset, 0);
    if (inside > 0) {
      if (noFallback) throw ImageError.fromErrno("ENOTSUP", { file: this.filename });
      this.#growth!.writeZeroBytes(this.#host, offset, inside);
    }
    // What lies behind the end need not be written to read as zeros.
    if (!this.fixedLength && end > size) this.#host.truncate(end);
    this.#size = Math.max(this.#size, end);
  }
}

/** Without holes all is data, up to the end of the file. */
function dataBefore(
  size: number,
  offset: number,
  length: number,
): { readonly data: boolean; readonly length: number } {
  if (offset >= size) return { data: false, length };
  return { data: true, length: Math.min(length, size - offset) };
}

function absolutePath(path: string): string {
  const isAbsolute = Deno.build.os === "windows" ? /^(?:[\\/]|[A-Za-z]:)/ : /^\//;
  return isAbsolute.test(path) ? path : `${Deno.cwd()}/${path}`;
}
