/**
 * Counting references: everything in an image that refers to a cluster, in the
 * order of section 16 of the format's reference.
 *
 * @module
 */
import { ImageError, reasonText } from "../../lib/block/error.ts";
import { divideDown, divideUp } from "../../lib/bytes/align.ts";
import { hex } from "./_check_run.ts";
import type { CheckRun } from "./_check_run.ts";
import { MAX_L1_BYTES } from "./_layout.ts";
import { readPadded } from "./_read.ts";
import { readDirectory } from "./bitmap_directory.ts";
import type { HostRange } from "./image.ts";
import { L2Walk } from "./l2_walk.ts";
import { MAX_COUNTED_CLUSTERS, type ReferenceCounts } from "./reference_counts.ts";
import { EntryTable } from "./table.ts";

/** How much of a table is looked at in one go, bytes. */
const STEP = 256 * 1024;
/** Bits of an L1 entry that are always 0, upper and lower half. */
const L1_RESERVED_HIGH = 0x7f000000;
const L1_RESERVED_LOW = 0x1ff;
/** The same of a refcount table entry and of a bitmap table entry. */
const REFCOUNT_RESERVED_LOW = 0x1ff;
const BITMAP_RESERVED_HIGH = 0xff000000;
const BITMAP_RESERVED_LOW = 0x1fe;

/** Clusters of the image's file, the last one perhaps incomplete. */
export function fileClusters(run: CheckRun): number {
  const { file, geometry } = run.image;
  const clusters = divideUp(file.length, geometry.clusterSize);
  if (clusters > MAX_COUNTED_CLUSTERS) {
    run.result.checkErrors++;
    throw ImageError.fromErrno("EFBIG", { file: run.image.context.filename, field: "file length" });
  }
  return clusters;
}

/**
 * Counts what is referenced. Entries that can be repaired without refcounts
 * are, if `repair` says so.
 *
 * @throws {ImageError} if a table cannot be read.
 */
export async function countReferences(
  run: CheckRun,
  counts: ReferenceCounts,
  repair: boolean,
): Promise<void> {
  await new ReferenceWalk(run, counts, repair).all();
}

/** One counting of all references. */
export class ReferenceWalk {
  /** The check that this is part of. */
  readonly run: CheckRun;
  /** What is counted. */
  readonly counts: ReferenceCounts;
  /** Whether entries may be changed. */
  readonly repair: boolean;
  readonly #l2: L2Walk;

  /** A walk that counts into `counts`. */
  constructor(run: CheckRun, counts: ReferenceCounts, repair: boolean) {
    this.run = run;
    this.counts = counts;
    this.repair = repair;
    this.#l2 = new L2Walk(this);
  }

  /** Walks over the whole image. */
  async all(): Promise<void> {
    const { image, result } = this.run;
    const { header, geometry } = image;
    result.totalClusters = divideUp(header.size, geometry.clusterSize);
    this.range({ offset: 0, length: geometry.clusterSize });
    await this.#l1(header.l1Offset, header.l1Size, true);
    await this.#snapshots();
    this.range({ offset: header.snapshotsOffset, length: image.snapshots.size });
    this.range({
      offset: header.refcountTableOffset,
      length: image.refcounts.table.length * 8,
    });
    if (header.cryptoHeader !== undefined) this.range(header.cryptoHeader);
    await this.#bitmaps();
    await this.#refcountBlocks();
  }

  /**
   * Counts a reference to each cluster of a range. `exact` is its offset for
   * messages, where that is above 2^53 and not a multiple of a large power of 2.
   */
  range({ offset, length }: HostRange, exact: number | bigint = offset): void {
    if (length <= 0) return;
    const { file, geometry: { clusterSize } } = this.run.image;
    // The last cluster of a file may be incomplete, but it must have begun.
    if (offset + length - file.length >= clusterSize) {
      this.run.corruption(
        "ERROR: counting reference for region exceeding the end of the file by one cluster or " +
          `more: offset 0x${hex(exact)} size 0x${hex(length)}`,
      );
      return;
    }
    const last = divideDown(offset + length - 1, clusterSize);
    for (let cluster = divideDown(offset, clusterSize); cluster <= last; cluster++) {
      if (!this.counts.increment(cluster)) this.overflow(cluster);
    }
  }

  /** Reports that a cluster is referenced more often than its refcount can say. */
  overflow(cluster: number): void {
    this.run.corruption(
      `ERROR: overflow cluster offset=0x${hex(cluster * this.run.image.geometry.clusterSize)}`,
    );
    this.run.report(
      "Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a " +
        "clean copy if the image cannot be opened for writing",
    );
  }

