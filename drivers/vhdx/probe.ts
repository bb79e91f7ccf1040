/** What every image begins with. */
export const SIGNATURE = "vhdxfile";

/** Score of a file's first 512 bytes for Hyper-V's format. */
export function probeVhdx(head: Uint8Array): number {
  for (let i = 0; i < SIGNATURE.length; i++) {
    if (head[i] !== SIGNATURE.charCodeAt(i)) return 0;
  }
  return 100;
}
