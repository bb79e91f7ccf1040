const COOKIE = new TextEncoder().encode("conectix");

/**
 * Takes what differs from image to image out of all footers: the time, the checksum and the UUID. For
 * comparisons of files that two programs made.
 */
export function withoutIdentity(bytes: Uint8Array): Uint8Array {
  for (let at = 0; at + 84 <= bytes.length; at += 512) {
    if (!COOKIE.every((byte, i) => bytes[at + i] === byte)) continue;
    bytes.fill(0, at + 24, at + 28);
    bytes.fill(0, at + 64, at + 84);
  }
  return bytes;
}
