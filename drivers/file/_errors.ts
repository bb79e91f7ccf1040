import { ImageError } from "../../lib/block/error.ts";
import { HostError } from "../../lib/io/errno.ts";

/**
 * What a host operation on `filename` threw, as an `ImageError` with `prefix` and the system's words, or
 * Deno's where a permission is missing: they name the flag that grants it. What is no host error stays
 * what it is.
 */
export function failed(prefix: string, error: unknown, filename: string): unknown {
  if (!(error instanceof HostError)) return error;
  return new ImageError(prefix + error.message, {
    errno: error.errno,
    file: filename,
    cause: error,
  });
}

/** The same without more words. */
export function imageError(error: unknown, filename: string): unknown {
  return failed("", error, filename);
}
