/**
 * Copying images into another one. Command-line reference, section 12.3.
 *
 * @module
 */
import type { FormatDriver } from "../block/driver.ts";
import { ImageError } from "../block/error.ts";
import { CACHE_MODES, type CacheMode, type OpenMode, READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { type OptionPair, OptionSet } from "../block/options.ts";
import { closeAfterError } from "../graph/context.ts";
import { createNode, type CreateTarget, createTarget, type Creation } from "../graph/create.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { fileIdentity, filesBelow, filesOf, pathIdentity } from "../graph/identity.ts";
import { resolveRelative } from "../graph/names.ts";
import { JSON_PREFIX } from "../graph/node_options.ts";
import { type ImageReference, openImage } from "../graph/open.ts";
import { creatableFormat, DEFAULT_FORMAT, protocolOf } from "../graph/registry.ts";
import { copyBitmaps, requireCopyableBitmaps } from "./copy/bitmaps.ts";
import { copyImage } from "./copy/copy.ts";
import type { Progress } from "./progress.ts";
import { selectSnapshot, type SnapshotSelector } from "./snapshot.ts";

/** What to convert, and how. */
export interface ConvertOptions {
  /** Sources, concatenated. */
  readonly sources: readonly ImageReference[];
  /** What to read of the first source instead of its disk as it is (`-l`): an internal snapshot. */
  readonly snapshot?: SnapshotSelector | undefined;
  /** Target name. */
  readonly target: string;
  /** `target` is a list of options (`--target-image-opts`) and no name; with `noCreate`, without a format. */
  readonly targetImageOptions?: boolean;
  /** Target format, default raw; with `noCreate` too. */
  readonly targetFormat?: string | undefined;
  /** `-o`. */
  readonly options?: readonly OptionPair[];
  /** Backing file of the target (`-B`). */
  readonly backing?: string | undefined;
  /** Its format (`-F`). */
  readonly backingFormat?: string | undefined;
  /** Write compressed clusters (`-c`). */
  readonly compress?: boolean;
  /** Compression level, default the codec's. */
  readonly compressionLevel?: number | undefined;
  /** The target exists (`-n`). */
  readonly noCreate?: boolean;
  /** It reads as zeros (`--target-is-zero`). */
  readonly targetIsZero?: boolean;
  /** Smallest run of zeros that is skipped, bytes; 0 writes everything (`-S`). `undefined`: 4096. */
  readonly sparseSize?: number | undefined;
  /** Requests in flight, 1 to 16 (`-m`), default 8. */
  readonly parallel?: number | undefined;
  /** Write as data comes (`-W`). */
  readonly outOfOrder?: boolean;
  /** Bytes a second, 0 = no limit (`-r`). */
  readonly rateLimit?: number | undefined;
  /** Unreadable sectors become zeros (`--salvage`). */
  readonly salvage?: boolean;
  /** Say nothing of such sectors (`-q`). */
  readonly quiet?: boolean;
  /** Host copy offload (`-C`). */
  readonly copyRange?: boolean;
  /** `-T`, default writeback. */
  readonly sourceCache?: CacheMode;
  /** `-t`, default unsafe. */
  readonly targetCache?: CacheMode;
  /** `-U`. */
  readonly forceShare?: boolean;
  /** Copy the persistent dirty bitmaps of the source, of which there must be one (`--bitmaps`). */
  readonly bitmaps?: boolean;
  /** Leave out bitmaps that were not closed properly, with a warning (`--skip-broken-bitmaps`). */
  readonly skipBrokenBitmaps?: boolean;
  /** Called as the copy gets on. */
  readonly onProgress?: Progress;
}

const DEFAULT_SPARSE_SIZE = 4096;
const DEFAULT_PARALLEL = 8;

const BACKING_FILE = "backing_file";
const BACKING_FORMAT = "backing_fmt";
const PREALLOCATION = "preallocation";

/**
 * Copies images into a new (or existing) one, changing the format.
 *
 * After a failure or an abort a target that was not there before is gone again. The sources are never
 * changed; a target that is one of their files is refused.
 *
 * @throws {ImageError} with the words of the reference, and the reason of `environment.signal`.
 */
export async function convertImage(
  options: ConvertOptions,
  environment: Environment = QUIET,
): Promise<void> {
  const sources: BlockNode[] = [];
  try {
    for (const image of options.sources) {
      sources.push(await openImage(image, sourceMode(options), environment));
    }
    await selectSource(sources, options.snapshot);
    await convertNodes(sources, options, environment);
  } finally {
    for (const node of sources.reverse()) await node[Symbol.asyncDispose]();
  }
}

async function selectSource(
  sources: readonly BlockNode[],
  snapshot: SnapshotSelector | undefined,
): Promise<void> {
  const [source] = sources;
  if (snapshot === undefined || source === undefined) return;
  if (typeof snapshot === "string" && sources.length > 1) {
    throw invalid("No support for concatenating multiple snapshot", "snapshot");
  }
  await selectSnapshot(source, snapshot);
}

function sourceMode(options: ConvertOptions): OpenMode {
  const { sourceCache = READ_ONLY.cache, forceShare = false } = options;
  return { ...READ_ONLY, exclusive: true, cache: sourceCache, forceShare };
}

async function convertNodes(
  sources: readonly BlockNode[],
  options: ConvertOptions,
  environment: Environment,
): Promise<void> {
  const length = sources.reduce((sum, node) => sum + node.length, 0);
  const plan = await planTarget(length, options);
  const mode = targetMode(options);
  if (options.bitmaps) requireBitmaps(sources, options);
  refuseSourceAsTarget(sources, plan, options);
  const creation = await create(plan, options, environment);
  try {
    const target = await openTarget(options, sources, mode, environment);
    await closingAfter(target, () => fill(target, sources, plan, options, environment));
  } catch (error) {
    await creation?.undo();
    throw error;
  }
  options.onProgress?.(1);
}

function requireBitmaps(sources: readonly BlockNode[], options: ConvertOptions): void {
  const [source, ...others] = sources;
  if (source === undefined || others.length > 0) {
    throw invalid("Copying bitmaps only possible with single source", "bitmaps");
  }
  requireCopyableBitmaps(source, { skipBroken: options.skipBrokenBitmaps ?? false });
}

/** Runs `body` and closes the node. An error of `body` counts more than one of the closing. */
async function closingAfter(node: BlockNode, body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    try {
      await node[Symbol.asyncDispose]();
    } catch {
      // What went wrong first is what to tell.
    }
    throw error;
  }
  await node[Symbol.asyncDispose]();
}

