/** Images of formats that nothing here can write, made by hand. */
import { deflateSync } from "node:zlib";
import { Random } from "./_random.ts";

/** A disk of 64 KiB in Bochs' format (section 4 of the format's reference). */
export function bochsImage(version: 1 | 2): Uint8Array {
  const [extent, entries] = [4096, 16];
  const bytes = new Uint8Array(512 + entries * 4 + 2 * (512 + extent));
  const view = new DataView(bytes.buffer);
  new TextEncoder().encodeInto("Bochs Virtual HD Image", bytes);
  new TextEncoder().encodeInto("Redolog", bytes.subarray(32));
  new TextEncoder().encodeInto("Growing", bytes.subarray(48));
  view.setUint32(64, version << 16, true);
  view.setUint32(68, 512, true);
  view.setUint32(72, entries, true);
  view.setUint32(76, 512, true);
  view.setUint32(80, extent, true);
  view.setBigUint64(version === 1 ? 84 : 88, 65536n, true);
  bytes.fill(0xff, 512, 512 + entries * 4);
  view.setUint32(512, 1, true);
  view.setUint32(512 + 8, 0, true);
  for (const [index, bitmap, first] of [[0, 0x09, 0x41], [1, 0xff, 0x61]] as const) {
    const start = 512 + entries * 4 + index * (512 + extent);
    bytes[start] = bitmap;
    for (let sector = 0; sector < 8; sector++) {
      bytes.fill(first + sector, start + 512 * (sector + 1), start + 512 * (sector + 2));
    }
  }
  return bytes;
}

/** What to change in the making of a cloop image. */
export interface CloopOptions {
  /** Bytes of a block. */
  readonly blockSize?: number;
  /** How many there are. */
  readonly blocks?: number;
  /** Makes the stream of a block. */
  readonly deflate?: (block: Uint8Array, index: number) => Uint8Array;
}

/** A disk in cloop's format, noise and words in turn. */
export function cloopImage(
  { blockSize = 65536, blocks = 5, deflate = (block) => deflateSync(block) }: CloopOptions = {},
): Uint8Array {
  const random = new Random(7);
  const streams = Array.from(
    { length: blocks },
    (_, index) => deflate(random.bytes(blockSize, index % 2 === 0 ? 256 : 4), index),
  );
  const table = 136;
  const start = table + 8 * (blocks + 1);
  const total = streams.reduce((sum, stream) => sum + stream.length, start);
  const bytes = new Uint8Array(total);
  const view = new DataView(bytes.buffer);
  new TextEncoder().encodeInto(
    "#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\nexit $?\n",
    bytes,
  );
  view.setUint32(128, blockSize);
  view.setUint32(132, blocks);
  let at = start;
  streams.forEach((stream, index) => {
    view.setBigUint64(table + 8 * index, BigInt(at));
    bytes.set(stream, at);
    at += stream.length;
  });
  view.setBigUint64(table + 8 * blocks, BigInt(at));
  return bytes;
}
