/**
 * Writing to the disk (section 4 of the format's reference).
 *
 * Space is taken at the end of the file, in the order and in the pieces of the reference. Bytes come first,
 * then, after a barrier, the entries that lead to them, which stay in memory until the image is flushed or
 * there are many. So there is nothing to be checked after a crash, and images are not marked for it.
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { ZeroFlags } from "../../lib/block/node.ts";
import type { Allocation } from "../../lib/block/plan.ts";
import { writeZeroData } from "../../lib/block/write_zero_data.ts";
import { alignDown, divideUp } from "../../lib/bytes/align.ts";
import type { QedImage } from "./image.ts";
import { findRun, readBehind, type Run } from "./mapping.ts";
import { UNALLOCATED, ZERO } from "./table_pages.ts";

/** Bytes that are copied, or zeros that are written, at a time. */
const CHUNK = 1 << 20;

/** A part of a cluster, bytes of the disk. */
interface Part {
  readonly from: number;
  readonly to: number;
}

/** A cluster that has a place in the file and no entry yet, because its bytes are on their way. */
interface PendingCluster {
  readonly position: number;
  /** What it was before, which is in it around the first part that was given out. */
  readonly before: "zero" | "unallocated";
  /** Those who write to it and have not ended. */
  users: number;
  /** Anybody has. */
  isWritten: boolean;
  /** What was given out and not written. */
  readonly abandoned: Part[];
}

/** Writes to an image. All methods take its lock. */
export class Writer {
  readonly #image: QedImage;
  /** By the number of the cluster of the disk. */
  readonly #pending = new Map<number, PendingCluster>();
  /** Where tables will be that no L1 entry names yet, by its number. */
  readonly #reserved = new Map<number, number>();
  /** Who brings his own bytes waits for others who do. */
  readonly #allocating = new Mutex();

  /** A writer for an image that was opened for writing. */
  constructor(image: QedImage) {
    this.#image = image;
  }

  /**
   * Writes bytes of the disk.
   *
   * @throws {ImageError} `EINVAL` for damaged tables, and what the file and the backing file throw.
   */
  async write(offset: number, from: Uint8Array): Promise<void> {
    const image = this.#image;
    for (let done = 0; done < from.length;) {
      const at = offset + done;
      const run = await findRun(image, at, from.length - done);
      if (run.state === "data") {
        await image.file.write(run.host, from.subarray(done, done + run.length));
        done += run.length;
      } else {
        done += await this.#allocating.run(() => this.#writeNew(at, from.subarray(done)));
      }
    }
  }

