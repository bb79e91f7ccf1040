import type { CheckResult } from "./capabilities.ts";

/** What a check begins with: nothing found, nothing counted. */
export function noFindings(): CheckResult {
  return {
    checkErrors: 0,
    corruptions: 0,
    corruptionsFixed: 0,
    leaks: 0,
    leaksFixed: 0,
    imageEndOffset: 0,
    totalClusters: 0,
    allocatedClusters: 0,
    fragmentedClusters: 0,
    compressedClusters: 0,
  };
}
