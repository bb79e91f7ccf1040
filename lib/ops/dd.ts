import type { ImageReference } from "../graph/open.ts";
import type { Environment } from "../graph/environment.ts";

/** What to copy. */
export interface DdOptions {
  /** Source. */
  readonly source: ImageReference;
  /** Target name; always made anew. */
  readonly target: string;
  /** Target format, default raw. */
  readonly targetFormat?: string | undefined;
  /** Block size, bytes. */
  readonly blockSize?: number;
  /** Blocks, counted from the source's begin. */
  readonly count?: number | undefined;
  /** Blocks to leave out at the begin. */
  readonly skip?: number | undefined;
  /** `-U`. */
  readonly forceShare?: boolean;
}

/** Copies part of an image to a new one. */
export function ddImage(_options: DdOptions, _environment: Environment): Promise<void> {
  throw new Error("in work");
}
