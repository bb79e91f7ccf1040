/** What is drawn by lot in an image, or tells who made it: zeroed, all else has to be equal. */

/** From where to where, in images whose log and block allocation table are of 1 MiB. */
const DRAWN = [
  // The creator, and what nobody reads.
  [0x8, 0x10000],
  // Checksums, sequence numbers, GUIDs.
  [0x10004, 0x10040],
  [0x20004, 0x20040],
  // The page 83 id, which is behind the two tables.
  [0x310010, 0x310020],
] as const;

/** Masks an image; `page83` where it is not as usual because of a larger log or table. */
export function withoutDrawn(bytes: Uint8Array, page83 = 0x310010): Uint8Array {
  for (const [from, to] of DRAWN) bytes.fill(0, from, to);
  bytes.fill(0, page83, page83 + 16);
  return bytes;
}

/** The same, and what is not equal in entries of a log of 1 MiB. */
export function withoutDrawnInLog(bytes: Uint8Array): Uint8Array {
  withoutDrawn(bytes);
  for (let at = 0x100000; at < 0x200000; at += 4096) {
    if (bytes[at] !== 0x6c) continue;
    bytes.fill(0, at + 4, at + 8);
    bytes.fill(0, at + 32, at + 48);
    // Behind its only descriptor the reference leaves what was in memory.
    bytes.fill(0, at + 96, at + 4096);
  }
  return bytes;
}
