import type { FormatDriver } from "../../lib/block/driver.ts";
import type { OptionSpec } from "../../lib/block/options.ts";
import { SIZE_RULE } from "./footer.ts";

const CREATE_OPTIONS: readonly OptionSpec[] = [
  { name: "size", type: "size", help: "Virtual disk size" },
  { name: "subformat", type: "str", help: "Kind of image: dynamic (default) or fixed" },
  {
    name: "force_size",
    type: "bool",
    help: "The disk has exactly this size, instead of the next one that cylinders make up",
  },
];

/**
 * VHD, the disk images of Virtual PC, older versions of Hyper-V, and Azure: dynamic and fixed, and
 * differencing ones, which can only be read.
 */
export const vpc: FormatDriver = {
  name: "vpc",
  transparent: false,
  createOptions: CREATE_OPTIONS,
  openOptions: [
    {
      name: SIZE_RULE,
      type: "str",
      strong: true,
      help: "What the size of the disk is taken from: chs or current_size",
    },
  ],
  open: async (file, options, context) => {
    const { openNode } = await import("./open.ts");
    return await openNode(file, options, context);
  },
  removesFailedCreate: true,
  create: async (request) => {
    const { createImage } = await import("./create.ts");
    await createImage(request);
  },
};
