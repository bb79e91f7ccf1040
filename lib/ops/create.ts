import type { OptionPair, OptionSpec } from "../block/options.ts";
import type { Environment } from "../graph/environment.ts";

/** What to create. */
export interface CreateOptions {
  /** Target name. */
  readonly filename: string;
  /** Format, default `raw`. */
  readonly format?: string | undefined;
  /** Virtual size, bytes; default: the `size` option, else the backing file's. */
  readonly size?: number | undefined;
  /** Backing file name as it will be stored. */
  readonly backing?: string | undefined;
  /** Its format. */
  readonly backingFormat?: string | undefined;
  /** Do not open the backing file. */
  readonly unsafeBacking?: boolean;
  /** `-o` options, in order. */
  readonly options?: readonly OptionPair[];
  /** Called with the "Formatting …" line (no newline) just before anything is made. */
  readonly announce?: (line: string) => void;
}

/** Makes an image. Errors are prefixed with `<file>: ` as `create` prints them. */
export function createImage(_options: CreateOptions, _environment: Environment): Promise<void> {
  throw new Error("in work");
}

/** The options that `create -o help` lists: the format's, and with a file name the protocol's too. Sorted. */
export function describeCreateOptions(
  _format: string,
  _filename?: string,
): Promise<readonly OptionSpec[]> {
  throw new Error("in work");
}
