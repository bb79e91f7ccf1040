import type { Extent } from "../../lib/block/node.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import { hostHole } from "../../lib/block/host_hole.ts";
import { type DiskExtent, findGrainRun, type GrainExtent } from "./extent.ts";
import type { VmdkImage } from "./image.ts";
import { type PackedReader, packedRun } from "./packed.ts";
import { type GrainRun, UNALLOCATED, ZERO } from "./tables.ts";

/**
 * Reads guest bytes, through the parent where nothing is stored.
 *
 * @throws {ImageError} `EINVAL` if the parent is another one than it was.
 */
export async function readAt(
  image: VmdkImage,
  packed: PackedReader,
  offset: number,
  into: Uint8Array,
): Promise<void> {
  for (let done = 0; done < into.length;) {
    const extent = image.extentAt(offset + done);
    const at = offset + done - extent.start;
    const part = into.subarray(done, done + Math.min(into.length - done, extent.length - at));
    done += extent.kind === "flat"
      ? await readFlat(extent, at, part)
      : await readGrains(image, packed, extent, at, part);
  }
}

async function readFlat(
  { file, offset }: Extract<DiskExtent, { kind: "flat" }>,
  at: number,
  into: Uint8Array,
): Promise<number> {
  await readPadded(file, offset + at, into);
  return into.length;
}

/** Reads a run of grains: how many bytes. */
async function readGrains(
  image: VmdkImage,
  packed: PackedReader,
  extent: GrainExtent,
  at: number,
  into: Uint8Array,
): Promise<number> {
  const { length, position } = await findGrainRun(extent, at, into.length);
  const part = into.subarray(0, length);
  if (position === UNALLOCATED) await readBehind(image, extent.start + at, part);
  else if (position === ZERO) part.fill(0);
  else if (extent.packed !== undefined) await packed.read(extent, at, position, part);
  else await readPadded(extent.file, position + at % extent.grainSize, part);
  return length;
}

/** Reads what the parent shows, zeros behind its end. */
export async function readBehind(
  image: VmdkImage,
  offset: number,
  into: Uint8Array,
): Promise<void> {
  const { backing } = image;
  const available = backing === null
    ? 0
    : Math.min(Math.max(backing.length - offset, 0), into.length);
  if (backing !== null) await image.requireParent();
  if (available > 0) await backing!.read(offset, into.subarray(0, available));
  into.fill(0, available);
}

/** The first run of guest bytes at `offset` with one state. */
export function extentAt(
  image: VmdkImage,
  offset: number,
  length: number,
): Promise<Extent> {
  const extent = image.extentAt(offset);
  const at = offset - extent.start;
  const most = Math.min(length, extent.length - at);
  if (extent.kind === "flat") return flatExtent(extent, at, most);
  try {
    const run = findGrainRun(extent, at, most);
    // Images have hundreds of thousands of runs: where nothing has to be waited for there is one promise.
    if (!(run instanceof Promise) && extent.packed === undefined) {
      return Promise.resolve(grainExtent(extent, at, run));
    }
    return laterExtent(extent, at, run);
  } catch (error) {
    return Promise.reject(error);
  }
}

async function laterExtent(
  extent: GrainExtent,
  at: number,
  found: GrainRun | Promise<GrainRun>,
): Promise<Extent> {
  const run = await found;
  const { length, position } = run;
  if (extent.packed === undefined || position === UNALLOCATED || position === ZERO) {
    return grainExtent(extent, at, run);
  }
  const packed = await packedRun(extent, at, position);
  const state = { length, state: "data", compressed: true } as const;
  return packed === undefined ? state : { ...state, packed };
}

function grainExtent(extent: GrainExtent, at: number, { length, position }: GrainRun): Extent {
  if (position === UNALLOCATED) return { length, state: "unallocated", compressed: false };
  if (position === ZERO) return { length, state: "zero", compressed: false };
  return {
    length,
    state: "data",
    compressed: false,
    file: extent.file,
    offset: position + at % extent.grainSize,
  };
}

async function flatExtent(
  { file, offset }: Extract<DiskExtent, { kind: "flat" }>,
  at: number,
  most: number,
): Promise<Extent> {
  const below = await hostHole(file, offset + at, most);
  return { state: "data", compressed: false, file, offset: offset + at, ...below };
}
