/**
 * From version 2 of the format to 3 and back (section 17 of its reference).
 *
 * @module
 */
import { ImageError, reasonText } from "../../lib/block/error.ts";
import { Incompatible } from "./_layout.ts";
import type { Step } from "./amend_progress.ts";
import type { Bitmaps } from "./bitmaps.ts";
import { expandZeroClusters, hasCompressedClusters } from "./expand_zeroes.ts";
import { hasFeature } from "./header.ts";
import { writeHeader } from "./header_writer.ts";
import type { Qcow2Image } from "./image.ts";
import { markClean } from "./lazy.ts";
import { writeSnapshotTable } from "./snapshots.ts";

/** Extra data of a snapshot that version 3 asks for, bytes: VM state size and disk size. */
const REQUIRED_EXTRA = 16;
/** log2 of the refcount bits that version 2 has. */
export const REFCOUNT_ORDER_V2 = 4;

/** Makes it version 3. The snapshot table gets the extra data that this version asks for first, which version 2 ignores. */
export async function upgrade(image: Qcow2Image, onStep: Step): Promise<void> {
  const { snapshots: { entries } } = image;
  onStep(0, 2);
  if (entries.some(({ extraSize }) => extraSize < REQUIRED_EXTRA)) {
    try {
      await image.lock.run(() => writeSnapshotTable(image, entries));
    } catch (error) {
      throw ImageError.from(error).prefixed("Failed to update the snapshot table: ");
    }
  }
  onStep(1, 2);
  await writeAs(image, { version: 3 });
  onStep(2, 2);
}

/**
 * Whether an image can be version 2 once its other options are as they shall be.
 *
 * @throws {ImageError} with the reference's texts.
 */
export async function assertDowngradable(
  image: Qcow2Image,
  { refcountOrder, size }: { readonly refcountOrder: number; readonly size: number },
): Promise<void> {
  const { header, snapshots, hasDataFile } = image;
  const refuse = (message: string) =>
    new ImageError(message, { errno: "ENOTSUP", field: "compat", file: image.context.filename });
  if (refcountOrder !== REFCOUNT_ORDER_V2) throw refuse("compat=0.10 requires refcount_bits=16");
  if (hasDataFile) throw refuse("Cannot downgrade an image with a data file");
  for (const { exact } of snapshots.entries) {
    if (exact.vmStateSize > 0xffff_ffffn || exact.diskSize !== BigInt(size)) {
      throw refuse("Internal snapshots prevent downgrade of image");
    }
  }
  const removable = BigInt(Incompatible.dirty | Incompatible.compressionType);
  const others = header.incompatible & ~removable;
  if (others !== 0n) {
    throw refuse(
      `Cannot downgrade an image with incompatible features 0x${others.toString(16)} set`,
    );
  }
  if (hasFeature(header, Incompatible.compressionType) && await hasCompressedClusters(image)) {
    throw refuse(
      "Cannot downgrade an image with zstd compression type and existing compressed clusters",
    );
  }
}

/**
 * Makes it version 2: zero clusters, which that does not have, get written
 * zeros, and bitmaps are removed.
 *
 * @throws {ImageError} if something fails; the image is a sound version 3 then.
 */
export async function downgrade(
  image: Qcow2Image,
  bitmaps: Bitmaps,
  onStep: Step,
): Promise<void> {
  await image.lock.run(async () => {
    await markClean(image);
    // From here on refcounts come in time: nobody repairs version 2.
    image.lazyRefcounts = false;
    try {
      await expandZeroClusters(image, onStep);
    } catch (error) {
      throw new ImageError(`Failed to turn zero into data clusters: ${reasonText(error)}`, {
        errno: ImageError.from(error).errno,
        cause: error,
      });
    }
  });
  for (const { name } of bitmaps.list()) await bitmaps.remove(name);
  await writeAs(image, {
    version: 2,
    incompatible: 0n,
    compatible: 0n,
    autoclear: 0n,
    compressionType: 0,
  });
}

/** Rewrites the header with other fields; in memory they stay as they were if that fails. */
async function writeAs(
  image: Qcow2Image,
  fields: Partial<
    Pick<
      Qcow2Image["header"],
      "version" | "incompatible" | "compatible" | "autoclear" | "compressionType"
    >
  >,
): Promise<void> {
  const { header } = image;
  const { version, incompatible, compatible, autoclear, compressionType } = header;
  Object.assign(header, fields);
  try {
    await writeHeader(image);
    await image.barrier();
  } catch (error) {
    Object.assign(header, { version, incompatible, compatible, autoclear, compressionType });
    throw ImageError.from(error).prefixed("Failed to update the image header: ");
  }
}
