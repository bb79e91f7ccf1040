/**
 * Apple Data Compression, for reading. There is no document by its maker; the format is three kinds of
 * steps, told by the first byte:
 *
 * | first byte | bytes in all | step                                                          |
 * |------------|--------------|---------------------------------------------------------------|
 * | `1nnnnnnn` | 2 + n        | the n + 1 bytes that follow                                   |
 * | `01nnnnnn` | 3            | n + 4 bytes from further up, at a distance of 16 bits, plus 1 |
 * | `00nnnndd` | 2            | n + 3 bytes from further up, at a distance of 10 bits, plus 1 |
 *
 * Distances are big-endian and may be less than the length: what was just copied is copied again. No mark
 * tells the end.
 *
 * @module
 */
import { CodecError, type Unpacker } from "./_codec.ts";
import { copyBack } from "./_copy_back.ts";

/** Apple Data Compression. */
export function createAdc(): Unpacker {
  return { name: "adc", unpack };
}

function unpack(packed: Uint8Array, out: Uint8Array): void {
  let written = 0;
  for (let at = 0; written < out.length;) {
    const first = packed[at];
    if (first === undefined) {
      throw new CodecError(`ADC data end after ${written} of ${out.length} bytes`);
    }
    if (first >= 0x80) {
      const end = at + 2 + (first & 0x7f);
      const bytes = packed.subarray(at + 1, end);
      if (end > packed.length) throw new CodecError("ADC data end within a step");
      if (bytes.length > out.length - written) throw new CodecError("ADC data are too long");
      out.set(bytes, written);
      written += bytes.length;
      at = end;
      continue;
    }
    const isLong = first >= 0x40;
    const end = at + (isLong ? 3 : 2);
    if (end > packed.length) throw new CodecError("ADC data end within a step");
    const distance = isLong
      ? (packed[at + 1]! << 8 | packed[at + 2]!) + 1
      : ((first & 3) << 8 | packed[at + 1]!) + 1;
    const length = isLong ? (first & 0x3f) + 4 : (first >> 2) + 3;
    written = copyBack(out, written, distance, length);
    at = end;
  }
}
