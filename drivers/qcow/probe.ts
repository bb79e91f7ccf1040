import { readU32BE } from "../../lib/bytes/endian.ts";

/** What all images of the family begin with. */
export const MAGIC = 0x514649fb;

/** Score of the first 512 bytes of a file for version 1: that and nothing else is this format. */
export function probeQcow(head: Uint8Array): number {
  return readU32BE(head, 0) === MAGIC && readU32BE(head, 4) === 1 ? 100 : 0;
}
