/**
 * Apple's disk images (UDIF), for reading.
 *
 * @module
 */
import type { DriverContext, FormatDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode, Extent } from "../../lib/block/node.ts";
import type { UnpackCodec } from "../../lib/block/plan.ts";
import { requireRange } from "../../lib/block/range.ts";
import { ReadOnlyNode, requireReadOnly } from "../../lib/block/read_only_node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { CodecError, loadUnpacker } from "../../lib/codec/mod.ts";
import type { Chunk, ChunkTable } from "./chunks.ts";
import { readTable } from "./tables.ts";
import { readTrailer } from "./trailer.ts";

const SECTOR = 512;

/** The largest chunk that others unpack for us, bytes: they keep several. */
const MAX_SHARED = 2 << 20;

/** The driver. */
export const dmg: FormatDriver = {
  name: "dmg",
  transparent: false,
  openOptions: [],
  open: (file, _options, context) => DmgNode.open(file, context),
};

class DmgNode extends ReadOnlyNode {
  readonly driver = "dmg";
  readonly length: number;
  readonly #chunks: ChunkTable;
  /** The chunk that was unpacked last: who reads little reads what follows next. */
  #unpacked: { readonly chunk: Chunk; readonly bytes: Uint8Array } | undefined;

  private constructor(file: BlockNode, context: DriverContext, length: number, chunks: ChunkTable) {
    super(file, context);
    this.length = length;
    this.#chunks = chunks;
  }

  /** @throws {ImageError} for the checks of sections 1 and 2 of the format's reference, in their order. */
  static async open(file: BlockNode, context: DriverContext): Promise<DmgNode> {
    requireReadOnly(context);
    const trailer = await readTrailer(file, context);
    const chunks = await readTable(file, trailer, context);
    return new DmgNode(file, context, diskLength(trailer.length, context), chunks);
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    for (let at = 0; at < into.length;) {
      const { chunk, skip, length } = this.#chunkAt(offset + at, into.length - at);
      await this.#readChunk(chunk, skip, into.subarray(at, at + length));
      at += length;
    }
  }

  /** All is data, somewhere: that is what the reference knows. */
  extent(offset: number, length: number): Promise<Extent> {
    requireRange(this, offset, length);
    return Promise.resolve({ length, state: "data", compressed: false, parts: this.#parts });
  }

  readonly #parts = (offset: number, length: number): Extent => {
    const { chunk, skip, length: count } = this.#chunkAt(offset, length);
    const { stored, offset: position } = chunk;
    const size = chunk.count * SECTOR;
    const part = { length: count, compressed: false } as const;
    if (stored === undefined) return { ...part, state: "zero" };
    // What a chunk is short of reads as zeros, which only this node knows.
    const isWhole = stored !== "plain" || chunk.length >= size;
    if (position + chunk.length > this.file.length || !isWhole) return { ...part, state: "data" };
    if (stored === "plain") {
      return { ...part, state: "data", file: this.file, offset: position + skip };
    }
    if (size > MAX_SHARED) return { ...part, state: "data" };
    return {
      ...part,
      state: "data",
      packed: {
        file: this.file,
        offset: position,
        length: chunk.length,
        codec: stored,
        size,
        skip,
      },
    };
  };

  /**
   * The chunk that holds the byte `offset`, and how much of `length` bytes from there.
   *
   * @throws {ImageError} `EIO` where there is none.
   */
  #chunkAt(offset: number, length: number): { chunk: Chunk; skip: number; length: number } {
    const chunk = this.#chunks.find(Math.floor(offset / SECTOR));
    if (chunk === undefined) {
      throw ImageError.fromErrno("EIO", { file: this.filename, field: "chunks" });
    }
    const skip = offset - chunk.first * SECTOR;
    return { chunk, skip, length: Math.min(chunk.count * SECTOR - skip, length) };
  }

  async #readChunk(chunk: Chunk, skip: number, into: Uint8Array): Promise<void> {
    switch (chunk.stored) {
      case undefined:
        into.fill(0);
        return;
      case "plain": {
        const stored = Math.min(Math.max(chunk.length - skip, 0), into.length);
        await readPadded(this.file, chunk.offset + skip, into.subarray(0, stored));
        into.fill(0, stored);
        return;
      }
      default:
        into.set((await this.#unpack(chunk, chunk.stored)).subarray(skip, skip + into.length));
    }
  }

  async #unpack(chunk: Chunk, codec: UnpackCodec): Promise<Uint8Array> {
    if (this.#unpacked?.chunk === chunk) return this.#unpacked.bytes;
    // The largest chunks are of many MiB: one at a time is enough.
    this.#unpacked = undefined;
    const available = Math.max(this.file.length - chunk.offset, 0);
    const packed = new Uint8Array(Math.min(chunk.length, available));
    await readPadded(this.file, chunk.offset, packed);
    const bytes = new Uint8Array(chunk.count * SECTOR);
    const unpacker = await loadUnpacker(codec);
    try {
      unpacker.unpack(packed, bytes);
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      throw ImageError.fromErrno("EIO", {
        file: this.filename,
        field: `chunk of sector ${chunk.first}`,
        cause: error,
      });
    }
    this.#unpacked = { chunk, bytes };
    return bytes;
  }
}

/** The length of a disk that is not too long. */
function diskLength(length: bigint, { filename }: DriverContext): number {
  const refuse = (message: string) =>
    new ImageError(message, { errno: "EFBIG", file: filename, field: "sector count" });
  if (length >= 1n << 63n) throw refuse("Could not refresh total sector count: File too large");
  if (length > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw refuse(
      `Image size ${length} exceeds the supported maximum of ${Number.MAX_SAFE_INTEGER} bytes`,
    );
  }
  return Number(length);
}