  /** An L1 table, its L2 tables, and what these refer to. */
  async #l1(offset: number, entries: number, active: boolean): Promise<void> {
    if (entries === 0) return;
    this.range({ offset, length: entries * 8 });
    for await (const table of this.#pieces(offset, entries * 8, "check_refcounts_l1")) {
      for (let i = 0; i < table.length; i++) {
        const [high, low] = [table.high(i), table.low(i)];
        if ((high | low) === 0) continue;
        if ((high & L1_RESERVED_HIGH) !== 0 || (low & L1_RESERVED_LOW) !== 0) {
          this.run.corruption(
            `ERROR found L1 entry with reserved bits set: ${hex(table.word(i))}`,
          );
        }
        const l2Offset = table.offset(i);
        const { clusterSize } = this.run.image.geometry;
        this.range({ offset: l2Offset, length: clusterSize });
        if (l2Offset % clusterSize !== 0) {
          this.run.corruption(
            `ERROR l2_offset=${hex(l2Offset)}: Table is not cluster aligned; L1 entry corrupted`,
          );
        }
        await this.#l2.table(l2Offset, active);
      }
    }
  }

  async #snapshots(): Promise<void> {
    const { image } = this.run;
    const { entries } = image.snapshots;
    if (image.hasDataFile && entries.length > 0) {
      this.run.corruption(`ERROR ${entries.length} snapshots in image with data file`);
    }
    const clusterSize = BigInt(image.geometry.clusterSize);
    for (const { id, name, exact, l1Offset, l1Size } of entries) {
      if (exact.l1Offset % clusterSize !== 0n) {
        this.run.corruption(
          `ERROR snapshot ${id} (${name}) l1_offset=0x${hex(exact.l1Offset)}: ` +
            "L1 table is not cluster aligned; snapshot table entry corrupted",
        );
      } else if (l1Size > MAX_L1_BYTES / 8) {
        this.run.corruption(
          `ERROR snapshot ${id} (${name}) l1_size=0x${hex(l1Size)}: ` +
            "L1 table is too large; snapshot table entry corrupted",
        );
      } else {
        await this.#l1(l1Offset, l1Size, false);
      }
    }
  }

  async #bitmaps(): Promise<void> {
    const { image } = this.run;
    const { header, geometry: { clusterSize } } = image;
    if (header.bitmaps === undefined) return;
    const { directoryOffset, directorySize } = header.bitmaps;
    this.range({ offset: directoryOffset, length: directorySize });
    // The size of the disk, which bitmaps are checked against, is not to be had any more.
    if (image.broken) throw ImageError.fromErrno("EINVAL", { file: image.context.filename });
    // The opening checked this, except for the tables of bitmaps that were not closed properly.
    for (const { tableOffset, tableEntries } of await readDirectory(image)) {
      this.range({ offset: tableOffset, length: tableEntries * 8 });
      for await (const table of this.#pieces(tableOffset, tableEntries * 8)) {
        for (let i = 0; i < table.length; i++) {
          const offset = table.offset(i);
          if (
            (table.high(i) & BITMAP_RESERVED_HIGH) !== 0 ||
            (table.low(i) & BITMAP_RESERVED_LOW) !== 0 ||
            offset !== 0 && ((table.low(i) & 1) !== 0 || offset % clusterSize !== 0)
          ) {
            throw ImageError.fromErrno("EINVAL", {
              file: image.context.filename,
              field: "bitmap table",
            });
          }
          if (offset !== 0) this.range({ offset, length: clusterSize });
        }
      }
    }
  }

  /** The refcount blocks. What is wrong with the table itself cannot be repaired in place. */
  async #refcountBlocks(): Promise<void> {
    const { run, counts } = this;
    const { clusterSize } = run.image.geometry;
    const { table } = run.image.refcounts;
    for (let i = 0; i < table.length; i++) {
      const low = table.low(i);
      if ((table.high(i) | low) === 0) continue;
      const offset = table.offset(i);
      if ((low & REFCOUNT_RESERVED_LOW) !== 0) {
        run.corruption(`ERROR refcount table entry ${i} has reserved bits set`);
        run.rebuild = true;
      } else if ((low & (clusterSize - 1)) !== 0) {
        run.corruption(
          `ERROR refcount block ${i} is not cluster aligned; refcount table entry corrupted`,
        );
        run.rebuild = true;
      } else if (offset >= counts.length * clusterSize) {
        await this.#outsideBlock(i, offset);
      } else {
        this.range({ offset, length: clusterSize });
        const references = counts.get(offset / clusterSize);
        if (references !== 1) {
          run.corruption(`ERROR refcount block ${i} refcount=${references}`);
          run.rebuild = true;
        }
      }
    }
  }

  /** A refcount block behind the end of the file: the repair is a longer file, in which it is empty. */
  async #outsideBlock(index: number, offset: number): Promise<void> {
    const { run, counts } = this;
    const { file, geometry: { clusterSize } } = run.image;
    const line = `refcount block ${index} is outside image`;
    if (!this.repair) {
      run.corruption(`ERROR ${line}`);
      return;
    }
    run.corruption(`Repairing ${line}`);
    try {
      // The reference tool extends the file as far as the host lets it, even to where it then
      // cannot check it any more. Such a block is lost; the structure can be built anew.
      if (offset + clusterSize >= 2 ** 63) throw ImageError.fromErrno("EINVAL");
      if (offset / clusterSize >= MAX_COUNTED_CLUSTERS) {
        throw ImageError.fromErrno("EFBIG").prefixed("Could not resize file: ");
      }
      await file.resize(offset + clusterSize, "off");
      counts.grow(fileClusters(run));
    } catch (error) {
      const { message } = ImageError.from(error);
      if (message !== reasonText(error)) run.report(message, true);
      run.report(`ERROR could not resize image: ${reasonText(error)}`);
      run.rebuild = true;
      return;
    }
    run.result.corruptions--;
    run.result.corruptionsFixed++;
    this.range({ offset, length: clusterSize });
  }

  /** A table of 64-bit words in pieces of bounded size, each valid until the next is asked for. */
  async *#pieces(offset: number, length: number, reader?: string): AsyncGenerator<EntryTable> {
    const { file } = this.run.image;
    const buffer = new Uint8Array(Math.min(STEP, length));
    for (let done = 0; done < length; done += STEP) {
      const piece = buffer.subarray(0, Math.min(STEP, length - done));
      try {
        await readPadded(file, offset + done, piece);
      } catch (error) {
        if (reader !== undefined) this.run.checkError(`ERROR: I/O error in ${reader}`);
        throw error;
      }
      yield new EntryTable(piece);
    }
  }
}
