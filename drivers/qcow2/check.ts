/**
 * Checking and repairing an image (section 16 of the format's reference): the
 * order of things. `reference_walk.ts` counts references, `check_refcounts.ts`
 * compares them with the refcounts, `rebuild.ts` makes a new refcount
 * structure, `check_copied.ts` and `check_snapshots.ts` do what their names say.
 *
 * @module
 */
import type { CheckReport, CheckResult, RepairMode } from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import { CheckRun } from "./_check_run.ts";
import { Incompatible } from "./_layout.ts";
import { checkCopiedFlags } from "./check_copied.ts";
import { adoptRefcounts, type ComparedRefcounts, compareRefcounts } from "./check_refcounts.ts";
import { NO_REPAIRS } from "./check_refcounts.ts";
import { checkSnapshotTable, repairSnapshotTable } from "./check_snapshots.ts";
import { updateFeatures } from "./header_writer.ts";
import type { Qcow2Image } from "./image.ts";
import { markClean, markedDirty } from "./lazy.ts";
import { rebuildRefcounts } from "./rebuild.ts";
import { ReferenceCounts } from "./reference_counts.ts";
import { countReferences, fileClusters } from "./reference_walk.ts";

/**
 * Checks an image, and repairs what `repair` allows. Takes the lock.
 *
 * @throws {ImageError} if the check could not be completed.
 */
export async function checkImage(
  image: Qcow2Image,
  repair: RepairMode,
  report: CheckReport,
): Promise<CheckResult> {
  return await image.lock.run(() => check(image, repair, report));
}

async function check(
  image: Qcow2Image,
  repair: RepairMode,
  report: CheckReport,
): Promise<CheckResult> {
  image.assertUsable();
  const run = new CheckRun(image, repair, report);
  // L2 tables are read from the file; what is still in memory belongs there first.
  if (!image.file.readOnly) await image.l2.write();
  const snapshotCorruptions = await checkSnapshotTable(run);
  try {
    await checkRefcounts(run);
  } finally {
    await image.l2.reset();
  }
  await repairSnapshotTable(run, snapshotCorruptions);
  if (run.repairs && run.result.checkErrors === 0 && run.result.corruptions === 0) {
    await markClean(image);
    await updateFeatures(image, { clear: Incompatible.corrupt });
  }
  return run.result;
}

/** Refcounts and everything that refers to clusters. */
async function checkRefcounts(run: CheckRun): Promise<void> {
  const { image, result } = run;
  const counts = new ReferenceCounts(fileClusters(run), image.refcounts.format.maximum);
  await countReferences(run, counts, run.fixErrors);
  const finish = async (compared: ComparedRefcounts) => {
    await checkCopiedFlags(run, counts, compared);
    result.imageEndOffset = (compared.lastUsed + 1) * image.geometry.clusterSize;
  };
  if (!run.repairs) return await finish(await adoptRefcounts(run, counts, NO_REPAIRS));

  const before = { ...result };
  const compared = await compareRefcounts(run, counts);
  if (run.rebuild && !run.fixErrors) {
    run.report("ERROR need to rebuild refcount structures");
    throw ImageError.fromErrno("EIO", { file: image.context.filename, field: "refcounts" });
  }
  if (!run.rebuild && result.leaks === 0 && result.corruptions === 0) {
    return await finish(compared);
  }
  const differs = result.leaks > before.leaks || result.corruptions > before.corruptions;
  const repair = async () => {
    if (run.rebuild) return await finish(await rebuildAndRecount(run, counts));
    Object.assign(result, before);
    const repairs = { leaks: run.fixLeaks, errors: run.fixErrors };
    await finish(await adoptRefcounts(run, counts, repairs));
  };
  // Halfway, counts may be worse than they were: new blocks may take the place of old ones that
  // only damaged entries lead to. Whoever asked for less than everything gets nothing that raises
  // counts or moves blocks, and must not get the rest by the next opening.
  if (run.fixErrors && (differs || run.rebuild) && !image.broken) await markedDirty(image, repair);
  else await repair();
}

/** What the new structure made of the old one's damage: references are counted again and compared. */
async function rebuildAndRecount(
  run: CheckRun,
  counts: ReferenceCounts,
): Promise<ComparedRefcounts> {
  const { result } = run;
  const before = { ...result };
  run.report("Rebuilding refcount structure");
  await rebuildRefcounts(run, counts);
  run.rebuild = false;
  Object.assign(result, {
    corruptions: 0,
    leaks: 0,
    allocatedClusters: 0,
    fragmentedClusters: 0,
    compressedClusters: 0,
  });
  counts.clear();
  await countReferences(run, counts, false);

  // The leaks that come up now are the old structure: nothing that the user had in his image.
  const recounted = { ...result };
  const compared = await adoptRefcounts(run, counts, { leaks: true, errors: false });
  if (run.rebuild) run.report("ERROR rebuilt refcount structure is still broken");
  Object.assign(result, recounted);
  result.corruptionsFixed += Math.max(before.corruptions - result.corruptions, 0);
  result.leaksFixed += Math.max(before.leaks - result.leaks, 0);
  return compared;
}
