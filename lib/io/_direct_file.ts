/**
 * The {@linkcode HostFile} of direct I/O, on a descriptor of `node:fs`.
 *
 * O_DIRECT wants offset, length and memory in whole units. What comes otherwise goes through a buffer,
 * and a write that covers a part of a unit reads the rest first.
 *
 * @module
 */
import { alignDown, alignUp, isAligned } from "../bytes/align.ts";
import { alignedBytes, isAlignedBytes } from "./aligned_buffer.ts";
import { errnoOf, HostError } from "./errno.ts";
import {
  type HostFile,
  type HostFileOptions,
  type HostFileStat,
  toHostFileStat,
} from "./_host_types.ts";

// A static import would be loaded at every start of a bundle of the program.
const { default: fs } = await import("node:fs");

/** Two architectures, two numbers; the other flags are the same on all that Deno runs on. */
export const O_DIRECT = Deno.build.arch === "aarch64" ? 0o200000 : 0o40000;

/** What every disk's sectors divide. */
const LARGEST_UNIT = 4096;

const BOUNCE_LENGTH = 1 << 20;

/** Requests are synchronous, so that one buffer serves all files of a thread. */
let bounceBuffer: Uint8Array | undefined;

function bounce(): Uint8Array {
  return bounceBuffer ??= alignedBytes(BOUNCE_LENGTH);
}

/** Opens `path` with O_DIRECT. Throws `HostError`: EINVAL where the file system does not know it. */
export function openDirectFile(path: string, options: HostFileOptions): HostFile {
  const { write = false, create, createNew, truncate, sync } = options;
  const { O_CREAT, O_DSYNC, O_EXCL, O_RDONLY, O_RDWR, O_TRUNC } = fs.constants;
  let flags = O_DIRECT | (write ? O_RDWR : O_RDONLY);
  if (create || createNew) flags |= O_CREAT;
  if (createNew) flags |= O_EXCL;
  if (truncate) flags |= O_TRUNC;
  if (sync) flags |= O_DSYNC;
  try {
    return new DirectHostFile(path, fs.openSync(path, flags, 0o644), write);
  } catch (error) {
    throw HostError.from(error, "open", path);
  }
}

class DirectHostFile implements HostFile {
  readonly path: string;
  readonly writable: boolean;
  readonly direct = true;
  readonly alignment: number;
  readonly #descriptor: number;
  readonly #isDevice: boolean;
  #closed = false;

  constructor(path: string, descriptor: number, writable: boolean) {
    this.path = path;
    this.writable = writable;
    this.#descriptor = descriptor;
    try {
      this.#isDevice = fs.fstatSync(descriptor).isBlockDevice();
      this.alignment = probeUnit(descriptor);
    } catch (error) {
      fs.closeSync(descriptor);
      throw error;
    }
  }

  readAt(offset: number, into: Uint8Array): number {
    const unit = this.alignment;
    let done = 0;
    if (isAligned(offset, unit) && isAlignedBytes(into, unit)) {
      const whole = into.subarray(0, alignDown(into.length, unit));
      done = this.#readWhole(offset, whole);
      if (done < whole.length) return done;
    }
    while (done < into.length) {
      const start = alignDown(offset + done, unit);
      const skipped = offset + done - start;
      const wanted = Math.min(into.length - done, BOUNCE_LENGTH - skipped);
      const buffer = bounce().subarray(0, alignUp(skipped + wanted, unit));
      const got = Math.min(this.#readWhole(start, buffer) - skipped, wanted);
      if (got <= 0) break;
      into.set(buffer.subarray(skipped, skipped + got), done);
      done += got;
      if (got < wanted) break;
    }
    return done;
  }

  writeAt(offset: number, from: Uint8Array): void {
    if (from.length === 0) return;
    const unit = this.alignment;
    const end = offset + from.length;
    const partialEnd = !isAligned(end, unit) && !this.#isDevice;
    const sizeBefore = partialEnd ? this.size() : 0;
    let done = 0;
    if (isAligned(offset, unit) && isAlignedBytes(from, unit)) {
      done = alignDown(from.length, unit);
      this.#writeWhole(offset, from.subarray(0, done));
    }
    while (done < from.length) {
      const start = alignDown(offset + done, unit);
      const skipped = offset + done - start;
      const count = Math.min(from.length - done, BOUNCE_LENGTH - skipped);
      const filled = skipped + count;
      const buffer = bounce().subarray(0, alignUp(filled, unit));
      if (skipped > 0) this.#readOrZero(start, buffer.subarray(0, unit));
      const last = buffer.length - unit;
      if (filled < buffer.length && (last > 0 || skipped === 0)) {
        this.#readOrZero(start + last, buffer.subarray(last));
      }
      buffer.set(from.subarray(done, done + count), skipped);
      this.#writeWhole(start, buffer);
      done += count;
    }
    // The last unit reached over the end of the file: give back what nobody wrote.
    if (partialEnd && alignUp(end, unit) > sizeBefore) this.truncate(Math.max(end, sizeBefore));
  }

  size(): number {
    if (!this.#isDevice) return this.#call("stat", () => fs.fstatSync(this.#descriptor).size);
    return this.#call("seek", () => {
      using file = Deno.openSync(this.path);
      return file.seekSync(0, Deno.SeekMode.End);
    });
  }

