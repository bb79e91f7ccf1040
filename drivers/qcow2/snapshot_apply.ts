import { ImageError } from "../../lib/block/error.ts";
import { MAX_L1_BYTES } from "./_layout.ts";
import type { Qcow2Image } from "./image.ts";
import { switchL1 } from "./l1_table.ts";
import { markedDirty } from "./lazy.ts";
import { readSnapshotL1, requireL1 } from "./snapshot_l1.ts";
import { countReferences } from "./snapshot_walk.ts";
import type { Snapshot } from "./snapshots.ts";
import type { EntryTable } from "./table.ts";

/**
 * Makes the disk what it was when a snapshot was made, its size included
 * (section 12, apply). At any moment it is the old disk or the new one.
 *
 * The caller holds the image's lock, and nobody uses the disk meanwhile.
 *
 * @throws {ImageError} with the reference's texts; the disk is then as it was.
 */
export async function applySnapshot(image: Qcow2Image, snapshot: Snapshot): Promise<void> {
  const { header } = image;
  requireTable(image, snapshot);
  const length = requireLength(image, snapshot);
  const entries = Math.max(header.l1Size, Math.ceil(length / image.geometry.l2Span));
  const l1 = await readSnapshotL1(image, snapshot, entries);
  if (l1.bytes.length > MAX_L1_BYTES) {
    throw ImageError.fromErrno("EFBIG", { file: image.context.filename, field: "l1_size" });
  }
  await markedDirty(image, async () => {
    await countReferences(image, l1, 1);
    const old = image.l1;
    try {
      await storeSnapshotL1(image, snapshot, l1);
      await image.l2.write();
      await image.refcounts.flush();
      await switchL1(image, l1, length);
    } catch (error) {
      if (!image.broken) await countReferences(image, l1, -1, "never");
      throw error;
    }
    // All that the disk has now the snapshot has, too: no flag of it can come from what is freed here.
    await countReferences(image, old, -1);
  });
}

/** Says what is wrong with a snapshot's L1 table: who asked for it hears the class of the error alone. */
function requireTable(image: Qcow2Image, snapshot: Snapshot): void {
  try {
    requireL1(image, snapshot);
  } catch (error) {
    const { message, errno, file, field } = ImageError.from(error);
    image.context.report(message, true);
    throw ImageError.fromErrno(errno ?? "EINVAL", { file, field });
  }
}

/** The size of a snapshot's disk, as a number. */
function requireLength({ header, context }: Qcow2Image, { exact }: Snapshot): number {
  const { diskSize } = exact;
  if (diskSize === BigInt(header.size)) return header.size;
  const refuse = (message: string, errno: "EINVAL" | "ENOTSUP" | "EFBIG") => {
    context.report(message, true);
    return ImageError.fromErrno(errno, { file: context.filename, field: "size" });
  };
  if (diskSize % 512n !== 0n) {
    throw refuse("The new size must be a multiple of 512", "EINVAL");
  }
  if (header.version < 3) {
    throw refuse("Can't resize a v2 image which has snapshots", "ENOTSUP");
  }
  if (diskSize > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw refuse("Failed to grow the L1 table: File too large", "EFBIG");
  }
  return Number(diskSize);
}

/** Stores the flags of a snapshot's own L1 table, of which `l1` is a copy, perhaps a longer one. */
async function storeSnapshotL1(
  image: Qcow2Image,
  { l1Offset, l1Size }: Snapshot,
  l1: EntryTable,
): Promise<void> {
  if (l1Size === 0) return;
  await image.overlap.check(l1Offset, l1Size * 8, "inactive L1 table");
  await image.file.write(l1Offset, l1.bytes.subarray(0, l1Size * 8));
}
