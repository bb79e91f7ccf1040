import { ImageError } from "../../lib/block/error.ts";
import { viewOf } from "../../lib/bytes/endian.ts";
import { readPadded } from "./_read.ts";
import { hex, signalCorruption } from "./corruption.ts";
import type { Qcow2Image } from "./image.ts";
import type { RefcountFormat } from "./refcount_format.ts";

/** Flag bits of a refcount table entry, not part of the block's offset. */
const RESERVED_LOW = 0x1ff;

/** A refcount block. */
export interface StoredBlock {
  /** Its bytes, valid until the next block is asked for; `undefined`: no block, all refcounts are 0. */
  readonly bytes: Uint8Array | undefined;
  /** Why it cannot be read. */
  readonly error: ImageError | undefined;
}

const NO_BLOCK: StoredBlock = { bytes: undefined, error: undefined };

/**
 * The stored refcounts, for a check: block after block, without crowding the
 * image's cache (what it holds counts, though, for it may be newer than the
 * file), and after a corruption that makes the image unusable, too.
 */
export class StoredRefcounts {
  /** Refcounts of one block. */
  readonly perBlock: number;
  /** How they lie in it. */
  readonly format: RefcountFormat;
  readonly #image: Qcow2Image;
  readonly #buffer: Uint8Array;

  /** The refcounts that the image's refcount table leads to. */
  constructor(image: Qcow2Image) {
    this.#image = image;
    this.format = image.refcounts.format;
    this.perBlock = this.format.perBlock;
    this.#buffer = new Uint8Array(image.geometry.clusterSize);
  }

  /** Block `index`. A misplaced one is a corruption, fatal if the image is writable. */
  async block(index: number): Promise<StoredBlock> {
    const { refcounts, file, geometry } = this.#image;
    const { table } = refcounts;
    if (index >= table.length) return NO_BLOCK;
    const offset = table.offset(index);
    if (offset === 0) return NO_BLOCK;
    if ((table.low(index) & (geometry.clusterSize - 1) & ~RESERVED_LOW) !== 0) {
      const exact = table.word(index) & ~BigInt(RESERVED_LOW);
      const text = `Refblock offset 0x${exact.toString(16)} unaligned ` +
        `(reftable index: ${hex(index)})`;
      return { bytes: undefined, error: await signalCorruption(this.#image, text) };
    }
    try {
      const cached = refcounts.cache.peek(offset);
      if (cached === undefined) await readPadded(file, offset, this.#buffer);
      else this.#buffer.set(cached.entries.bytes);
    } catch (error) {
      return { bytes: undefined, error: ImageError.from(error) };
    }
    return { bytes: this.#buffer, error: undefined };
  }

  /** The refcount of any cluster, exact; `undefined` where it cannot be read. */
  async get(cluster: number): Promise<bigint | undefined> {
    const index = Math.floor(cluster / this.perBlock);
    const { bytes, error } = await this.block(index);
    if (error !== undefined) return undefined;
    return bytes === undefined ? 0n : this.exact(bytes, cluster % this.perBlock);
  }

  /** Refcount `index` of a block, exact. */
  exact(block: Uint8Array, index: number): bigint {
    return this.format.bits === 64
      ? viewOf(block).getBigUint64(index * 8)
      : BigInt(this.format.get(block, index));
  }
}