  truncate(length: number): void {
    this.#call("truncate", () => fs.ftruncateSync(this.#descriptor, length));
  }

  sync(): void {
    this.#call("sync", () => fs.fsyncSync(this.#descriptor));
  }

  datasync(): void {
    this.#call("sync", () => fs.fdatasyncSync(this.#descriptor));
  }

  stat(): HostFileStat {
    return this.#call("stat", () => {
      const stats = fs.fstatSync(this.#descriptor);
      return toHostFileStat({
        isFile: stats.isFile(),
        isDirectory: stats.isDirectory(),
        isBlockDevice: stats.isBlockDevice(),
        isCharDevice: stats.isCharacterDevice(),
        isFifo: stats.isFIFO(),
        isSocket: stats.isSocket(),
        size: stats.size,
        blocks: stats.blocks,
        dev: stats.dev,
        ino: stats.ino,
        mtime: stats.mtime,
      });
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    fs.closeSync(this.#descriptor);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Reads whole units into aligned memory until it is full or the file ends. */
  #readWhole(offset: number, into: Uint8Array): number {
    let done = 0;
    while (done < into.length) {
      const count = this.#call(
        "read",
        () => fs.readSync(this.#descriptor, into, done, into.length - done, offset + done),
      );
      done += count;
      // Only the end of the file leaves a unit in part; asking again from there would be unaligned.
      if (count === 0 || !isAligned(count, this.alignment)) break;
    }
    return done;
  }

  #readOrZero(offset: number, into: Uint8Array): void {
    into.fill(0, this.#readWhole(offset, into));
  }

  /** Writes whole units from aligned memory. */
  #writeWhole(offset: number, from: Uint8Array): void {
    let done = 0;
    while (done < from.length) {
      const count = this.#call(
        "write",
        () => fs.writeSync(this.#descriptor, from, done, from.length - done, offset + done),
      );
      const whole = alignDown(count, this.alignment);
      if (whole === 0) throw new HostError("ENOSPC", "write", this.path);
      done += whole;
    }
  }

  #call<T>(operation: string, body: () => T): T {
    for (;;) {
      try {
        return body();
      } catch (error) {
        const failure = HostError.from(error, operation, this.path);
        if (!(failure instanceof HostError && failure.errno === "EINTR")) throw failure;
      }
    }
  }
}

/**
 * The smallest unit that the file system takes. Where it takes a single byte it has not looked, as for a
 * hole or an empty file; then the largest is safe.
 */
function probeUnit(descriptor: number): number {
  for (const unit of [1, 512, 1024, 2048]) {
    try {
      fs.readSync(descriptor, bounce(), 0, unit, 0);
    } catch (error) {
      if (errnoOf(error) === "EINVAL") continue;
    }
    return unit === 1 ? LARGEST_UNIT : unit;
  }
  return LARGEST_UNIT;
}
