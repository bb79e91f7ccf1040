import type { FormatDriver } from "../../lib/block/driver.ts";
import type { OptionSpec } from "../../lib/block/options.ts";
import { OPEN_OPTIONS } from "./open_options.ts";

const CREATE_OPTIONS: readonly OptionSpec[] = [
  { name: "size", type: "size", help: "Virtual disk size" },
  {
    name: "cluster_size",
    type: "size",
    help: "Bytes that are allocated together",
    default: "1048576",
  },
];

/** Expanding images of Parallels, one file each. */
export const parallels: FormatDriver = {
  name: "parallels",
  transparent: false,
  createOptions: CREATE_OPTIONS,
  openOptions: OPEN_OPTIONS,
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
