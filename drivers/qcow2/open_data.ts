import type { Checker } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { imageDetails } from "./details.ts";
import type { Qcow2Image } from "./image.ts";
import { Qcow2Node } from "./node.ts";
import { openImage } from "./open.ts";
import { snapshotStore } from "./snapshot_store.ts";

/**
 * Opens an image for its guest data, for checks and for changes.
 *
 * @throws {ImageError} naming file and field, with the reference's text.
 */
export async function openData(
  file: BlockNode,
  context: DriverContext,
  options?: OptionSet,
): Promise<BlockNode> {
  const { image, bitmaps, encrypt } = await openImage(file, context, repairDirty, options);
  image.guestWrite = (offset, length) => bitmaps.record(offset, length);
  return new Qcow2Node(image, {
    details: () => Promise.resolve(imageDetails(image, bitmaps.list(), encrypt)),
    resize: async (length, how) => {
      const { resizeImage } = await import("./resize.ts");
      await resizeImage(image, length, how, bitmaps);
    },
    changeBacking: async (name, format) => {
      const { changeBacking } = await import("./backing.ts");
      await changeBacking(image, name, format);
    },
    makeEmpty: async () => {
      const { emptyImage } = await import("./empty.ts");
      await emptyImage(image, bitmaps);
    },
    beforeClose: () => bitmaps.store(),
    checker: checkerOf(image),
    amender: {
      amend: async (options, request) => {
        const { amendImage } = await import("./amend.ts");
        await amendImage(image, bitmaps, options, request);
      },
    },
    snapshots: snapshotStore(image),
    bitmaps: image.header.version >= 3 ? bitmaps : "Cannot store dirty bitmaps in qcow2 v2 files",
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
