/**
 * Compressed loop images (cloop), version 2, for reading.
 *
 * @module
 */
import type { DriverContext, FormatDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode, Extent } from "../../lib/block/node.ts";
import { requireRange } from "../../lib/block/range.ts";
import { ReadOnlyNode, requireReadOnly } from "../../lib/block/read_only_node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { readU32BE, readU64BE } from "../../lib/bytes/endian.ts";
import { CodecError, loadCodec } from "../../lib/codec/mod.ts";

const SECTOR = 512;
const HEADER = 128;
const OFFSETS = HEADER + 8;
const MAX_BLOCK_SIZE = 64 << 20;
const MAX_BLOCKS = 0xffffffff / 8 >>> 0;
const MAX_TABLE = 512 << 20;
/** The same in an image that nobody vouches for. */
const MAX_TABLE_UNTRUSTED = 16 << 20;
/** The most that a block may take in the file, bytes. */
const MAX_PACKED = BigInt(2 * MAX_BLOCK_SIZE);
/** What is read of the table in one go, bytes. */
const STEP = 1 << 20;

/** The driver. */
export const cloop: FormatDriver = {
  name: "cloop",
  transparent: false,
  openOptions: [],
  open: (file, _options, context) => CloopNode.open(file, context),
};

/** What a header and its table say. */
interface Layout {
  /** Bytes of a block when inflated. */
  readonly blockSize: number;
  /** Bytes of the disk. */
  readonly length: number;
  /** Where blocks begin in the file, and the last one ends. Blocks beyond lie nowhere. */
  readonly offsets: Float64Array;
}

class CloopNode extends ReadOnlyNode {
  readonly driver = "cloop";
  readonly length: number;
  readonly #layout: Layout;
  /** The block that was read last: who reads little reads what follows next. */
  #block = -1;
  #bytes = new Uint8Array(0);

  private constructor(file: BlockNode, context: DriverContext, layout: Layout) {
    super(file, context);
    this.length = layout.length;
    this.#layout = layout;
  }

  /** @throws {ImageError} for the checks of section 2 of the format's reference, in its order. */
  static async open(file: BlockNode, context: DriverContext): Promise<CloopNode> {
    requireReadOnly(context);
    return new CloopNode(file, context, await readLayout(file, context));
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    requireRange(this, offset, into.length);
    const { blockSize } = this.#layout;
    for (let at = 0; at < into.length;) {
      const block = Math.floor((offset + at) / blockSize);
      const skip = (offset + at) % blockSize;
      const length = Math.min(blockSize - skip, into.length - at);
      const bytes = this.#block === block ? this.#bytes : await this.#inflate(block);
      into.set(bytes.subarray(skip, skip + length), at);
      at += length;
    }
  }

  /** All is data, somewhere: that is what the reference knows. */
  extent(offset: number, length: number): Promise<Extent> {
    requireRange(this, offset, length);
    return Promise.resolve({ length, state: "data", compressed: false });
  }

  #place(block: number): { from: number; size: number } {
    const { offsets } = this.#layout;
    const from = offsets[block] ?? 0;
    const size = (offsets[block + 1] ?? from) - from;
    return { from, size: Math.min(size, Math.max(this.file.length - from, 0)) };
  }

  async #inflate(block: number): Promise<Uint8Array> {
    const { from, size } = this.#place(block);
    const packed = new Uint8Array(size);
    await readPadded(this.file, from, packed);
    const codec = await loadCodec("zlib-exact");
    const bytes = new Uint8Array(this.#layout.blockSize);
    try {
      codec.unpack(packed, bytes);
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      throw ImageError.fromErrno("EIO", {
        file: this.filename,
        field: `block ${block}`,
        cause: error,
      });
    }
    [this.#block, this.#bytes] = [block, bytes];
    return bytes;
  }
}

async function readLayout(file: BlockNode, context: DriverContext): Promise<Layout> {
  const refuse = (message: string, field: string, errno: "EINVAL" | "ENOMEM" = "EINVAL") =>
    new ImageError(message, { errno, file: context.filename, field });
  const header = new Uint8Array(OFFSETS - HEADER);
  await readPadded(file, HEADER, header);
  const blockSize = readU32BE(header, 0);
  if (blockSize % SECTOR !== 0) {
    throw refuse(`block_size ${blockSize} must be a multiple of 512`, "block size");
  }
  if (blockSize === 0) throw refuse("block_size cannot be zero", "block size");
  if (blockSize > MAX_BLOCK_SIZE) {
    throw refuse(`block_size ${blockSize} must be 64 MB or less`, "block size");
  }
  const blocks = readU32BE(header, 4);
  if (blocks > MAX_BLOCKS) {
    throw refuse(`n_blocks ${blocks} must be ${MAX_BLOCKS} or less`, "number of blocks");
  }
  // In the 32 bits of the reference the largest table is none at all.
  const tableSize = (blocks + 1) * 8;
  if (tableSize >= 2 ** 32) {
    throw refuse("Could not allocate offsets table", "number of blocks", "ENOMEM");
  }
  if (tableSize > (context.untrusted ? MAX_TABLE_UNTRUSTED : MAX_TABLE)) {
    throw refuse(
      "image requires too many offsets, try increasing block size",
      "number of blocks",
    );
  }
  // The disk's sectors are counted in 32 bits.
  const length = Number(BigInt.asUintN(32, BigInt(blocks) * BigInt(blockSize / SECTOR))) * SECTOR;
  return { blockSize, length, offsets: await readOffsets(file, blocks + 1, refuse) };
}

/** Reads `count` offsets, as far as the file has them: behind its end all are 0. */
async function readOffsets(
  file: BlockNode,
  count: number,
  refuse: (message: string, field: string) => ImageError,
): Promise<Float64Array> {
  const stored = Math.min(count, Math.max(Math.floor((file.length - OFFSETS) / 8), 0));
  const offsets = new Float64Array(stored);
  let last = 0n;
  const check = (index: number, offset: bigint) => {
    if (index > 0 && offset < last) {
      throw refuse(
        `offsets not monotonically increasing at index ${index}, image file is corrupt`,
        "offsets",
      );
    }
    if (index > 0 && offset - last > MAX_PACKED) {
      throw refuse(
        `invalid compressed block size at index ${index}, image file is corrupt`,
        "offsets",
      );
    }
    last = offset;
  };
  const step = new Uint8Array(Math.min(STEP, stored * 8));
  for (let index = 0; index < stored;) {
    const bytes = step.subarray(0, Math.min(STEP, (stored - index) * 8));
    await file.read(OFFSETS + index * 8, bytes);
    for (let at = 0; at < bytes.length; at += 8, index++) {
      const offset = readU64BE(bytes, at);
      check(index, offset);
      offsets[index] = Number(offset);
    }
  }
  if (stored < count) check(stored, 0n);
  return offsets;
}
