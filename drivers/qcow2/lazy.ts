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
  const { file, header } = image;
  if (hasFeature(header, Incompatible.dirty)) return;
  const field = new DataView(new ArrayBuffer(8));
  field.setBigUint64(0, header.incompatible | BigInt(Incompatible.dirty));
  await file.write(FEATURES_FIELD, new Uint8Array(field.buffer));
  await image.barrier();
  setFeature(header, Incompatible.dirty, true);
}

/** Writes all tables, then clears the dirty bit by a header rewrite; nothing if it is clear. The lock is held. */
export async function markClean(image: Qcow2Image): Promise<void> {
  if (!hasFeature(image.header, Incompatible.dirty)) return;
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
  await image.lock.run(() => writeTables(image));
  await image.barrier();
  if (image.hasDataFile) await image.barrier(image.dataFile);
}
