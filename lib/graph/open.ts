import type { BlockNode } from "../block/node.ts";
import type { OpenMode } from "../block/mode.ts";
import type { Environment } from "./environment.ts";

/** Names an image to open. */
export interface ImageReference {
  /** File name, as given. */
  readonly filename: string;
  /** Format; probed if absent. */
  readonly format?: string | undefined;
}

/** Opens an image with everything below and behind it. */
export function openImage(
  _image: ImageReference,
  _mode: OpenMode,
  _environment: Environment,
): Promise<BlockNode> {
  throw new Error("in work");
}
