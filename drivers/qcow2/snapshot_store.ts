import type { SnapshotInfo, SnapshotStore } from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { Qcow2Image } from "./image.ts";
import type { Snapshot } from "./snapshots.ts";

/** The snapshots of an open image, with what can be done about them in it. */
export function snapshotStore(image: Qcow2Image): SnapshotStore {
  // Data clusters in a file of their own are not counted, so nobody else can have them, too.
  const list = () => image.hasDataFile ? [] : image.snapshots.entries;
  if (!image.context.mode.writable) {
    return { list, select: (snapshot) => select(image, entryOf(image, snapshot)) };
  }
  if (image.hasDataFile) return { list };
  return {
    list,
    create: (name, date) =>
      alone(image, async () => {
        const { createSnapshot } = await import("./snapshot_create.ts");
        await createSnapshot(image, name, date);
      }),
    apply: (snapshot) =>
      alone(image, async () => {
        const { applySnapshot } = await import("./snapshot_apply.ts");
        await applySnapshot(image, entryOf(image, snapshot));
      }),
    remove: (snapshot) =>
      alone(image, async () => {
        const { deleteSnapshot } = await import("./snapshot_delete.ts");
        await deleteSnapshot(image, entryOf(image, snapshot));
      }),
  };
}

function entryOf(image: Qcow2Image, snapshot: SnapshotInfo): Snapshot {
  const entry = image.snapshots.entries.find((entry) => entry === snapshot);
  if (entry !== undefined) return entry;
  throw ImageError.fromErrno("ENOENT", { file: image.context.filename, field: "snapshot table" });
}

async function select(image: Qcow2Image, snapshot: Snapshot): Promise<void> {
  const { readSnapshotL1, requireL1 } = await import("./snapshot_l1.ts");
  requireL1(image, snapshot);
  try {
    image.l1 = await readSnapshotL1(image, snapshot);
  } catch (error) {
    throw new ImageError("Failed to read l1 table for snapshot", {
      errno: ImageError.from(error).errno,
      file: image.context.filename,
      cause: error,
    });
  }
}

/** Runs a section with the lock held and no write on its way: its bytes would end in the snapshot, or in nowhere. */
async function alone(image: Qcow2Image, section: () => Promise<void>): Promise<void> {
  for (let done = false; !done;) {
    await image.pending.settled(0, Infinity);
    await image.lock.run(async () => {
      if (image.pending.all.length > 0) return;
      image.assertUsable();
      await section();
      done = true;
    });
  }
}
