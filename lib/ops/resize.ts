import type { Preallocation } from "../block/node.ts";
import type { ImageReference } from "../graph/open.ts";
import type { Environment } from "../graph/environment.ts";

/** How to resize. */
export interface ResizeOptions {
  /** Bytes; with `relative` added to (1) or subtracted from (-1) the present size. */
  readonly size: number;
  /** 0 absolute, 1 grow by, -1 shrink by. */
  readonly relative?: -1 | 0 | 1;
  /** Data beyond the new end may be lost. */
  readonly shrink?: boolean;
  /** For the added part. */
  readonly preallocation?: Preallocation;
}

/** Changes an image's virtual size. */
export function resizeImage(
  _image: ImageReference,
  _options: ResizeOptions,
  _environment: Environment,
): Promise<void> {
  throw new Error("in work");
}
