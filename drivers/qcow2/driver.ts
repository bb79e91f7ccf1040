import type { CreateRequest, DriverContext, FormatDriver } from "../../lib/block/driver.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { OPEN_OPTIONS } from "./open_options.ts";
import { AMEND_OPTIONS } from "./amend_options.ts";
import { CREATE_OPTIONS } from "./options.ts";

/**
 * qcow2, versions 2 and 3.
 *
 * Limits of this driver, beside the format's own: a virtual disk has at most
 * 2^53 - 1 bytes, tables lie below that offset, and of the ciphers there is
 * AES. With `untrusted` tables are held to the bounds of `UNTRUSTED` in
 * `_layout.ts`.
 */
export const qcow2: FormatDriver = {
  name: "qcow2",
  transparent: false,
  packs: true,
  createOptions: CREATE_OPTIONS,
  amendOptions: AMEND_OPTIONS,
  openOptions: OPEN_OPTIONS,
  optionalChildren: ["data-file"],
  // What only some commands need is loaded when they do.
  open: async (file: BlockNode, options: OptionSet, context: DriverContext) => {
    if (context.mode.metadataOnly) {
      const { openMetadata } = await import("./open_metadata.ts");
      return await openMetadata(file, context, options);
    }
    const { openData } = await import("./open_data.ts");
    return await openData(file, context, options);
  },
  removesFailedCreate: true,
  create: async (request: CreateRequest) => {
    const { createImage } = await import("./create.ts");
    await createImage(request);
  },
  measure: async (options, source, secret) => {
    const { measureImage } = await import("./measure.ts");
    return await measureImage(options, source, secret);
  },
};
