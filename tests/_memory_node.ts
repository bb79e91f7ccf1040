/** A protocol node in memory: sparse, growing, with a log of what was done and faults on demand. */
import { ImageError } from "../lib/block/error.ts";
import type { BlockNode, Extent, NodeLimits, Preallocation } from "../lib/block/node.ts";
import type { ZeroFlags } from "../lib/block/node.ts";

const CHUNK = 4096;

/** One request that reached the node, in the order in which they came. */
export type MemoryRequest =
  | { readonly kind: "read" | "zero" | "discard"; readonly offset: number; readonly length: number }
  | {
    readonly kind: "write";
    readonly offset: number;
    readonly length: number;
    readonly bytes: Uint8Array;
  }
  | { readonly kind: "resize"; readonly offset: 0; readonly length: number }
  | { readonly kind: "flush"; readonly offset: 0; readonly length: 0 };

/** How a {@linkcode MemoryNode} differs from a plain, writable, silent one. */
export interface MemoryNodeOptions {
  /** Name in messages. */
  readonly filename?: string;
  /** First content. */
  readonly bytes?: Uint8Array;
  /** Refuse writes. */
  readonly readOnly?: boolean;
  /** Called before a request is done; what it throws, the request throws. */
  readonly before?: (request: MemoryRequest) => void;
}

/**
 * As a local file behaves: `length` rounded up to 512, writes past the end
 * grow it, reads past `length` throw `EIO`, a hole reads as zeros and takes no
 * memory, so that files of many GiB with little in them are fine.
 */
export class MemoryNode implements BlockNode {
  readonly driver = "file";
  readonly filename: string;
  readonly readOnly: boolean;
  readonly limits: NodeLimits = { requestAlignment: 1, clusterSize: 0, zeroAlignment: 0 };
  readonly children = [];
  /** Every writing request so far (with its bytes), flushes too; reads are not kept. */
  readonly log: MemoryRequest[] = [];
  /** Whether `log` is filled. */
  logging = false;
  /** Set by disposal; every later request throws. */
  closed = false;
  readonly #chunks = new Map<number, Uint8Array>();
  #length = 0;
  #before: ((request: MemoryRequest) => void) | undefined;

  /** An empty node, or one with `bytes`. */
  constructor(options: MemoryNodeOptions = {}) {
    this.filename = options.filename ?? "memory.img";
    this.readOnly = options.readOnly ?? false;
    if (options.bytes !== undefined) this.#store(0, options.bytes);
    this.#before = options.before;
  }

