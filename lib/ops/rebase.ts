/**
 * Putting an image in front of another backing file. Command-line reference, section 13.5.
 *
 * @module
 */
import { ImageError, reasonText } from "../block/error.ts";
import { type CacheMode, type OpenMode, READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { alignDown, alignUp } from "../bytes/align.ts";
import { extentInFrontOf, findBehind, withinSpan } from "../graph/chain.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { closeAfterError } from "../graph/context.ts";
import { fileIdentity, filesBelow, filesOf } from "../graph/identity.ts";
import { resolveRelative } from "../graph/names.ts";
import { type ImageReference, openImage, openNode } from "../graph/open.ts";
import { findFormat } from "../graph/registry.ts";
import { ComparedDisk, UnitComparison } from "./copy/differences.ts";
import { SLOT_SIZE } from "./copy/job.ts";
import type { Packing } from "./copy/mover.ts";
import { Pace } from "./copy/pace.ts";
import type { Step } from "./copy/planner.ts";
import { moveRuns, runStep, storedBytes } from "./copy/runs.ts";
import { Source } from "./copy/source.ts";
import { Writer } from "./copy/writer.ts";
import type { Progress } from "./progress.ts";

/** How to rebase. */
export interface RebaseOptions {
  /** The new backing file's name, as it is to be stored; `""` or absent for none. */
  readonly backing?: string | undefined;
  /** Its format (`-F`), which is stored too; needed wherever there is a name. */
  readonly backingFormat?: string | undefined;
  /** Only change the name, whatever the content (`-u`). The old and the new backing file need not be there. */
  readonly unsafe?: boolean;
  /** Write compressed clusters (`-c`). */
  readonly compress?: boolean;
  /** `-t`, default writeback. */
  readonly cache?: CacheMode;
  /** `-T`, for the new backing file, default writeback. */
  readonly backingCache?: CacheMode;
  /** Open the new backing file even if others write to it (`-U`). */
  readonly forceShare?: boolean;
  /** Called as the comparison gets on. */
  readonly onProgress?: Progress;
}

/** What is looked at in one go, bytes. */
const WINDOW = SLOT_SIZE;

const SECTOR = 512;

/**
 * Changes the backing file of an image. Unless that is `unsafe`, the content stays the same: what the new
 * backing file shows otherwise than the old one is written to the image before. Whatever happens on the
 * way, the image shows the same disk.
 *
 * ```ts
 * import { createImage, openImage, rebaseImage } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const dir = await Deno.makeTempDir();
 * const [base, overlay] = [`${dir}/base.qcow2`, `${dir}/overlay.qcow2`];
 * await createImage({ filename: base, format: "qcow2", size: 1024 * 1024 });
 * {
 *   await using disk = await openImage(base, { writable: true });
 *   await disk.write(0, new TextEncoder().encode("hello"));
 * }
 * await createImage({
 *   filename: overlay,
 *   format: "qcow2",
 *   backing: base,
 *   backingFormat: "qcow2",
 * });
 *
 * // Make the overlay stand alone.
 * await rebaseImage({ filename: overlay }, { backing: "" });
 * await Deno.remove(base);
 * {
 *   await using disk = await openImage(overlay);
 *   const bytes = new Uint8Array(5);
 *   await disk.read(0, bytes);
 *   assertEquals(new TextDecoder().decode(bytes), "hello");
 * }
 * await Deno.remove(dir, { recursive: true });
 * ```
 *
 * @throws {ImageError} with the words of the reference, and the reason of `environment.signal`.
 */
export async function rebaseImage(
  image: ImageReference,
  options: RebaseOptions,
  environment: Environment = QUIET,
): Promise<void> {
  const { backingFormat, unsafe = false, cache = READ_ONLY.cache } = options;
  const mode: OpenMode = { ...READ_ONLY, writable: true, noBacking: unsafe, cache };
  await using node = await openImage(image, mode, environment);
  if (options.compress && !node.packs) {
    throw new ImageError("Compression not supported for this file format", { errno: "ENOTSUP" });
  }
  if (backingFormat !== undefined && findFormat(backingFormat) === undefined) {
    throw new ImageError(`Invalid format name: '${backingFormat}'`, {
      errno: "EINVAL",
      field: "backing_fmt",
    });
  }
  // Formats that tell nothing of themselves have no place for a backing file's name either.
  const details = await node.details?.();
  if (details?.dirty === undefined) {
    throw new ImageError("could not get block driver info", { errno: "ENOTSUP" });
  }
  await using behind = unsafe ? undefined : await newBacking(node, options, environment);
  await rebaseOpen(node, behind, options, environment);
}

/**
 * Rebases an open image. Without `behind` only the name changes.
 *
 * @throws {ImageError} as {@linkcode rebaseImage}.
 */
export async function rebaseOpen(
  image: BlockNode,
  behind: Pick<NewBacking, "node" | "isReused"> | undefined,
  options: RebaseOptions,
  environment: Environment = QUIET,
): Promise<void> {
  if (behind !== undefined) {
    await copyDifferences(image, behind, options, environment);
    // The name, which comes next, must not be there before what it relies on.
    await image.flush();
  }
  try {
    await changeBacking(image, options.backing, options.backingFormat);
  } finally {
    // The reference is through in either case.
    options.onProgress?.(1);
  }
}

/** The new backing file, closed with the block that asked for it unless it belongs to the image's chain. */
export interface NewBacking extends AsyncDisposable {
  /** `null` if there is to be none. */
  readonly node: BlockNode | null;
  /** It is part of the image's present chain. */
  readonly isReused: boolean;
}

async function newBacking(
  image: BlockNode,
  { backing = "", backingFormat, backingCache, forceShare = false }: RebaseOptions,
  environment: Environment,
): Promise<NewBacking> {
  if (backing === "") return { node: null, isReused: false, async [Symbol.asyncDispose]() {} };
  let path: string;
  try {
    path = resolveRelative(image.filename, backing);
  } catch (error) {
    throw ImageError.from(error).prefixed("Could not resolve backing filename: ");
  }
  const reused = findBehind(image, path);
  if (reused !== undefined) {
    return { node: reused, isReused: true, async [Symbol.asyncDispose]() {} };
  }
  const mode: OpenMode = { ...READ_ONLY, forceShare, cache: backingCache ?? READ_ONLY.cache };
  try {
    const node = await openNode({ filename: path, driver: backingFormat }, mode, environment);
    try {
      refuseLoop(image, node);
    } catch (error) {
      await closeAfterError(node);
      throw error;
    }
    return { node, isReused: false, [Symbol.asyncDispose]: () => node[Symbol.asyncDispose]() };
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw error.prefixed(`Could not open new backing file '${backing}': `);
  }
}

/** An image behind itself has no content. Locks tell as a rule, but not with `-U`. */
function refuseLoop(image: BlockNode, behind: BlockNode): void {
  const own = new Set([...filesBelow(image)].map(fileIdentity));
  if (![...filesOf(behind)].some((file) => own.has(fileIdentity(file)))) return;
  throw new ImageError(`Backing file '${image.filename}' creates an infinite loop.`, {
    errno: "ELOOP",
    file: image.filename,
  });
}

async function changeBacking(
  image: BlockNode,
  wanted: string | undefined,
  format: string | undefined,
): Promise<void> {
  const name = wanted ?? "";
  // The reference's word for no name at all.
  const prefix = `Could not change the backing file to '${wanted ?? "(null)"}': `;
  const refuse = (message: string, errno: "EINVAL" | "ENOTSUP") =>
    new ImageError(prefix + message, { errno, file: image.filename, field: "backing_file" });
  if (name !== "" && format === undefined) {
    throw refuse("backing format must be specified", "EINVAL");
  }
  const link = image.backing;
  if (link?.change === undefined) throw refuse("Operation not supported", "ENOTSUP");
  try {
    await link.change(name, name === "" ? undefined : format);
  } catch (error) {
    const known = ImageError.from(error);
    const reason = known.errno === "ENOSPC" && known.field === "header"
      ? "No space left in the file header"
      : reasonText(error);
    throw new ImageError(prefix + reason, {
      errno: known.errno,
      file: image.filename,
      field: "backing_file",
      cause: error,
    });
  }
}

/** Writes to the image what the new backing file would show otherwise. */
async function copyDifferences(
  image: BlockNode,
  { node: behind, isReused }: Pick<NewBacking, "node" | "isReused">,
  { compress = false, onProgress }: RebaseOptions,
  environment: Environment,
): Promise<void> {
  const pace = new Pace(environment.signal);
  const old = image.backing?.node ?? null;
  const { clusterSize, zeroAlignment } = image.limits;
  const readError = (which: string) => (error: unknown) =>
    new ImageError(`error while reading from ${which} backing file`, {
      errno: ImageError.from(error).errno,
      file: image.filename,
      cause: error,
    });
  // What the image shows where it holds nothing is what the old backing file shows, and zeros behind it.
  const before = new ComparedDisk(image, readError("old"));
  const after = new ComparedDisk(behind, readError("new"));
  const packing: Packing | undefined = compress && image.packer !== undefined
    ? { packer: image.packer, level: undefined }
    : undefined;
  const source = new Source([image], { exact: true });
  const writer = new CoveringWriter(image, {
    unmap: false,
    skipZeros: false,
    rate: 0,
    signal: environment.signal,
    failure(error) {
      const { errno } = ImageError.from(error);
      return new ImageError(`Error while writing to COW image: ${reasonText(error)}`, {
        errno,
        file: image.filename,
        cause: error,
      });
    },
  });
  const steps = rebaseSteps({
    image,
    old,
    prefix: isReused ? behind : undefined,
    before,
    after,
    unit: Math.max(zeroAlignment, SECTOR),
    packedUnit: packing === undefined ? undefined : Math.max(clusterSize, SECTOR),
    pace,
    onProgress,
  });
  // No more than all that any backing file holds; little of it may have to be moved.
  const bytes = old === null ? 0 : await storedBytes(old, null);
  await moveRuns(steps, { source, writer, pace, packing, work: { bytes, packed: 0 } });
}

interface RebasePlan {
  readonly image: BlockNode;
  /** The old backing file. */
  readonly old: BlockNode | null;
  /** The new backing file, if it is part of the image's chain. */
  readonly prefix: BlockNode | null | undefined;
  /** The disk as it is and has to stay. */
  readonly before: ComparedDisk;
  /** What the new backing file shows. */
  readonly after: ComparedDisk;
  /** What is written as a whole, bytes. */
  readonly unit: number;
  /** The same for what is compressed; `undefined` if nothing is. */
  readonly packedUnit: number | undefined;
  readonly pace: Pace;
  readonly onProgress: Progress | undefined;
}

/** What has to be written, found out on the way: runs of units that differ, as the reference cuts them. */
async function* rebaseSteps(plan: RebasePlan): AsyncGenerator<Step, void, undefined> {
  const { image, old, prefix, before, after, unit, packedUnit, pace, onProgress } = plan;
  const size = image.length;
  const oldLength = old?.length ?? 0;
  const meter = new Meter(size);
  const inUnits = new UnitComparison(before, after, unit, pace);
  const inPackedUnits = new UnitComparison(before, after, packedUnit ?? unit, pace);
  for (let offset = 0; offset < size;) {
    await pace.step();
    const extent = await looking(
      image,
      () => image.extent(offset, withinSpan(image, offset, WINDOW)),
    );
    let { length } = extent;
    if (extent.state !== "unallocated") {
      offset += length;
      continue;
    }
    if (prefix && old !== null) {
      const above = await looking(image, () => extentInFrontOf(prefix, old, offset, length));
      if (above.state === "unallocated" && above.length > 0) {
        offset += above.length;
        continue;
      }
      // Behind the end of the old backing file are zeros, which the new one may not have.
      if (above.length > 0) ({ length } = above);
    }
    for (const stretch of await looking(image, () => unitsAround(plan, offset, length))) {
      const comparison = stretch.isPacked ? inPackedUnits : inUnits;
      for (const run of await comparison.differing(stretch.offset, stretch.length)) {
        const at = stretch.offset + run.start;
        if (at >= oldLength) {
          yield { kind: "zero", offset: at, length: run.length };
          continue;
        }
        const places = await before.places(at, run.length);
        const piece = { offset: at, length: run.length, places };
        yield stretch.isPacked
          ? { kind: "slot", pieces: [piece] }
          : runStep(at, run.length, places);
      }
      offset = stretch.offset + stretch.length;
    }
    onProgress?.(meter.next(), size);
  }
}

/** Whole units. */
interface Units {
  readonly offset: number;
  readonly length: number;
  /** They are those of compressed data. */
  readonly isPacked: boolean;
}

/**
 * The whole units around a range that the image does not hold. Compressed units that it holds a part of
 * cannot be written as a whole; the rest of them is written plainly.
 */
async function unitsAround(
  { image, unit, packedUnit }: RebasePlan,
  offset: number,
  length: number,
): Promise<Units[]> {
  const size = image.length;
  const start = alignDown(offset, unit);
  const end = Math.min(alignUp(offset + length, unit), size);
  const between = (from: number, to: number, isPacked: boolean): Units[] =>
    from < to ? [{ offset: from, length: to - from, isPacked }] : [];
  if (packedUnit === undefined) return between(start, end, false);
  let first = alignDown(start, packedUnit);
  if (!await isUnallocated(image, first, start)) first = Math.min(first + packedUnit, end);
  let last = Math.min(alignUp(end, packedUnit), size);
  if (!await isUnallocated(image, end, last)) last = Math.max(alignDown(end, packedUnit), start);
  // One cluster with something on either side.
  if (first >= last) return between(start, end, false);
  return [
    ...between(start, first, false),
    ...between(first, last, true),
    ...between(last, end, false),
  ];
}

async function isUnallocated(image: BlockNode, from: number, to: number): Promise<boolean> {
  for (let at = from; at < to;) {
    const { state, length } = await image.extent(at, to - at);
    if (state !== "unallocated") return false;
    at += length;
  }
  return true;
}

/**
 * Writes zeros that stay, whatever backing file comes: an image that cannot say "zero" without one holds
 * nothing there, and that would show the new one.
 */
class CoveringWriter extends Writer {
  /** Makes a range read as zeros by itself. */
  override async zeros(offset: number, length: number, begin: number): Promise<void> {
    await super.zeros(offset, length, begin);
    const end = offset + length;
    for (let at = offset; at < end;) {
      const extent = await this.target.extent(at, end - at);
      if (extent.state === "unallocated") await this.data(at, new Uint8Array(extent.length), begin);
      at += extent.length;
    }
  }
}

async function looking<T>(image: BlockNode, look: () => Promise<T>): Promise<T> {
  try {
    return await look();
  } catch (error) {
    throw new ImageError(`error while reading image metadata: ${reasonText(error)}`, {
      errno: ImageError.from(error).errno,
      file: image.filename,
      cause: error,
    });
  }
}

/**
 * Adds up progress as the reference does: the same share for each window that was compared, in single
 * precision.
 */
class Meter {
  readonly #step: number;
  #percent = 0;

  constructor(size: number) {
    this.#step = size === 0 ? 100 : Math.fround(100 / Math.floor(size / Math.min(size, WINDOW)));
  }

  /** The fraction after one more window. */
  next(): number {
    this.#percent = Math.min(Math.fround(this.#percent + this.#step), 100);
    return this.#percent / 100;
  }
}
