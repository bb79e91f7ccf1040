import { readU32LE } from "../../lib/bytes/endian.ts";

/** The three names in a header: kind of file, of disk, of redolog. */
const NAMES: readonly (readonly [offset: number, name: string])[] = [
  [0, "Bochs Virtual HD Image"],
  [32, "Redolog"],
  [48, "Growing"],
];

/** Whether a file that begins with `head` is a growing redolog (section 1 of the format's reference). */
export function isBochs(head: Uint8Array): boolean {
  const version = readU32LE(head, 64);
  return (version === 0x10000 || version === 0x20000) &&
    NAMES.every(([offset, name]) =>
      String.fromCharCode(...head.subarray(offset, offset + name.length + 1)) === `${name}\0`
    );
}

/** Score of a file's first 512 bytes for Bochs' format. */
export function probeBochs(head: Uint8Array): number {
  return isBochs(head) ? 100 : 0;
}
