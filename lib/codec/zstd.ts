/**
 * Zstandard of single clusters as qcow2 has it: one frame that carries the content's size and no
 * checksum. Qcow2 reference, section 15; frame layout: RFC 8878, section 3.1.
 *
 * @module
 */
import { readU32LE } from "../bytes/endian.ts";
import { moveTo } from "../bytes/move.ts";
import { type Codec, CodecError, levelFor } from "./_codec.ts";
import { reuseStream, type SyncStream } from "./_sync_stream.ts";

type Zlib = typeof import("node:zlib");

const FRAME_MAGIC = 0xfd2f_b528;
/** Sixteen magic numbers begin a frame that holds no data. */
const SKIPPABLE_MAGIC = 0x184d_2a50;

/** What a frame may take beside its blocks, bytes. */
const SLACK = 64;

/** The same as the reference's, and with the same result. */
const DEFAULT_LEVEL = 3;

/**
 * Zstandard on `node:zlib`. `reuse` is for tests: false does without the native object beneath the
 * stream.
 */
export function createZstd(zlib: Zlib, options: { reuse?: boolean } = {}): Codec {
  const { ZSTD_c_compressionLevel, ZSTD_e_continue } = zlib.constants;
  const stream = options.reuse ?? true
    ? reuseStream(zlib.createZstdDecompress(), ZSTD_e_continue)
    : undefined;

  const codec: Codec = {
    name: "zstd",
    defaultLevel: DEFAULT_LEVEL,
    levels: [1, 22],

    pack(bytes, out, level) {
      // Room for all of it, or it would be gathered from pieces.
      const chunkSize = bytes.length + (bytes.length >> 8) + SLACK;
      const options = {
        chunkSize,
        params: { [ZSTD_c_compressionLevel]: levelFor(codec, level) },
        // Known to Deno but not to its types. A reused stream would forget it.
        pledgedSrcSize: bytes.length,
      };
      const packed = zlib.zstdCompressSync(bytes, options);
      if (packed.length > out.length) return null;
      const { length } = packed;
      moveTo(out, packed, chunkSize);
      return length;
    },

    unpack(packed, out) {
      let read = 0;
      let written = 0;
      while (written < out.length) {
        // Decoders take a frame that ends too early for one that goes on, so its length is found out first.
        const { length, holdsData } = frameAt(packed, read);
        if (holdsData) {
          const frame = packed.subarray(read, read + length);
          const room = out.subarray(written);
          written += stream === undefined
            ? unpackFrameAfresh(zlib, frame, room)
            : unpackFrame(stream, frame, room);
        }
        read += length;
      }
    },
  };
  return codec;
}

/** Unpacks one whole frame to the beginning of `out` and returns how many bytes it held. */
function unpackFrame(stream: SyncStream, frame: Uint8Array, out: Uint8Array): number {
  stream.reset();
  const { written, unread } = stream.run(frame, out);
  if (written === out.length) {
    const spare = new Uint8Array(1);
    if (stream.run(frame.subarray(frame.length - unread), spare).written > 0) throw tooLong(out);
  }
  return written;
}

function unpackFrameAfresh(zlib: Zlib, frame: Uint8Array, out: Uint8Array): number {
  let bytes: Uint8Array;
  try {
    bytes = zlib.zstdDecompressSync(frame, {
      maxOutputLength: out.length + 1,
      // One more than the output, or the end of the frame would be looked for in a second call, which fails.
      chunkSize: Math.max(64, out.length + 1),
    });
  } catch (error) {
    throw new CodecError(error instanceof Error ? error.message : String(error));
  }
  if (bytes.length > out.length) throw tooLong(out);
  out.set(bytes);
  return bytes.length;
}

function tooLong(out: Uint8Array): CodecError {
  return new CodecError(`zstd frame holds more than the ${out.length} bytes that are left`);
}

/** The frame that begins at `start`. Throws {@linkcode CodecError} where none does, or it ends beyond `packed`. */
function frameAt(packed: Uint8Array, start: number): { length: number; holdsData: boolean } {
  const need = (end: number): void => {
    if (end > packed.length) throw new CodecError("zstd frame ends too early");
  };
  need(start + 5);
  const magic = readU32LE(packed, start);
  if ((magic & 0xffff_fff0) >>> 0 === SKIPPABLE_MAGIC) {
    need(start + 8);
    const length = 8 + readU32LE(packed, start + 4);
    need(start + length);
    return { length, holdsData: false };
  }
  if (magic !== FRAME_MAGIC) throw new CodecError("no zstd frame where one should begin");

  const descriptor = packed[start + 4]!;
  const singleSegment = (descriptor & 0x20) !== 0;
  const hasChecksum = (descriptor & 0x04) !== 0;
  const dictionaryBytes = [0, 1, 2, 4][descriptor & 3]!;
  const sizeBytes = [singleSegment ? 1 : 0, 2, 4, 8][descriptor >>> 6]!;
  let at = start + 5 + (singleSegment ? 0 : 1) + dictionaryBytes + sizeBytes;
  for (let last = false; !last;) {
    need(at + 3);
    const header = packed[at]! | packed[at + 1]! << 8 | packed[at + 2]! << 16;
    last = (header & 1) !== 0;
    const type = header >>> 1 & 3;
    // A run of one byte is stored as that byte, whatever its length.
    at += 3 + (type === 1 ? 1 : header >>> 3);
  }
  if (hasChecksum) at += 4;
  need(at);
  return { length: at - start, holdsData: true };
}
