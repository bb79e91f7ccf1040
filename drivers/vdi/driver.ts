import type { FormatDriver } from "../../lib/block/driver.ts";
import type { OptionSpec } from "../../lib/block/options.ts";

const CREATE_OPTIONS: readonly OptionSpec[] = [
  { name: "size", type: "size", help: "Virtual disk size" },
  {
    name: "static",
    type: "bool",
    help: "All blocks lie in the file from the start, in their order",
    default: "off",
  },
];

/** VirtualBox' disk images of the current version, dynamic and static. */
export const vdi: FormatDriver = {
  name: "vdi",
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