  /** Bytes, rounded up to 512. */
  get length(): number {
    return Math.ceil(this.#length / 512) * 512;
  }

  /** Bytes. */
  get exactLength(): number {
    return this.#length;
  }

  /** Replaces the hook that sees every request first (and may throw). */
  onRequest(before: ((request: MemoryRequest) => void) | undefined): void {
    this.#before = before;
  }

  /** The whole content; for small files. */
  bytes(): Uint8Array<ArrayBuffer> {
    const all = new Uint8Array(this.#length);
    this.#load(0, all);
    return all;
  }

  /** A part of the content, zeros past the end. */
  slice(offset: number, length: number): Uint8Array<ArrayBuffer> {
    const part = new Uint8Array(length);
    this.#load(offset, part);
    return part;
  }

  /** A writable node with the same content, without log and hook. */
  copy(filename = this.filename): MemoryNode {
    const other = new MemoryNode({ filename });
    for (const [index, chunk] of this.#chunks) other.#chunks.set(index, chunk.slice());
    other.#length = this.#length;
    return other;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#request({ kind: "read", offset, length: into.length }, () => {
      if (offset + into.length > this.length) throw ImageError.fromErrno("EIO");
      this.#load(offset, into);
    });
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    const bytes = this.logging ? from.slice() : from;
    return this.#request({ kind: "write", offset, length: from.length, bytes }, () => {
      this.#store(offset, from);
    });
  }

  writeZeroes(offset: number, length: number, _flags: ZeroFlags): Promise<void> {
    return this.#request({ kind: "zero", offset, length }, () => {
      this.#erase(offset, offset + length);
      this.#length = Math.max(this.#length, offset + length);
    });
  }

  discard(offset: number, length: number): Promise<void> {
    return this.#request({ kind: "discard", offset, length }, () => {
      this.#erase(offset, Math.min(offset + length, this.#length));
    });
  }

  extent(offset: number, length: number): Promise<Extent> {
    if (length < 1 || offset + length > this.length) {
      return Promise.reject(ImageError.fromErrno("EIO"));
    }
    const data = this.#chunks.has(Math.floor(offset / CHUNK));
    let end = (Math.floor(offset / CHUNK) + 1) * CHUNK;
    while (end < offset + length && this.#chunks.has(end / CHUNK) === data) end += CHUNK;
    return Promise.resolve({
      length: Math.min(end - offset, length),
      state: data ? "data" : "zero",
      compressed: false,
      file: this,
      offset,
    });
  }

  flush(): Promise<void> {
    return this.#request({ kind: "flush", offset: 0, length: 0 }, () => {});
  }

  resize(length: number, _how: Preallocation): Promise<void> {
    return this.#request({ kind: "resize", offset: 0, length }, () => {
      if (length < this.#length) this.#erase(length, this.#length);
      this.#length = length;
    });
  }

  allocatedSize(): Promise<number> {
    return Promise.resolve(this.#chunks.size * CHUNK);
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  async #request(request: MemoryRequest, run: () => void): Promise<void> {
    // A real file answers later, too: callers that forget to wait are found out.
    await Promise.resolve();
    if (this.closed) throw new Error(`${this.filename}: ${request.kind} after close`);
    const { kind, offset, length } = request;
    if (!Number.isInteger(offset) || offset < 0 || !Number.isInteger(length) || length < 0) {
      throw new Error(`${this.filename}: ${kind} at ${offset}, ${length} bytes`);
    }
    // Damaged tables lead to such places; no file gets that long.
    if (offset + length > Number.MAX_SAFE_INTEGER) throw ImageError.fromErrno("EFBIG");
    if (this.readOnly && kind !== "read" && kind !== "flush") throw ImageError.fromErrno("EBADF");
    this.#before?.(request);
    if (this.logging && kind !== "read") this.log.push(request);
    run();
  }

  #load(offset: number, into: Uint8Array): void {
    let done = 0;
    while (done < into.length) {
      const start = (offset + done) % CHUNK;
      const count = Math.min(CHUNK - start, into.length - done);
      const chunk = this.#chunks.get((offset + done - start) / CHUNK);
      if (chunk === undefined) into.fill(0, done, done + count);
      else into.set(chunk.subarray(start, start + count), done);
      done += count;
    }
  }

  #store(offset: number, from: Uint8Array): void {
    let done = 0;
    while (done < from.length) {
      const start = (offset + done) % CHUNK;
      const count = Math.min(CHUNK - start, from.length - done);
      const index = (offset + done - start) / CHUNK;
      let chunk = this.#chunks.get(index);
      if (chunk === undefined) this.#chunks.set(index, chunk = new Uint8Array(CHUNK));
      chunk.set(from.subarray(done, done + count), start);
      done += count;
    }
    this.#length = Math.max(this.#length, offset + from.length);
  }

  #erase(start: number, end: number): void {
    const erase = (index: number, chunk: Uint8Array) => {
      const from = Math.max(start - index * CHUNK, 0);
      const to = Math.min(end - index * CHUNK, CHUNK);
      if (from === 0 && to === CHUNK) this.#chunks.delete(index);
      else chunk.fill(0, from, to);
    };
    // Whichever is less work: the range's chunks or the chunks there are.
    if ((end - start) / CHUNK < this.#chunks.size) {
      for (let index = Math.floor(start / CHUNK); index * CHUNK < end; index++) {
        const chunk = this.#chunks.get(index);
        if (chunk !== undefined) erase(index, chunk);
      }
    } else {
      for (const [index, chunk] of this.#chunks) {
        if (index * CHUNK < end && (index + 1) * CHUNK > start) erase(index, chunk);
      }
    }
  }
}
