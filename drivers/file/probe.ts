import { statHostFile } from "../../lib/io/host_file.ts";

/** How well the device protocol suits a name without prefix: 100 for an existing device, else 0. */
export function probeHostDevice(filename: string): number {
  // A drive's name says enough: there may be no medium in it.
  if (filename.startsWith("/dev/cdrom")) return 50;
  try {
    const { kind } = statHostFile(filename);
    return kind === "block device" || kind === "character device" ? 100 : 0;
  } catch {
    // Not there or not permitted: whoever opens it says so.
    return 0;
  }
}
