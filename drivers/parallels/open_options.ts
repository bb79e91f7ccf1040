/**
 * Runtime options: how the file grows (section 2 of the format's reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";
import { SECTOR } from "./header.ts";

const SIZE = "prealloc-size";
const MODE = "prealloc-mode";
const DEFAULT_SIZE = 128 << 20;

/** The options. */
export const OPEN_OPTIONS: readonly OptionSpec[] = [
  { name: SIZE, type: "size", help: "Bytes that the file gets beyond those needed, each time" },
  { name: MODE, type: "str", help: "How the file is made longer: falloc (default) or truncate" },
];

/** How the file of an image grows. */
export interface Preallocated {
  /** By so many bytes beyond what is needed, until the image is closed. */
  readonly size: number;
  /** New space is a hole of the file, and not reserved. */
  readonly sparse: boolean;
}

/**
 * What the options say.
 *
 * @throws {ImageError} for a value that is none.
 */
export function readOpenOptions(options: OptionSet): Preallocated {
  const exact = options.exact(SIZE);
  const mode = options.string(MODE) ?? "falloc";
  if (mode !== "falloc" && mode !== "truncate") {
    throw new ImageError(`invalid parameter value: ${mode}`, { errno: "EINVAL", field: MODE });
  }
  const size = exact === undefined ? DEFAULT_SIZE : Number(exact);
  return { size: size - size % SECTOR, sparse: mode === "truncate" };
}
