/** A host's disk that gets full, and fails in other ways. */
import { ImageError } from "../../lib/block/error.ts";
import type { Preallocation, ZeroFlags } from "../../lib/block/node.ts";
import { MemoryNode, type MemoryRequest } from "../_memory_node.ts";

/** Bytes of a block of the host's file system. */
const BLOCK = 4096;

/** Whether something failed because the host's disk did. */
export function isHostFailure(error: unknown): boolean {
  return error instanceof ImageError && (error.errno === "ENOSPC" || error.errno === "EIO") &&
    isHostFailureText(error.message);
}

/** Whether a diagnostic line gives such a failure as its reason. */
export function isHostFailureText(text: string): boolean {
  return /: (No space left on device|Input\/output error)$/.test(`: ${text}`);
}

/** The disk. */
export class HostDisk {
  /** Bytes that are left. */
  space: number;
  /** Asked before every request to a file; what it throws, the request throws, undone. */
  fault: ((request: MemoryRequest) => void) | undefined;
  /** Whether a request failed. */
  hasFailed = false;

  /** A disk with so many bytes left. */
  constructor(space = Infinity) {
    this.space = space;
  }

  /** Whether nothing finds room any more. */
  get isFull(): boolean {
    return this.space < BLOCK;
  }

  /** Lets the disk fail a request that is about to be done. */
  meet(request: MemoryRequest): void {
    try {
      this.fault?.(request);
    } catch (error) {
      this.hasFailed = true;
      throw error;
    }
  }
}

/**
 * A file on it. As local file systems do it, the part of a write that finds
 * room is written before the rest fails; zeroing takes space, discards and
 * unmapping zero writes give it back.
 */
export class HostFile extends MemoryNode {
  readonly #disk: HostDisk;
  /** Those that have space, by number. */
  readonly #blocks = new Set<number>();

  /** A file with the content of another one, whose space is not counted. */
  constructor(file: MemoryNode, disk: HostDisk) {
    const bytes = file.bytes();
    super({ filename: file.filename, bytes });
    this.#disk = disk;
    for (let at = 0; at < bytes.length; at += BLOCK) {
      if (bytes.subarray(at, at + BLOCK).some((byte) => byte !== 0)) this.#blocks.add(at / BLOCK);
    }
  }

  override async write(offset: number, from: Uint8Array): Promise<void> {
    const length = this.#take(offset, from.length);
    if (length > 0 || from.length === 0) await super.write(offset, from.subarray(0, length));
    if (length < from.length) throw this.#full();
  }

  override async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    if (flags.unmap) this.#give(offset, length);
    else if (this.#take(offset, length) < length) throw this.#full();
    await super.writeZeroes(offset, length, flags);
  }

  override async discard(offset: number, length: number): Promise<void> {
    this.#give(offset, length);
    await super.discard(offset, length);
  }

  override async resize(length: number, how: Preallocation): Promise<void> {
    const before = this.exactLength;
    if (length < before) this.#give(length, before - length);
    if (how !== "off" && length > before && this.#take(before, length - before) < length - before) {
      throw this.#full();
    }
    await super.resize(length, how);
  }

  #full(): ImageError {
    this.#disk.hasFailed = true;
    return ImageError.fromErrno("ENOSPC", { file: this.filename });
  }

  /** Takes space for a range as far as there is any: how many bytes of it have some. */
  #take(offset: number, length: number): number {
    const end = offset + length;
    for (let block = Math.floor(offset / BLOCK); block * BLOCK < end; block++) {
      if (this.#blocks.has(block)) continue;
      if (this.#disk.isFull) return Math.max(block * BLOCK - offset, 0);
      this.#disk.space -= BLOCK;
      this.#blocks.add(block);
    }
    return length;
  }

  #give(offset: number, length: number): void {
    for (const block of this.#blocks) {
      if (block * BLOCK < offset || (block + 1) * BLOCK > offset + length) continue;
      this.#blocks.delete(block);
      this.#disk.space += BLOCK;
    }
  }
}
