/**
 * The anti-forensic splitter (section 3 of the LUKS reference): key material is
 * inflated so that any lost byte of it loses the key.
 *
 * @module
 */
import { HASHES, type HashName } from "./algorithms.ts";
import type { NodeCrypto } from "./node_crypto.ts";

/** Fills an array with random bytes. */
export type RandomSource = (bytes: Uint8Array) => void;

/**
 * Inflates `key` to `stripes` times its length; all but the last stripe are
 * random.
 */
export function splitKey(
  crypto: NodeCrypto,
  hash: HashName,
  key: Uint8Array,
  stripes: number,
  random: RandomSource,
): Uint8Array<ArrayBuffer> {
  const size = key.length;
  const material = new Uint8Array(size * stripes);
  const block = new Uint8Array(size);
  for (let i = 0; i < stripes - 1; i++) {
    const stripe = material.subarray(i * size, (i + 1) * size);
    random(stripe);
    mix(block, stripe);
    diffuse(crypto, hash, block);
  }
  const last = material.subarray((stripes - 1) * size);
  last.set(key);
  mix(last, block);
  return material;
}

/** The key that {@linkcode splitKey} inflated to `material`, whose length is a multiple of `size`. */
export function mergeKey(
  crypto: NodeCrypto,
  hash: HashName,
  material: Uint8Array,
  size: number,
): Uint8Array<ArrayBuffer> {
  const key = new Uint8Array(size);
  const stripes = material.length / size;
  for (let i = 0; i < stripes; i++) {
    mix(key, material.subarray(i * size, (i + 1) * size));
    if (i < stripes - 1) diffuse(crypto, hash, key);
  }
  return key;
}

/** Spreads every bit of `block` over a digest's length of it. */
export function diffuse(crypto: NodeCrypto, hash: HashName, block: Uint8Array): void {
  const size = HASHES[hash];
  const input = new Uint8Array(4 + size);
  const view = new DataView(input.buffer);
  for (let index = 0; index * size < block.length; index++) {
    const piece = block.subarray(index * size, (index + 1) * size);
    view.setUint32(0, index);
    input.set(piece, 4);
    const digest = crypto.hash(hash, input.subarray(0, 4 + piece.length), "buffer");
    piece.set(digest.subarray(0, piece.length));
  }
}

function mix(into: Uint8Array, bytes: Uint8Array): void {
  for (let i = 0; i < into.length; i++) into[i] = into[i]! ^ bytes[i]!;
}
