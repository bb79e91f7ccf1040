/**
 * Least privilege: once the command line is read, the process gives up every
 * Deno permission that the command does not need. It holds for the rest of the
 * process and for the workers that it starts.
 *
 * What stays:
 *
 * - reading, which Deno cannot narrow down to some paths at run time;
 * - writing, for commands that create or change a file;
 * - the network, for command lines with a name that reaches out to it;
 * - native calls already loaded (see `lib/io/native.ts`) in the main thread.
 *
 * One exception is Deno's own: it opens files below /dev, /proc and /sys only
 * for a process that still has all permissions. So a command line that names
 * such a file, directly or through a symbolic link, keeps everything; an image
 * that merely refers to one cannot make the process keep anything, and opening
 * that file fails.
 */

import type { Access } from "../commands/_command.ts";

const GUARDED = /^\/(?:dev|proc|sys)(?:\/|$)/;
// Anywhere in a `json:` name, so that no way of nesting hides it.
const GUARDED_WITHIN = /(?:^|["'=:,])\/(?:dev|proc|sys)\//;
const PROTOCOL = /^([a-z0-9+_-]+):/;
const LOCAL_PROTOCOLS: ReadonlySet<string> = new Set(["file", "host_device", "host_cdrom"]);
const NETWORK_WITHIN = /nbd|https?|ftps?|ssh|rbd|iscsi|nfs|gluster/;

/** What may be given up. */
export type Surplus = Extract<Deno.PermissionName, "net" | "run" | "env" | "sys" | "write" | "ffi">;

/** The permissions that a command with this access can do without. Looks at the files that it names. */
export function surplusPermissions(access: Access): Surplus[] {
  const reads = named(access.reads);
  const writes = named(access.writes);
  const names = [...reads, ...writes];
  if (readsEverywhere() && names.some(isGuarded)) return [];
  const surplus: Surplus[] = ["run", "env", "sys", "ffi"];
  if (!names.some(isRemote)) surplus.push("net");
  if (writes.length === 0) surplus.push("write");
  return surplus;
}

/**
 * Gives up what a command with this access can do without, and answers with
 * it. Native calls are loaded before the permission for them goes, but only
 * for a command that opens files at all.
 */
export async function dropPermissions(access: Access): Promise<readonly Surplus[]> {
  const reads = named(access.reads);
  const writes = named(access.writes);
  const surplus = surplusPermissions(access);
  if (reads.length + writes.length > 0) {
    const { loadNative } = await import("../io/native.ts");
    loadNative(writes.length > 0 ? "all" : "reading");
  }
  for (const name of surplus) Deno.permissions.revokeSync({ name });
  return surplus;
}

function named(names: readonly (string | undefined)[] = []): string[] {
  return names.filter((name) => name !== undefined);
}

/** Without it no guarded file opens whatever is kept; nothing here asks for it. */
function readsEverywhere(): boolean {
  return Deno.permissions.querySync({ name: "read" }).state === "granted";
}

/** Whether Deno opens the file of this name only for a process with all permissions. */
function isGuarded(name: string): boolean {
  if (Deno.build.os === "windows") return false;
  if (name.startsWith("json:")) return GUARDED_WITHIN.test(name);
  const protocol = protocolOf(name);
  if (protocol !== undefined && !LOCAL_PROTOCOLS.has(protocol)) return false;
  const path = protocol === undefined ? name : name.slice(protocol.length + 1);
  return GUARDED.test(path) || GUARDED.test(realPath(path));
}

function isRemote(name: string): boolean {
  if (name.startsWith("json:")) return NETWORK_WITHIN.test(name);
  const protocol = protocolOf(name);
  return protocol !== undefined && !LOCAL_PROTOCOLS.has(protocol);
}

function protocolOf(name: string): string | undefined {
  return PROTOCOL.exec(name)?.[1];
}

/** The path without symbolic links, of a file that may be still to be made; `""` where nobody knows. */
function realPath(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch {
    try {
      const slash = path.lastIndexOf("/");
      return `${Deno.realPathSync(slash < 0 ? "." : path.slice(0, slash + 1))}/`;
    } catch {
      return "";
    }
  }
}
