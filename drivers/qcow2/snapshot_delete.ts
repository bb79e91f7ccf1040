import { during } from "../../lib/block/error.ts";
import type { Qcow2Image } from "./image.ts";
import { writeL1 } from "./l1_table.ts";
import { markedDirty } from "./lazy.ts";
import { readSnapshotL1, requireL1 } from "./snapshot_l1.ts";
import { countReferences } from "./snapshot_walk.ts";
import { type Snapshot, writeSnapshotTable } from "./snapshots.ts";

/**
 * Removes a snapshot (section 12, delete). Its clusters are freed when the
 * file no longer names it; what fails after that leaks them.
 *
 * The caller holds the image's lock.
 *
 * @throws {ImageError} with the reference's texts.
 */
export async function deleteSnapshot(image: Qcow2Image, snapshot: Snapshot): Promise<void> {
  const { refcounts } = image;
  requireL1(image, snapshot);
  await markedDirty(image, async () => {
    const others = image.snapshots.entries.filter((other) => other !== snapshot);
    await during(
      "Failed to remove snapshot from snapshot list",
      () => writeSnapshotTable(image, others),
    );
    try {
      await during("Failed to free the cluster and L1 table", async () => {
        const l1 = await readSnapshotL1(image, snapshot);
        await countReferences(image, l1, -1);
        await refcounts.free(snapshot.l1Offset, l1.bytes.length, "snapshot");
      });
    } finally {
      await during("Failed to update snapshot status in disk", async () => {
        await countReferences(image, image.l1, 0);
        await writeL1(image);
      });
    }
  });
}
