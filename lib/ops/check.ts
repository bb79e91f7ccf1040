/**
 * Checking and repairing. Command-line reference, section 12.1.
 *
 * @module
 */
import type { Checker, CheckResult, RepairMode } from "../block/capabilities.ts";
import { ImageError, reasonText } from "../block/error.ts";
import { type CacheMode, READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { type ImageReference, openImage } from "../graph/open.ts";

/** How to check. */
export interface CheckOptions {
  /** What may be repaired, default nothing. */
  readonly repair?: RepairMode;
  /** `-T`. */
  readonly cache?: CacheMode;
  /** `-U`. */
  readonly forceShare?: boolean;
}

/** Outcome: the last pass, and what the first one repaired. `undefined`: the format has no check. */
export interface CheckOutcome {
  /** Driver name. */
  readonly format: string;
  /** Result of the last pass (with the first pass's `…Fixed` counts). */
  readonly result: CheckResult;
  /** Something was repaired, and the image was checked again. */
  readonly repaired: { readonly leaks: number; readonly corruptions: number } | undefined;
}

/**
 * Checks (and repairs) an image; findings go to `environment.report`. An image in which something was
 * repaired is checked once more; `onRepaired` is called between the passes.
 *
 * ```ts
 * import { createImage, checkImage } from "@qimg/qimg";
 * import { assertEquals } from "@std/assert";
 *
 * const filename = await Deno.makeTempFile();
 * await createImage({ filename, format: "qcow2", size: 1024 * 1024 });
 * const outcome = await checkImage({ filename }, { repair: "leaks" });
 * assertEquals(outcome?.result.corruptions, 0);
 * await Deno.remove(filename);
 * ```
 *
 * @throws {ImageError} `Check failed: …` and what opening throws.
 */
export async function checkImage(
  image: ImageReference,
  { repair = "none", cache = READ_ONLY.cache, forceShare = false }: CheckOptions = {},
  environment: Environment = QUIET,
  onRepaired?: (counts: { leaks: number; corruptions: number }) => void,
): Promise<CheckOutcome | undefined> {
  const mode = { ...READ_ONLY, writable: repair !== "none", checking: true, forceShare, cache };
  const node = await openImage(image, mode, environment);
  let outcome: CheckOutcome | undefined;
  try {
    outcome = await checkNode(node, repair, environment, onRepaired);
  } catch (error) {
    await close(node, environment);
    throw error;
  }
  if (outcome === undefined || isClean(outcome.result)) {
    await node[Symbol.asyncDispose]();
  } else {
    await close(node, environment);
  }
  return outcome;
}

/** Closes an image with which something is wrong already: that is the outcome, and a failure to close a part of it. */
async function close(node: BlockNode, environment: Environment): Promise<void> {
  try {
    await node[Symbol.asyncDispose]();
  } catch (error) {
    // A corruption that was found only now has been reported in its own words.
    if (ImageError.from(error).errno === "EIO") return;
    environment.report(`Error while closing the image: ${reasonText(error)}`, true);
  }
}

function isClean({ corruptions, leaks, checkErrors }: CheckResult): boolean {
  return corruptions === 0 && leaks === 0 && checkErrors === 0;
}

async function checkNode(
  node: BlockNode,
  repair: RepairMode,
  environment: Environment,
  onRepaired?: (counts: { leaks: number; corruptions: number }) => void,
): Promise<CheckOutcome | undefined> {
  const { checker, driver: format } = node;
  const first = checker && await pass(checker, repair, environment);
  if (checker === undefined || first === undefined) return undefined;
  const { leaksFixed, corruptionsFixed } = first;
  if (leaksFixed === 0 && corruptionsFixed === 0) {
    return { format, result: first, repaired: undefined };
  }
  const repaired = { leaks: leaksFixed, corruptions: corruptionsFixed };
  onRepaired?.(repaired);
  const second = await pass(checker, "none", environment) ?? first;
  return { format, result: { ...second, leaksFixed, corruptionsFixed }, repaired };
}

/** `undefined`: the format has no such check. */
async function pass(
  checker: Checker,
  repair: RepairMode,
  environment: Environment,
): Promise<CheckResult | undefined> {
  try {
    return await checker.check(repair, environment.report);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    if (error.errno === "ENOTSUP") return undefined;
    throw new ImageError(`Check failed: ${reasonText(error)}`, {
      errno: error.errno,
      file: error.file,
      field: error.field,
      cause: error,
    });
  }
}
