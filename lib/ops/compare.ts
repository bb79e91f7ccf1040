import type { CacheMode } from "../block/mode.ts";
import type { ImageReference } from "../graph/open.ts";
import type { Environment } from "../graph/environment.ts";
import type { Progress } from "./progress.ts";

/** How to compare. */
export interface CompareOptions {
  /** Sizes and allocation must agree too. */
  readonly strict?: boolean;
  /** `-T`. */
  readonly cache?: CacheMode;
  /** `-U`. */
  readonly forceShare?: boolean;
  /** Called as the comparison gets on. */
  readonly onProgress?: Progress;
  /** Called when the common part is equal and the sizes are not, before the longer tail is looked at. */
  readonly onSizeMismatch?: () => void;
}

/** What differs. */
export type CompareResult =
  | { readonly kind: "identical"; readonly sizesDiffer: boolean }
  | { readonly kind: "content"; readonly offset: number; readonly sizesDiffer: boolean }
  | { readonly kind: "size" }
  | { readonly kind: "status"; readonly offset: number };

/** A failure with the exit code that `compare` gives it: 2 open, 3 allocation query, 4 read. */
export class CompareError extends Error {
  /** 2, 3 or 4. */
  readonly exitCode: number;
  /** With the message to print. */
  constructor(message: string, exitCode: number, cause?: unknown) {
    super(message, { cause });
    this.exitCode = exitCode;
  }
}

/** Compares the guest content of two images. */
export function compareImages(
  _left: ImageReference,
  _right: ImageReference,
  _options: CompareOptions,
  _environment: Environment,
): Promise<CompareResult> {
  throw new Error("in work");
}
