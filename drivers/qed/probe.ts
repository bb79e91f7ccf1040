/** What every image begins with: `QED` and a zero. */
export const MAGIC = 0x00444551;

/** Score of a file's first 512 bytes for QED. */
export function probeQed(head: Uint8Array): number {
  return head[0] === 0x51 && head[1] === 0x45 && head[2] === 0x44 && head[3] === 0 ? 100 : 0;
}
