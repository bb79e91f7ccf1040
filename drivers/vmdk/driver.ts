import type { CreateRequest, DriverContext, FormatDriver } from "../../lib/block/driver.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { CREATE_OPTIONS } from "./options.ts";

/**
 * VMDK of all of VMware's products: hosted sparse files, streams and flat files in one piece or many, and
 * what ESX writes: redo logs and (for reading) space-efficient snapshots.
 */
export const vmdk: FormatDriver = {
  name: "vmdk",
  transparent: false,
  packs: true,
  createOptions: CREATE_OPTIONS,
  openOptions: [],
  open: async (file: BlockNode, _options: OptionSet, context: DriverContext) => {
    const { openNode } = await import("./node.ts");
    return await openNode(file, context);
  },
  removesFailedCreate: true,
  create: async (request: CreateRequest) => {
    const { createImage } = await import("./create.ts");
    await createImage(request);
  },
};
