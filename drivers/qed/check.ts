/**
 * Checking and repairing the tables (section 6 of the format's reference). Leaks are only counted: nothing
 * in the format says of any space that it is free.
 *
 * @module
 */
import type { CheckResult, RepairMode } from "../../lib/block/capabilities.ts";
import { noFindings } from "../../lib/block/check_result.ts";
import { ImageError } from "../../lib/block/error.ts";
import { alignDown, divideUp } from "../../lib/bytes/align.ts";
import { hostHole } from "../../lib/block/host_hole.ts";
import { readPadded } from "../../lib/block/read_padded.ts";
import type { QedImage } from "./image.ts";
import { TablePage, UNALLOCATED, ZERO } from "./table_pages.ts";

/** Largest piece of a table that is looked at as a whole, bytes. */
const PIECE = 1 << 20;

/**
 * Checks an image, and clears entries that lead to nowhere unless `repair` is `none`. Takes the lock.
 *
 * @throws {ImageError} of the file, for tables that cannot be read or repaired.
 */
export async function checkImage(image: QedImage, repair: RepairMode): Promise<CheckResult> {
  return await image.lock.run(() => new TableCheck(image, repair !== "none").run());
}

/** One check. */
class TableCheck {
  readonly #image: QedImage;
  readonly #repairs: boolean;
  readonly #used: ClusterSet = new ClusterSet();
  readonly #result: CheckResult;
  #failure: unknown;

  constructor(image: QedImage, repairs: boolean) {
    const { imageSize, clusterSize } = image.header;
    this.#image = image;
    this.#repairs = repairs;
    this.#result = {
      ...noFindings(),
      totalClusters: divideUp(imageSize, clusterSize),
    };
  }

  async run(): Promise<CheckResult> {
    const image = this.#image;
    const { header: { l1Offset, clusterSize, headerClusters }, bounds } = image;
    const result = this.#result;
    // Tables are read from the file; what is still in memory belongs there first.
    if (this.#repairs || image.pages.isChanged) await image.storeTables();
    this.#useTable(l1Offset);
    await this.#eachPiece(l1Offset, (page) => this.#checkL1(page));
    if (this.#repairs) image.pages.clear();
    if (this.#failure !== undefined) throw this.#failure;
    result.leaks = bounds.end / clusterSize - headerClusters - this.#used.size;
    if (this.#repairs && result.corruptions === 0) await image.markChecked();
    return result;
  }

  async #checkL1(page: TablePage): Promise<void> {
    const { bounds } = this.#image;
    for (let i = 0; i < page.length; i++) {
      const table = page.get(i);
      if (table === UNALLOCATED) continue;
      if (!bounds.hasTable(table)) {
        this.#damaged(page, i);
        continue;
      }
      // A table that lies where something else does is not looked at.
      if (!this.#useTable(table)) continue;
      let last = 0;
      try {
        await this.#eachPiece(table, (piece) => {
          last = this.#checkL2(piece, last);
        });
      } catch (error) {
        this.#result.checkErrors++;
        this.#failure = error;
      }
    }
  }

  /** Checks a piece of an L2 table behind the cluster at `last`, and answers with the last one in it. */
  #checkL2(page: TablePage, last: number): number {
    const { bounds, header: { clusterSize } } = this.#image;
    const result = this.#result;
    for (let i = 0; i < page.length; i++) {
      const cluster = page.get(i);
      if (cluster === UNALLOCATED || cluster === ZERO) continue;
      result.allocatedClusters++;
      if (last !== 0 && last + clusterSize !== cluster) result.fragmentedClusters++;
      last = cluster;
      if (!bounds.hasCluster(cluster)) this.#damaged(page, i);
      else if (!this.#used.add(cluster / clusterSize)) result.corruptions++;
    }
    return last;
  }

  #damaged(page: TablePage, entry: number): void {
    if (this.#repairs) {
      page.set(entry, UNALLOCATED);
      this.#result.corruptionsFixed++;
    } else {
      this.#result.corruptions++;
    }
  }

  /** Takes note of a table; false if anything else lies there, of which every cluster counts. */
  #useTable(offset: number): boolean {
    const { clusterSize, tableClusters } = this.#image.header;
    let isFree = true;
    for (let i = 0; i < tableClusters; i++) {
      if (this.#used.add(offset / clusterSize + i)) continue;
      this.#result.corruptions++;
      isFree = false;
    }
    return isFree;
  }

  /** Looks at a table piece by piece, without the holes of the file, and stores what was changed in it. */
  async #eachPiece(
    table: number,
    look: (piece: TablePage) => void | Promise<void>,
  ): Promise<void> {
    const { file, tableSize, pages: { pageSize } } = this.#image;
    const size = Math.min(PIECE, tableSize);
    for (let at = 0; at < tableSize;) {
      const { hole, length } = await hostHole(file, table + at, tableSize - at);
      // Pieces are whole pages, whatever the holes are.
      const skipped = hole ? alignDown(length, pageSize) : 0;
      if (skipped > 0) {
        at += skipped;
        continue;
      }
      const piece = new TablePage(table + at, new Uint8Array(Math.min(size, tableSize - at)));
      await readPadded(file, piece.offset, piece.bytes);
      await look(piece);
      await piece.store(file);
      at += piece.bytes.length;
    }
  }
}

/** Clusters in a part of a set that takes memory as soon as one of them is in it. */
const PART = 1 << 18;

/** A set of clusters of a file, of which most may not be there. */
class ClusterSet {
  readonly #parts = new Map<number, Uint8Array>();
  #size = 0;

  /** How many clusters are in it. */
  get size(): number {
    return this.#size;
  }

  /** Adds a cluster; false if it is in it. */
  add(cluster: number): boolean {
    const index = Math.floor(cluster / PART);
    let part = this.#parts.get(index);
    if (part === undefined) this.#parts.set(index, part = new Uint8Array(PART / 8));
    const at = cluster % PART;
    const bit = 1 << (at & 7);
    if ((part[at >> 3]! & bit) !== 0) return false;
    part[at >> 3]! |= bit;
    this.#size++;
    return true;
  }
}

/** Repairs an image that was not closed before it is written to. */
export async function repairUnclosed(image: QedImage): Promise<void> {
  try {
    await checkImage(image, "all");
  } catch (error) {
    throw ImageError.from(error).prefixed("Image corrupted: ");
  }
}
