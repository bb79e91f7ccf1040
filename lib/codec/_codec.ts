/**
 * What the compressions have in common.
 *
 * @module
 */

/** The name of a compression that is read and written. */
export type PackerName = "deflate" | "zlib" | "zlib-exact" | "zstd";

/** The name of a compression. */
export type CodecName = PackerName | "adc" | "bzip2" | "lzfse";

/** The packed bytes are damaged, or end too early; the message says which. */
export class CodecError extends Error {
  /** Tells it from other errors where classes do not. */
  override readonly name = "CodecError";
}

/** A loaded compression, for reading. All calls are synchronous, and no object serves two threads. */
export interface Unpacker {
  /** Which one. */
  readonly name: CodecName;
  /**
   * Fills all of `out` from `packed`; what follows the packed bytes there is ignored. Throws
   * {@linkcode CodecError} when they are damaged or end before `out` is full; `out` then holds anything.
   */
  unpack(packed: Uint8Array, out: Uint8Array): void;
}

/** The same, for writing too. */
export interface Codec extends Unpacker {
  /** Which one. */
  readonly name: PackerName;
  /** The level that `pack` uses unless told. */
  readonly defaultLevel: number;
  /** The lowest and the highest level. */
  readonly levels: readonly [lowest: number, highest: number];
  /**
   * Packs `bytes` into `out` and returns the packed length, or `null` when it does not fit; `out` then
   * holds anything. Throws `RangeError` for a level outside of `levels`.
   */
  pack(bytes: Uint8Array, out: Uint8Array, level?: number): number | null;
}

/** The level to use. Throws `RangeError` for one that the codec does not have. */
export function levelFor(codec: Codec, level: number | undefined): number {
  const [lowest, highest] = codec.levels;
  const used = level ?? codec.defaultLevel;
  if (!(Number.isInteger(used) && used >= lowest && used <= highest)) {
    throw new RangeError(`${codec.name} has the levels ${lowest} to ${highest}, not ${used}`);
  }
  return used;
}
