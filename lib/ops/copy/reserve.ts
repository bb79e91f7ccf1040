/**
 * Space for data that another thread will write.
 *
 * @module
 */
import type { Allocation } from "../../block/plan.ts";
import type { DataRun } from "./job.ts";
import type { Run } from "./partner.ts";
import type { Writer } from "./writer.ts";

/** A run that a partner writes, with the space for it. */
export interface ReservedRun extends Run {
  /** To be published once it is written, or abandoned. */
  readonly allocation: Allocation;
}

/** Bytes that were read and scanned. */
export interface ScannedBytes {
  /** The bytes. */
  readonly bytes: Uint8Array;
  /** Where they go on the disk. */
  readonly offset: number;
  /** Which of them are data. */
  readonly runs: readonly DataRun[];
  /** Where the piece begins that they are from. */
  readonly begin: number;
}

/**
 * Reserves host space for data, which lie in their partner's buffer from `from` on, and adds it to `given`.
 * What cannot be reserved is written here, and so are zeros where they matter.
 *
 * @throws {ImageError} `error while writing at byte <begin>: …`
 */
export async function reserveRuns(
  writer: Writer,
  { bytes, offset, runs, begin }: ScannedBytes,
  from: number,
  given: ReservedRun[],
): Promise<void> {
  let hole = 0;
  // Each run by itself, as this thread would write it: where space lies must not depend on who is faster.
  for (const { start, length } of runs) {
    if (start > hole) await writer.hole(offset + hole, start - hole, begin);
    hole = start + length;
    for (let at = start; at < hole;) {
      const allocation = await writer.allocate(offset + at, hole - at, begin);
      const target = allocation?.file.local;
      if (allocation === null || target === undefined) {
        await allocation?.abandon();
        await writer.data(offset + at, bytes.subarray(at, hole), begin);
        break;
      }
      const { length, offset: to } = allocation;
      given.push({ at: from + at, target, to, length, allocation });
      at += length;
    }
  }
  if (hole < bytes.length) await writer.hole(offset + hole, bytes.length - hole, begin);
}
