import { ImageError } from "../../lib/block/error.ts";
import { HostError } from "../../lib/io/errno.ts";

/**
 * What a host operation on `filename` threw, as an `ImageError` with the system's words, or Deno's
 * where a permission is missing: they name the flag that grants it. Mistakes of the program stay what
 * they are.
 */
export function imageError(error: unknown, filename: string): unknown {
  if (!(error instanceof HostError)) return error;
  return new ImageError(error.message, { errno: error.errno, file: filename, cause: error });
}

/** The same with `prefix` in front of the words. */
export function failed(prefix: string, error: unknown, filename: string): unknown {
  const known = imageError(error, filename);
  return known instanceof ImageError ? known.prefixed(prefix) : known;
}
