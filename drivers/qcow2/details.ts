import type { BitmapInfo, ImageDetails, InfoValue } from "../../lib/block/capabilities.ts";
import { Autoclear, Compatible, Incompatible } from "./_layout.ts";
import { hasFeature } from "./header.ts";
import type { ImageFacts } from "./image.ts";

/** What `info` shows of an image (section 19 of the format's reference). */
export function imageDetails(
  image: ImageFacts,
  bitmaps: readonly BitmapInfo[],
  encrypt: InfoValue | undefined,
): ImageDetails {
  const { header, geometry } = image;
  return {
    clusterSize: geometry.clusterSize,
    encrypted: header.cryptMethod !== 0,
    dirty: hasFeature(header, Incompatible.dirty),
    specific: { type: "qcow2", data: specificData(image, bitmaps, encrypt) },
  };
}

function specificData(
  { header }: ImageFacts,
  bitmaps: readonly BitmapInfo[],
  encrypt: InfoValue | undefined,
): { readonly [key: string]: InfoValue } {
  const v3 = header.version >= 3;
  const data: { [key: string]: InfoValue } = {
    compat: v3 ? "1.1" : "0.10",
    "compression-type": header.compressionType === 0 ? "zlib" : "zstd",
  };
  if (v3) {
    data["lazy-refcounts"] = (header.compatible & BigInt(Compatible.lazyRefcounts)) !== 0n;
    if (bitmaps.length > 0) {
      data["bitmaps"] = bitmaps.map(({ flags, name, granularity }) => ({
        flags,
        name,
        granularity,
      }));
    }
  }
  data["refcount-bits"] = 2 ** header.refcountOrder;
  if (v3 && header.dataFile !== undefined) data["data-file"] = header.dataFile;
  if (encrypt !== undefined) data["encrypt"] = encrypt;
  if (v3) {
    if (hasFeature(header, Incompatible.dataFile)) {
      data["data-file-raw"] = (header.autoclear & BigInt(Autoclear.dataFileRaw)) !== 0n;
    }
    data["corrupt"] = hasFeature(header, Incompatible.corrupt);
    data["extended-l2"] = hasFeature(header, Incompatible.extendedL2);
  }
  return data;
}
