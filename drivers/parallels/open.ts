/**
 * Opening an image (sections 2 and 4 of the format's reference).
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError, reasonText } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { AllocationTable } from "./allocation_table.ts";
import { readHeader } from "./header.ts";
import { ParallelsImage } from "./image.ts";
import { ParallelsNode } from "./node.ts";
import { readOpenOptions } from "./open_options.ts";

/**
 * Opens the image in `file`, which on failure is left to the caller. Opened for writing it is marked as in
 * use, and what is wrong with it is repaired, unless that is what it is opened for.
 *
 * @throws {ImageError} naming file and field, with the reference's text.
 */
export async function openNode(
  file: BlockNode,
  options: OptionSet,
  context: DriverContext,
): Promise<BlockNode> {
  const preallocated = readOpenOptions(options);
  const header = await readHeader(file, context);
  const { writable, metadataOnly } = context.mode;
  const table = metadataOnly && !writable
    ? AllocationTable.unread(header)
    : await AllocationTable.load(file, header);
  const image = new ParallelsImage(file, context, header, table, preallocated);
  if (!writable) {
    if (header.extension === 0) return new ParallelsNode(image);
    const { readExtension } = await import("./extension.ts");
    return new ParallelsNode(image, await readExtension(file, header, context));
  }
  if (header.extension !== 0) context.warn("Format Extension ignored in RW mode");
  header.inUse = true;
  await image.storeHeader();
  if (!context.mode.checking) await repair(image);
  image.findSpace();
  return new ParallelsNode(image);
}

async function repair(image: ParallelsImage): Promise<void> {
  const { checkImage, needsRepair } = await import("./check.ts");
  if (!needsRepair(image)) return;
  const { context } = image;
  try {
    await checkImage(image, "all", (line) => context.report(line));
  } catch (error) {
    throw new ImageError(`Could not repair corrupted image: ${reasonText(error)}`, {
      errno: ImageError.from(error).errno,
      file: context.filename,
      field: "BAT",
      cause: error,
    });
  }
}
