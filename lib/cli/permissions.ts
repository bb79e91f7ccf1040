/**
 * Least privilege: once the command line is read, the process gives up every
 * Deno permission that the command does not need. It holds for the rest of the
 * process and for the workers that it starts.
 *
 * What stays:
 *
 * - reading, which Deno cannot narrow down to some paths at run time;
 * - writing, for commands that create or change a file;
 * - what the protocols need that the command line names: the network, other programs;
 * - the network, for a command that lets others connect, until it listens;
 * - native calls already loaded (see `lib/io/native.ts`) in the main thread.
 *
 * One exception is Deno's own: it opens files below /dev, /proc and /sys only
 * for a process that still has all permissions. So a command line that names
 * such a file, directly or through a symbolic link, keeps everything; an image
 * that merely refers to one cannot make the process keep anything, and opening
 * that file fails.
 */

import { PROTOCOLS } from "../../drivers/mod.ts";
import type { ProtocolPermission } from "../block/driver.ts";
import type { Access } from "../commands/_command.ts";
import { protocolPrefix } from "../graph/names.ts";
import { JSON_PREFIX, NodeOptions, valueText } from "../graph/node_options.ts";

const GUARDED = /^\/(?:dev|proc|sys)(?:\/|$)/;

/** Keys of options that name a driver, a file, or say that a node is not to be written, at any depth. */
const DRIVER_KEY = /(?:^|\.)driver$/;
const FILE_KEY = /(?:^|\.)filename$/;
const READ_ONLY_KEY = /(?:^|\.)read-only$/;

/** What may be given up. */
export type Surplus = Extract<Deno.PermissionName, "net" | "run" | "env" | "sys" | "write" | "ffi">;

/** The permissions that a command with this access can do without. Looks at the files that it names. */
export function surplusPermissions(access: Access): Surplus[] {
  const { reads, writes } = namedFiles(access);
  const names = [...reads, ...writes];
  if (readsEverywhere() && names.some(isGuarded)) return [];
  const kept = new Set<Surplus>(names.flatMap(permissionsFor));
  if (writes.length > 0 || access.listens === "socket") kept.add("write");
  if (access.listens !== undefined) kept.add("net");
  const all: readonly Surplus[] = ["run", "env", "sys", "ffi", "net", "write"];
  return all.filter((name) => !kept.has(name));
}

/**
 * Gives up what a command with this access can do without, and answers with
 * it. Native calls are loaded before the permission for them goes, but only
 * for a command that opens files at all.
 */
export async function dropPermissions(access: Access): Promise<readonly Surplus[]> {
  const { reads, writes } = namedFiles(access);
  const surplus = surplusPermissions(access);
  if (reads.length + writes.length > 0) {
    const { loadNative } = await import("../io/native.ts");
    loadNative(writes.length > 0 ? "all" : "reading");
  }
  for (const name of surplus) Deno.permissions.revokeSync({ name });
  return surplus;
}

/** What is read and what is written: options can ask for writing where the command does not. */
function namedFiles(access: Access): { reads: string[]; writes: string[] } {
  const named = (names: readonly (string | undefined)[] = []) =>
    names.filter((name) => name !== undefined);
  const reads = named(access.reads);
  return { reads, writes: [...named(access.writes), ...reads.filter(asksToWrite)] };
}

/**
 * The options in a word of the command line: in a `json:` name, or in a list. Which of the commands take a
 * word for a list is not asked: a file name with an equals sign is looked at in both ways.
 */
function optionsIn(name: string): (readonly [key: string, value: string])[] {
  try {
    const options = name.startsWith(JSON_PREFIX)
      ? NodeOptions.fromJson(name)
      : NodeOptions.fromList(name.includes("=") ? name : "", () => {});
    return options.keys.map((key) => [key, valueText(options.get(key)!) ?? ""] as const);
  } catch {
    // What is no list and no object opens nothing.
    return [];
  }
}

function asksToWrite(name: string): boolean {
  return optionsIn(name).some(([key, value]) =>
    READ_ONLY_KEY.test(key) && !["on", "yes", "true", "y"].includes(value)
  );
}

/** Without it no guarded file opens whatever is kept; nothing here asks for it. */
function readsEverywhere(): boolean {
  return Deno.permissions.querySync({ name: "read" }).state === "granted";
}

/** Whether Deno opens the file of this name only for a process with all permissions. */
function isGuarded(name: string): boolean {
  if (Deno.build.os === "windows") return false;
  const isGuardedValue = ([key, value]: readonly [string, string]) =>
    FILE_KEY.test(key) && isGuardedFile(value);
  return isGuardedFile(name) || optionsIn(name).some(isGuardedValue);
}

function isGuardedFile(name: string): boolean {
  const prefix = protocolPrefix(name);
  const protocol = PROTOCOLS.find(({ prefixes }) => prefixes.includes(prefix ?? ""));
  if (prefix !== undefined && (protocol === undefined || protocol.permissions !== undefined)) {
    return false;
  }
  const path = prefix === undefined ? name : name.slice(prefix.length + 1);
  return GUARDED.test(path) || GUARDED.test(realPath(path));
}

/** What the protocols that a word of the command line names need beside what local files do. */
function permissionsFor(word: string): ProtocolPermission[] {
  const drivers = new Set(
    optionsIn(word).flatMap(([key, value]) => DRIVER_KEY.test(key) ? [value] : []),
  );
  const prefix = word.startsWith(JSON_PREFIX) ? undefined : protocolPrefix(word);
  return PROTOCOLS.flatMap(({ name, prefixes, permissions }) =>
    drivers.has(name) || (prefix !== undefined && prefixes.includes(prefix))
      ? [...permissions?.(word) ?? []]
      : []
  );
}

/** The path without symbolic links, of the nearest folder if there is no such file; `""` where nobody knows. */
function realPath(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch {
    const slash = path.lastIndexOf("/");
    const folder = slash < 0 ? "." : path.slice(0, slash) || "/";
    return folder === path ? "" : realPath(folder);
  }
}
