/**
 * How large an image would become. Command-line reference, section 12.6.
 *
 * @module
 */
import type { MeasureResult } from "../block/driver.ts";
import { ImageError } from "../block/error.ts";
import { READ_ONLY } from "../block/mode.ts";
import type { BlockNode } from "../block/node.ts";
import { type OptionPair, OptionSet, type OptionSpec } from "../block/options.ts";
import { findSecret } from "../graph/context.ts";
import { createTarget } from "../graph/create.ts";
import { type Environment, QUIET } from "../graph/environment.ts";
import { type ImageReference, openImage } from "../graph/open.ts";
import { creatableFormat, DEFAULT_FORMAT, findProtocol } from "../graph/registry.ts";
import { selectSnapshot, type SnapshotSelector } from "./snapshot.ts";

/** What to measure: a size or an image, for a target format. */
export interface MeasureOptions {
  /** Target format, default raw. */
  readonly format?: string | undefined;
  /** `-o`. */
  readonly options?: readonly OptionPair[];
  /** A mere size, bytes. */
  readonly size?: number | bigint | undefined;
  /** Or a source. */
  readonly source?: ImageReference | undefined;
  /** Or one of the source's internal snapshots (`-l`). */
  readonly snapshot?: SnapshotSelector | undefined;
  /** `-U`. */
  readonly forceShare?: boolean;
}

/**
 * Says how much space an image would take.
 *
 * ```ts
 * import { measureImage } from "@qimg/qimg";
 * import { assert } from "@std/assert";
 *
 * const { required, fullyAllocated } = await measureImage({ format: "qcow2", size: 1024 ** 3 });
 * assert(required < fullyAllocated);
 * ```
 *
 * @throws {ImageError} For options that the format refuses `Invalid options for file format '…'`; which
 * and why is reported before.
 */
export async function measureImage(
  request: MeasureOptions,
  environment: Environment = QUIET,
): Promise<MeasureResult> {
  const { source, snapshot, forceShare = false } = request;
  if (source === undefined) return await measure(request, undefined, environment);
  await using node = await openImage(source, { ...READ_ONLY, forceShare }, environment);
  if (snapshot !== undefined) await selectSnapshot(node, snapshot);
  return await measure(request, node, environment);
}

async function measure(
  { format = DEFAULT_FORMAT, options: pairs, size }: MeasureOptions,
  source: BlockNode | undefined,
  environment: Environment,
): Promise<MeasureResult> {
  if (findProtocol(format) !== undefined) throw noMeasurement(format);
  const driver = await creatableFormat(format);
  const { specs } = await createTarget(driver, "");
  const options = typedOptions(format, specs, pairs, environment);
  if (size !== undefined) options.setSize("size", size);
  if (driver.measure === undefined) throw noMeasurement(format);
  return await driver.measure(options, source, (id) => findSecret(id, environment));
}

function typedOptions(
  format: string,
  specs: readonly OptionSpec[],
  pairs: readonly OptionPair[] | undefined,
  environment: Environment,
): OptionSet {
  try {
    return new OptionSet(specs, pairs);
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    environment.report(error.message, true);
    if (error.hint !== undefined) environment.report(error.hint);
    throw new ImageError(`Invalid options for file format '${format}'`, {
      errno: "EINVAL",
      field: "options",
      cause: error,
    });
  }
}

function noMeasurement(format: string): ImageError {
  return new ImageError(`Block driver '${format}' does not support size measurement`, {
    errno: "ENOTSUP",
    field: "format",
  });
}
