/** Score of a file's first 512 bytes for VMDK (section 1 of the format's reference). */
export function probeVmdk(head: Uint8Array): number {
  const magic = String.fromCharCode(...head.subarray(0, 4));
  if (magic === "KDMV" || magic === "COWD") return 100;
  return isDescriptor(head) ? 100 : 0;
}

const [LF, CR, SPACE, HASH] = [0x0a, 0x0d, 0x20, 0x23];

/** Whether a descriptor begins here: comments and lines of spaces, then its version. */
function isDescriptor(head: Uint8Array): boolean {
  let at = 0;
  while (at < head.length) {
    if (head[at] === HASH) {
      while (at < head.length && head[at] !== LF) at++;
      at++;
    } else if (head[at] === SPACE) {
      while (head[at] === SPACE) at++;
      if (head[at] === CR) at++;
      if (head[at] !== LF) return false;
      at++;
    } else {
      return /^version=[123]\r?\n/.test(String.fromCharCode(...head.subarray(at, at + 12)));
    }
  }
  return false;
}
