/** What images of version 2 begin with. */
const PREAMBLE = "#!/bin/sh\n#V2.0 Format\n" +
  "modprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n";

/** Score of a file's first 512 bytes for cloop: a script may be something else, too. */
export function probeCloop(head: Uint8Array): number {
  return String.fromCharCode(...head.subarray(0, PREAMBLE.length)) === PREAMBLE ? 2 : 0;
}
