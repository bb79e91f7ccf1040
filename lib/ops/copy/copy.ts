/**
 * The copy engine: a planner that says what lies where, and a mover that takes it elsewhere.
 *
 * @module
 */
import { ImageError } from "../../block/error.ts";
import type { BlockNode } from "../../block/node.ts";
import type { Environment } from "../../graph/environment.ts";
import type { Progress } from "../progress.ts";
import { SLOT_SIZE } from "./job.ts";
import { move, type MoverOptions, type Packing } from "./mover.ts";
import { Offload } from "./offload.ts";
import { Pace } from "./pace.ts";
import { Partner } from "./partner.ts";
import { batchSize, chunkSize } from "./plain.ts";
import { isFar, measureWork, type PlanOptions, planSteps } from "./planner.ts";
import { InlinePool, type Pool, threadLimit, WorkerPool } from "./pool.ts";
import { SlotWriter } from "./slot_writer.ts";
import { Source } from "./source.ts";
import { sparseRule } from "./sparse.ts";
import { Writer } from "./writer.ts";

/** How images are copied. */
export interface CopyOptions {
  /** The target reads as zeros, so zeros need not be written. */
  readonly readsZero: boolean;
  /** The length of the target's backing file, bytes: only what the top source image holds is copied. */
  readonly overBacking: number | undefined;
  /** Store compressed clusters; needs `target.packer`. */
  readonly compress: boolean;
  /** `undefined`: the codec's default. */
  readonly compressionLevel: number | undefined;
  /** Smallest run of zeros that is not data, bytes; 0: all is data. */
  readonly sparseSize: number;
  /** Requests at a time, at most. */
  readonly requests: number;
  /** Write as data comes. */
  readonly outOfOrder: boolean;
  /** Bytes a second, 0 for no limit. */
  readonly rateLimit: number;
  /** What cannot be read becomes zeros, with a warning. */
  readonly salvage: boolean;
  /** Let the host copy what it can; zeros are then not looked for. */
  readonly copyRange: boolean;
  /** Called as the copy gets on, once with each run that the reference would read at once. */
  readonly onProgress: Progress | undefined;
}

/** From how many bytes to be inflated or deflated on other threads are worth their start. */
const MUCH = 2 << 20;

/** From how many bytes to be merely copied on a second thread is. */
const MUCH_PLAIN = 32 << 20;

/**
 * Copies `sources`, one behind the other, to the begin of `target`.
 *
 * @throws {ImageError} `error while reading at byte …`, `error while writing at byte …`, and the reason
 * of `environment.signal`.
 */
export async function copyImage(
  sources: readonly BlockNode[],
  target: BlockNode,
  options: CopyOptions,
  environment: Environment,
): Promise<void> {
  const { sparseSize, requests, onProgress } = options;
  const packing = await packingFor(target, options);
  const pace = new Pace(environment.signal);
  const source = new Source(sources, {
    overBacking: options.overBacking,
    // Smaller parts of a cluster count as data.
    wholeZeros: sparseSize === 0 ? 0 : packing?.packer.clusterSize ?? 1,
    salvage: options.salvage ? (text) => environment.warn(text) : undefined,
  });
  const planned: PlanOptions = {
    clusterSize: packing?.packer.clusterSize,
    zerosAreData: sparseSize === 0,
    skipZeros: options.readsZero,
    slotsOnly: isFar(target),
  };
  // A partner takes some time to start, so it does that while the work is measured.
  using partners = new DisposableStack();
  const mayBeHelped = packing === undefined && !options.copyRange && options.rateLimit === 0 &&
    target.allocator !== undefined && threadLimit(requests) > 1;
  const sparse = sparseRule(sparseSize, target.limits.requestAlignment);
  let partner = mayBeHelped && await hostSize(sources) >= MUCH_PLAIN
    ? partners.use(new Partner(pace, batchSize(chunkSize(target, sparse))))
    : undefined;
  const { data, heavy, far } = await measureWork(source, planned, pace);
  if (data - heavy - far < MUCH_PLAIN) {
    partner?.[Symbol.dispose]();
    partner = undefined;
  }
  const isSent = planned.slotsOnly === true && data >= MUCH_PLAIN;
  // One reads for the other who sends.
  const threads = heavy >= MUCH ? threadLimit(requests) : isSent ? threadLimit(1) : 0;
  const scribe = threads === 0 && mayBeHelped && far >= MUCH_PLAIN
    ? partners.use(new Partner(pace, SLOT_SIZE, requests))
    : undefined;
  await using pool: Pool = threads > 0
    ? new WorkerPool(threads, requests)
    : new InlinePool(scribe?.buffers ?? requests);
  const writer = new Writer(target, {
    unmap: sparseSize > 0,
    skipZeros: options.readsZero,
    rate: options.rateLimit,
    signal: environment.signal,
  });
  using offload = options.copyRange ? new Offload(writer) : undefined;
  let done = 0;
  const how: MoverOptions = {
    source,
    writer,
    pool,
    pace,
    sparse,
    outOfOrder: options.outOfOrder,
    packing,
    offload,
    partner,
    slotWriter: scribe === undefined ? undefined : new SlotWriter(writer, scribe),
    writes: Math.min(requests, target.limits.requests ?? 1),
    onDone(bytes) {
      done += bytes;
      onProgress?.(done / data, data);
    },
  };
  await move(planSteps(source, planned), how);
  await packing?.packer.finish();
}

/** Bytes that images take on their host, as far as anybody knows. */
async function hostSize(nodes: readonly BlockNode[]): Promise<number> {
  let sum = 0;
  for (const node of nodes) sum += await node.allocatedSize() ?? 0;
  return sum;
}

/** @throws {ImageError} for a level that the target's codec does not have. */
async function packingFor(
  target: BlockNode,
  { compress, compressionLevel: level }: CopyOptions,
): Promise<Packing | undefined> {
  const { packer } = target;
  if (!compress || packer === undefined) return undefined;
  if (level !== undefined) {
    const { loadCodec } = await import("../../codec/mod.ts");
    const [lowest, highest] = (await loadCodec(packer.codec)).levels;
    if (!Number.isInteger(level) || level < lowest || level > highest) {
      throw new ImageError(
        `Compression level of ${packer.codec} must be between ${lowest} and ${highest}`,
        { errno: "EINVAL", field: "compression-level" },
      );
    }
  }
  return { packer, level };
}
