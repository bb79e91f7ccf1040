/**
 * Making an image (section 5 of the format's reference).
 *
 * @module
 */
import { backingFormatOf } from "../../lib/block/backing_format.ts";
import type { CreateRequest } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { parseInteger } from "../../lib/bytes/size.ts";
import { withBacking } from "./backing.ts";
import {
  encodeHeader,
  HEADER_BYTES,
  isClusterSize,
  isImageSize,
  isTableSize,
  MAX_CLUSTER,
  MAX_TABLE,
  maxImageSize,
  MIN_CLUSTER,
  type QedHeader,
  SECTOR,
} from "./header.ts";

const DEFAULT_TABLE = 4;

/**
 * Makes an image. Options are checked before anything is touched.
 *
 * @throws {ImageError} with the reference's texts; `EFBIG` for a disk that is longer than a number can say.
 */
export async function createImage(request: CreateRequest): Promise<void> {
  const { options, context: { mode } } = request;
  const name = new TextEncoder().encode(options.string("backing_file") ?? "");
  const backingFormat = backingFormatOf(options);
  const bare = newHeader(options);
  const header = name.length === 0 ? bare : withBacking(bare, name, backingFormat);
  await using file = await request.createBase();
  // The end of the file is that of what is in use: whatever is there has to go.
  await file.resize(0, "off");
  const tableSize = header.clusterSize * header.tableClusters;
  await file.writeZeroes(header.l1Offset, tableSize, { unmap: false });
  const inSector = Math.min(name.length, SECTOR - HEADER_BYTES);
  if (inSector < name.length) {
    await file.write(HEADER_BYTES + inSector, name.subarray(inSector));
  }
  if (!mode.cache.noFlush) await file.flush();
  // The header comes last, in one sector: before it the file is nobody's image.
  const head = new Uint8Array(HEADER_BYTES + inSector);
  head.set(encodeHeader(header));
  head.set(name.subarray(0, inSector), HEADER_BYTES);
  await file.write(0, head);
  if (!mode.cache.noFlush) await file.flush();
}

/** The header of a new image without a backing file. */
function newHeader(options: OptionSet): QedHeader {
  const refuse = (message: string, field: string) =>
    new ImageError(message, { errno: "EINVAL", field });
  const tableClusters = tableSizeOf(options);
  const clusterSize = options.number("cluster_size")!;
  const size = options.exact("size") ?? 0n;
  const imageSize = BigInt.asUintN(64, (size + 511n) / 512n * 512n);
  if (!isClusterSize(clusterSize)) {
    throw refuse(
      `QED cluster size must be within range [${MIN_CLUSTER}, ${MAX_CLUSTER}] and power of 2`,
      "cluster_size",
    );
  }
  if (!isTableSize(tableClusters)) {
    throw refuse(
      `QED table size must be within range [1, ${MAX_TABLE}] and power of 2`,
      "table_size",
    );
  }
  if (!isImageSize(imageSize, clusterSize, tableClusters)) {
    throw refuse(
      "QED image size must be a non-zero multiple of cluster size and less than " +
        `${maxImageSize(clusterSize, tableClusters)} bytes`,
      "size",
    );
  }
  if (imageSize > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw ImageError.fromErrno("EFBIG", { field: "size" });
  }
  return {
    clusterSize,
    tableClusters,
    headerClusters: 1,
    features: 0n,
    compatFeatures: 0n,
    autoclearFeatures: 0n,
    l1Offset: clusterSize,
    imageSize: Number(imageSize),
    backingNameOffset: 0,
    backingNameSize: 0,
  };
}

/** A number, although the option is a size: the reference takes no suffix here. */
function tableSizeOf(options: OptionSet): number {
  const text = options.text("table_size");
  if (text === undefined) return DEFAULT_TABLE;
  const value = parseInteger(text);
  if (typeof value === "string") {
    throw new ImageError("Parameter 'table-size' expects integer", {
      errno: "EINVAL",
      field: "table_size",
    });
  }
  return Number(value.value);
}
