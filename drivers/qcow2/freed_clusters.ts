import { discardHost } from "./cluster_entry.ts";
import type { HostRange, Qcow2Image } from "./image.ts";

/** Clusters that were freed and may still be named by entries on disk, or are still to be deallocated. */
export class FreedClusters {
  readonly #image: Qcow2Image;
  /** Ranges to deallocate in the file when the operation is through. */
  #discards: HostRange[] = [];
  #held = 0;
  /** Sections under way whose clusters keep their bytes until no entry on disk names them. */
  #cautious = 0;
  /**
   * Clusters, and perhaps some between them, that were freed when the L2 tables
   * had been flushed so many times: before the next flush those on disk still
   * name them.
   */
  #released = { from: Infinity, to: 0, flushes: 0 };

  /** None yet. */
  constructor(image: Qcow2Image) {
    this.#image = image;
  }

  /** Ranges that wait for their deallocation. */
  get places(): number {
    return this.#discards.length;
  }

  /** Adds the cluster at a host offset. */
  add(offset: number, deallocate: boolean): void {
    const { l2, geometry: { clusterSize } } = this.#image;
    const { flushes } = l2.cache;
    const { from, to } = this.#released.flushes === flushes
      ? this.#released
      : { from: Infinity, to: 0 };
    this.#released = {
      from: Math.min(from, offset),
      to: Math.max(to, offset + clusterSize),
      flushes,
    };
    if (!deallocate) return;
    const last = this.#discards.at(-1);
    if (last === undefined || last.offset + last.length !== offset) {
      this.#discards.push({ offset, length: clusterSize });
      return;
    }
    const length = last.length + clusterSize;
    this.#discards[this.#discards.length - 1] = { offset: last.offset, length };
  }

  /** Makes sure that no entry on disk leads to a range of host bytes that is about to be used anew. */
  async settle(from: number, to: number): Promise<void> {
    const { l2 } = this.#image;
    const released = this.#released;
    if (from >= released.to || to <= released.from) return;
    if (l2.cache.flushes === released.flushes) await l2.flush();
    this.#released = { from: Infinity, to: 0, flushes: 0 };
  }

  /**
   * Runs `section` and deallocates when it has ended, neighbours in one go. `cautious`: only after the L2
   * tables are on disk, so that a crash cannot show holes where there were data.
   */
  async holding<T>(section: () => Promise<T>, cautious = false): Promise<T> {
    this.#held++;
    if (cautious) this.#cautious++;
    try {
      return await section();
    } finally {
      this.#held--;
      await this.deallocateUnlessHeld();
      if (cautious) this.#cautious--;
    }
  }

  /** Deallocates, unless a section holds it. */
  async deallocateUnlessHeld(): Promise<void> {
    if (this.#held === 0) await this.deallocate();
  }

  /** Deallocates: what is still to be deallocated must not be in use again by then. */
  async deallocate(): Promise<void> {
    if (this.#discards.length === 0) return;
    if (this.#cautious > 0) await this.#image.l2.flush();
    const ranges = this.#discards;
    this.#discards = [];
    for (const { offset, length } of ranges) await discardHost(this.#image.file, offset, length);
  }

  /** Forgets all. */
  clear(): void {
    this.#discards = [];
    this.#released = { from: Infinity, to: 0, flushes: 0 };
  }
}
