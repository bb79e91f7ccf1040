import type { FormatDriver } from "../../lib/block/driver.ts";
import { CREATE_OPTIONS } from "./options.ts";

/** Hyper-V's disk images, dynamic and fixed; differencing ones for reading. */
export const vhdx: FormatDriver = {
  name: "vhdx",
  transparent: false,
  createOptions: CREATE_OPTIONS,
  openOptions: [],
  open: async (file, _options, context) => {
    const { openNode } = await import("./node.ts");
    return await openNode(file, context);
  },
  removesFailedCreate: true,
  create: async (request) => {
    const { createImage } = await import("./create.ts");
    await createImage(request);
  },
};
