/**
 * What file names mean: protocol prefixes, and names relative to an image. Command-line reference,
 * sections 4.2 and 4.4.
 *
 * @module
 */
import { ImageError } from "../block/error.ts";

const isWindows = Deno.build.os === "windows";

/** The names of disks and their drives, which are no protocols. */
const WINDOWS_DRIVE = /^(?:[A-Za-z]:|\\\\[.?]\\|\/\/[.?]\/)/;

/** The word before a colon that comes before any slash, `undefined` if there is none. */
export function protocolPrefix(filename: string): string | undefined {
  if (isWindows && WINDOWS_DRIVE.test(filename)) return undefined;
  const end = filename.search(isWindows ? /[:\\/]/ : /[:/]/);
  return end >= 0 && filename[end] === ":" ? filename.slice(0, end) : undefined;
}

/** What follows the prefix, changed so that it has none itself: `a:b` becomes `./a:b`. */
export function withoutPrefix(filename: string, prefix: string): string {
  const rest = filename.slice(prefix.length + 1);
  return protocolPrefix(rest) === undefined ? rest : `./${rest}`;
}

/**
 * The name by which to open a file that `image` refers to as `name`: absolute names and those with a
 * protocol as they are, others relative to the folder of `image`, not normalised.
 *
 * @throws {ImageError} if the image has no name that others could be relative to.
 */
export function resolveRelative(image: string, name: string): string {
  if (name === "" || protocolPrefix(name) !== undefined || isAbsolute(name)) return name;
  if (image.startsWith("json:")) {
    throw new ImageError(`Cannot use relative backing file names for '${image}'`, {
      errno: "EINVAL",
      file: image,
    });
  }
  return folderOf(image) + name;
}

function isAbsolute(name: string): boolean {
  return isWindows ? /^(?:[\\/]|[A-Za-z]:)/.test(name) : name.startsWith("/");
}

/** Up to the last slash, which belongs to it; a prefix counts as a folder. */
function folderOf(image: string): string {
  const slash = isWindows
    ? Math.max(image.lastIndexOf("/"), image.lastIndexOf("\\"))
    : image.lastIndexOf("/");
  const prefix = protocolPrefix(image);
  return image.slice(0, Math.max(slash + 1, prefix === undefined ? 0 : prefix.length + 1));
}
