/**
 * Comparing the content of two images. Command-line reference, section 12.2.
 *
 * @module
 */
import { ImageError, reasonText } from "../block/error.ts";
import { type CacheMode, READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { filesOf } from "../graph/identity.ts";
import { type ImageReference, openImage } from "../graph/open.ts";
import type { Environment } from "../graph/environment.ts";
import { type ComparisonOptions, findData, findDifference, type Side } from "./copy/comparison.ts";
import { Pace } from "./copy/pace.ts";
import { InlinePool, threadLimit, WorkerPool } from "./copy/pool.ts";
import type { Progress } from "./progress.ts";

/** How to compare. */
export interface CompareOptions {
  /** Sizes and allocation must agree too. */
  readonly strict?: boolean;
  /** `-T`. */
  readonly cache?: CacheMode;
  /** `-U`. */
  readonly forceShare?: boolean;
  /** Called as the comparison gets on. */
  readonly onProgress?: Progress;
  /** Called when the common part is equal and the sizes are not, before the longer tail is looked at. */
  readonly onSizeMismatch?: () => void;
}

/**
 * What differs. `sizesDiffer` is about what matters for the result: false also where the common part differs
 * already.
 */
export type CompareResult =
  | { readonly kind: "identical"; readonly sizesDiffer: boolean }
  | { readonly kind: "content"; readonly offset: number; readonly sizesDiffer: boolean }
  | { readonly kind: "size" }
  | { readonly kind: "status"; readonly offset: number };

/** A failure with the exit code that `compare` gives it: 2 open, 3 allocation query, 4 read. */
export class CompareError extends Error {
  /** 2, 3 or 4. */
  readonly exitCode: number;
  /** Lines printed below the message, without the program's name. */
  readonly hint: string | undefined;

  /** With the message to print. */
  constructor(message: string, exitCode: number, cause?: unknown) {
    super(message, { cause });
    this.exitCode = exitCode;
    this.hint = cause instanceof ImageError ? cause.hint : undefined;
  }
}

/** From how many bytes in the files on, of the smaller image, other threads are worth their start. */
const MUCH = 16 << 20;

/**
 * Compares the guest content of two images.
 *
 * @throws {CompareError} with the words and the exit code of the reference.
 */
export async function compareImages(
  left: ImageReference,
  right: ImageReference,
  options: CompareOptions,
  environment: Environment,
): Promise<CompareResult> {
  await using a = await openSide(left, options, environment);
  await using b = await openSide(right, options, environment);
  const { strict = false, onProgress, onSizeMismatch } = options;
  const [sizeA, sizeB] = [a.node.length, b.node.length];
  const [end, total] = [Math.min(sizeA, sizeB), Math.max(sizeA, sizeB)];
  onProgress?.(0, total);
  if (strict && sizeA !== sizeB) return { kind: "size" };
  const isMuch = Math.min(await hostBytes(a.node), await hostBytes(b.node)) >= MUCH;
  await using pool = isMuch ? new WorkerPool(threadLimit(Infinity), 0) : new InlinePool(0);
  const meter = new Meter(total);
  const how: ComparisonOptions = {
    pool,
    pace: new Pace(environment.signal),
    strict,
    onProgress: (offset) => onProgress?.(meter.fractionAt(offset), total),
  };
  const found = await findDifference(a, b, end, how);
  if (found?.kind === "status") return { kind: "status", offset: found.offset };
  if (found !== undefined) return { kind: "content", offset: found.offset, sizesDiffer: false };
  const sizesDiffer = sizeA !== sizeB;
  if (sizesDiffer) {
    onSizeMismatch?.();
    const offset = await findData(sizeA > sizeB ? a : b, end, how);
    if (offset >= 0) return { kind: "content", offset, sizesDiffer };
  }
  return { kind: "identical", sizesDiffer };
}

/**
 * Turns offsets into fractions as the reference does, which adds up the percentages of its steps in single
 * precision: what it shows in the end may be a little less than 100.
 */
class Meter {
  readonly #total: number;
  #offset = 0;
  #percent = 0;

  constructor(total: number) {
    this.#total = total;
  }

  fractionAt(offset: number): number {
    const step = Math.fround(Math.fround(offset - this.#offset) / this.#total);
    this.#offset = offset;
    this.#percent = Math.min(Math.fround(this.#percent + Math.fround(step * 100)), 100);
    return this.#percent / 100;
  }
}

async function openSide(
  image: ImageReference,
  { cache = READ_ONLY.cache, forceShare = false }: CompareOptions,
  environment: Environment,
): Promise<Side & AsyncDisposable> {
  const { filename } = image;
  let node: BlockNode;
  try {
    node = await openImage(image, { ...READ_ONLY, cache, forceShare }, environment);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    throw new CompareError(error.message, 2, error);
  }
  return {
    node,
    statusError: (error) =>
      new CompareError(`Sector allocation test failed for ${filename}`, 3, error),
    readError: (error, offset) =>
      new CompareError(
        `Error while reading offset ${offset} of ${filename}: ${reasonText(error)}`,
        4,
        error,
      ),
    [Symbol.asyncDispose]: () => node[Symbol.asyncDispose](),
  };
}

/** What an image and all that it is in front of take in their files. */
async function hostBytes(node: BlockNode): Promise<number> {
  let sum = 0;
  for (const file of filesOf(node)) sum += await file.allocatedSize() ?? 0;
  return sum;
}
