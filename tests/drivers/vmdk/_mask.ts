/** What two VMDKs that were made alike differ in. */

/** Bytes in which descriptors lie. */
const HEAD = 11 * 1024;

/** The bytes of a VMDK with its content id struck out, which is drawn by lot and need not have eight digits. */
export function withoutContentId(bytes: Uint8Array): Uint8Array<ArrayBuffer> {
  const head = String.fromCharCode(...bytes.subarray(0, HEAD));
  const found = /\nCID=([0-9a-f]{1,8})\n/.exec(head);
  if (found === null) return bytes.slice();
  const at = found.index + "\nCID=".length;
  const missing = 8 - found[1]!.length;
  const isEmbedded = head.startsWith("KDMV");
  // What a shorter number leaves behind the text is NULs, where the text is padded at all.
  const isPadded = isEmbedded || bytes.length % 512 === 0;
  const end = isEmbedded ? 512 + 10240 : bytes.length;
  const masked = new Uint8Array(isPadded ? bytes.length : bytes.length + missing);
  masked.set(bytes.subarray(0, at));
  masked.fill(0x2a, at, at + 8);
  masked.set(bytes.subarray(at + 8 - missing, isPadded ? end - missing : end), at + 8);
  masked.set(bytes.subarray(end), end + (isPadded ? 0 : missing));
  // The reference clears one byte behind a text that has become shorter, and no more.
  const textEnd = masked.indexOf(0, at);
  if (isPadded && missing > 1) masked.fill(0, textEnd, textEnd + missing);
  return masked;
}
