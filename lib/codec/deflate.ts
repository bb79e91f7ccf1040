/**
 * Deflate of single clusters: raw as qcow2 has it, with no header and a window of 4 KiB (qcow2 reference,
 * section 15), and in zlib's wrapper as VMDK has it (VMDK reference, section 6).
 *
 * @module
 */
import { type Codec, CodecError, levelFor, type PackerName } from "./_codec.ts";
import { reuseStream, type SyncStream } from "./_sync_stream.ts";

type Zlib = typeof import("node:zlib");

/** Readers of raw streams inflate with a window of 2^12 bytes: nothing written may look back further. */
const RAW_WINDOW_BITS = 12;

/** Others may have written with any window; that of a wrapped stream is in its header. */
const FULL_WINDOW_BITS = 15;

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
const RAW_LEVEL = 9;

/**
 * With the full window zlib-ng's output at stock zlib's level, 6, is 1.1% larger than stock zlib's, and
 * takes half the time; 9 is as small and as slow.
 */
const ZLIB_LEVEL = 6;

const NOTHING = new Uint8Array(0);

/** How `node:zlib` reads and writes one of the two kinds of streams. */
interface Flavour {
  readonly name: PackerName;
  readonly windowBits: number;
  readonly level: number;
  readonly createInflate: Zlib["createInflate"];
  readonly createDeflate: Zlib["createDeflate"];
  readonly inflateSync: Zlib["inflateSync"];
  readonly deflateSync: Zlib["deflateSync"];
}

/** How the codecs here are made. */
export interface DeflateOptions {
  /** For tests: false does without the native objects beneath the streams. */
  readonly reuse?: boolean;
}

/** Raw deflate on `node:zlib`. */
export function createDeflate(zlib: Zlib, options: DeflateOptions = {}): Codec {
  return createFlavour(zlib, {
    name: "deflate",
    windowBits: RAW_WINDOW_BITS,
    level: RAW_LEVEL,
    createInflate: zlib.createInflateRaw,
    createDeflate: zlib.createDeflateRaw,
    inflateSync: zlib.inflateRawSync,
    deflateSync: zlib.deflateRawSync,
  }, options);
}

/** Deflate in zlib's wrapper (RFC 1950) on `node:zlib`. */
export function createZlib(zlib: Zlib, options: DeflateOptions = {}): Codec {
  return createFlavour(zlib, {
    name: "zlib",
    windowBits: FULL_WINDOW_BITS,
    level: ZLIB_LEVEL,
    createInflate: zlib.createInflate,
    createDeflate: zlib.createDeflate,
    inflateSync: zlib.inflateSync,
    deflateSync: zlib.deflateSync,
  }, options);
}

/**
 * Zlib streams that have to be whole: what ends before or after its cluster, or does not have its checksum,
 * is damaged.
 */
export function createExactZlib(zlib: Zlib, { reuse = true }: DeflateOptions = {}): Codec {
  const stream = reuse ? reuseStream(zlib.createInflate(), zlib.constants.Z_FINISH) : undefined;
  const spare = new Uint8Array(1);

  function unpackReusing(stream: SyncStream, packed: Uint8Array, out: Uint8Array): number {
    stream.reset();
    const { written, unread } = stream.run(packed, out);
    if (written < out.length) return written;
    // The checksum comes behind the last byte.
    return written + stream.run(packed.subarray(packed.length - unread), spare).written;
  }

  function unpackAfresh(packed: Uint8Array, out: Uint8Array): number {
    try {
      const bytes = zlib.inflateSync(packed, { maxOutputLength: out.length + 1 });
      out.set(bytes.subarray(0, out.length));
      return bytes.length;
    } catch (error) {
      throw new CodecError(error instanceof Error ? error.message : String(error));
    }
  }

  return {
    ...createZlib(zlib, { reuse }),
    name: "zlib-exact",
    unpack(packed, out) {
      const length = stream === undefined
        ? unpackAfresh(packed, out)
        : unpackReusing(stream, packed, out);
      if (length !== out.length) {
        throw new CodecError(`deflated data are not of ${out.length} bytes`);
      }
    },
  };
}

function createFlavour(zlib: Zlib, flavour: Flavour, { reuse = true }: DeflateOptions): Codec {
  const { Z_FINISH, Z_SYNC_FLUSH } = zlib.constants;
  const inflater = reuse
    ? reuseStream(flavour.createInflate({ windowBits: FULL_WINDOW_BITS }), Z_SYNC_FLUSH)
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
    name: flavour.name,
    defaultLevel: flavour.level,
    // 0 stores: for what is known not to shrink.
    levels: [flavour.name === "zlib" ? 0 : 1, 9],

    pack(bytes, out, level) {
      const used = levelFor(codec, level);
      const options = { level: used, windowBits: flavour.windowBits, memLevel: MEMORY_LEVEL };
      if (reuse) {
        const stream = deflaters[used] ??= reuseStream(flavour.createDeflate(options), Z_FINISH);
        if (stream !== undefined) return packReusing(stream, bytes, out);
      }
      const packed = flavour.deflateSync(bytes, options);
      if (packed.length > out.length) return null;
      out.set(packed);
      return packed.length;
    },

    unpack(packed, out) {
      const written = inflater === undefined
        ? unpackAfresh(zlib, flavour, packed, out)
        : unpackReusing(inflater, packed, out);
      if (written < out.length) {
        throw new CodecError(`deflated data end after ${written} of ${out.length} bytes`);
      }
    },
  };
  return codec;
}

function unpackAfresh(
  zlib: Zlib,
  flavour: Flavour,
  packed: Uint8Array,
  out: Uint8Array,
): number {
  try {
    const bytes = flavour.inflateSync(packed, {
      windowBits: FULL_WINDOW_BITS,
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
