/**
 * Raw deflate of single clusters as qcow2 has it: no header, a window of 4 KiB. Qcow2 reference,
 * section 15.
 *
 * @module
 */
import { type Codec, CodecError, levelFor } from "./_codec.ts";
import { reuseStream, type SyncStream } from "./_sync_stream.ts";

type Zlib = typeof import("node:zlib");

/** Readers inflate with a window of 2^12 bytes: nothing written may look back further. */
const WRITE_WINDOW_BITS = 12;

/** Others may have written with any window. */
const READ_WINDOW_BITS = 15;

const MEMORY_LEVEL = 9;

/**
 * The lowest level whose output is at most 1% larger than the reference's, which is stock zlib's at 6.
 * Program files in clusters of 64 KiB (97 MiB of /usr/lib, and every fourth cluster of Deno's binary),
 * Deno's zlib-ng against stock zlib, MB/s on one core:
 *
 * | level | /usr/lib | Deno   | speed             |
 * |-------|----------|--------|-------------------|
 * | 6     | +2.65%   | +3.53% | 66                |
 * | 7     | +2.42%   | +3.17% | 59                |
 * | 8     | +2.31%   | +3.13% | 50                |
 * | 9     | -0.25%   | -0.10% | 40 (stock, 6: 30) |
 *
 * Below 9 zlib-ng does not look for matches of three bytes. The gain is spread over all clusters, so
 * that choosing a level a cluster does not pay.
 */
const DEFAULT_LEVEL = 9;

const NOTHING = new Uint8Array(0);

/**
 * Deflate on `node:zlib`. `reuse` is for tests: false does without the native objects beneath the
 * streams.
 */
export function createDeflate(zlib: Zlib, options: { reuse?: boolean } = {}): Codec {
  const { reuse = true } = options;
  const { Z_FINISH, Z_SYNC_FLUSH } = zlib.constants;
  const inflater = reuse
    ? reuseStream(zlib.createInflateRaw({ windowBits: READ_WINDOW_BITS }), Z_SYNC_FLUSH)
    : undefined;
  const deflaters: (SyncStream | undefined)[] = [];
  const spare = new Uint8Array(1);

  function packReusing(stream: SyncStream, bytes: Uint8Array, out: Uint8Array): number | null {
    stream.reset();
    const { written } = stream.run(bytes, out);
    if (written < out.length) return written;
    // Full to the last byte: nothing more to come, or too much?
    return stream.run(NOTHING, spare).written === 0 ? written : null;
  }

  function unpackReusing(stream: SyncStream, packed: Uint8Array, out: Uint8Array): number {
    stream.reset();
    return stream.run(packed, out).written;
  }

  const codec: Codec = {
    name: "deflate",
    defaultLevel: DEFAULT_LEVEL,
    levels: [1, 9],

    pack(bytes, out, level) {
      const used = levelFor(codec, level);
      const options = { level: used, windowBits: WRITE_WINDOW_BITS, memLevel: MEMORY_LEVEL };
      if (reuse) {
        const stream = deflaters[used] ??= reuseStream(zlib.createDeflateRaw(options), Z_FINISH);
        if (stream !== undefined) return packReusing(stream, bytes, out);
      }
      const packed = zlib.deflateRawSync(bytes, options);
      if (packed.length > out.length) return null;
      out.set(packed);
      return packed.length;
    },

    unpack(packed, out) {
      const written = inflater === undefined
        ? unpackAfresh(zlib, packed, out)
        : unpackReusing(inflater, packed, out);
      if (written < out.length) {
        throw new CodecError(`deflated data end after ${written} of ${out.length} bytes`);
      }
    },
  };
  return codec;
}

function unpackAfresh(zlib: Zlib, packed: Uint8Array, out: Uint8Array): number {
  try {
    const bytes = zlib.inflateRawSync(packed, {
      windowBits: READ_WINDOW_BITS,
      // The end of the stream need not be there.
      finishFlush: zlib.constants.Z_SYNC_FLUSH,
      // It may also be beyond the cluster, but this way what comes before it cannot be had alone.
      maxOutputLength: 2 * out.length,
    });
    out.set(bytes.subarray(0, out.length));
    return bytes.length;
  } catch (error) {
    throw new CodecError(error instanceof Error ? error.message : String(error));
  }
}
