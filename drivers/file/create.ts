import { ImageError } from "../../lib/block/error.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import type { Preallocation } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import { HostError } from "../../lib/io/errno.ts";
import { type HostFile, openHostFile, statHostFile } from "../../lib/io/host_file.ts";
import { type NativeFile, openNative } from "../../lib/io/native.ts";
import { failed, imageError } from "./_errors.ts";
import { setFileLength } from "./growth.ts";
import { lockFile } from "./locking.ts";

const SECTOR = 512;
const MEBIBYTE = 1 << 20;
const UINT32_MAX = 2 ** 32 - 1;

const PREALLOCATIONS: readonly Preallocation[] = ["off", "metadata", "falloc", "full"];

/**
 * The size and the preallocation that the options ask for.
 *
 * @throws {ImageError} `invalid parameter value: …`
 */
export function growthOptions(options: OptionSet): { size: number; how: Preallocation } {
  const word = options.string("preallocation") ?? "off";
  const how = PREALLOCATIONS.find((mode) => mode === word);
  if (how === undefined) {
    throw new ImageError(`invalid parameter value: ${word}`, {
      errno: "EINVAL",
      field: "preallocation",
    });
  }
  const size = options.number("size") ?? 0;
  // What is too large to be exact is refused when the file is grown.
  return { size: Number.isSafeInteger(size + SECTOR) ? alignUp(size, SECTOR) : size, how };
}

/**
 * Makes a regular file, or empties one; raw reference, section 3. Answers whether it was not there
 * before. A new file that cannot be given its size is removed again; an old one stays, empty.
 *
 * @throws {ImageError} `Could not create '…': …` and what the steps throw.
 */
export async function createFile(
  filename: string,
  options: OptionSet,
  context: DriverContext,
): Promise<boolean> {
  const { size, how } = growthOptions(options);
  const hint = options.number("extent_size_hint");
  if (hint !== undefined && hint > UINT32_MAX) {
    throw new ImageError("Extent size hint is too large", {
      errno: "EINVAL",
      field: "extent_size_hint",
    });
  }
  if (how === "metadata") {
    throw new ImageError(`Unsupported preallocation mode: ${how}`, {
      errno: "ENOTSUP",
      field: "preallocation",
    });
  }
  const [host, isNew] = await openNew(filename);
  try {
    using _host = host;
    using native = openNative(host);
    using _lock = lockFile(host, native, { uses: ["write", "resize"], unshares: ["resize"] });
    setFileLength(host, native, host.size(), 0, "off");
    if (options.flag("nocow")) native?.setNoCow();
    if (native !== undefined) hintExtentSize(native, hint, context);
    setFileLength(host, native, 0, size, how);
  } catch (error) {
    if (isNew) removeFile(filename);
    throw imageError(error, filename);
  }
  return isNew;
}

/**
 * Removes a file.
 *
 * @throws {ImageError} in the system's words.
 */
export function removeFile(filename: string): void {
  try {
    Deno.removeSync(filename);
  } catch (error) {
    throw imageError(HostError.from(error, "remove", filename), filename);
  }
}

/** Opens for writing what is there, or makes it. */
async function openNew(filename: string): Promise<[host: HostFile, isNew: boolean]> {
  requireRegular(filename);
  try {
    try {
      return [await openHostFile(filename, { write: true, createNew: true }), true];
    } catch (error) {
      if (!(error instanceof HostError && error.errno === "EEXIST")) throw error;
      return [await openHostFile(filename, { write: true, create: true }), false];
    }
  } catch (error) {
    throw failed(`Could not create '${filename}': `, error, filename);
  }
}

/** Nobody waits for the other end of a FIFO. Folders fail by themselves when they are opened. */
function requireRegular(filename: string): void {
  let kind: string;
  try {
    ({ kind } = statHostFile(filename));
  } catch {
    return;
  }
  if (kind === "file" || kind === "directory") return;
  throw new ImageError(`'file' driver requires '${filename}' to be a regular file`, {
    errno: "EINVAL",
    file: filename,
  });
}

/** Large extents keep an image together on file systems that take hints. */
function hintExtentSize(
  native: NativeFile,
  wanted: number | undefined,
  context: DriverContext,
): void {
  const hint = wanted ?? MEBIBYTE;
  if (hint === 0) return;
  try {
    native.setExtentSizeHint(hint);
  } catch (error) {
    if (wanted === undefined || !(error instanceof HostError)) return;
    context.warn(`Failed to set extent size hint: ${error.message}`);
  }
}
