import { ImageError } from "../../lib/block/error.ts";
import { MAX_SNAPSHOTS } from "./_layout.ts";
import type { Qcow2Image } from "./image.ts";
import { writeL1 } from "./l1_table.ts";
import { markedDirty } from "./lazy.ts";
import { countReferences } from "./snapshot_walk.ts";
import { prepareSnapshotTable, publishSnapshotTable, type Snapshot } from "./snapshots.ts";

/** Longest name that is stored, bytes. */
const MAX_NAME = 255;

/**
 * Makes a snapshot of the disk as it is (section 12, create). Everything that
 * it refers to is counted and safe before the snapshot table names it; if that
 * cannot be, all is as it was before.
 *
 * `date` is in milliseconds since 1970. The caller holds the image's lock.
 *
 * @throws {ImageError} `EFBIG` for one snapshot too many, `EINVAL` where a
 * refcount has no room for another reference, `ENOSPC`.
 */
export async function createSnapshot(
  image: Qcow2Image,
  name: string,
  date: number,
): Promise<void> {
  const { header, snapshots: { entries } } = image;
  if (entries.length >= MAX_SNAPSHOTS) throw tooMany(image);
  const nameBytes = new TextEncoder().encode(name).slice(0, MAX_NAME);
  const idBytes = new TextEncoder().encode(nextId(entries));
  const size = BigInt(header.size);
  // With its flags as they are: nothing goes by them before the table is used again, when they are set anew.
  const l1 = image.l1.bytes.slice();

  await markedDirty(image, async () => {
    await countReferences(image, image.l1, 1);
    let prepared;
    try {
      const l1Offset = await storeL1(image, l1);
      try {
        prepared = await prepareSnapshotTable(image, [...entries, {
          id: new TextDecoder().decode(idBytes),
          name: new TextDecoder().decode(nameBytes),
          dateSeconds: Math.floor(date / 1000),
          dateNanoseconds: Math.floor(date % 1000 * 1000) * 1000,
          vmClock: 0n,
          vmStateSize: 0,
          icount: 0n,
          l1Offset,
          l1Size: header.l1Size,
          diskSize: header.size,
          exact: { l1Offset: BigInt(l1Offset), vmStateSize: 0n, diskSize: size },
          extraSize: 24,
          unknownExtra: new Uint8Array(0),
          idBytes,
          nameBytes,
        }]);
      } catch (error) {
        if (!image.broken) await image.refcounts.free(l1Offset, l1.length, "always");
        throw error;
      }
      await image.l2.write();
      await image.refcounts.write();
      await writeL1(image);
      await image.barrier();
    } catch (error) {
      // A damaged image may have counted too little: nothing that is freed now was not in use before.
      if (!image.broken) await countReferences(image, image.l1, -1, "never");
      throw error;
    }
    await publishSnapshotTable(image, prepared);
  });
}

/** Stores the L1 table of a snapshot: where it lies. */
async function storeL1(image: Qcow2Image, l1: Uint8Array): Promise<number> {
  const { refcounts, overlap, file } = image;
  const offset = await refcounts.allocate(l1.length);
  try {
    await overlap.check(offset, l1.length);
    if (l1.length > 0) await file.write(offset, l1);
    return offset;
  } catch (error) {
    if (!image.broken) await refcounts.free(offset, l1.length, "always");
    throw error;
  }
}

/** One more than the highest id, by what C's `strtoul` makes of ids that are no numbers. */
function nextId(entries: readonly Snapshot[]): string {
  let highest = 0n;
  for (const { id } of entries) {
    const [, sign, digits] = /^[\t-\r ]*([+-]?)(\d*)/.exec(id)!;
    const limit = 2n ** 64n - 1n;
    const value = BigInt(digits!);
    const number = value > limit ? limit : BigInt.asUintN(64, sign === "-" ? -value : value);
    if (number > highest) highest = number;
  }
  return String(BigInt.asUintN(64, highest + 1n));
}

function tooMany(image: Qcow2Image): ImageError {
  return ImageError.fromErrno("EFBIG", { file: image.context.filename, field: "nb_snapshots" });
}
