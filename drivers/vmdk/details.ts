import type { ImageDetails, InfoValue } from "../../lib/block/capabilities.ts";
import type { VmdkImage } from "./image.ts";

/** What `info` shows of an image (section 9 of the format's reference). */
export function imageDetails({ facts, cid }: VmdkImage): ImageDetails {
  const { extents, parentCid, createType } = facts;
  const shown = extents.map((extent): { [key: string]: InfoValue } => {
    const isFlat = extent.kind === "flat";
    return {
      ...(!isFlat && extent.packed !== undefined ? { compressed: true } : {}),
      "virtual-size": extent.length,
      filename: extent.file.filename,
      ...(isFlat ? {} : { "cluster-size": extent.grainSize }),
      format: extent.type,
    };
  });
  const sizes = new Set(shown.map((extent) => extent["cluster-size"]));
  const [clusterSize] = sizes;
  return {
    // Only if all extents agree.
    ...(sizes.size === 1 && typeof clusterSize === "number" ? { clusterSize } : {}),
    dirty: false,
    specific: {
      type: "vmdk",
      data: {
        cid,
        "parent-cid": parentCid,
        "create-type": createType,
        extents: shown,
      },
    },
  };
}
