import type { FormatDriver } from "../../lib/block/driver.ts";
import { CREATE_OPTIONS, OPEN_OPTIONS } from "./options.ts";

/**
 * qcow, version 1: the format of the first QEMUs.
 *
 * Limits of this driver, beside the format's own: a virtual disk has at most 2^53 - 1 bytes.
 */
export const qcow: FormatDriver = {
  name: "qcow",
  transparent: false,
  packs: true,
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
