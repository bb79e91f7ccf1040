/**
 * Runs of guest bytes as nodes show them.
 *
 * @module
 */
import { hostHole } from "../../lib/block/host_hole.ts";
import type { Extent } from "../../lib/block/node.ts";
import type { Qcow2Image } from "./image.ts";
import { findRun, type Run, runNow, type RunState } from "./mapping.ts";

/**
 * The first run at `offset` as nodes show it.
 *
 * @throws {ImageError} as {@linkcode findRun}.
 */
export function extentAt(image: Qcow2Image, offset: number, length: number): Promise<Extent> {
  // Images have hundreds of thousands of runs: where nothing has to be waited for there is one promise.
  const run = runNow(image, offset, length);
  // A run that ends with its table may go on in the next one.
  if (run !== undefined && (offset + run.length) % image.geometry.l2Span !== 0) {
    const extent = extentOf(image, offset, run);
    if (!mayBeHole(extent) || image.reservedSpace === false) {
      return Promise.resolve(extent);
    }
  }
  return extentLater(image, offset, length);
}

async function extentLater(image: Qcow2Image, offset: number, length: number): Promise<Extent> {
  const run = await findRun(image, offset, length);
  const extent = extentOf(image, offset, run);
  if (!mayBeHole(extent)) return extent;
  image.reservedSpace ??= countReserved(image);
  image.reservedSpace = await image.reservedSpace;
  if (!image.reservedSpace) return extent;
  return { ...extent, ...await hostHole(image.dataFile, run.host, run.length) };
}

/** Bytes that are encrypted together. */
const SECTOR = 512;

/** Whether a hole of the file would read as zeros here. */
function mayBeHole({ state, file }: Extent): boolean {
  return state === "data" && file !== undefined;
}

function extentOf(image: Qcow2Image, offset: number, run: Run): Extent {
  const extent = plainExtentOf(image, offset, run);
  // What is read of a file that fails on purpose is read here, step by step.
  return image.file.debugEvent === undefined ? extent : { ...extent, guarded: true };
}

function plainExtentOf(image: Qcow2Image, offset: number, run: Run): Extent {
  if (run.state === "compressed") {
    const { clusterSize } = image.geometry;
    return {
      length: run.length,
      state: "data",
      compressed: true,
      packed: {
        file: image.file,
        offset: run.packedOffset,
        length: Math.max(Math.min(run.packedLength, image.file.length - run.packedOffset), 0),
        codec: image.packed.codec,
        size: clusterSize,
        skip: offset % clusterSize,
      },
    };
  }
  const state = EXTENT_STATES[run.state];
  const extent = { length: run.length, state, compressed: false };
  if (run.host < 0) return extent;
  const { dataFile: file, encryption } = image;
  if (encryption === undefined) return { ...extent, file, offset: run.host };
  // Encrypted bytes are of no use to whoever reads them there, unless he decrypts them.
  if (state !== "data" || run.host % SECTOR !== 0 || offset % SECTOR !== 0) return extent;
  return { ...extent, sealed: encryption.sealed(file, { host: run.host, guest: offset }) };
}

const EXTENT_STATES: Readonly<Record<Exclude<RunState, "compressed">, Extent["state"]>> = {
  unallocated: "unallocated",
  "unallocated-reserved": "unallocated",
  zero: "zero",
  "zero-reserved": "zero",
  data: "data",
};

/**
 * Whether more clusters are in use than the file has space for: metadata was
 * preallocated, and what looks like data may be holes.
 */
async function countReserved(image: Qcow2Image): Promise<boolean> {
  const { file, refcounts, geometry: { clusterSize } } = image;
  const allocated = await file.allocatedSize();
  if (allocated === undefined) return false;
  const stored = Math.floor(allocated / clusterSize);
  // A tenth more is no proof: compressed or nearly empty clusters take less than they count.
  const threshold = Math.max(Math.floor(stored * 10 / 9), stored + 2);
  try {
    return await refcounts.countUsed(Math.ceil(file.length / clusterSize), threshold) >= threshold;
  } catch {
    // Damaged refcounts keep nobody from reading.
    return false;
  }
}
