import type { DriverContext } from "../../lib/block/driver.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { BlockTable } from "./block_table.ts";
import { readDynamicHeader } from "./dynamic_header.ts";
import { diskLength, DiskType, readFooter, sizeRule } from "./footer.ts";

/**
 * Opens the image in `file`, which on failure is left to the caller.
 *
 * @throws {ImageError} naming file and field, with the reference's text.
 */
export async function openNode(
  file: BlockNode,
  options: OptionSet,
  context: DriverContext,
): Promise<BlockNode> {
  const rule = sizeRule(options);
  const footer = await readFooter(file);
  const length = diskLength(footer, rule);
  if (!footer.isLeading) {
    const { fixedNode } = await import("./fixed.ts");
    return fixedNode(file, context, length);
  }
  const header = await readDynamicHeader(file, footer, length);
  const table = await BlockTable.load(file, header, context.untrusted);
  const image = { length, footer: footer.bytes, header, table };
  switch (footer.type) {
    case DiskType.fixed: {
      const { headedFixedNode } = await import("./fixed.ts");
      return headedFixedNode(file, context, length);
    }
    case DiskType.differencing: {
      const { openDifferencing } = await import("./differencing.ts");
      return await openDifferencing(file, context, image);
    }
    default: {
      const { dynamicNode } = await import("./dynamic.ts");
      return dynamicNode(file, context, image);
    }
  }
}
