import type { ImageDetails } from "./capabilities.ts";
import type { BlockNode } from "./node.ts";

/**
 * What a filter tells of the node below it: the cluster size in bytes, and whether it was closed well. It is
 * all that the reference asks that node for.
 *
 * @throws {ImageError} as the node's own `details` does.
 */
export async function outerDetails(node: BlockNode): Promise<ImageDetails> {
  const { clusterSize, dirty } = await node.details?.() ?? {};
  return {
    ...(clusterSize === undefined ? {} : { clusterSize }),
    ...(dirty === undefined ? {} : { dirty }),
  };
}
