/** Bytes of a run that an allocation is to fill, from the run's beginning. */
export interface RangeBounds {
  /** First byte that the caller writes. */
  readonly dataFrom: number;
  /** End of what the caller writes. */
  readonly dataTo: number;
  /** First byte that holds what it should once the caller is through: copy-on-write comes before `dataFrom`. */
  readonly from: number;
  /** End of the same: copy-on-write comes behind `dataTo`. */
  readonly to: number;
}

/** A part of a pending run that one allocation is to fill. */
export class PendingRange implements RangeBounds {
  readonly dataFrom: number;
  readonly dataTo: number;
  readonly from: number;
  readonly to: number;
  /** How far the caller is. */
  state: "open" | "published" | "abandoned" = "open";
  /** The caller is a planner, who may wait for other requests before this range ends. */
  readonly planned: boolean;
  /** Resolves when the copy-on-write around the range is done: those who come later may write from then on. */
  readonly prepared: Promise<void>;
  readonly #prepared = Promise.withResolvers<void>();

  /** A range that nothing was done for yet. */
  constructor({ dataFrom, dataTo, from, to }: RangeBounds, planned: boolean) {
    this.planned = planned;
    this.dataFrom = dataFrom;
    this.dataTo = dataTo;
    this.from = from;
    this.to = to;
    this.prepared = this.#prepared.promise;
    // Whoever meets the error throws it; that nobody else waits for it is fine.
    this.prepared.catch(() => {});
  }

  /** Tells those who wait that the copy-on-write is done, or failed. The first call counts. */
  prepare(error?: unknown): void {
    if (error === undefined) this.#prepared.resolve();
    else this.#prepared.reject(error);
  }
}

/** Host clusters whose bytes are being written, and that no L2 entry names yet (or not as data). */
export class PendingRun {
  /** First guest byte, a multiple of the cluster size. */
  readonly guest: number;
  /** Where it goes in the data file. */
  readonly host: number;
  /** Number of clusters. */
  readonly clusters: number;
  /** Guest bytes. */
  readonly length: number;
  /** The host clusters are new: to be freed again if nothing comes of it. */
  readonly fresh: boolean;
  /** Who fills it: more than one when requests meet in a cluster. */
  readonly ranges: PendingRange[] = [];
  /** Resolves when the run is linked or given up. Rejects if that failed. */
  readonly settled: Promise<void>;
  readonly #settled = Promise.withResolvers<void>();

  /** A run of `clusters` clusters of `clusterSize` bytes. */
  constructor(
    place: { guest: number; host: number; clusters: number; clusterSize: number; fresh: boolean },
  ) {
    this.guest = place.guest;
    this.host = place.host;
    this.clusters = place.clusters;
    this.length = place.clusters * place.clusterSize;
    this.fresh = place.fresh;
    this.settled = this.#settled.promise;
    this.settled.catch(() => {});
  }

  /** Whether any range still waits for its caller. */
  get open(): boolean {
    return this.ranges.some(({ state }) => state === "open");
  }

  /** Whether any range waits for a planner. */
  get waitsForPlanner(): boolean {
    return this.ranges.some(({ state, planned }) => planned && state === "open");
  }

  /** Tells those who wait that it is over. */
  settle(error?: unknown): void {
    if (error === undefined) this.#settled.resolve();
    else this.#settled.reject(error);
  }
}

/** Allocations whose bytes are still being written. There are few at a time. */
export class PendingRuns {
  #runs: PendingRun[] = [];

  /** The runs as they are now. */
  get all(): readonly PendingRun[] {
    return [...this.#runs];
  }

  /** Whether a run is still pending. */
  has(run: PendingRun): boolean {
    return this.#runs.includes(run);
  }

  /** The first run in guest order that touches a guest range. */
  first(offset: number, length: number): PendingRun | undefined {
    let first: PendingRun | undefined;
    for (const run of this.#runs) {
      if (run.guest >= offset + length || run.guest + run.length <= offset) continue;
      if (first === undefined || run.guest < first.guest) first = run;
    }
    return first;
  }

  /** Adds a run. */
  add(run: PendingRun): void {
    this.#runs.push(run);
  }

  /** Removes a run. */
  remove(run: PendingRun): void {
    this.#runs = this.#runs.filter((other) => other !== run);
  }

  /** Resolves when nothing in a guest range is pending. */
  async settled(offset: number, length: number): Promise<void> {
    for (;;) {
      const run = this.first(offset, length);
      if (run === undefined) return;
      // Its failure is its caller's.
      await run.settled.catch(() => {});
    }
  }
}
