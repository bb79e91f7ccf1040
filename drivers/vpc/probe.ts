/** What every footer begins with. */
export const FOOTER_COOKIE = "conectix";

/** Whether a footer begins in these bytes. */
export function isFooter(bytes: Uint8Array): boolean {
  return String.fromCharCode(...bytes.subarray(0, FOOTER_COOKIE.length)) === FOOTER_COOKIE;
}

/**
 * Score of a file's first 512 bytes for Virtual PC's format. Fixed images begin with the disk, so nothing
 * tells them from raw ones here.
 */
export function probeVpc(head: Uint8Array): number {
  return isFooter(head) ? 100 : 0;
}
