import type { FormatDriver } from "../../lib/block/driver.ts";
import { LUKS_AMEND_OPTIONS } from "../../lib/block/luks_options.ts";
import { CREATE_OPTIONS, OPEN_OPTIONS } from "./options.ts";

/**
 * LUKS, version 1: a disk that is encrypted as a whole, behind its header or in
 * a file of its own (`header` then names the other one). Of the ciphers there is
 * AES.
 */
export const luks: FormatDriver = {
  name: "luks",
  transparent: false,
  // Its header changes only when key slots do.
  sharesFile: true,
  createOptions: CREATE_OPTIONS,
  amendOptions: LUKS_AMEND_OPTIONS,
  openOptions: OPEN_OPTIONS,
  optionalChildren: ["header"],
  open: async (file, options, context) => {
    const { openNode } = await import("./node.ts");
    return await openNode(file, options, context);
  },
  removesFailedCreate: true,
  create: async (request) => {
    const { createImage } = await import("./create.ts");
    await createImage(request);
  },
  measure: async (options, source, secret) => {
    const { measureImage } = await import("./create.ts");
    return measureImage(options, source, secret);
  },
};
