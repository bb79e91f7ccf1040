/**
 * CRC-32C: the checksum with Castagnoli's polynomial (reflected 0x82f63b78, all bits inverted before and after).
 *
 * @module
 */
import { viewOf } from "./endian.ts";

const POLYNOMIAL = 0x82f63b78;

let tables: Int32Array | undefined;

/** Eight tables of 256: what a byte does to the checksum with 0 to 7 bytes behind it. */
function makeTables(): Int32Array {
  const made = new Int32Array(8 * 256);
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc >>> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
    made[byte] = crc;
  }
  for (let i = 256; i < made.length; i++) {
    const before = made[i - 256]!;
    made[i] = before >>> 8 ^ made[before & 0xff]!;
  }
  return made;
}

/**
 * The checksum of `bytes`, unsigned. What comes in parts is summed with the checksum of the parts before as
 * `previous`.
 */
export function crc32c(bytes: Uint8Array, previous = 0): number {
  const t = tables ??= makeTables();
  const view = viewOf(bytes);
  let crc = ~previous;
  let at = 0;
  for (const last = bytes.length - 8; at <= last; at += 8) {
    const low = crc ^ view.getInt32(at, true);
    const high = view.getInt32(at + 4, true);
    crc = t[1792 + (low & 0xff)]! ^ t[1536 + (low >>> 8 & 0xff)]! ^
      t[1280 + (low >>> 16 & 0xff)]! ^ t[1024 + (low >>> 24)]! ^
      t[768 + (high & 0xff)]! ^ t[512 + (high >>> 8 & 0xff)]! ^
      t[256 + (high >>> 16 & 0xff)]! ^ t[high >>> 24]!;
  }
  for (; at < bytes.length; at++) crc = crc >>> 8 ^ t[(crc ^ bytes[at]!) & 0xff]!;
  return ~crc >>> 0;
}
