import type { ProtocolPermission } from "../../lib/block/driver.ts";

/** What a command needs for a word that names an NBD export: Deno takes a Unix socket for a file that is written. */
export function nbdPermissions(word: string): readonly ProtocolPermission[] {
  return /unix|path/.test(word) ? ["net", "write"] : ["net"];
}
