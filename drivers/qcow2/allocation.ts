import { ImageError } from "../../lib/block/error.ts";
import { readPadded } from "./_read.ts";
import { hex, signalCorruption } from "./corruption.ts";
import { FreedClusters } from "./freed_clusters.ts";
import type { Qcow2Image } from "./image.ts";
import { type RefcountFormat, refcountFormat } from "./refcount_format.ts";
import { countFree, countUsed, findFreeRun, lastUsed } from "./refcount_search.ts";
import { PackedSpace } from "./packed_space.ts";
import { growRefcountTable, nameRefcountTable } from "./refcount_table.ts";
import { RefcountTable } from "./table.ts";
import { type CachedTable, TableCache } from "./table_cache.ts";

/** Why clusters are freed, which decides what becomes of their bytes (section 6). */
export type FreeReason = "always" | "snapshot" | "request" | "other" | "never";

/** Memory for refcount blocks, bytes. */
const CACHE_BYTES = 4 * 1024 * 1024;
/** Runs of freed clusters that wait for their deallocation at most, where many are freed. */
const MANY_PLACES = 4096;

/**
 * Refcounts and the allocator (sections 4 and 6). Clusters are given out in
 * exactly the reference's order. Callers that change something hold
 * `image.lock`, or are alone with the image.
 */
export class Refcounts {
  /** How refcounts lie in a block. */
  format: RefcountFormat;
  /** Refcount blocks in memory. */
  readonly cache: TableCache;
  readonly #image: Qcow2Image;
  #table = new RefcountTable(new Uint8Array(0));
  /** Cluster at which the search for free ones goes on. */
  #next = 0;
  /** Where compressed bytes go. */
  readonly #packed: PackedSpace;
  /** What was freed of late. */
  readonly #released: FreedClusters;

  /** Nothing is read before `load`. */
  constructor(image: Qcow2Image) {
    this.#image = image;
    this.format = refcountFormat(image.header.refcountOrder, image.geometry.clusterSize);
    this.cache = new TableCache(image, "refcount block", CACHE_BYTES);
    this.#released = new FreedClusters(image);
    this.#packed = new PackedSpace(image, this);
  }

  /** Blocks that the table has room for. */
  get blocks(): number {
    return this.#table.length;
  }

  /** The refcount table as it is on disk: read it, do not write it. */
  get table(): RefcountTable {
    return this.#table;
  }

  /** Reads the refcount table. Blocks are read when they are needed. */
  async load(): Promise<void> {
    const { file, header, geometry } = this.#image;
    const bytes = new Uint8Array(header.refcountTableClusters * geometry.clusterSize);
    this.#image.event("reftable_load");
    await readPadded(file, header.refcountTableOffset, bytes);
    this.#table = new RefcountTable(bytes);
    this.#image.overlap.reset();
  }

  /** Forgets everything cached and the place where the search for free clusters stands (after a repair). */
  async reset(): Promise<void> {
    this.cache.clear();
    this.#next = 0;
    this.#packed.reset();
    this.#released.clear();
    await this.load();
  }

  /**
   * Takes over a structure that the header names already, with refcounts of
   * the width that it says. What is cached of the one before has to be written.
   */
  adopt(table: RefcountTable): void {
    const { header, geometry, overlap } = this.#image;
    this.cache.clear();
    this.format = refcountFormat(header.refcountOrder, geometry.clusterSize);
    this.#table = table;
    overlap.reset();
  }