/** What is known of the target before anything is touched. */
interface TargetPlan {
  /** How to make it; `undefined` if it is there already. */
  readonly creation: { readonly target: CreateTarget; readonly options: OptionSet } | undefined;
  /** It will have a backing file. */
  readonly hasBacking: boolean;
}

/** Checks what can be checked beforehand, in the order of the reference. */
async function planTarget(length: number, options: ConvertOptions): Promise<TargetPlan> {
  const { sources, target: filename, noCreate = false } = options;
  const plan = noCreate
    ? { creation: undefined, hasBacking: options.backing !== undefined }
    : await planCreation(filename, length, options);
  if (plan.hasBacking && options.targetIsZero) {
    throw invalid(
      "Cannot use --target-is-zero when the destination image has a backing file",
      "target-is-zero",
    );
  }
  if (plan.hasBacking && sources.length > 1) {
    throw invalid(
      "Having a backing file for the target makes no sense when concatenating multiple input images",
      BACKING_FILE,
    );
  }
  const { creation } = plan;
  if (creation === undefined) return plan;
  const { target, options: given } = creation;
  if (given.has(BACKING_FILE) && !given.has(BACKING_FORMAT)) {
    throw invalid("Use of backing file requires explicit backing format", BACKING_FORMAT);
  }
  if (options.compress) requireCompressible(target.format, given);
  return plan;
}

async function planCreation(
  filename: string,
  length: number,
  request: ConvertOptions,
): Promise<TargetPlan> {
  const format = await creatableFormat(request.targetFormat ?? DEFAULT_FORMAT);
  const target = await createTarget(format, filename);
  const options = new OptionSet(target.specs, request.options);
  options.setSize("size", length);
  const setIfKnown = (key: string, value: string | undefined, what: string) => {
    if (value === undefined) return;
    if (!target.specs.some((spec) => spec.name === key)) {
      throw new ImageError(`${what} not supported for file format '${format.name}'`, {
        errno: "ENOTSUP",
        field: key,
      });
    }
    options.set(key, value);
  };
  setIfKnown(BACKING_FILE, request.backing, "Backing file");
  setIfKnown(BACKING_FORMAT, request.backingFormat, "Backing file format");
  return { creation: { target, options }, hasBacking: Boolean(options.string(BACKING_FILE)) };
}

function requireCompressible(format: FormatDriver, options: OptionSet): void {
  if (!format.packs) throw uncompressible();
  if (options.flag("encryption") || options.has("encrypt.format")) {
    throw invalid("Compression and encryption not supported at the same time", "encrypt.format");
  }
  if ((options.string(PREALLOCATION) ?? "off") !== "off") {
    throw invalid("Compression and preallocation not supported at the same time", PREALLOCATION);
  }
}

/** Images that take compressed writes without compressing them still have to have clusters. */
function requirePacksPlainly({ packsPlainly, limits }: BlockNode): void {
  if (!packsPlainly) throw uncompressible();
  if (limits.clusterSize === 0) throw invalid("invalid cluster size", "compress");
}

function uncompressible(): ImageError {
  return new ImageError("Compression not supported for this file format", { errno: "ENOTSUP" });
}

function invalid(message: string, field: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}

/**
 * Locks tell as a rule, but not with `-U`, where making the target would destroy the source. It must not be
 * its own backing file either.
 */
