import type { FormatDriver } from "../../lib/block/driver.ts";
import type { OptionSpec } from "../../lib/block/options.ts";

const CREATE_OPTIONS: readonly OptionSpec[] = [
  { name: "size", type: "size", help: "Virtual disk size" },
  { name: "backing_file", type: "str", help: "Image that shows where this one has no data" },
  { name: "backing_fmt", type: "str", help: "Format of the backing file" },
  {
    name: "cluster_size",
    type: "size",
    help: "Unit of allocation: a power of two from 4k to 64M",
    default: "65536",
  },
  { name: "table_size", type: "size", help: "Clusters of a table: 2, 4, 8 or 16" },
];

/**
 * QED, the QEMU enhanced disk.
 *
 * Limits of this driver, beside the format's own: a virtual disk has at most 2^53 - 1 bytes, and so has
 * the file.
 */
export const qed: FormatDriver = {
  name: "qed",
  transparent: false,
  createOptions: CREATE_OPTIONS,
  openOptions: [],
  open: async (file, _options, context) => {
    const { openNode } = await import("./open.ts");
    return await openNode(file, context);
  },
  removesFailedCreate: true,
  create: async (request) => {
    const { createImage } = await import("./create.ts");
    await createImage(request);
  },
};
