/**
 * The binary parts of a property list. All else in it is of no use here, so it is not read as XML.
 *
 * @module
 */
import type { ImageError } from "../../lib/block/error.ts";

const encoder = new TextEncoder();
const OPENING = encoder.encode("<data>");
const CLOSING = encoder.encode("</data>");

const PADDING = "=".charCodeAt(0);
/** What stands between digits. */
const NO_DIGIT = 0xff;
/** Values of the digits to the base 64. Padding counts as one. */
const DIGITS = new Uint8Array(256).fill(NO_DIGIT);
encoder.encode("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
  .forEach((code, value) => DIGITS[code] = value);
DIGITS[PADDING] = 0;

/** The content of every `data` element of a list, which ends with its first zero byte. */
export function* dataOf(list: Uint8Array, invalid: () => ImageError): Generator<Uint8Array> {
  const end = list.indexOf(0);
  const text = end < 0 ? list : list.subarray(0, end);
  for (let at = 0;;) {
    const start = find(text, OPENING, at);
    if (start < 0) return;
    const stop = find(text, CLOSING, start);
    if (stop < 0) throw invalid();
    yield decode(text.subarray(start + OPENING.length, stop));
    at = stop + CLOSING.length;
  }
}

function find(text: Uint8Array, wanted: Uint8Array, from: number): number {
  for (let at = text.indexOf(wanted[0]!, from); at >= 0; at = text.indexOf(wanted[0]!, at + 1)) {
    let same = 1;
    while (same < wanted.length && text[at + same] === wanted[same]) same++;
    if (same === wanted.length) return at;
  }
  return -1;
}

/** Decodes base 64. What is no digit is passed over; an incomplete group at the end is no byte. */
function decode(text: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(text.length / 4) * 3);
  let length = 0;
  let group = 0;
  let digits = 0;
  let padding = 0;
  for (let at = 0; at < text.length; at++) {
    const code = text[at]!;
    const digit = DIGITS[code]!;
    if (digit === NO_DIGIT) continue;
    group = group << 6 | digit;
    // Padding counts only in the last two places.
    if (code === PADDING && digits >= 2) padding++;
    if (++digits < 4) continue;
    bytes[length++] = group >> 16;
    if (padding < 2) bytes[length++] = group >> 8 & 0xff;
    if (padding < 1) bytes[length++] = group & 0xff;
    group = digits = padding = 0;
  }
  return bytes.subarray(0, length);
}
