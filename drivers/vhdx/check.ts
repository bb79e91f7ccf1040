/**
 * Checking the entries of the block allocation table (section 2 of the format's reference, item 7).
 *
 * @module
 */
import type { CheckReport, CheckResult } from "../../lib/block/capabilities.ts";
import { noFindings } from "../../lib/block/check_result.ts";
import { MIB } from "./_layout.ts";
import type { VhdxImage } from "./image.ts";

/** From here on an offset is negative to the reference. */
const OFFSET_LIMIT = 2 ** 63;

/** Checks all entries that say where a block is; calls `found` for everything that is wrong. */
export async function checkEntries(
  { file, table, entries, metadata, regions }: VhdxImage,
  found: (line: string) => void,
): Promise<void> {
  const { length, blockSize, chunkRatio } = metadata;
  const fileLength = file.length;
  await table.eachPresent(entries, (index, offset) => {
    // Offsets of blocks are exact, but not all of their decimal digits would show.
    const shown = BigInt(offset);
    if (offset >= OFFSET_LIMIT - blockSize) found(`VHDX BAT entry ${index} offset overflow.`);
    const isBitmap = index % (chunkRatio + 1) === chunkRatio;
    const block = index - Math.floor(index / (chunkRatio + 1));
    const most = isBitmap ? MIB : blockSize;
    const size = isBitmap ? MIB : Math.min(blockSize, length - block * blockSize);
    if (offset >= fileLength) {
      found(
        `VHDX BAT entry ${index} start offset ${shown} points after end of file ` +
          `(${fileLength}). Image has probably been truncated.`,
      );
    } else if (size > fileLength - offset) {
      found(
        `VHDX BAT entry ${index} end offset ${shown + BigInt(size - 1)} points after end of file ` +
          `(${fileLength}). Image has probably been truncated.`,
      );
    }
    const overlap = regions.overlap({ offset, length: most });
    if (overlap !== undefined) found(overlap);
  });
}

/** Checks an open image. There is nothing to repair but the log, which opening has done. */
export async function checkImage(image: VhdxImage, report: CheckReport): Promise<CheckResult> {
  let corruptions = 0;
  await checkEntries(image, (line) => {
    report(line, true);
    corruptions++;
  });
  return {
    ...noFindings(),
    corruptions,
    corruptionsFixed: image.wasReplayed ? 1 : 0,
  };
}
