/**
 * The compressions of clusters: packing into a bounded space and unpacking of exactly one cluster.
 *
 * Loading is asynchronous, once; after that all calls are synchronous, as workers want them.
 *
 * @module
 */

/** A compression: raw deflate with a window of 4 KiB, or one zstd frame. */
export type CodecName = "deflate" | "zstd";

/** Thrown by `unpack`: the packed bytes are damaged or end too early. The message says which. */
export class CodecError extends Error {
  override readonly name = "CodecError";
}

/** A loaded compression. */
export interface Codec {
  /** Which one. */
  readonly name: CodecName;
  /** The level that `pack` uses unless told. */
  readonly defaultLevel: number;
  /** The lowest and highest level. */
  readonly levels: readonly [lowest: number, highest: number];
  /**
   * Packs `bytes` into `out` and returns the packed length, or `null` when it would not fit. Throws `RangeError` for a
   * level outside `levels`.
   */
  pack(bytes: Uint8Array, out: Uint8Array, level?: number): number | null;
  /**
   * Fills all of `out` from the packed bytes; what follows them in `packed` is ignored. Throws {@linkcode CodecError}
   * when they are damaged or end before `out` is full.
   */
  unpack(packed: Uint8Array, out: Uint8Array): void;
}

/** Loads a compression; later calls answer the same object. */
export function loadCodec(_name: CodecName): Promise<Codec> {
  throw new Error("being written");
}
