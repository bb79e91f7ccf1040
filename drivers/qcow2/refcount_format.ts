/** Refcounts of one width in a block's bytes (section 4). */
export interface RefcountFormat {
  /** Width, bits. */
  readonly bits: number;
  /** Largest value (2^64 stands for 2^64 - 1). */
  readonly maximum: number;
  /** Refcounts in a block. */
  readonly perBlock: number;
  /** Refcount `index`; exact below 2^53. */
  get(block: Uint8Array, index: number): number;
  /** Sets refcount `index`. */
  set(block: Uint8Array, index: number, value: number): void;
  /** First index in `[from, to)` with refcount 0, `to` if there is none. */
  firstFree(block: Uint8Array, from: number, to: number): number;
  /** First index in `[from, to)` with a refcount other than 0, `to` if there is none. */
  firstUsed(block: Uint8Array, from: number, to: number): number;
}

/** The format for `2 ** order` bits in blocks of `blockSize` bytes. */
export function refcountFormat(_order: number, _blockSize: number): RefcountFormat {
  throw new Error("being written");
}
