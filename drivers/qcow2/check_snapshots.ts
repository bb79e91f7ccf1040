/**
 * The snapshot table in a check: read before everything else, for all that
 * the snapshots refer to is counted; replaced, if need be, when refcounts are
 * right again.
 *
 * @module
 */
import { ImageError, reasonText } from "../../lib/block/error.ts";
import { errnoText } from "../../lib/io/errno.ts";
import type { CheckRun } from "./_check_run.ts";
import { MAX_SNAPSHOTS } from "./_layout.ts";
import { readPadded } from "./_read.ts";
import { NO_SNAPSHOTS, readSnapshotTable, writeSnapshotTable } from "./snapshots.ts";

/** Bytes of a snapshot table entry without extra data and names. */
const ENTRY_SIZE = 40;
/** Extra data that version 3 asks for, bytes. */
const REQUIRED_EXTRA = 16;

/**
 * Reads the table into `image.snapshots`. Answers with the number of
 * corruptions in it, which {@linkcode repairSnapshotTable} repairs.
 *
 * @throws {ImageError} if the table cannot be read at all.
 */
export async function checkSnapshotTable(run: CheckRun): Promise<number> {
  const { image, fixErrors } = run;
  const { header } = image;
  const pointer = new DataView(new ArrayBuffer(12));
  image.snapshots = NO_SNAPSHOTS;
  await readPadded(image.file, 60, new Uint8Array(pointer.buffer));
  header.snapshotCount = pointer.getUint32(0);
  const offset = pointer.getBigUint64(4);
  header.snapshotsOffset = Number(offset);

  let corruptions = 0;
  const overhanging = Math.max(header.snapshotCount - MAX_SNAPSHOTS, 0);
  if (overhanging > 0 && fixErrors) {
    run.report(`Discarding ${overhanging} overhanging snapshots`);
    corruptions += overhanging;
    header.snapshotCount = MAX_SNAPSHOTS;
  }
  if (header.snapshotCount > MAX_SNAPSHOTS) {
    run.report("ERROR snapshot table too large", true);
    run.report(
      `You can force-remove all ${overhanging} overhanging snapshots with qemu-img check -r all`,
    );
    throw unreadable(run, "EFBIG");
  }
  const end = offset + BigInt(header.snapshotCount * ENTRY_SIZE);
  if (offset % BigInt(image.geometry.clusterSize) !== 0n || end > 2n ** 63n - 1n) {
    run.report("ERROR snapshot table offset invalid", true);
    throw unreadable(run, "EINVAL");
  }
  try {
    const { filename, untrusted } = image.context;
    const context = { filename, untrusted, report: run.report };
    image.snapshots = await readSnapshotTable({ file: image.file, header, context }, fixErrors);
  } catch (error) {
    const { message, hint, errno } = ImageError.from(error);
    run.report(`ERROR failed to read the snapshot table: ${message}`, true);
    if (hint !== undefined) run.report(hint);
    throw unreadable(run, errno);
  }
  const { entries, discarded, extraDropped } = image.snapshots;
  header.snapshotCount = entries.length;
  corruptions += discarded + extraDropped;
  if (header.version >= 3) {
    for (const [index, { extraSize }] of entries.entries()) {
      if (extraSize >= REQUIRED_EXTRA) continue;
      run.report(
        `${fixErrors ? "Repairing" : "ERROR"} snapshot table entry ${index} is incomplete`,
      );
      corruptions++;
    }
  }
  return corruptions;
}

/**
 * Writes the table anew if it had `corruptions`, and counts these.
 *
 * @throws {ImageError} if it cannot be written.
 */
export async function repairSnapshotTable(run: CheckRun, corruptions: number): Promise<void> {
  const { image, result } = run;
  if (corruptions === 0 || !run.fixErrors) {
    result.corruptions += corruptions;
    return;
  }
  try {
    await writeSnapshotTable(image, image.snapshots.entries);
  } catch (error) {
    result.corruptions += corruptions;
    run.checkError(`ERROR failed to update snapshot table: ${reasonText(error)}`);
    throw error;
  }
  result.corruptionsFixed += corruptions;
}

function unreadable(run: CheckRun, errno: ImageError["errno"]): ImageError {
  run.result.checkErrors++;
  return new ImageError(errno === undefined ? "Snapshot table unreadable" : errnoText(errno), {
    errno,
    file: run.image.context.filename,
    field: "snapshot table",
  });
}
