/** Clusters to pack, from easy to impossible. */

import { Random } from "../_random.ts";

/** Text of a few words: packs to a third or so. */
export function words(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  const random = new Random(seed);
  const vocabulary = Array.from({ length: 300 }, () => random.bytes(random.between(2, 12), 64));
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length;) {
    const word = random.pick(vocabulary).subarray(0, length - at);
    bytes.set(word, at);
    at += word.length;
  }
  return bytes;
}

/** Bytes that do not pack. */
export function noise(length: number, seed = 1): Uint8Array<ArrayBuffer> {
  return new Random(seed).bytes(length);
}

/** The bytes that hexadecimal digits tell. */
export function fromHex(digits: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(digits.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}
