/**
 * Comparing the refcounts in the file with the references that were counted.
 *
 * @module
 */
import { reasonText } from "../../lib/block/error.ts";
import type { CheckRun } from "./_check_run.ts";
import type { ReferenceCounts } from "./reference_counts.ts";
import { StoredRefcounts } from "./stored_refcounts.ts";

/** What a comparison may repair. */
export interface RefcountRepairs {
  /** Refcounts that are too high: the clusters are leaked. */
  readonly leaks: boolean;
  /** Refcounts that are too low. */
  readonly errors: boolean;
}

/** A comparison that only looks. */
export const NO_REPAIRS: RefcountRepairs = { leaks: false, errors: false };

/** What a comparison leaves behind beside its findings. */
export interface ComparedRefcounts {
  /** The last cluster that is in use by either count. */
  readonly lastUsed: number;
  /** Blocks whose refcounts could not be read. */
  readonly unreadable: ReadonlySet<number>;
}

/**
 * Compares all clusters below `counts.length`. Afterwards `counts` holds what
 * the file says, differences included: the next step wants to know that, and
 * the references are counted anew when they are needed again.
 */
export async function adoptRefcounts(
  run: CheckRun,
  counts: ReferenceCounts,
  repairs: RefcountRepairs,
): Promise<ComparedRefcounts> {
  return await new Comparison(run, counts, repairs, true).all();
}

/** Compares all clusters below `counts.length`, repairs nothing and leaves `counts` as they are. */
export async function compareRefcounts(
  run: CheckRun,
  counts: ReferenceCounts,
): Promise<ComparedRefcounts> {
  return await new Comparison(run, counts, NO_REPAIRS, false).all();
}

class Comparison {
  readonly #run: CheckRun;
  readonly #counts: ReferenceCounts;
  readonly #repairs: RefcountRepairs;
  readonly #adopt: boolean;
  readonly #stored: StoredRefcounts;
  readonly #unreadable = new Set<number>();
  #lastUsed = 0;

  constructor(
    run: CheckRun,
    counts: ReferenceCounts,
    repairs: RefcountRepairs,
    adopt: boolean,
  ) {
    this.#run = run;
    this.#counts = counts;
    this.#repairs = repairs;
    this.#adopt = adopt;
    this.#stored = new StoredRefcounts(run.image);
  }

  async all(): Promise<ComparedRefcounts> {
    const { perBlock } = this.#stored;
    const total = this.#counts.length;
    const covered = Math.min(this.#run.image.refcounts.table.length * perBlock, total);
    for (let index = 0, from = 0; from < covered; index++, from += perBlock) {
      const to = Math.min(from + perBlock, total);
      const { bytes, error } = await this.#stored.block(index);
      if (error !== undefined) {
        this.#unreadable.add(index);
        for (let cluster = from; cluster < to; cluster++) {
          this.#run.checkError(`Can't get refcount for cluster ${cluster}: ${reasonText(error)}`);
        }
      } else if (bytes === undefined) {
        await this.#withoutBlock(from, to);
      } else {
        await this.#withBlock(bytes, from, to);
      }
    }
    await this.#withoutBlock(covered, total);
    return { lastUsed: this.#lastUsed, unreadable: this.#unreadable };
  }

  async #withoutBlock(from: number, to: number): Promise<void> {
    const counts = this.#counts;
    for (
      let cluster = counts.nextUsed(from, to);
      cluster < to;
      cluster = counts.nextUsed(cluster + 1, to)
    ) {
      this.#lastUsed = cluster;
      await this.#differs(cluster, 0, 0n);
    }
  }

  async #withBlock(block: Uint8Array, from: number, to: number): Promise<void> {
    const { format } = this.#stored;
    const next = format.bits === 16 ? this.#nextDifference16(block) : this.#nextDifference(block);
    for (let cluster = next(from, from, to); cluster < to; cluster = next(from, cluster + 1, to)) {
      this.#lastUsed = cluster;
      const index = cluster - from;
      await this.#differs(cluster, format.get(block, index), this.#stored.exact(block, index));
    }
  }

  /** Finds the next cluster of a block whose counts differ; `first` is the block's first cluster. */
  #nextDifference(block: Uint8Array): (first: number, from: number, to: number) => number {
    const { format } = this.#stored;
    const counts = this.#counts;
    return (first, from, to) => {
      let lastUsed = -1;
      let cluster = from;
      for (; cluster < to; cluster++) {
        const refcount = format.get(block, cluster - first);
        if (refcount !== counts.get(cluster)) break;
        if (refcount !== 0) lastUsed = cluster;
      }
      if (lastUsed >= 0) this.#lastUsed = lastUsed;
      return cluster;
    };
  }

  /** The same for the usual width, without a call for each cluster. */
  #nextDifference16(block: Uint8Array): (first: number, from: number, to: number) => number {
    const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
    const counts = this.#counts;
    return (first, from, to) => {
      let lastUsed = -1;
      let cluster = from;
      for (; cluster < to; cluster++) {
        const refcount = view.getUint16((cluster - first) * 2);
        if (refcount !== counts.get(cluster)) break;
        if (refcount !== 0) lastUsed = cluster;
      }
      if (lastUsed >= 0) this.#lastUsed = lastUsed;
      return cluster;
    };
  }

  async #differs(cluster: number, refcount: number, exact: bigint): Promise<void> {
    const { image, report, result } = this.#run;
    const { clusterSize } = image.geometry;
    const references = this.#counts.get(cluster);
    const leaked = refcount > references;
    if (refcount === 0) this.#run.rebuild = true;
    const repair = refcount !== 0 && (leaked ? this.#repairs.leaks : this.#repairs.errors);
    const word = repair ? "Repairing" : leaked ? "Leaked" : "ERROR";
    report(`${word} cluster ${cluster} refcount=${exact} reference=${references}`);
    if (repair) {
      try {
        // Two numbers, for a difference of 64-bit refcounts may not be one.
        const difference = BigInt(references) - exact;
        const low = difference % 2n ** 32n;
        for (const part of [difference - low, low]) {
          if (part === 0n) continue;
          await image.refcounts.add(cluster * clusterSize, clusterSize, Number(part), "always");
        }
        if (leaked) result.leaksFixed++;
        else result.corruptionsFixed++;
        return;
      } catch {
        // It stays as it is, and counts as such.
      }
    }
    if (leaked) result.leaks++;
    else result.corruptions++;
    if (this.#adopt) this.#counts.set(cluster, refcount);
  }
}
