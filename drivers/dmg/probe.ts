/** What names of such images end in: nothing in them is where probing looks. */
const SUFFIX = ".dmg";

/** Score of a file for Apple's format: more than for a raw disk, less than what any content says. */
export function probeDmg(_head: Uint8Array, filename: string): number {
  return filename.length > SUFFIX.length && filename.endsWith(SUFFIX) ? 2 : 0;
}
