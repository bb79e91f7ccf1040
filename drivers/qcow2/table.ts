/** Upper half of the bits of an entry that are a host offset. */
export const OFFSET_HIGH = 0x00ffffff;
/** Lower half of them. */
export const OFFSET_LOW = 0xfffffe00;

/** High-word flags of L1 and L2 entries. */
export const COPIED_HIGH = 0x80000000;
/** High-word flag of compressed L2 entries. */
export const COMPRESSED_HIGH = 0x40000000;
/** Low-word flag of L2 entries that read as zeros. */
export const ZERO_LOW = 1;

/**
 * A table of big-endian 64-bit words as it lies on disk.
 *
 * Words are handled as two unsigned 32-bit halves: bigint arithmetic is a
 * hundred times slower, and these loops run over millions of entries.
 */
export class EntryTable {
  /** The bytes, as on disk. */
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  /** A table over `bytes`, whose length is a multiple of 8. */
  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Number of 64-bit words. */
  get length(): number {
    return this.bytes.length / 8;
  }

  /** Upper half of word `index`, unsigned. */
  high(index: number): number {
    return this.#view.getUint32(index * 8);
  }

  /** Lower half of word `index`, unsigned. */
  low(index: number): number {
    return this.#view.getUint32(index * 8 + 4);
  }

  /** Sets a word from its halves. */
  set(index: number, high: number, low: number): void {
    this.#view.setUint32(index * 8, high);
    this.#view.setUint32(index * 8 + 4, low);
  }

  /** Bits 9 to 55 of a word: a host offset in bytes. Exact up to 2^53; above that the caller's bounds refuse it. */
  offset(index: number): number {
    return (this.high(index) & OFFSET_HIGH) * 0x100000000 + ((this.low(index) & OFFSET_LOW) >>> 0);
  }

  /** Sets a word to a host offset in bytes with flags in its upper and lower half. */
  setOffset(index: number, offset: number, highFlags = 0, lowFlags = 0): void {
    this.set(
      index,
      (Math.floor(offset / 0x100000000) | highFlags) >>> 0,
      ((offset % 0x100000000) | lowFlags) >>> 0,
    );
  }

  /** A word, for messages. */
  word(index: number): bigint {
    return this.#view.getBigUint64(index * 8);
  }
}

/** A refcount table: its entries have no flags above the offset (section 4). */
export class RefcountTable extends EntryTable {
  /** Bits 9 to 63 of a word: a refcount block's offset in bytes. Exact up to 2^61. */
  override offset(index: number): number {
    return this.high(index) * 0x100000000 + ((this.low(index) & OFFSET_LOW) >>> 0);
  }
}
