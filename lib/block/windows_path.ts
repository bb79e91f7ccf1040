/**
 * Files that images name by paths as Windows has them, found on this host.
 *
 * @module
 */
import { statHostFile } from "../io/host_file.ts";
import type { BlockNode } from "./node.ts";

const isWindows = Deno.build.os === "windows";

/**
 * The name of a file on this host by paths of Windows, of which there is at least one: the first that is
 * there, or the first of all. It is absolute or relative to the folder of `image`, and no word in it is
 * a protocol. `look` says whether files may be looked for.
 */
export function hostNameOf(
  paths: readonly string[],
  image: BlockNode,
  look: boolean,
): string {
  const names = paths.map(hostName);
  const folder = image.local?.path.replace(/[^/\\]*$/, "");
  const isThere = (name: string) => {
    try {
      statHostFile(isAbsolute(name) ? name : folder + name);
      return true;
    } catch {
      return false;
    }
  };
  const found = look && folder !== undefined ? names.find(isThere) : undefined;
  return found ?? names[0]!;
}

function isAbsolute(name: string): boolean {
  return isWindows ? /^(?:[\\/]|[A-Za-z]:)/.test(name) : name.startsWith("/");
}

/** What a path of Windows is on this host. */
function hostName(path: string): string {
  const isFull = /^(?:\\\\|[A-Za-z]:)/.test(path);
  if (isWindows && isFull) return path.replace(/^\\\\\?\\(?=[A-Za-z]:)/, "");
  const parts = isWindows ? path : path.replaceAll("\\", "/");
  // Elsewhere there are no drives; but what was copied was copied together.
  if (isFull) return `./${parts.slice(parts.lastIndexOf("/") + 1)}`;
  // No word in front of a colon is to be taken for a protocol.
  return /^\.{0,2}[\\/]/.test(parts) ? parts : `./${parts}`;
}
