/**
 * Checking the block map (section 5 of the format's reference). Nothing can be repaired.
 *
 * @module
 */
import type { CheckReport, CheckResult, RepairMode } from "../../lib/block/capabilities.ts";
import { noFindings } from "../../lib/block/check_result.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockMap } from "./block_map.ts";
import type { VdiHeader } from "./header.ts";

/** @throws {ImageError} `ENOTSUP` if anything is to be repaired. */
export function checkMap(
  header: VdiHeader,
  map: BlockMap,
  repair: RepairMode,
  report: CheckReport,
): CheckResult {
  if (repair !== "none") throw ImageError.fromErrno("ENOTSUP");
  const seen = new Uint8Array(Math.ceil(header.blocks / 8));
  let [allocated, corruptions] = [0, 0];
  for (let index = 0; index < header.blocks; index++) {
    if (!map.has(index)) continue;
    const block = map.get(index);
    if (block >= header.blocks) {
      report(`ERROR: block index ${index} too large, is ${block}`);
      corruptions++;
      continue;
    }
    allocated++;
    const bit = 1 << (block & 7);
    if ((seen[block >> 3]! & bit) !== 0) {
      report(`ERROR: block index ${block} also used by ${block}`);
      corruptions++;
    }
    seen[block >> 3]! |= bit;
  }
  if (allocated !== header.allocated) {
    report(`ERROR: allocated blocks mismatch, is ${allocated}, should be ${header.allocated}`);
    corruptions++;
  }
  return {
    ...noFindings(),
    corruptions,
  };
}
