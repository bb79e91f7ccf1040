/**
 * Checking, as far as the reference does: whether every grain that the tables name is in its file.
 *
 * @module
 */
import type { CheckReport, CheckResult } from "../../lib/block/capabilities.ts";
import { noFindings } from "../../lib/block/check_result.ts";
import { ImageError } from "../../lib/block/error.ts";
import { type DiskExtent, findGrainRun } from "./extent.ts";
import { SECTOR } from "./_layout.ts";
import type { VmdkImage } from "./image.ts";
import { UNALLOCATED, ZERO } from "./tables.ts";

/**
 * Looks at all grains. The first that is wrong ends it.
 *
 * @throws {ImageError} `EPERM` for a damaged table, `EINVAL` for a grain behind the end of its file.
 */
export async function checkImage(image: VmdkImage, report: CheckReport): Promise<CheckResult> {
  for (const extent of image.facts.extents) await checkExtent(extent, report);
  return noFindings();
}

async function checkExtent(extent: DiskExtent, report: CheckReport): Promise<void> {
  const { file, start } = extent;
  const fileLength = file.length;
  const requireInside = (position: number, offset: number) => {
    if (position < fileLength) return;
    const sector = (start + offset) / SECTOR;
    report(`ERROR: cluster offset for sector ${sector} points after EOF`);
    throw ImageError.fromErrno("EINVAL", { file: file.filename, field: "grain table" });
  };
  if (extent.kind === "flat") return requireInside(extent.offset, 0);
  const { grainSize, length } = extent;
  for (let at = 0; at < length;) {
    let run: { readonly length: number; readonly position: number };
    try {
      run = await findGrainRun(extent, at, length - at);
    } catch (error) {
      if (ImageError.from(error).field === undefined) throw error;
      report(`ERROR: could not get cluster_offset for sector ${(start + at) / SECTOR}`);
      // The reference's own error number, which happens to be this one.
      throw ImageError.fromErrno("EPERM", { file: file.filename, field: "grain table" });
    }
    if (run.position !== UNALLOCATED && run.position !== ZERO) {
      requireInside(run.position, at);
      at += grainSize;
    } else at += run.length;
  }
}
