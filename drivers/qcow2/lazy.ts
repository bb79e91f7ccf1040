/**
 * When tables reach the file: flushing, and the dirty bit that lets refcounts
 * come late (sections 7 and 8).
 *
 * @module
 */
import { Incompatible } from "./_layout.ts";
import { hasFeature, setFeature } from "./header.ts";
import { updateFeatures } from "./header_writer.ts";
import type { Qcow2Image } from "./image.ts";

/** Where the header holds the incompatible features. */
const FEATURES_FIELD = 72;

/** Sets the dirty bit in the file (8 bytes at 72) and flushes; nothing if it is set. */
export async function markDirty(image: Qcow2Image): Promise<void> {
  if (!hasFeature(image.header, Incompatible.dirty)) await storeDirty(image, true);
}

/** Sets or clears the dirty bit and nothing else. */
async function storeDirty(image: Qcow2Image, dirty: boolean): Promise<void> {
  const { file, header } = image;
  const bit = BigInt(Incompatible.dirty);
  const field = new DataView(new ArrayBuffer(8));
  field.setBigUint64(0, dirty ? header.incompatible | bit : header.incompatible & ~bit);
  await file.write(FEATURES_FIELD, new Uint8Array(field.buffer));
  await image.barrier();
  setFeature(header, Incompatible.dirty, dirty);
}

/**
 * Runs a section that changes many refcounts and the COPIED flags that go with
 * them: a crash may come between the two, which harms nobody's data but is
 * something that a check complains about. So the image is marked dirty
 * meanwhile, and whoever opens it next counts anew. (Version 2 has no such
 * mark. There, as after a crash of the reference, the complaint remains.)
 * The lock is held.
 */
export async function markedDirty(image: Qcow2Image, section: () => Promise<void>): Promise<void> {
  const marks = image.header.version >= 3 && !hasFeature(image.header, Incompatible.dirty);
  if (marks) await markDirty(image);
  try {
    await section();
  } finally {
    if (!image.broken) {
      await image.l2.write();
      await image.refcounts.flush();
      if (marks && !image.countsInDoubt) await storeDirty(image, false);
    } else if (marks && hasFeature(image.header, Incompatible.corrupt)) {
      // Nobody writes to it any more without having repaired it: the one mark will do.
      await storeDirty(image, false);
    }
  }
}

/** Writes all tables, then clears the dirty bit by a header rewrite; nothing if it is clear. The lock is held. */
export async function markClean(image: Qcow2Image): Promise<void> {
  if (!hasFeature(image.header, Incompatible.dirty) || image.countsInDoubt) return;
  await image.l2.write();
  await image.refcounts.flush();
  await updateFeatures(image, { clear: Incompatible.dirty });
}

/** Writes changed tables in order. While the image is marked dirty, refcounts may wait. The lock is held. */
export async function writeTables(image: Qcow2Image): Promise<void> {
  await image.l2.write();
  if (!hasFeature(image.header, Incompatible.dirty)) await image.refcounts.write();
}

/** Writes changed tables in order, and flushes all files. Takes the lock. */
export async function flushImage(image: Qcow2Image): Promise<void> {
  image.assertUsable();
  if (!image.context.mode.writable) return;
  image.event("flush_to_os");
  await image.lock.run(() => writeTables(image));
  image.event("flush_to_disk");
  await image.barrier();
  if (image.hasDataFile) await image.barrier(image.dataFile);
}