  /** Bytes of refcount block `index` as cached (valid until the next await), `undefined` where there is none. */
  async block(index: number): Promise<Uint8Array | undefined> {
    if (index >= this.#table.length) return undefined;
    const offset = this.#table.offset(index);
    if (offset === 0) return undefined;
    const cached = this.cache.peek(offset);
    if (cached !== undefined) return cached.entries.bytes;
    await this.#assertAligned(index, offset);
    return (await this.cache.load(offset)).entries.bytes;
  }

  /**
   * Refcount of a cluster; exact below 2^53.
   *
   * @throws {ImageError} `EIO` where its block is misplaced.
   */
  async get(cluster: number): Promise<number> {
    const { perBlock } = this.format;
    const block = await this.block(Math.floor(cluster / perBlock));
    return block === undefined ? 0 : this.format.get(block, cluster % perBlock);
  }

  /**
   * Contiguous clusters for `bytes`: their offset; refcounts are 1.
   *
   * @throws {ImageError} `EFBIG` where the file would get too long.
   */
  async allocate(bytes: number): Promise<number> {
    const { clusterSize } = this.#image.geometry;
    const clusters = Math.ceil(bytes / clusterSize);
    this.#image.event("cluster_alloc");
    for (;;) {
      const offset = await this.findFree(clusters);
      if (await this.change(offset, clusters * clusterSize, 1, "never")) return offset;
    }
  }

  /** Takes as many of `clusters` clusters from `offset` on as are free; how many these are. */
  async allocateAt(offset: number, clusters: number): Promise<number> {
    const { clusterSize } = this.#image.geometry;
    const first = offset / clusterSize;
    await this.#released.deallocate();
    for (;;) {
      const free = await countFree(this, first, clusters);
      if (await this.change(offset, free * clusterSize, 1, "never")) return free;
    }
  }

  /**
   * Room for `length` compressed bytes (at most a cluster), packed behind the
   * last such room: its offset.
   *
   * @throws {ImageError} `EFBIG` beyond what an entry can express.
   */
  allocateBytes(length: number): Promise<number> {
    return this.#packed.allocate(length);
  }

  /**
   * Adds `delta` to the refcounts of all clusters that the range touches.
   * `reason` says what becomes of those that reach 0.
   *
   * @throws {ImageError} `EINVAL` where a refcount would leave its range; nothing is changed then.
   */
  async add(
    offset: number,
    length: number,
    delta: number,
    reason: FreeReason = "never",
  ): Promise<void> {
    try {
      while (!await this.change(offset, length, delta, reason));
    } finally {
      await this.#released.deallocateUnlessHeld();
    }
  }

  /**
   * Takes one reference from each cluster that the range touches. The caller's
   * work is done by then, so failure is reported, not thrown: clusters leak.
   * They also do in an image that was found corrupt: what was allocated in it
   * may well be in use, and a hole in it would be the end of what is there.
   */
  async free(offset: number, length: number, reason: FreeReason): Promise<void> {
    if (this.#image.broken) return;
    try {
      this.#image.event("cluster_free");
      await this.add(offset, length, -1, reason);
    } catch (error) {
      const { message } = ImageError.from(error);
      this.#image.context.report(`qcow2_free_clusters failed: ${message}`);
    }
  }

  /** Whether the bytes of clusters that are freed for `reason` are deallocated. */
  passesDiscard(reason: FreeReason): boolean {
    const { discards } = this.#image;
    switch (reason) {
      case "always":
        return true;
      case "never":
        return false;
      default:
        return discards[reason];
    }
  }

  /**
   * Block `index`, whose refcounts the caller changes himself before the next
   * await (`cache.touch` says so); `undefined` where there is none. Others are
   * written out when many have changed.
   */
  async changeable(index: number): Promise<CachedTable | undefined> {
    await this.cache.makeRoom();
    if (await this.block(index) === undefined) return undefined;
    return this.cache.peek(this.#table.offset(index));
  }

  /** Says that the refcount of a cluster has become 0. `reason` says what becomes of its bytes. */
  freed(cluster: number, reason: FreeReason): void {
    const { geometry: { clusterSize }, l2 } = this.#image;
    const offset = cluster * clusterSize;
    this.#next = Math.min(this.#next, cluster);
    this.#packed.freed(cluster);
    this.cache.forget(offset);
    l2.forget(offset);
    this.#released.add(offset, this.passesDiscard(reason));
  }

  /** Deallocates what was freed, also within a section that holds it. */
  deallocate(): Promise<void> {
    return this.#released.deallocate();
  }

  /** Deallocates freed clusters now if they are scattered over so many places that to know them takes memory. */
  async deallocateIfMany(): Promise<void> {
    if (this.#released.places > MANY_PLACES) await this.#released.deallocate();
  }

  /**
   * Runs `section` and deallocates freed clusters when it has ended, neighbours in one go. `cautious`: only
   * after the L2 tables are on disk.
   */
  holdingDiscards<T>(section: () => Promise<T>, cautious = false): Promise<T> {
    return this.#released.holding(section, cautious);
  }

  /**
   * A new refcount table at host offset `start` (a multiple of what a block
   * covers, or behind everything used), with blocks for `extra` more clusters;
   * answers with the end of what was made, bytes.
   *
   * @throws {ImageError} `EFBIG` above the format's limit.
   */
  async growTable(start: number, extra: number, size: "exact" | "generous"): Promise<number> {
    await this.#released.settle(start, Infinity);
    const area = await growRefcountTable(this.#image, { start, extra, size });
    await this.#replaceTable(area.table, area.offset);
    return area.end;
  }

  /** Writes refcount table entry `index` (0: no block, then what was cached of it is forgotten) and flushes. */
  async setTableEntry(index: number, blockOffset: number): Promise<void> {
    const { file, header, geometry, overlap } = this.#image;
    const old = this.#table.offset(index);
    const entry = this.#table.bytes.subarray(index * 8, index * 8 + 8);
    this.#table.setOffset(index, blockOffset);
    try {
      if (blockOffset !== 0) this.#image.event("refblock_alloc_hookup");
      await file.write(header.refcountTableOffset + index * 8, entry);
    } catch (error) {
      this.#table.setOffset(index, old);
      throw error;
    }
    if (blockOffset === 0) {
      this.cache.forget(old);
      this.#next = Math.min(this.#next, old / geometry.clusterSize);
    } else {
      overlap.addedBlock(blockOffset);
    }
    await this.#image.barrier();
  }

  /** Index of the last cluster below `clusters` with a refcount, -1 if there is none. */
  lastUsed(clusters: number): Promise<number> {
    return lastUsed(this, clusters);
  }

  /** How many of the clusters below `clusters` have a refcount; stops counting at `limit`. */
  countUsed(clusters: number, limit: number): Promise<number> {
    return countUsed(this, clusters, limit);
  }

  /** Writes changed blocks. */
  write(): Promise<void> {
    return this.cache.write();
  }

  /** Writes changed blocks and flushes. */
  flush(): Promise<void> {
    return this.cache.flush();
  }

  /**
   * Finds contiguous free clusters without taking them: their offset, which
   * lies at or below `limit`. The search goes on behind them next time.
   */
  async findFree(clusters: number, limit = Number.MAX_SAFE_INTEGER): Promise<number> {
    await this.#released.deallocate();
    const { clusterSize } = this.#image.geometry;
    const end = await findFreeRun(this, this.#next, clusters);
    this.#next = end;
    if (end - 1 > Math.floor(limit / clusterSize)) {
      throw ImageError.fromErrno("EFBIG", { file: this.#image.context.filename });
    }
    return (end - clusters) * clusterSize;
  }

  /**
   * One try at `add`. `false`: a refcount block had to be made, which may have
   * taken clusters that the caller had found free, so it has to look again;
   * nothing is changed then.
   */
  async change(
    offset: number,
    length: number,
    delta: number,
    reason: FreeReason,
  ): Promise<boolean> {
    if (length <= 0) return true;
    const { geometry: { clusterSize }, l2 } = this.#image;
    const { format } = this;
    await this.cache.makeRoom();
    // References go from the L2 tables before they go from the refcounts.
    if (delta < 0) await this.cache.after(l2.cache);
    else await this.#released.settle(offset, offset + length);
    const first = Math.floor(offset / clusterSize);
    const end = Math.floor((offset + length - 1) / clusterSize) + 1;
    let cluster = first;
    // What is freed is gone only once all of it is: none of it, if the change is undone.
    const freed: number[] = [];
    try {
      while (cluster < end) {
        const index = Math.floor(cluster / format.perBlock);
        if (!await this.#needBlock(cluster, delta)) {
          await this.#revert(first, cluster, delta);
          this.#next = Math.min(this.#next, first);
          return false;
        }
        const table = await this.cache.load(this.#table.offset(index));
        const base = index * format.perBlock;
        const stop = Math.min(end, base + format.perBlock);
        let inRange = true;
        for (; cluster < stop; cluster++) {
          const count = format.add(table.entries.bytes, cluster - base, delta);
          if (count < 0) {
            inRange = false;
            break;
          }
          if (count === 0) freed.push(cluster);
        }
        this.cache.touch(table);
        if (!inRange) throw ImageError.fromErrno("EINVAL", { field: "refcount" });
      }
    } catch (error) {
      await this.#revert(first, cluster, delta);
      throw error;
    }
    for (const gone of freed) this.freed(gone, reason);
    return true;
  }

  /** Undoes a part of a change; what cannot be undone leaks. */
  async #revert(first: number, end: number, delta: number): Promise<void> {
    const { clusterSize } = this.#image.geometry;
    try {
      await this.change(first * clusterSize, (end - first) * clusterSize, -delta, "never");
    } catch {
      // The error that made it necessary is thrown already.
    }
  }

  async #assertAligned(index: number, offset: number): Promise<void> {
    if (offset % this.#image.geometry.clusterSize !== 0) {
      throw await signalCorruption(
        this.#image,
        `Refblock offset ${hex(offset)} unaligned (reftable index: ${hex(index)})`,
      );
    }
  }

  /** Makes the block that counts a cluster. `false`: it had to be made, look again. */
  async #needBlock(cluster: number, delta: number): Promise<boolean> {
    const { format } = this;
    const index = Math.floor(cluster / format.perBlock);
    this.#image.event("refblock_alloc");
    const known = index < this.#table.length ? this.#table.offset(index) : 0;
    if (known !== 0) {
      await this.#assertAligned(index, known);
      return true;
    }
    // A reference that nobody counted cannot be taken back, and needs no block to find out.
    if (delta < 0) throw ImageError.fromErrno("EINVAL", { field: "refcount" });

    const { geometry: { clusterSize }, l2 } = this.#image;
    await l2.flush();
    const offset = await this.findFree(1);
    if (offset === 0) {
      throw await signalCorruption(
        this.#image,
        "Preventing invalid allocation of refcount block at offset 0",
      );
    }
    const own = offset / clusterSize;
    if (Math.floor(own / format.perBlock) === index) {
      const block = this.cache.create(offset);
      format.set(block.entries.bytes, own % format.perBlock, 1);
    } else {
      if (!await this.change(offset, clusterSize, 1, "never")) return false;
      await this.cache.flush();
      this.cache.create(offset);
    }
    this.#image.event("refblock_alloc_write");
    await this.cache.flush();
    if (index < this.#table.length) {
      await this.setTableEntry(index, offset);
      return false;
    }
    this.#image.event("reftable_grow");
    const used = Math.ceil(Math.max(cluster + 1, own + 1) / format.perBlock);
    const area = await growRefcountTable(this.#image, {
      start: used * format.perBlock * clusterSize,
      extra: 0,
      size: "generous",
      block: { index, offset },
    });
    await this.#replaceTable(area.table, area.offset);
    return false;
  }

  /** Takes a table that is on disk, and frees the one before. */
  async #replaceTable(table: RefcountTable, offset: number): Promise<void> {
    const { header, geometry: { clusterSize }, overlap } = this.#image;
    const old = { offset: header.refcountTableOffset, length: this.#table.length * 8 };
    const clusters = table.length * 8 / clusterSize;
    this.#image.event("refblock_alloc_switch_table");
    await nameRefcountTable(this.#image, offset, clusters);
    // From here on the file names it, whether or not it can be flushed.
    this.#table = table;
    header.refcountTableOffset = offset;
    header.refcountTableClusters = clusters;
    overlap.reset();
    await this.#image.barrier();
    await this.free(old.offset, old.length, "other");
  }
}
