/** VHD images made by hand, from the specification and nothing of the driver. */

const SECTOR = 512;

/** The checksum of a footer or header. */
export function checksumOf(bytes: Uint8Array, at: number): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i++) if (i < at || i >= at + 4) sum += bytes[i]!;
  return (2 ** 32 - 1 - sum) >>> 0;
}

/** Changes all footers of an image, and makes their checksums right. */
export function patchFooters(bytes: Uint8Array, change: (footer: Uint8Array) => void): void {
  const cookie = "conectix";
  for (let at = 0; at + SECTOR <= bytes.length; at += SECTOR) {
    const footer = bytes.subarray(at, at + SECTOR);
    if (String.fromCharCode(...footer.subarray(0, 8)) !== cookie) continue;
    change(footer);
    const view = new DataView(footer.buffer, footer.byteOffset, footer.length);
    view.setUint32(64, checksumOf(footer, 64));
  }
}
