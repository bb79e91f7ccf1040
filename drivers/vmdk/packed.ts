/**
 * Compressed grains (section 6 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { PackedRun } from "../../lib/block/plan.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { readU32LE } from "../../lib/bytes/endian.ts";
import { type Codec, CodecError, loadCodec } from "../../lib/codec/mod.ts";
import { GRAIN_MARKER, MAX_PACKED_GRAIN } from "./_layout.ts";
import type { GrainExtent } from "./extent.ts";

/** A compressed grain in its file. */
interface PackedGrain {
  /** Where the compressed bytes begin. */
  readonly offset: number;
  /** How many there are at most. */
  readonly length: number;
}

/** Where the bytes of a grain at `position` are; `undefined` for a marker that is damaged. */
async function packedGrain(
  extent: GrainExtent,
  position: number,
): Promise<PackedGrain | undefined> {
  const { grainSize, file } = extent;
  let offset = position;
  let length = grainSize;
  if (extent.packed?.markers) {
    const marker = new Uint8Array(GRAIN_MARKER);
    await readPadded(file, position, marker);
    length = readU32LE(marker, 8);
    offset += GRAIN_MARKER;
  }
  if (length === 0 || length > 2 * grainSize) return undefined;
  return { offset, length: Math.min(length, Math.max(file.length - offset, 0)) };
}

/** Guest bytes of the grain that holds byte `offset` of an extent: the last one ends with the disk. */
function grainLength({ grainSize, length }: GrainExtent, offset: number): number {
  const start = offset - offset % grainSize;
  return Math.min(grainSize, length - start);
}

/**
 * How others get at the byte `offset` of an extent, in the grain at `position`; `undefined` where they
 * cannot, and reading will say why.
 */
export async function packedRun(
  extent: GrainExtent,
  offset: number,
  position: number,
): Promise<PackedRun | undefined> {
  if (extent.grainSize > MAX_PACKED_GRAIN) return undefined;
  const grain = await packedGrain(extent, position);
  if (grain === undefined || grain.length === 0) return undefined;
  return {
    file: extent.file,
    ...grain,
    codec: "zlib",
    size: grainLength(extent, offset),
    skip: offset % extent.grainSize,
  };
}

/** Inflates grains, and keeps the last one: who reads little reads what follows next. */
export class PackedReader {
  #codec: Codec | undefined;
  #extent: GrainExtent | undefined;
  #position = -1;
  #grain = new Uint8Array(0);
  #generation = 0;

  /**
   * Fills `into` from the byte `offset` of an extent, within the grain at `position`.
   *
   * @throws {ImageError} `EINVAL` for what cannot be inflated as far as it is wanted.
   */
  async read(
    extent: GrainExtent,
    offset: number,
    position: number,
    into: Uint8Array,
  ): Promise<void> {
    const inside = offset % extent.grainSize;
    if (this.#extent !== extent || this.#position !== position) {
      const generation = this.#generation;
      const bytes = await this.#inflate(
        extent,
        position,
        grainLength(extent, offset),
        inside + into.length,
      );
      if (bytes.length < grainLength(extent, offset) || generation !== this.#generation) {
        into.set(bytes.subarray(inside, inside + into.length));
        return;
      }
      this.#grain = bytes;
      this.#extent = extent;
      this.#position = position;
    }
    into.set(this.#grain.subarray(inside, inside + into.length));
  }

  /** Forgets what was read: it may be overwritten. */
  forget(): void {
    this.#extent = undefined;
    this.#generation++;
  }

  /** The whole grain of `whole` bytes, or the first `needed` if there are no more. */
  async #inflate(
    extent: GrainExtent,
    position: number,
    whole: number,
    needed: number,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const refuse = (cause?: unknown) =>
      ImageError.fromErrno("EINVAL", { file: extent.file.filename, field: "grain", cause });
    if (extent.grainSize > MAX_PACKED_GRAIN) {
      throw new ImageError(
        `Compressed grains of ${extent.grainSize} bytes are not supported`,
        { errno: "ENOTSUP", file: extent.file.filename, field: "grain size" },
      );
    }
    const grain = await packedGrain(extent, position);
    if (grain === undefined) throw refuse();
    const packed = new Uint8Array(grain.length);
    await readPadded(extent.file, grain.offset, packed);
    this.#codec ??= await loadCodec("zlib");
    for (const length of whole === needed ? [whole] : [whole, needed]) {
      const bytes = new Uint8Array(length);
      try {
        this.#codec.unpack(packed, bytes);
        return bytes;
      } catch (error) {
        if (!(error instanceof CodecError)) throw error;
        // A stream that is too short may still have what is wanted.
        if (length === needed) throw refuse(error);
      }
    }
    throw refuse();
  }
}
