import { readU32LE } from "../../lib/bytes/endian.ts";

/** What stands at `SIGNATURE_OFFSET` of every image. */
export const SIGNATURE = 0xbeda107f;

/** Where it stands, bytes. */
export const SIGNATURE_OFFSET = 0x40;

/** Score of a file's first 512 bytes for VirtualBox' format. */
export function probeVdi(head: Uint8Array): number {
  return readU32LE(head, SIGNATURE_OFFSET) === SIGNATURE ? 100 : 0;
}
