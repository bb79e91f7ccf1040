/**
 * Bringing the content of an image into the one behind it. Command-line reference, section 13.4.
 *
 * @module
 */
import { during, ImageError, reasonText } from "../block/error.ts";
import { type CacheMode, type OpenMode, READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { alignDown, alignUp } from "../bytes/align.ts";
import { extentInFrontOf, findBehind, overlayOf } from "../graph/chain.ts";
import { closeAfterError } from "../graph/context.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { type ImageReference, openImage, reopenBacking } from "../graph/open.ts";
import { SLOT_SIZE } from "./copy/job.ts";
import { Pace } from "./copy/pace.ts";
import type { Step } from "./copy/planner.ts";
import { moveRuns, runStep } from "./copy/runs.ts";
import { type Place, slicePlace, Source } from "./copy/source.ts";
import { Writer } from "./copy/writer.ts";
import type { Progress } from "./progress.ts";

/** How to commit. */
export interface CommitOptions {
  /**
   * The image that gets the content, by the name that is stored for it or any other of the same file;
   * default the backing file. Everything in front of it goes there. With it `drop` goes without saying.
   */
  readonly base?: string | undefined;
  /** Leave the image as it is, and do not empty it. */
  readonly drop?: boolean;
  /** Bytes a second, 0 = no limit (`-r`). */
  readonly rateLimit?: number | undefined;
  /** `-t`, default writeback. */
  readonly cache?: CacheMode;
  /** Called when the image is open, and as the copy gets on. */
  readonly onProgress?: Progress;
}

/** What is copied in one go, bytes, and what is looked at before the next look at what is to be done. */
const MOST_COPIED = 1 << 20;
const WINDOW = 10 << 20;

/** Bounds of the pieces in which changes are followed, bytes. */
const SMALLEST_GRAIN = 4 << 10;
const LARGEST_GRAIN = 64 << 10;

/**
 * Writes what an image holds into its backing file, or into one further down, and empties the image. A base
 * that is smaller grows. Only when everything is safely in the base the image is touched.
 *
 * ```ts
 * import { commitImage, createImage, openImage } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const dir = await Deno.makeTempDir();
 * const [base, overlay] = [`${dir}/base.qcow2`, `${dir}/overlay.qcow2`];
 * await createImage({ filename: base, format: "qcow2", size: 1024 * 1024 });
 * await createImage({
 *   filename: overlay,
 *   format: "qcow2",
 *   backing: base,
 *   backingFormat: "qcow2",
 * });
 * {
 *   await using disk = await openImage(overlay, { writable: true });
 *   await disk.write(0, new TextEncoder().encode("hello"));
 * }
 * await commitImage({ filename: overlay });
 * {
 *   await using disk = await openImage(base);
 *   const bytes = new Uint8Array(5);
 *   await disk.read(0, bytes);
 *   assertEquals(new TextDecoder().decode(bytes), "hello");
 * }
 * await Deno.remove(dir, { recursive: true });
 * ```
 *
 * @throws {ImageError} with the words of the reference, and the reason of `environment.signal`.
 */
export async function commitImage(
  image: ImageReference,
  options: CommitOptions = {},
  environment: Environment = QUIET,
): Promise<void> {
  const { cache = READ_ONLY.cache } = options;
  const mode: OpenMode = { ...READ_ONLY, writable: true, unmap: true, cache };
  const top = await openImage(image, mode, environment);
  try {
    options.onProgress?.(0);
    await commitNode(top, image.filename, mode, options, environment);
  } catch (error) {
    await closeAfterError(top);
    throw error;
  }
  await during("Error while closing the image", async () => await top[Symbol.asyncDispose]());
}

async function commitNode(
  top: BlockNode,
  filename: string,
  mode: OpenMode,
  options: CommitOptions,
  environment: Environment,
): Promise<void> {
  const { base: name, drop = name !== undefined } = options;
  const found = baseOf(top, filename, name);
  const front = overlayOf(top, found);
  const resizing = top.length > found.length;
  const base = await openBase(front, found.filename, { ...mode, resizing }, environment);
  await commitOpen(top, base, { ...options, drop }, environment);
}

/**
 * Commits an open image into one behind it that is open for writing.
 *
 * @throws {ImageError} as {@linkcode commitImage}.
 */
export async function commitOpen(
  top: BlockNode,
  base: BlockNode,
  options: CommitOptions,
  environment: Environment = QUIET,
): Promise<void> {
  try {
    if (top.length > base.length) await base.resize(top.length, "off");
    await copyInto(base, top, options, environment);
    // From here on nothing depends on the image any more, but for those who open the base next.
    await base.flush();
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw new ImageError(`Block job failed: ${reasonText(error)}`, {
      errno: error.errno,
      file: error.file,
      field: error.field,
      cause: error,
    });
  }
  if (options.drop) return;
  await during(`Failed to clear contents of ${top.filename}`, async () => {
    await top.emptier?.makeEmpty();
  });
}

/** Opens what is right behind an image anew, to write to it. */
async function openBase(
  front: BlockNode,
  filename: string,
  mode: OpenMode,
  environment: Environment,
): Promise<BlockNode> {
  try {
    return await reopenBacking(front, mode, environment);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    const prefix = "Could not open ";
    throw error.message.startsWith(prefix) ? error : error.prefixed(`${prefix}'${filename}': `);
  }
}

/** @throws {ImageError} if there is no such image behind this one. */
function baseOf(top: BlockNode, filename: string, name: string | undefined): BlockNode {
  const base = name === undefined ? top.backing?.node : findBehind(top, name);
  if (base) return base;
  const message = name === undefined
    ? "Image does not have a backing file"
    : `Did not find '${name}' in the backing chain of '${filename}'`;
  throw new ImageError(message, { errno: "EINVAL", file: filename, field: "backing_file" });
}

async function copyInto(
  base: BlockNode,
  top: BlockNode,
  { rateLimit = 0, onProgress }: CommitOptions,
  environment: Environment,
): Promise<void> {
  const pace = new Pace(environment.signal);
  const plan: CommitPlan = { top, base, source: new Source([top], { exact: true }), pace };
  const work = await measure(plan);
  const writer = new Writer(base, {
    unmap: true,
    skipZeros: false,
    rate: rateLimit,
    signal: environment.signal,
  });
  await moveRuns(commitSteps(plan, (done) => onProgress?.(done / work.bytes, work.bytes)), {
    source: new Source([top], { exact: true }),
    writer,
    pace,
    work,
    isSlow: rateLimit > 0,
  });
}

interface CommitPlan {
  readonly top: BlockNode;
  /** Gets what the images in front of it hold. */
  readonly base: BlockNode;
  /** Says where the data of `top` lie. */
  readonly source: Source;
  readonly pace: Pace;
}

/** A run of the disk, bytes. */
interface Run {
  readonly offset: number;
  readonly length: number;
}

/** What there is to do, bytes: in all, and in compressed clusters. */
async function measure(plan: CommitPlan): Promise<{ bytes: number; packed: number }> {
  let bytes = 0;
  let packed = 0;
  for await (const { offset, length } of changedRuns(plan)) {
    bytes += length;
    for (let at = offset; at < offset + length;) {
      await plan.pace.step();
      const stretch = await plan.source.stretchAt(at);
      if (stretch.place.kind === "packed") packed += stretch.length;
      at += stretch.length;
    }
  }
  return { bytes, packed };
}

/**
 * The runs of the disk that images in front of the base hold, in whole grains: as the reference follows
 * changes, so that afterwards as much of the base is allocated.
 */
async function* changedRuns({ top, base, pace }: CommitPlan): AsyncGenerator<Run, void, undefined> {
  const grain = grainOf(base);
  let start = 0;
  let end = 0;
  for (let at = 0; at < top.length;) {
    await pace.step();
    const { state, length } = await extentInFrontOf(base, top, at, top.length - at);
    if (state !== "unallocated") {
      const first = alignDown(at, grain);
      if (first > end) {
        if (end > start) yield { offset: start, length: end - start };
        start = first;
      }
      end = Math.min(alignUp(at + length, grain), top.length);
    }
    at += length;
  }
  if (end > start) yield { offset: start, length: end - start };
}

function grainOf({ limits: { clusterSize } }: BlockNode): number {
  return clusterSize === 0
    ? LARGEST_GRAIN
    : Math.min(Math.max(clusterSize, SMALLEST_GRAIN), LARGEST_GRAIN);
}

/** What has to be written to the base, cut as the reference does. `onDone` takes what has been. */
async function* commitSteps(
  plan: CommitPlan,
  onDone: (bytes: number) => void,
): AsyncGenerator<Step, void, undefined> {
  let done = 0;
  for await (const { offset, length } of changedRuns(plan)) {
    for (let at = offset; at < offset + length; at += WINDOW) {
      const window = { offset: at, length: Math.min(WINDOW, offset + length - at) };
      for await (const step of windowSteps(plan, window)) {
        yield step;
        done += step.kind === "slot"
          ? step.pieces[0]!.length
          : step.kind === "plain"
          ? step.piece.length
          : step.length;
        onDone(done);
      }
    }
  }
}

async function* windowSteps(
  plan: CommitPlan,
  { offset, length }: Run,
): AsyncGenerator<Step, void, undefined> {
  const { top, base } = plan;
  const grain = grainOf(base);
  const unit = base.limits.clusterSize === 0 ? 1 : base.limits.zeroAlignment;
  const end = offset + length;
  for (let at = offset; at < end;) {
    const status = await extentInFrontOf(null, top, at, end - at);
    const isData = status.state === "data";
    const whole = alignDown(isData ? Math.min(status.length, MOST_COPIED) : status.length, grain);
    // Less than a grain of one state: it is copied, whatever else is in it.
    const count = Math.max(whole, grain);
    const isZero = !isData && whole > 0 && at % unit === 0 && count % unit === 0;
    const stop = Math.min(at + count, end);
    if (isZero) yield { kind: "zero", offset: at, length: stop - at };
    else {
      for (let from = at; from < stop; from += SLOT_SIZE) {
        const part = Math.min(SLOT_SIZE, stop - from);
        yield runStep(from, part, await placesOf(plan, from, part));
      }
    }
    at = stop;
  }
}

/**
 * Where the bytes of a run are. What comes from the base itself, or from behind it, has to be read right
 * before it is written: places there change as the base is written to.
 */
async function placesOf(
  { top, base, source }: CommitPlan,
  offset: number,
  length: number,
): Promise<Place[]> {
  const places: Place[] = [];
  const end = offset + length;
  for (let at = offset; at < end;) {
    const above = await extentInFrontOf(base, top, at, end - at);
    if (above.state === "unallocated") {
      places.push({ kind: "node", length: above.length });
      at += above.length;
      continue;
    }
    const stretch = await source.stretchAt(at);
    const count = Math.min(above.length, stretch.length);
    places.push(slicePlace(stretch.place, 0, count));
    at += count;
  }
  return places;
}
