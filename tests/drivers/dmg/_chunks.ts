import { deflateSync } from "node:zlib";
import { entropyBlock, lzfseStream, lzvnBlock, packAdc, storedBlock } from "../../codec/_apple.ts";
import { fromHex, noise, words } from "../../codec/_samples.ts";
import { ChunkType, type DmgChunk } from "../../_dmg.ts";

/** The digits 0 to 9 again and again, 120 sectors of them, as bzip2 packs them. */
const DIGITS = new TextEncoder().encode("0123456789".repeat(6144));
const PACKED_DIGITS = fromHex(
  "425a6839314159265359f4b70c02000bff88007fe0200070400c029543099c00178002f4005f000b0002c800b4002d80" +
    "0bf00170005d177245385090f4b70c02",
);

/** A chunk of each type that stores bytes, and what they are. */
export const STORED: readonly { readonly chunk: DmgChunk; readonly content: Uint8Array }[] = [
  stored(ChunkType.zlib, words(8192, 1), deflateSync),
  stored(ChunkType.raw, noise(4096, 2), (bytes) => bytes),
  stored(ChunkType.bzip2, DIGITS, () => PACKED_DIGITS),
  stored(ChunkType.lzfse, words(4096, 3), (bytes) => lzfseStream(lzvnBlock(bytes))),
  stored(ChunkType.lzfse, words(20480, 4), (bytes) => lzfseStream(entropyBlock(bytes))),
  stored(ChunkType.lzfse, noise(512, 5), (bytes) => lzfseStream(storedBlock(bytes))),
  stored(ChunkType.adc, words(7680, 6), packAdc),
  { chunk: { type: ChunkType.zero, sectors: 9 }, content: new Uint8Array(9 * 512) },
  { chunk: { type: ChunkType.ignore, sectors: 5 }, content: new Uint8Array(5 * 512) },
];

function stored(type: number, content: Uint8Array, pack: (bytes: Uint8Array) => Uint8Array) {
  return { chunk: { type, sectors: content.length / 512, bytes: pack(content) }, content };
}
