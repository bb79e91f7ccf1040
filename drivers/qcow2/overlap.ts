import { readPadded } from "./_read.ts";
import { signalCorruption } from "./corruption.ts";
import type { Qcow2Image } from "./image.ts";
import { OVERLAP_LEVELS, type Structure } from "./overlap_options.ts";
import { EntryTable } from "./table.ts";

export type { Structure } from "./overlap_options.ts";

/** How much of a snapshot's L1 table is looked at in one go, bytes. */
const STEP = 64 * 1024;

/** Refuses writes that would hit metadata (section 7, overlap guard). */
export class OverlapGuard {
  readonly #image: Qcow2Image;
  /** Offsets of L2 tables; built when first needed. */
  #l2Tables: TableOffsets | undefined;
  /** Offsets of refcount blocks; likewise. */
  #blocks: TableOffsets | undefined;
  /** What writes are kept off (`overlap-check`). */
  structures: ReadonlySet<Structure> = OVERLAP_LEVELS["cached"]!;

  /** A guard over an open image. */
  constructor(image: Qcow2Image) {
    this.#image = image;
  }

  /**
   * Checks a range of `image.file` (expanded to clusters) before it is written.
   * Whoever writes active L2 tables writes those that snapshots share, too.
   *
   * @throws {ImageError} `EIO`, and marks the image corrupt, if it hits a structure other than
   * `own`; whatever it is that keeps a snapshot's L1 table from being read, if that is looked at.
   */
  async check(offset: number, length: number, own?: Structure): Promise<void> {
    const hit = await this.find(offset, length, own);
    if (hit !== undefined) {
      throw await signalCorruption(
        this.#image,
        `Preventing invalid write on metadata (overlaps with ${hit})`,
      );
    }
  }

  /** The structure other than `own` that a range (expanded to clusters) hits, if any. */
  async find(offset: number, length: number, own?: Structure): Promise<Structure | undefined> {
    if (length <= 0) return undefined;
    const { clusterSize } = this.#image.geometry;
    const from = offset - offset % clusterSize;
    const to = Math.ceil((offset + length) / clusterSize) * clusterSize;
    return this.#known(from, to, own) ??
      (await this.#inactiveL2(from, to, own) ? "inactive L2 table" : undefined) ??
      this.#directory(from, to, own);
  }

  #guards(structure: Structure, own: Structure | undefined): boolean {
    return own !== structure && this.structures.has(structure);
  }

  /** Those structures of which all that is needed is in memory. */
  #known(from: number, to: number, own: Structure | undefined): Structure | undefined {
    const { header, geometry: { clusterSize }, l1, snapshots, refcounts } = this.#image;
    const hits = (at: number, bytes: number) => bytes > 0 && at < to && at + bytes > from;
    const guards = (structure: Structure) => this.#guards(structure, own);

    if (from < clusterSize && guards("qcow2_header")) return "qcow2_header";
    if (hits(header.l1Offset, l1.length * 8) && guards("active L1 table")) return "active L1 table";
    if (
      hits(header.refcountTableOffset, refcounts.table.length * 8) && guards("refcount table")
    ) return "refcount table";
    if (hits(header.snapshotsOffset, snapshots.size) && guards("snapshot table")) {
      return "snapshot table";
    }
    if (snapshots.entries.length > 0 && guards("inactive L1 table")) {
      for (const { l1Offset, l1Size } of snapshots.entries) {
        if (hits(l1Offset, l1Size * 8)) return "inactive L1 table";
      }
    }
    // An entry that is not aligned (damage) begins up to a cluster before the range.
    const first = from - clusterSize + 1;
    if (guards("active L2 table")) {
      this.#l2Tables ??= new TableOffsets(l1);
      if (this.#l2Tables.within(l1, first, to)) return "active L2 table";
    }
    if (guards("refcount block")) {
      this.#blocks ??= new TableOffsets(refcounts.table);
      if (this.#blocks.within(refcounts.table, first, to)) return "refcount block";
    }
    return undefined;
  }

  /** Whether an L2 table of a snapshot is hit. They may be many, so they are looked up in the file. */
  async #inactiveL2(from: number, to: number, own: Structure | undefined): Promise<boolean> {
    const { file, snapshots, geometry: { clusterSize } } = this.#image;
    if (own === "active L2 table" || !this.#guards("inactive L2 table", own)) return false;
    for (const { l1Offset, l1Size } of snapshots.entries) {
      const buffer = new Uint8Array(Math.min(STEP, l1Size * 8));
      for (let done = 0; done < l1Size * 8; done += STEP) {
        const piece = buffer.subarray(0, Math.min(STEP, l1Size * 8 - done));
        await readPadded(file, l1Offset + done, piece);
        const table = new EntryTable(piece);
        for (let i = 0; i < table.length; i++) {
          const offset = table.offset(i);
          if (offset !== 0 && offset < to && offset + clusterSize > from) return true;
        }
      }
    }
    return false;
  }

  #directory(from: number, to: number, own: Structure | undefined): Structure | undefined {
    const { bitmaps, autoclear } = this.#image.header;
    if (bitmaps === undefined || autoclear % 2n === 0n) return undefined;
    if (!this.#guards("bitmap directory", own)) return undefined;
    const { directoryOffset, directorySize } = bitmaps;
    return directoryOffset < to && directoryOffset + directorySize > from
      ? "bitmap directory"
      : undefined;
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
