/**
 * Making an image (section 7 of the format's reference).
 *
 * @module
 */
import type { CreateRequest } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { divideUp } from "../../lib/bytes/align.ts";
import { newHeader, SECTOR, tableEnd } from "./header.ts";

const CLUSTER_LIMIT = 2n ** 31n - 1n;
/** Entries of a table are counted in so many bits. */
const CLUSTERS_LIMIT = 2n ** 32n;

/**
 * Makes an image.
 *
 * @throws {ImageError} for a size that the format does not have; nothing was made then.
 */
export async function createImage(request: CreateRequest): Promise<void> {
  const { options } = request;
  const wanted = options.exact("size") ?? 0n;
  const cluster = roundUp(options.exact("cluster_size")!);
  const refuse = (message: string, field: string) =>
    new ImageError(message, { errno: "E2BIG", field });
  if (cluster >= CLUSTER_LIMIT) throw refuse("Cluster size is too large", "cluster_size");
  if (wanted >= CLUSTERS_LIMIT * cluster) {
    throw refuse("Image size is too large for this cluster size", "size");
  }
  const [length, clusterSize] = [Number(roundUp(wanted)), Number(cluster)];
  const entries = divideUp(length, clusterSize);
  const dataStart = divideUp(tableEnd(entries), clusterSize) * clusterSize;
  await using file = await request.createBase();
  await file.writeZeroes(SECTOR, dataStart - SECTOR, { unmap: false });
  // Before its header is there the file is nobody's image.
  await file.write(0, newHeader(length, clusterSize, entries, dataStart));
  await file.flush();
}

function roundUp(bytes: bigint): bigint {
  const sector = BigInt(SECTOR);
  return (bytes + sector - 1n) / sector * sector;
}
