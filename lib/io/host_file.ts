/**
 * A file or block device of the host, read and written at given offsets.
 *
 * Every operation is synchronous: a seek and a read with nothing between them cost a microsecond, an
 * awaited pair fifty. Code that must not block runs them in a worker.
 *
 * @module
 */
import { HostError } from "./errno.ts";
import { openFsFile } from "./_fs_file.ts";
import {
  type HostFile,
  type HostFileOptions,
  type HostFileStat,
  toHostFileStat,
} from "./_host_types.ts";

export type { HostFile, HostFileOptions, HostFileStat };

/**
 * Opens `path`. Throws `HostError`. A name that leads to a FIFO may wait for its other end, and one that
 * leads to a directory may open: where names come from outside, {@linkcode statHostFile} goes first.
 */
export async function openHostFile(
  path: string,
  options: HostFileOptions = {},
): Promise<HostFile> {
  if (!options.direct) return openFsFile(path, options);
  if (Deno.build.os !== "linux") throw new HostError("EINVAL", "open", path);
  // Descriptors with flags come from node:fs, which costs a start of 10 ms: only those who want them pay.
  const { openDirectFile } = await import("./_direct_file.ts");
  return openDirectFile(path, options);
}

/** What the host knows of `path`, links followed. Throws `HostError`. */
export function statHostFile(path: string): HostFileStat {
  try {
    return toHostFileStat(Deno.statSync(path));
  } catch (error) {
    throw HostError.from(error, "stat", path);
  }
}
