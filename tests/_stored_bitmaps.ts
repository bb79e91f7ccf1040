/** The dirty bitmaps in a qcow2 file, read without anything of the driver. */
import { assert } from "@std/assert";

/** A bitmap as it lies in a file. */
export interface StoredBitmap {
  /** Name. */
  readonly name: string;
  /** Flags of the directory. */
  readonly flags: number;
  /** Nobody closed it. */
  readonly inUse: boolean;
  /** Bytes of the disk for a bit. */
  readonly granularity: number;
  /** Whether the bit of a byte of the disk is set. */
  isDirty(offset: number): boolean;
}

const EXTENSION = 0x23852875;

/** The bitmaps of an image whose header says that they are in order. */
export function storedBitmaps(image: Uint8Array): StoredBitmap[] {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  const clusterSize = 2 ** view.getUint32(20);
  if (view.getUint32(4) < 3 || (view.getUint32(92) & 1) === 0) return [];
  let at = view.getUint32(100);
  while (view.getUint32(at) !== EXTENSION) {
    assert(view.getUint32(at) !== 0, "the header says that there are bitmaps");
    at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8;
  }
  let entry = Number(view.getBigUint64(at + 24));
  const bitmaps: StoredBitmap[] = [];
  for (let left = view.getUint32(at + 8); left > 0; left--) {
    const table = Number(view.getBigUint64(entry));
    const granularity = 2 ** view.getUint8(entry + 17);
    const nameLength = view.getUint16(entry + 18);
    bitmaps.push({
      name: new TextDecoder().decode(image.subarray(entry + 24, entry + 24 + nameLength)),
      flags: view.getUint32(entry + 12),
      inUse: (view.getUint32(entry + 12) & 1) !== 0,
      granularity,
      isDirty(offset) {
        const bit = Math.floor(offset / granularity);
        const word = view.getBigUint64(table + Math.floor(bit / clusterSize / 8) * 8);
        const bits = Number(word & 0x00fffffffffffe00n);
        if (bits === 0) return (word & 1n) !== 0n;
        return (image[bits + (bit >> 3) % clusterSize]! & 1 << (bit & 7)) !== 0;
      },
    });
    entry += Math.ceil((24 + nameLength) / 8) * 8;
  }
  return bitmaps;
}

/** The bits of a bitmap of a disk of `size` bytes, a digit each. */
export function bitsOf({ granularity, isDirty }: StoredBitmap, size: number): string {
  let bits = "";
  for (let at = 0; at < size; at += granularity) bits += isDirty(at) ? "1" : "0";
  return bits;
}
