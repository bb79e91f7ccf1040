import { ImageError } from "./error.ts";
import type { BlockNode } from "./node.ts";

/** The `resize` of a node whose size is what it is. Always rejects, with `ENOTSUP`. */
export function refuseResize({ filename }: Pick<BlockNode, "filename">): Promise<never> {
  return Promise.reject(
    new ImageError("Image format driver does not support resize", {
      errno: "ENOTSUP",
      file: filename,
    }),
  );
}
