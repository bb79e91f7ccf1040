/**
 * Space taken in advance, when an image is made or grows (section 11 of the
 * format's reference).
 *
 * @module
 */
import { during, ImageError } from "../../lib/block/error.ts";
import type { Preallocation, ZeroFlags } from "../../lib/block/node.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import type { Qcow2Image } from "./image.ts";
import { readAt } from "./mapping.ts";
import { linkGuest, preallocateGuest } from "./write.ts";

/** A grown part of the disk. */
export interface NewArea {
  /** First new byte of the disk. */
  readonly start: number;
  /** End of the disk, bytes. */
  readonly end: number;
}

/**
 * Allocates and links clusters for a part of the disk without writing data,
 * then extends the file to the last of them. With a data file, `how` is passed
 * on to it.
 */
export async function preallocateMetadata(
  image: Qcow2Image,
  { start, end }: NewArea,
  how: Preallocation,
): Promise<void> {
  // What lies behind has no old bytes, though the end of the disk may be written there on the way.
  const usedBefore = image.file.length;
  let fileEnd = 0;
  for (let offset = start; offset < end;) {
    const run = await preallocateGuest(image, offset, end - offset);
    if (!image.hasDataFile && image.geometry.subclusters === 1) {
      // Subclusters do not show what nobody wrote. The first cluster may hold the end of the old disk.
      const inside = alignUp(offset, image.geometry.clusterSize) - offset;
      const oldEnd = Math.min(run.offset + run.length, usedBefore);
      await forget(image, run.offset + inside, oldEnd, { unmap: true });
    }
    offset += run.length;
    fileEnd = run.offset + run.length;
  }
  // Reads behind the end of a file fail in some layers below.
  const { dataFile } = image;
  if ((dataFile.exactLength ?? dataFile.length) < fileEnd) {
    await dataFile.resize(fileEnd, how === "metadata" ? "off" : how);
  }
}

/**
 * Appends all data clusters of a part of the disk in one run, behind new
 * refcount structures that cover them, then links them. With `zeros` they
 * count as written, so that no backing file shows in their subclusters.
 */
export async function preallocateData(
  image: Qcow2Image,
  { start, end }: NewArea,
  how: Preallocation,
  zeros: boolean,
): Promise<void> {
  const { clusterSize, l2Entries } = image.geometry;
  const { file, refcounts } = image;
  const firstGuest = start - start % clusterSize;
  const clusters = Math.ceil((end - firstGuest) / clusterSize);
  // One more table than the data fill: the area may begin and end inside of one.
  const tables = Math.ceil(clusters / l2Entries) + 1;

  const host = await image.lock.run(async () => {
    const fileClusters = Math.ceil(file.length / clusterSize);
    const last = await refcounts.lastUsed(fileClusters);
    const used = (last < 0 ? fileClusters : last + 1) * clusterSize;
    const at = await during(
      "Failed to resize refcount structures",
      () => refcounts.growTable(used, clusters + tables, "exact"),
    );
    const got = await during(
      "Failed to allocate data clusters",
      () => refcounts.allocateAt(at, clusters),
    );
    if (got !== clusters) {
      // Nothing lies behind the last used cluster, so somebody else is writing to the file.
      if (got > 0) await refcounts.free(at, got * clusterSize, "other");
      throw ImageError.fromErrno("EIO", { file: image.context.filename, field: "refcounts" });
    }
    return at;
  });
  try {
    const dataEnd = host + clusters * clusterSize;
    await forget(image, host, dataEnd, { unmap: false });
    // Clusters that nobody uses any more may lie behind.
    if (dataEnd > file.length) await file.resize(dataEnd, how);
    if (firstGuest < start) await copyHead(image, firstGuest, start - firstGuest, host);
  } catch (error) {
    await image.lock.run(() => refcounts.free(host, clusters * clusterSize, "other"));
    throw ImageError.from(error).prefixed("Failed to resize underlying file: ");
  }
  const filled = zeros ? clusters * clusterSize : start - firstGuest;
  await during(
    "Failed to update L2 tables",
    () => linkGuest(image, firstGuest, host, clusters, filled),
  );
}

/**
 * Zeros what the file has between two of its offsets: clusters that were in use
 * before, whose bytes nobody may see again. (The reference shows them.)
 */
async function forget(
  image: Qcow2Image,
  start: number,
  end: number,
  flags: ZeroFlags,
): Promise<void> {
  const length = Math.min(end, image.file.length) - start;
  if (length > 0) await image.file.writeZeroes(start, length, flags);
}

/** The first cluster of the area holds old data up to where the area begins. */
async function copyHead(
  image: Qcow2Image,
  guest: number,
  length: number,
  host: number,
): Promise<void> {
  // Up to the end of its last sector, should the disk have ended within it.
  const head = new Uint8Array(Math.ceil(length / 512) * 512);
  await readAt(image, guest, head);
  if (image.encryption === undefined) await image.file.write(host, head);
  else await image.encryption.write(image.file, { host, guest }, head);
  await image.barrier();
}
