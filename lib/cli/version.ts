/** What `--version` says. */

/** The version of this program, as in `deno.json`. */
export const VERSION = "0.1.0";

/** The version of `qemu-img` whose command line this program speaks. */
export const REFERENCE_VERSION = "10.0.2";

/** The name of `qemu-img`; a program called so introduces itself as it. */
const REFERENCE_NAME = "qemu-img";

/** The line that `--version` prints for a program of this name. */
export function versionLine(program: string): string {
  return program === REFERENCE_NAME
    ? `${REFERENCE_NAME} version ${REFERENCE_VERSION} (qimg ${VERSION})\n`
    : `qimg version ${VERSION} (compatible with ${REFERENCE_NAME} ${REFERENCE_VERSION})\n`;
}
