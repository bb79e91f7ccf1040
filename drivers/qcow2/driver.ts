import type { Checker } from "../../lib/block/capabilities.ts";
import type { CreateRequest, DriverContext, FormatDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { imageDetails } from "./details.ts";
import type { Qcow2Image } from "./image.ts";
import { Qcow2Node } from "./node.ts";
import { openImage } from "./open.ts";
import { CREATE_OPTIONS } from "./options.ts";
import { Snapshots } from "./snapshots.ts";

/**
 * qcow2, versions 2 and 3.
 *
 * Limits of this driver, beside the format's own: a virtual disk has at most
 * 2^53 - 1 bytes, tables lie below that offset, and encrypted images open for
 * looking at their metadata only. With `untrusted` tables are held to the
 * bounds of `UNTRUSTED` in `_layout.ts`.
 */
export const qcow2: FormatDriver = {
  name: "qcow2",
  transparent: false,
  packs: true,
  createOptions: CREATE_OPTIONS,
  openOptions: [],
  open: openNode,
  removesFailedCreate: true,
  // What only some commands need is loaded when they do.
  create: async (request: CreateRequest) => {
    const { createImage } = await import("./create.ts");
    await createImage(request);
  },
  measure: async (options: OptionSet, source: BlockNode | undefined) => {
    const { measureImage } = await import("./measure.ts");
    return await measureImage(options, source);
  },
};

async function openNode(
  file: BlockNode,
  _options: OptionSet,
  context: DriverContext,
): Promise<BlockNode> {
  const { image, bitmaps, encrypt } = await openImage(file, context, repairDirty);
  if (bitmaps.list().length > 0) {
    image.guestWrite = (offset, length) => bitmaps.record(offset, length);
  }
  return new Qcow2Node(image, {
    details: () => Promise.resolve(imageDetails(image, bitmaps, encrypt)),
    resize: async (length, how) => {
      const { resizeImage } = await import("./resize.ts");
      await resizeImage(image, length, how, bitmaps);
    },
    changeBacking: async (name, format) => {
      const { changeBacking } = await import("./create.ts");
      await changeBacking(image, name, format);
    },
    beforeClose: () => image.lock.run(() => bitmaps.store()),
    checker: checkerOf(image),
    snapshots: new Snapshots(image),
    ...(image.header.version >= 3 ? { bitmaps } : {}),
  });
}

function checkerOf(image: Qcow2Image): Checker {
  return {
    check: async (repair, report) => {
      const { checkImage } = await import("./check.ts");
      return await checkImage(image, repair, report);
    },
  };
}

/** A dirty image is repaired before it is written to; what is found is reported. */
async function repairDirty(image: Qcow2Image): Promise<void> {
  const { context } = image;
  const result = await checkerOf(image).check("all", (...line) => context.report(...line));
  if (result.checkErrors > 0) throw ImageError.fromErrno("EIO");
}
