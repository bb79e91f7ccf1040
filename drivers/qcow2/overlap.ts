import { signalCorruption } from "./corruption.ts";
import type { Qcow2Image } from "./image.ts";
import type { EntryTable } from "./table.ts";

/** Structures that the guard knows, in the order in which it looks. */
export type Structure =
  | "qcow2_header"
  | "active L1 table"
  | "refcount table"
  | "snapshot table"
  | "inactive L1 table"
  | "active L2 table"
  | "refcount block"
  | "bitmap directory";

/** Refuses writes that would hit metadata (section 7, overlap guard). */
export class OverlapGuard {
  readonly #image: Qcow2Image;
  /** Offsets of L2 tables; built when first needed. */
  #l2Tables: TableOffsets | undefined;
  /** Offsets of refcount blocks; likewise. */
  #blocks: TableOffsets | undefined;

  /** A guard over an open image. */
  constructor(image: Qcow2Image) {
    this.#image = image;
  }

  /**
   * Checks a range of `image.file` (expanded to clusters) before it is written.
   *
   * @throws {ImageError} `EIO`, and marks the image corrupt, if it hits a structure other than `own`.
   */
  async check(offset: number, length: number, own?: Structure): Promise<void> {
    const hit = this.find(offset, length, own);
    if (hit !== undefined) {
      throw await signalCorruption(
        this.#image,
        `Preventing invalid write on metadata (overlaps with ${hit})`,
      );
    }
  }

  /** The structure other than `own` that a range of `image.file` hits, if any. */
  find(offset: number, length: number, own?: Structure): Structure | undefined {
    const { header, geometry: { clusterSize }, l1, snapshots, refcounts } = this.#image;
    if (length <= 0) return undefined;
    const start = offset - offset % clusterSize;
    const end = Math.ceil((offset + length) / clusterSize) * clusterSize;
    const hits = (at: number, bytes: number) => bytes > 0 && at < end && at + bytes > start;

    if (own !== "qcow2_header" && start < clusterSize) return "qcow2_header";
    if (own !== "active L1 table" && hits(header.l1Offset, l1.length * 8)) {
      return "active L1 table";
    }
    if (
      own !== "refcount table" && hits(header.refcountTableOffset, refcounts.table.length * 8)
    ) return "refcount table";
    if (own !== "snapshot table" && hits(header.snapshotsOffset, snapshots.size)) {
      return "snapshot table";
    }
    if (own !== "inactive L1 table") {
      for (const { l1Offset, l1Size } of snapshots.entries) {
        if (hits(l1Offset, l1Size * 8)) return "inactive L1 table";
      }
    }
    // An entry that is not aligned (damage) begins up to a cluster before the range.
    const first = start - clusterSize + 1;
    if (own !== "active L2 table") {
      this.#l2Tables ??= new TableOffsets(l1);
      if (this.#l2Tables.within(l1, first, end)) return "active L2 table";
    }
    if (own !== "refcount block") {
      this.#blocks ??= new TableOffsets(refcounts.table);
      if (this.#blocks.within(refcounts.table, first, end)) return "refcount block";
    }
    const { bitmaps } = header;
    if (
      own !== "bitmap directory" && bitmaps !== undefined && header.autoclear % 2n === 1n &&
      hits(bitmaps.directoryOffset, bitmaps.directorySize)
    ) return "bitmap directory";
    return undefined;
  }

  /** Tells of an offset that was stored in the active L1 table. */
  addedL2Table(offset: number): void {
    this.#l2Tables?.add(offset);
  }

  /** Tells of an offset that was stored in the refcount table. */
  addedBlock(offset: number): void {
    this.#blocks?.add(offset);
  }

  /** Forgets what it knows: for whoever changed L1 or refcount table in another way. */
  reset(): void {
    this.#l2Tables = undefined;
    this.#blocks = undefined;
  }
}

/**
 * The offsets in a table, ascending. Ones that the table no longer has are
 * thrown out when they are met: rarely, so that looking them up in the whole
 * table costs nothing.
 */
class TableOffsets {
  readonly #sorted: number[] = [];

  constructor(table: EntryTable) {
    let ascending = true;
    for (let index = 0; index < table.length; index++) {
      const offset = table.offset(index);
      if (offset === 0) continue;
      if (offset < (this.#sorted.at(-1) ?? 0)) ascending = false;
      this.#sorted.push(offset);
    }
    if (!ascending) this.#sorted.sort((a, b) => a - b);
  }

  add(offset: number): void {
    const at = this.#lowerBound(offset);
    if (at === this.#sorted.length) this.#sorted.push(offset);
    else if (this.#sorted[at] !== offset) this.#sorted.splice(at, 0, offset);
  }

  /** Whether one of `table`'s offsets lies in `[from, to)`. */
  within(table: EntryTable, from: number, to: number): boolean {
    const at = this.#lowerBound(from);
    while (at < this.#sorted.length && this.#sorted[at]! < to) {
      if (contains(table, this.#sorted[at]!)) return true;
      this.#sorted.splice(at, 1);
    }
    return false;
  }

  /** The first index whose value is not below `value`. */
  #lowerBound(value: number): number {
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#sorted[middle]! < value) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function contains(table: EntryTable, offset: number): boolean {
  for (let index = 0; index < table.length; index++) {
    if (table.offset(index) === offset) return true;
  }
  return false;
}
