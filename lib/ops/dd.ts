/**
 * Copying a part of an image, block by block. Command-line reference, section 12.4.
 *
 * @module
 */
import { ImageError, reasonText } from "../block/error.ts";
import { READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { OptionSet } from "../block/options.ts";
import { createNode, type CreateTarget, createTarget, type Creation } from "../graph/create.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { fileIdentity, filesOf, pathIdentity } from "../graph/identity.ts";
import { type ImageReference, openImage } from "../graph/open.ts";
import { creatableFormat, DEFAULT_FORMAT, findFormat, findProtocol } from "../graph/registry.ts";

/** What to copy. */
export interface DdOptions {
  /** Source. */
  readonly source: ImageReference;
  /** Target name; always made anew. */
  readonly target: string;
  /** Target format, default raw. */
  readonly targetFormat?: string | undefined;
  /** Block size, bytes, default 512. */
  readonly blockSize?: number;
  /** Blocks, counted from the source's begin. */
  readonly count?: number | undefined;
  /** Blocks to leave out at the begin. */
  readonly skip?: number | undefined;
  /** `-U`. */
  readonly forceShare?: boolean;
}

/** Bytes of a step. Blocks matter only for where the part begins and ends. */
const STEP = 1 << 20;

/**
 * Copies part of an image to a new one, zeros included. If more is to be left out than there is, it reports
 * `<source>: cannot skip to specified offset`, and the new image is empty, as with dd.
 *
 * @throws {ImageError} after which the target is gone again, unless it was there before.
 */
export async function ddImage(
  request: DdOptions,
  environment: Environment = QUIET,
): Promise<void> {
  const { forceShare = false, blockSize = 512, count, skip = 0 } = request;
  await using source = await openImage(
    request.source,
    { ...READ_ONLY, forceShare },
    environment,
  );
  const target = await targetFor(request);
  const length = count === undefined ? source.length : Math.min(count * blockSize, source.length);
  const start = skip * blockSize;
  const creation = await create(target, source, Math.max(length - start, 0), environment);
  if (start > length) {
    environment.report(`${request.source.filename}: cannot skip to specified offset`, true);
  }
  try {
    if (start < length) await copy(source, start, length, target, environment);
  } catch (error) {
    await creation.undo();
    throw error;
  }
}

async function targetFor({ target, targetFormat }: DdOptions): Promise<CreateTarget> {
  const name = targetFormat ?? DEFAULT_FORMAT;
  if (findFormat(name) === undefined && findProtocol(name) === undefined) {
    throw new ImageError("Unknown file format", { errno: "EINVAL", field: "format" });
  }
  return await createTarget(await creatableFormat(name), target);
}

async function create(
  target: CreateTarget,
  source: BlockNode,
  size: number,
  environment: Environment,
): Promise<Creation> {
  try {
    requireOther(target, source);
    const options = new OptionSet(target.specs);
    options.setSize("size", size);
    return await createNode(target, options, environment);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw error.prefixed(`${target.filename}: error while creating output image: `);
  }
}

/** Making the target would empty the source. */
function requireOther({ name, filename }: CreateTarget, source: BlockNode): void {
  const identity = pathIdentity(name.filename);
  if (identity === undefined) return;
  if (!filesOf(source).some((file) => fileIdentity(file) === identity)) return;
  throw new ImageError(`'${filename}' is what is to be read`, { errno: "EINVAL", file: filename });
}

async function copy(
  source: BlockNode,
  start: number,
  end: number,
  target: CreateTarget,
  environment: Environment,
): Promise<void> {
  await using output = await openImage(
    { filename: target.filename, format: target.format.name },
    { ...READ_ONLY, writable: true },
    environment,
  );
  const buffer = new Uint8Array(Math.min(STEP, end - start));
  for (let at = start; at < end; at += buffer.length) {
    environment.signal?.throwIfAborted();
    const piece = buffer.subarray(0, Math.min(buffer.length, end - at));
    await step("reading from input", () => source.read(at, piece));
    await step("writing to output", () => output.write(at - start, piece));
  }
}

async function step(what: string, body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    throw new ImageError(`error while ${what} image file: ${reasonText(error)}`, {
      errno: ImageError.from(error).errno,
      cause: error,
    });
  }
}