  /**
   * Makes a range of the disk zero: whole clusters that have no place by their entries, the rest by zeros
   * that are written.
   *
   * @throws {ImageError} as {@linkcode write}; `ENOTSUP` with `flags.noFallback` where zeros would have to
   * be written.
   */
  async writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    const { clusterSize } = this.#image.header;
    const end = offset + length;
    const first = divideUp(offset, clusterSize) * clusterSize;
    const last = alignDown(end, clusterSize);
    // All of it in one cluster.
    if (first > last) return await this.#writeZeros(offset, length, flags);
    await this.#writeZeros(offset, first - offset, flags);
    for (let at = first; at < last;) at += await this.#zeroClusters(at, last - at, flags);
    await this.#writeZeros(last, end - last, flags);
  }

  /** Space for a prefix of a range: see `Allocator`. */
  async allocate(offset: number, length: number): Promise<Allocation> {
    const image = this.#image;
    const { host, length: covered, isPending } = await image.lock.run(() =>
      this.#place(offset, length)
    );
    const part = { from: offset, to: offset + covered };
    const end = async (isWritten: boolean) => {
      if (isPending) await image.lock.run(() => this.#end(part, isWritten));
    };
    return {
      length: covered,
      file: image.file,
      offset: host,
      publish: () => end(true),
      abandon: () => end(false),
    };
  }

  /** Brings everything into the file. */
  async flush(): Promise<void> {
    await this.#image.lock.run(() => this.#image.storeTables());
    await this.#image.barrier();
  }

  /** Writes a prefix of some bytes to new clusters, and answers how many. */
  async #writeNew(offset: number, from: Uint8Array): Promise<number> {
    const allocation = await this.allocate(offset, from.length);
    try {
      await allocation.file.write(allocation.offset, from.subarray(0, allocation.length));
    } catch (error) {
      await allocation.abandon();
      throw error;
    }
    await allocation.publish();
    return allocation.length;
  }

  async #writeZeros(offset: number, length: number, flags: ZeroFlags): Promise<void> {
    if (length === 0) return;
    const { context } = this.#image;
    await writeZeroData(context, offset, length, flags, (at, zeros) => this.write(at, zeros));
  }

  /** Makes the first of some whole clusters zero that are alike, and answers how many bytes they are. */
  async #zeroClusters(offset: number, length: number, flags: ZeroFlags): Promise<number> {
    const image = this.#image;
    const { clusterSize } = image.header;
    const run = await image.lock.run(async () => {
      const run = await this.#runInTable(offset, length);
      const first = offset / clusterSize;
      if (run.state !== "unallocated" || this.#pending.has(first)) return run;
      const count = this.#countFree(first, run.length / clusterSize);
      const table = await this.#ownTable(Math.floor(offset / image.l2Span));
      await this.#setEntries(table, first, count, () => ZERO);
      return { ...run, length: count * clusterSize, state: "zero" as const };
    });
    if (run.state === "data") {
      await image.file.writeZeroes(run.host, run.length, { ...flags, unmap: false });
    } else if (run.state === "unallocated") {
      // Somebody is writing to the first cluster.
      await this.#writeZeros(offset, clusterSize, flags);
      return clusterSize;
    }
    return run.length;
  }

  /** The run at an offset within one table: the reference looks no further. */
  #runInTable(offset: number, length: number): Promise<Run> {
    const { l2Span } = this.#image;
    return findRun(this.#image, offset, Math.min(length, l2Span - offset % l2Span));
  }

  /** How many clusters of a run there are before one that is pending. */
  #countFree(first: number, most: number): number {
    if (this.#pending.size === 0) return most;
    let count = 0;
    while (count < most && !this.#pending.has(first + count)) count++;
    return count;
  }

  /** Finds or takes a place for a prefix of a range. */
  async #place(
    offset: number,
    length: number,
  ): Promise<{ host: number; length: number; isPending: boolean }> {
    const { clusterSize } = this.#image.header;
    const run = await this.#runInTable(offset, length);
    if (run.state === "data") return { host: run.host, length: run.length, isPending: false };
    const first = Math.floor(offset / clusterSize);
    const inside = offset - first * clusterSize;
    const joined = this.#join(first, divideUp(inside + run.length, clusterSize));
    if (joined !== undefined) {
      const covered = Math.min(joined.count * clusterSize - inside, run.length);
      return { host: joined.position + inside, length: covered, isPending: true };
    }
    const count = this.#countFree(first, divideUp(inside + run.length, clusterSize));
    const covered = Math.min(count * clusterSize - inside, run.length);
    const position = await this.#take(first, count, { from: offset, to: offset + covered }, run);
    return { host: position + inside, length: covered, isPending: true };
  }

  /** Joins those who write to clusters already; `undefined` if nobody writes to the first. */
  #join(first: number, most: number): { position: number; count: number } | undefined {
    const position = this.#pending.get(first)?.position;
    if (position === undefined) return undefined;
    const { clusterSize } = this.#image.header;
    let count = 0;
    for (; count < most; count++) {
      const pending = this.#pending.get(first + count);
      if (pending?.position !== position + count * clusterSize) break;
      pending.users++;
    }
    return { position, count };
  }

  /** Takes space for clusters, behind it that for their table, and fills what lies around a part of them. */
  async #take(first: number, count: number, part: Part, { state }: Run): Promise<number> {
    const image = this.#image;
    const { bounds, l2Span, header: { clusterSize } } = image;
    const position = bounds.end;
    const start = first * clusterSize;
    const end = start + count * clusterSize;
    const l1Index = Math.floor(start / l2Span);
    const table = await this.#tableAt(l1Index);
    const needsTable = table === undefined && !this.#reserved.has(l1Index);
    const fileEnd = position + (end - start) + (needsTable ? image.tableSize : 0);
    if (!Number.isSafeInteger(fileEnd)) throw ImageError.fromErrno("EFBIG", { field: "file" });
    const before = state === "zero" ? "zero" : "unallocated";
    await this.#fill({ from: start, to: part.from }, position - start, before);
    await this.#fill({ from: part.to, to: end }, position - start, before);
    if (needsTable) this.#reserved.set(l1Index, position + (end - start));
    bounds.end = fileEnd;
    for (let i = 0; i < count; i++) {
      this.#pending.set(first + i, {
        position: position + i * clusterSize,
        before,
        users: 1,
        isWritten: false,
        abandoned: [],
      });
    }
    return position;
  }

  /** Fills a part of new clusters, which are `shift` bytes further in the file, with what it showed. */
  async #fill({ from, to }: Part, shift: number, before: PendingCluster["before"]): Promise<void> {
    const { file, backing } = this.#image;
    if (from >= to) return;
    if (before === "zero" || backing === null) {
      await file.writeZeroes(from + shift, to - from, { unmap: false });
      return;
    }
    for (let at = from; at < to; at += CHUNK) {
      const bytes = new Uint8Array(Math.min(CHUNK, to - at));
      await readBehind(this.#image, at, bytes);
      await file.write(at + shift, bytes);
    }
  }

  /** Ends one use of pending clusters, of which those that nobody uses any more become part of the disk. */
  async #end({ from, to }: Part, isWritten: boolean): Promise<void> {
    const image = this.#image;
    const { clusterSize } = image.header;
    const end = divideUp(to, clusterSize);
    const written: { cluster: number; position: number }[] = [];
    for (let cluster = Math.floor(from / clusterSize); cluster < end; cluster++) {
      const pending = this.#pending.get(cluster);
      if (pending === undefined) continue;
      if (isWritten) pending.isWritten = true;
      else {
        const start = cluster * clusterSize;
        pending.abandoned.push({
          from: Math.max(from, start),
          to: Math.min(to, start + clusterSize),
        });
      }
      if (--pending.users > 0) continue;
      this.#pending.delete(cluster);
      if (!pending.isWritten) continue;
      // Others wrote to the cluster: the disk keeps what it had where this one gave up.
      const shift = pending.position - cluster * clusterSize;
      for (const part of pending.abandoned) await this.#fill(part, shift, pending.before);
      written.push({ cluster, position: pending.position });
    }
    if (written.length === 0) return;
    const first = written[0]!.cluster;
    const table = await this.#ownTable(Math.floor(first * clusterSize / image.l2Span));
    for (let i = 0; i < written.length;) {
      const { cluster } = written[i]!;
      let count = 1;
      while (written[i + count]?.cluster === cluster + count) count++;
      const from = i;
      await this.#setEntries(table, cluster, count, (n) => written[from + n]!.position);
      i += count;
    }
  }

  /** Where the table of an L1 entry lies, if there is one. */
  async #tableAt(l1Index: number): Promise<number | undefined> {
    const { pages, header } = this.#image;
    const { page, entry } = pages.locate(header.l1Offset, l1Index);
    const table = (await pages.load(page)).get(entry);
    return table === UNALLOCATED ? undefined : table;
  }

  /** The table of an L1 entry, made if there is none. Its zeros are safe before the entry is, as all data. */
  async #ownTable(l1Index: number): Promise<number> {
    const { pages, header, file, tableSize, bounds } = this.#image;
    const known = await this.#tableAt(l1Index);
    if (known !== undefined) return known;
    const position = this.#reserved.get(l1Index) ?? bounds.end;
    await file.writeZeroes(position, tableSize, { unmap: false });
    bounds.end = Math.max(bounds.end, position + tableSize);
    const { page, entry } = pages.locate(header.l1Offset, l1Index);
    const l1 = await pages.load(page);
    l1.set(entry, position);
    pages.touch(l1);
    this.#reserved.delete(l1Index);
    return position;
  }

  /** Sets the entries of clusters that are in one table. */
  async #setEntries(
    table: number,
    cluster: number,
    count: number,
    valueOf: (index: number) => number,
  ): Promise<void> {
    const { pages, tableEntries } = this.#image;
    const first = cluster % tableEntries;
    for (let i = 0; i < count;) {
      const { page: offset, entry } = pages.locate(table, first + i);
      const page = await pages.load(offset);
      for (let at = entry; at < page.length && i < count; at++) page.set(at, valueOf(i++));
      pages.touch(page);
    }
    if (pages.isFull) await this.#image.storeTables();
  }
}
