/**
 * What block status can tell of an export (NBD protocol, "Metadata querying").
 *
 * @module
 */
import { findBitmap, requireConsistent } from "../../block/bitmap.ts";
import { ImageError } from "../../block/error.ts";
import type { BlockNode } from "../../block/node.ts";
import { alignDown, alignUp } from "../../bytes/align.ts";
import { ALLOCATION, BASE_ALLOCATION } from "../../nbd/constants.ts";
import { mapNode } from "../map.ts";
import type { StatusRun } from "../../nbd/transmission.ts";
import { breathe } from "./shares.ts";

/** Takes the next run of bytes and its flags; answers whether to go on. */
export type TakeStatus = (length: number, flags: number) => boolean;

/** A kind of information on the bytes of an export. */
export interface MetaContext {
  /** Its full name: `base:allocation`. */
  readonly name: string;
  /**
   * Tells the runs of a part, in order and without gaps, until that is done or `take` has enough, but
   * at least one. It may end early.
   * Neighbours may be alike.
   *
   * @throws {ImageError} for failed I/O.
   */
  status(offset: number, length: number, take: TakeStatus): Promise<void>;
}

/** Batches of entries that are looked at for one reply: clients ask again for what is left. */
const MOST_BATCHES = 128;

/** `qemu:dirty-bitmap:…`: a bit is set. */
const DIRTY = 1;

/** Where an image has data and where zeros, and what is allocated. */
export function allocationContext(node: BlockNode): MetaContext {
  return {
    name: BASE_ALLOCATION,
    async status(offset, length, take) {
      const unit = node.limits.requestAlignment;
      const end = offset + length;
      const to = Math.min(alignUp(end, unit), node.length);
      let left = MOST_BATCHES;
      for await (const batch of mapNode(node, alignDown(offset, unit), to)) {
        for (const { start, length, data, zero } of batch) {
          const run = Math.min(start + length, end) - Math.max(start, offset);
          const flags = (data ? 0 : ALLOCATION.hole) | (zero ? ALLOCATION.zero : 0);
          if (run > 0 && !take(run, flags)) return;
        }
        // The disk may be so large that to go through all of it takes minutes.
        if (--left === 0) return;
        await breathe();
      }
    },
  };
}

/**
 * The dirty bitmaps of an image as contexts: those of these names or, without names, all that can be
 * relied on. `changes` counts what was written since the image was opened.
 *
 * @throws {ImageError} for a name that none has, and for a bitmap that was not closed properly.
 */
export function bitmapContexts(
  node: BlockNode,
  names: readonly string[] | undefined,
  changes: () => number,
): MetaContext[] {
  const store = node.bitmaps;
  const visit = store?.visitDirty;
  if (names === undefined) {
    if (store === undefined || visit === undefined) return [];
    return store.list().filter(({ consistent }) => consistent)
      .map(({ name }) => bitmapContext(name, store, node, changes));
  }
  return names.map((name) => {
    requireConsistent(findBitmap(store, name));
    if (store === undefined || visit === undefined) {
      throw ImageError.fromErrno("ENOTSUP", { file: node.filename, field: name });
    }
    return bitmapContext(name, store, node, changes);
  });
}

/** Begins and ends of runs of dirty bytes in turn. */
type Borders = readonly number[];

function bitmapContext(
  name: string,
  store: NonNullable<BlockNode["bitmaps"]>,
  node: BlockNode,
  changes: () => number,
): MetaContext {
  let borders: Promise<Borders> | undefined;
  let asOf = -1;
  const current = () => {
    const now = changes();
    if (borders !== undefined && now === asOf) return borders;
    asOf = now;
    const found = dirtyBorders(store, name);
    // What failed once may not fail the next time.
    found.catch(() => borders = undefined);
    return borders = found;
  };
  return {
    name: `qemu:dirty-bitmap:${name}`,
    async status(offset, length, take) {
      const found = await current();
      const end = Math.min(offset + length, node.length);
      // The first border behind `offset`: dirty up to there if it is one where a run ends.
      let next = firstAbove(found, offset);
      for (let at = offset; at < end; next++) {
        const until = Math.min(found[next] ?? end, end);
        if (!take(until - at, next % 2 === 1 ? DIRTY : 0)) return;
        at = until;
      }
    },
  };
}

async function dirtyBorders(
  store: NonNullable<BlockNode["bitmaps"]>,
  name: string,
): Promise<Borders> {
  const borders: number[] = [];
  await store.visitDirty!(name, (offset, length) => {
    if (borders.length > 0 && borders.at(-1) === offset) borders.pop();
    else borders.push(offset);
    borders.push(offset + length);
  });
  return borders;
}

/** The index of the first of the ascending `values` above `value`. */
function firstAbove(values: readonly number[], value: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle]! > value) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Runs of one reply at most: clients ask again for what is left. */
const MOST_RUNS = 16384;

/** The answer of one context, as it comes: neighbours that are alike are one. */
export class StatusRuns {
  readonly #most: number;
  readonly #runs: { length: number; flags: number }[] = [];

  /** No more runs than `most`. */
  constructor(most: number = MOST_RUNS) {
    this.#most = most;
  }

  /** What there is so far. */
  get list(): readonly StatusRun[] {
    return this.#runs;
  }

  /** Adds a run and answers whether there is room for more. */
  add(length: number, flags: number): boolean {
    const last = this.#runs.at(-1);
    if (last !== undefined && last.flags === flags) {
      last.length += length;
      return true;
    }
    if (this.#runs.length >= this.#most) return false;
    this.#runs.push({ length, flags });
    return true;
  }
}
