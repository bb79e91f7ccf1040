/**
 * Moving runs whose place was found out already: what `rebase` and `commit` have in common.
 *
 * @module
 */
import type { BlockNode } from "../../block/node.ts";
import { SLOT_SIZE } from "./job.ts";
import { move, type Packing } from "./mover.ts";
import type { Pace } from "./pace.ts";
import { Partner } from "./partner.ts";
import { isReachable, type Step } from "./planner.ts";
import { InlinePool, type Pool, threadLimit, WorkerPool } from "./pool.ts";
import { RunCopier } from "./run_copier.ts";
import type { Place, Source } from "./source.ts";
import type { Writer } from "./writer.ts";

/** Slots for compressed clusters on their way. */
const SLOTS = 8;

/** From how many bytes to be inflated or deflated on other threads are worth their start. */
const MUCH = 2 << 20;

/** From how many bytes to be merely written on a second thread is. */
const MUCH_PLAIN = 32 << 20;

/** How runs are moved. */
export interface RunOptions {
  /** What is copied. */
  readonly source: Source;
  /** Where it goes. */
  readonly writer: Writer;
  /** Keeps the thread responsive. */
  readonly pace: Pace;
  /** Present when everything that goes through a slot is compressed. */
  readonly packing?: Packing | undefined;
  /** About how much there is to do, bytes: in all, and in compressed clusters of the source. */
  readonly work: { readonly bytes: number; readonly packed: number };
  /** There is more time than work. */
  readonly isSlow?: boolean;
}

/** Carries out steps whose pieces are all data, and of at most {@linkcode SLOT_SIZE} bytes. */
export async function moveRuns(
  steps: AsyncIterable<Step>,
  { source, writer, pace, packing, work: { bytes, packed }, isSlow = false }: RunOptions,
): Promise<void> {
  const threads = threadLimit(SLOTS);
  const isHeavy = threads > 0 && (packing === undefined ? packed : bytes) >= MUCH;
  const mayHavePartner = !isSlow && packing === undefined && threads > 1 &&
    bytes - packed >= MUCH_PLAIN && writer.target.allocator !== undefined;
  using partner = mayHavePartner ? new Partner(pace, SLOT_SIZE) : undefined;
  await using pool: Pool = isHeavy ? new WorkerPool(threads, SLOTS) : new InlinePool(SLOTS);
  await move(steps, {
    source,
    writer,
    pool,
    pace,
    sparse: null,
    outOfOrder: false,
    packing,
    copier: new RunCopier({ source, writer, pace, partner }),
    onDone() {},
  });
}

/** The step that copies a piece: by way of other threads if any of it can be inflated there. */
export function runStep(offset: number, length: number, places: readonly Place[]): Step {
  const piece = { offset, length, places };
  // What only the nodes can tell is read when its turn comes.
  const isForSlot = places.some((place) => place.kind === "packed" && isReachable(place)) &&
    places.every(({ kind }) => kind !== "node");
  return isForSlot ? { kind: "slot", pieces: [piece] } : { kind: "plain", piece };
}

/** Bytes that an image and those behind it, down to but without `base`, take in their files. */
export async function storedBytes(top: BlockNode, base: BlockNode | null): Promise<number> {
  let sum = 0;
  for (let image: BlockNode | null = top; image !== null && image !== base;) {
    sum += await image.allocatedSize() ?? 0;
    image = image.backing?.node ?? null;
  }
  return sum;
}
