import type { DriverContext } from "../../lib/block/driver.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { Feature, readHeader } from "./header.ts";
import { QedImage } from "./image.ts";
import { QedNode } from "./node.ts";

/**
 * Opens the image in `file`. One that is opened for writing loses the marks of features that nobody here
 * keeps up, and is repaired if it was not closed. On failure `file` is left to the caller.
 *
 * @throws {ImageError} naming file and field, with the reference's text.
 */
export async function openNode(file: BlockNode, context: DriverContext): Promise<BlockNode> {
  const { header, backingName } = await readHeader(file, context);
  const image = new QedImage(file, header, context);
  if (context.mode.writable) {
    if (header.autoclearFeatures !== 0n) {
      header.autoclearFeatures = 0n;
      await image.storeHeader();
      await image.barrier();
    }
    if (!context.mode.checking && (header.features & Feature.needCheck) !== 0n) {
      const { repairUnclosed } = await import("./check.ts");
      await repairUnclosed(image);
    }
  }
  return new QedNode(image, backingName);
}