function refuseSourceAsTarget(
  sources: readonly BlockNode[],
  { creation }: TargetPlan,
  { target, targetFormat = DEFAULT_FORMAT, targetImageOptions }: ConvertOptions,
): void {
  // What options name is known once it is open.
  if (targetImageOptions || (creation === undefined && target.startsWith(JSON_PREFIX))) return;
  const { filename } = protocolOf(target);
  const identity = pathIdentity(filename);
  const prefix = creation === undefined
    ? `Could not open '${target}': `
    : `${target}: error while converting ${targetFormat}: `;
  if (identity !== undefined && areFilesOf(sources, identity)) {
    throw notTarget(prefix, filename);
  }
  const backing = creation?.options.string(BACKING_FILE);
  if (!backing) return;
  const behind = resolveRelative(target, backing);
  if (behind === target || (identity !== undefined && pathIdentity(behind) === identity)) {
    throw new ImageError(
      `${prefix}Trying to create an image with the same filename as the backing file`,
      { errno: "EINVAL", field: BACKING_FILE, file: target },
    );
  }
}

function areFilesOf(sources: readonly BlockNode[], identity: string): boolean {
  const isTarget = (file: BlockNode) => fileIdentity(file) === identity;
  return sources.some((node) => filesOf(node).some(isTarget));
}

function notTarget(prefix: string, filename: string): ImageError {
  return new ImageError(`${prefix}Failed to get "write" lock`, {
    errno: "EAGAIN",
    hint: `Is another process using the image [${filename}]?`,
    file: filename,
  });
}

async function create(
  { creation }: TargetPlan,
  { target, targetFormat = DEFAULT_FORMAT }: ConvertOptions,
  environment: Environment,
): Promise<Creation | undefined> {
  if (creation === undefined) return undefined;
  try {
    return await createNode(creation.target, creation.options, environment);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw error.prefixed(`${target}: error while converting ${targetFormat}: `);
  }
}

function targetMode({ targetCache, sparseSize = DEFAULT_SPARSE_SIZE }: ConvertOptions): OpenMode {
  const cache = targetCache ?? CACHE_MODES["unsafe"]!;
  return {
    ...READ_ONLY,
    writable: true,
    unmap: sparseSize > 0,
    // Past the page cache a file may have to grow to whole sectors.
    resizing: cache.direct,
    cache,
  };
}

async function openTarget(
  { target: filename, targetFormat, targetImageOptions, options: given = [] }: ConvertOptions,
  sources: readonly BlockNode[],
  mode: OpenMode,
  environment: Environment,
): Promise<BlockNode> {
  const options = Object.fromEntries(given.filter(([key]) => key.endsWith("key-secret")));
  const image: ImageReference = targetImageOptions
    ? { filename, format: targetFormat, imageOptions: true }
    : { filename, format: targetFormat ?? DEFAULT_FORMAT, options };
  const node = await openImage(image, mode, environment);
  // Its backing files are only read.
  const written = Array.from(filesBelow(node));
  const shared = written.find((file) => areFilesOf(sources, fileIdentity(file)));
  if (shared === undefined) return node;
  await closeAfterError(node);
  throw notTarget(`Could not open '${filename}': `, shared.filename);
}

async function fill(
  target: BlockNode,
  sources: readonly BlockNode[],
  { creation, hasBacking }: TargetPlan,
  options: ConvertOptions,
  environment: Environment,
): Promise<void> {
  const { compress = false, sparseSize = DEFAULT_SPARSE_SIZE } = options;
  const length = sources.reduce((sum, node) => sum + node.length, 0);
  if (options.bitmaps && target.bitmaps === undefined) {
    throw new ImageError(`Format driver '${target.driver}' does not support bitmaps`, {
      errno: "ENOTSUP",
      file: options.target,
    });
  }
  if (compress && target.packer === undefined) requirePacksPlainly(target);
  if (creation === undefined && target.length < length) {
    throw new ImageError("output file is smaller than input file", {
      errno: "EINVAL",
      file: options.target,
    });
  }
  const readsZero = options.targetIsZero ||
    (creation !== undefined && !hasBacking && sparseSize > 0 &&
      (await target.readsZeroWhenNew?.() ?? false));
  await copyImage(sources, target, {
    readsZero,
    // The reference does not ask how long the backing file of an image is that was there before.
    overBacking: !hasBacking
      ? undefined
      : creation === undefined
      ? Infinity
      : target.backing?.node?.length ?? Infinity,
    compress: target.packer !== undefined && (compress || target.packer.always === true),
    compressionLevel: options.compressionLevel,
    sparseSize,
    requests: options.parallel ?? DEFAULT_PARALLEL,
    outOfOrder: options.outOfOrder === true && target.packer?.always !== true,
    rateLimit: options.rateLimit ?? 0,
    salvage: options.salvage ?? false,
    copyRange: options.copyRange ?? false,
    onProgress: options.onProgress,
  }, options.quiet ? { ...environment, warn() {} } : environment);
  if (options.bitmaps) {
    const skipBroken = options.skipBrokenBitmaps ?? false;
    await copyBitmaps(sources[0]!, target, { skipBroken }, environment);
  }
}
