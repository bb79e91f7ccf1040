/**
 * Open images for programs: reading, writing, where data lies, streams of bytes.
 *
 * @module
 */
import { type CacheMode, READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { requireRange } from "../block/range.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { type ImageReference, openImage as openNode } from "../graph/open.ts";
import { type MapEntry, mapNode } from "./map.ts";

/** How to open an image. */
export interface OpenOptions {
  /** Writing too. */
  readonly writable?: boolean;
  /** Open it even if others write to it meanwhile (`-U`). Not together with `writable`. */
  readonly forceShare?: boolean;
  /** How the host caches the image, default writeback. */
  readonly cache?: CacheMode;
  /** Leave the backing file alone: what is not allocated in the image itself reads as zeros. */
  readonly noBacking?: boolean;
}

/** A part of a disk, bytes. */
export interface ByteRange {
  /** First byte, default 0. */
  readonly start?: number;
  /** First byte behind the part, default the disk's end. */
  readonly end?: number;
}

/** Bytes of a chunk that a stream reads at once, unless its reader brings a buffer. */
const CHUNK = 1 << 20;

/**
 * Opens an image with its backing files.
 *
 * ```ts
 * import { createImage, openImage } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const filename = await Deno.makeTempFile();
 * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
 * {
 *   await using disk = await openImage(filename, { writable: true });
 *   await disk.write(4096, new TextEncoder().encode("hello"));
 *   const bytes = new Uint8Array(5);
 *   await disk.read(4096, bytes);
 *   assertEquals(new TextDecoder().decode(bytes), "hello");
 * }
 * await Deno.remove(filename);
 * ```
 *
 * An image may also be named as the commands take it: by a `json:` name, or by a list of options. The
 * secrets that such options name come with the environment, by their ids.
 *
 * ```ts
 * import { createImage, openImage, QUIET } from "@qimg/qimg";
 * import { assertEquals, assertRejects } from "@std/assert";
 *
 * const filename = await Deno.makeTempFile();
 * const secrets = new Map([["s0", new TextEncoder().encode("correct horse battery staple")]]);
 * await createImage({
 *   filename,
 *   format: "qcow2",
 *   size: 1024 * 1024,
 *   options: [["encrypt.format", "luks"], ["encrypt.key-secret", "s0"], ["encrypt.iter-time", "10"]],
 * }, { ...QUIET, secrets });
 *
 * const list = `driver=qcow2,encrypt.key-secret=s0,file.filename=${filename.replaceAll(",", ",,")}`;
 * {
 *   await using disk = await openImage({ filename: list, imageOptions: true }, {}, { ...QUIET, secrets });
 *   assertEquals(disk.length, 1024 * 1024);
 * }
 * const name = `json:${JSON.stringify({ driver: "raw", offset: 512, file: { filename } })}`;
 * {
 *   await using bytes = await openImage(name);
 *   assertEquals(bytes.filename.startsWith("json:"), true);
 * }
 * // Without the secret there is nothing to see.
 * await assertRejects(() => openImage({ filename: list, imageOptions: true }), Error, "No secret");
 * await Deno.remove(filename);
 * ```
 *
 * @throws {ImageError} `Could not open '<name>': <reason>`; nothing stays open then.
 */
export async function openImage(
  image: ImageReference | string,
  options: OpenOptions = {},
  environment: Environment = QUIET,
): Promise<Image> {
  const reference = typeof image === "string" ? { filename: image } : image;
  const { writable = false, forceShare = false, noBacking = false } = options;
  const mode = {
    ...READ_ONLY,
    writable,
    forceShare,
    noBacking,
    unmap: writable,
    cache: options.cache ?? READ_ONLY.cache,
  };
  return new Image(await openNode(reference, mode, environment));
}

/**
 * An open image: the disk that a guest sees, whatever the format and however many backing files.
 *
 * Requests must lie within the disk; they may run at the same time. Closing an image that was written to
 * flushes it.
 */
export class Image implements AsyncDisposable {
  readonly #node: BlockNode;

  /** {@linkcode openImage} makes them. */
  constructor(node: BlockNode) {
    this.#node = node;
  }

  /** The name as messages show it. */
  get filename(): string {
    return this.#node.filename;
  }

  /** The format's name: `qcow2`. */
  get format(): string {
    return this.#node.driver;
  }

  /** The size of the disk, bytes. */
  get length(): number {
    return this.#node.length;
  }

  /** Whether writes are refused. */
  get readOnly(): boolean {
    return this.#node.readOnly;
  }

  /** Bytes that the format allocates together, 0 where it has no such unit. */
  get clusterSize(): number {
    return this.#node.limits.clusterSize;
  }

  /**
   * Fills `into` with the bytes at `offset`.
   *
   * @throws {ImageError} `EIO` for what reaches past the end, and for failed I/O.
   */
  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this.#node, offset, into.length);
    if (into.length > 0) await this.#node.read(offset, into);
  }

  /**
   * Writes `from` at `offset`.
   *
   * @throws {ImageError} `EIO` for what reaches past the end, and for failed I/O.
   */
  async write(offset: number, from: Uint8Array): Promise<void> {
    requireRange(this.#node, offset, from.length);
    if (from.length > 0) await this.#node.write(offset, from);
  }

  /**
   * Makes `length` bytes at `offset` read as zeros, and gives their space back where that can be done.
   *
   * @throws {ImageError} as {@linkcode write} does.
   */
  async writeZeroes(offset: number, length: number): Promise<void> {
    requireRange(this.#node, offset, length);
    if (length > 0) await this.#node.writeZeroes(offset, length, { unmap: true });
  }

  /**
   * Returns when everything written so far is on stable storage.
   *
   * @throws {ImageError} for failed I/O.
   */
  async flush(): Promise<void> {
    await this.#node.flush();
  }

  /**
   * The runs of the disk with one state each, in order and without gaps: where data is, and what is zeros
   * without having to be read.
   *
   * ```ts
   * import { createImage, openImage } from "@qimg/qimg";
   * import { assertEquals } from "@std/assert";
   *
   * const filename = await Deno.makeTempFile();
   * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
   * {
   *   await using disk = await openImage(filename, { writable: true });
   *   await disk.write(0, new Uint8Array(65536).fill(1));
   *   const runs = [];
   *   for await (const { start, length, zero } of disk.extents()) runs.push([start, length, zero]);
   *   assertEquals(runs, [[0, 65536, false], [65536, 983040, true]]);
   * }
   * await Deno.remove(filename);
   * ```
   *
   * @throws {ImageError} for failed I/O.
   */
  async *extents(range: ByteRange = {}): AsyncIterableIterator<MapEntry> {
    const { start, end } = this.#clamped(range);
    for await (const batch of mapNode(this.#node, start, end)) yield* batch;
  }

  /**
   * The bytes of the disk as a stream. It reads no faster than it is read, into its reader's own buffers
   * if he has some (`getReader({ mode: "byob" })`), and never holds more than a chunk of 1 MiB.
   *
   * ```ts
   * import { createImage, openImage } from "@qimg/qimg";
   * import { assertEquals } from "@std/assert";
   *
   * const filename = await Deno.makeTempFile();
   * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
   * {
   *   await using disk = await openImage(filename);
   *   let length = 0;
   *   for await (const chunk of disk.readable({ end: 5000 })) length += chunk.length;
   *   assertEquals(length, 5000);
   * }
   * await Deno.remove(filename);
   * ```
   */
  readable(range: ByteRange = {}): ReadableStream<Uint8Array<ArrayBuffer>> {
    const { start, end } = this.#clamped(range);
    const node = this.#node;
    let at = start;
    return new ReadableStream({
      type: "bytes",
      autoAllocateChunkSize: CHUNK,
      async pull(controller) {
        // Always there with chunks that the stream allocates.
        const request = controller.byobRequest!;
        const view = request.view!;
        const length = Math.min(view.byteLength, end - at);
        if (length === 0) {
          // An empty range: a stream without bytes is closed before its reader is answered.
          controller.close();
          request.respond(0);
          return;
        }
        await node.read(at, new Uint8Array(view.buffer, view.byteOffset, length));
        at += length;
        request.respond(length);
        if (at === end) controller.close();
      },
    });
  }

  /** Closes the image and everything below and behind it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#node[Symbol.asyncDispose]();
  }

  #clamped({ start = 0, end = this.length }: ByteRange): { start: number; end: number } {
    const from = Math.max(start, 0);
    return { start: from, end: Math.max(Math.min(end, this.length), from) };
  }
}
