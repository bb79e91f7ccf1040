import { MAGIC } from "./_layout.ts";

/** Score of the first 512 bytes of a file for this format: 100 for the magic and a version of 2 or later. */
export function probeQcow2(head: Uint8Array, _filename: string): number {
  if (head.length < 8) return 0;
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  return view.getUint32(0) === MAGIC && view.getUint32(4) >= 2 ? 100 : 0;
}
