import { readU32LE } from "../../lib/bytes/endian.ts";

/** The version that all images have. */
export const VERSION = 2;

/** How an image's file begins: `free` images count sectors in their table, `extended` ones clusters. */
export const MAGIC = { free: "WithoutFreeSpace", extended: "WithouFreSpacExt" } as const;

/** Bytes of the magic, which the version follows. */
export const MAGIC_LENGTH = 16;

/** The magic at the begin of a file, if it is one. */
export function magicOf(head: Uint8Array): keyof typeof MAGIC | undefined {
  const text = String.fromCharCode(...head.subarray(0, MAGIC_LENGTH));
  return text === MAGIC.extended ? "extended" : text === MAGIC.free ? "free" : undefined;
}

/** Score of a file's first 512 bytes for Parallels' format. */
export function probeParallels(head: Uint8Array): number {
  return magicOf(head) !== undefined && readU32LE(head, MAGIC_LENGTH) === VERSION ? 100 : 0;
}
