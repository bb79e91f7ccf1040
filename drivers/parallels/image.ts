/**
 * An open image: what all rooms of this driver share.
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { AllocationTable } from "./allocation_table.ts";
import { dataArea, FreeSpace } from "./free_space.ts";
import type { ParallelsHeader } from "./header.ts";
import type { Preallocated } from "./open_options.ts";

/** State of an open image. */
export class ParallelsImage {
  /** The file that holds it. */
  readonly file: BlockNode;
  /** Services, and how it was opened. */
  readonly context: DriverContext;
  /** Its header. */
  readonly header: ParallelsHeader;
  /** Where the clusters of its disk are. */
  readonly table: AllocationTable;
  /** How the file grows. */
  readonly preallocated: Preallocated;
  /** For whatever changes table, space or header. */
  readonly lock = new Mutex();
  /** What shows where nothing is allocated. */
  backing: BlockNode | null = null;
  /** It was not closed by whoever wrote to it last, and nothing was repaired since. */
  wasInUse: boolean;
  /** Where the data ended when the image was opened, clusters outside the file included; bytes. */
  readonly endAtOpen: number;
  /** Free places, if the image can be written. */
  space: FreeSpace | undefined;

  /** An image as it was found. */
  constructor(
    file: BlockNode,
    context: DriverContext,
    header: ParallelsHeader,
    table: AllocationTable,
    preallocated: Preallocated,
  ) {
    this.file = file;
    this.context = context;
    this.header = header;
    this.table = table;
    this.preallocated = preallocated;
    this.wasInUse = header.inUse;
    let end = this.dataStart;
    for (const index of table.used()) {
      end = Math.max(end, table.get(index) + header.clusterSize);
    }
    this.endAtOpen = end;
  }

  /** Where data begin, bytes; if the header says nothing sensible, where they may at the earliest. */
  get dataStart(): number {
    return this.header.dataStart(this.file.length) ?? this.header.leastDataStart;
  }

  /** Whether a cluster of the file is behind the table and before the end. */
  isInside(position: number): boolean {
    const { leastDataStart, clusterSize } = this.header;
    return position >= leastDataStart && position + clusterSize <= this.file.length;
  }

  /** Looks for the free places anew. */
  findSpace(): void {
    const { clusterSize, entryUnit } = this.header;
    const { file } = this;
    this.space = new FreeSpace(
      dataArea(this.dataStart, clusterSize, entryUnit, file.length),
      usedPositions(this),
    );
  }

  /** The number of the disk's cluster at an offset. */
  clusterAt(offset: number): number {
    return Math.floor(offset / this.header.clusterSize);
  }

  /** Stores the header, at once. */
  async storeHeader(): Promise<void> {
    await this.file.write(0, this.header.bytes);
    await this.file.flush();
  }

  /** Stores the table. What it leads to is safe before. */
  async storeTable(): Promise<void> {
    if (!this.table.isChanged) return;
    await this.file.flush();
    await this.table.store(this.file);
    await this.file.flush();
  }

  /**
   * Forgets the format extension: bitmaps in it do not know what is about to change, and the place where
   * it is is needed. Before anything is changed.
   */
  async dropExtension(): Promise<void> {
    if (this.header.extension === 0) return;
    this.header.dropExtension();
    await this.storeHeader();
  }
}

/** Where the clusters of an image are that lie within its file, in ascending order; bytes. */
export function usedPositions(image: ParallelsImage): Float64Array {
  const { table } = image;
  let count = 0;
  for (const index of table.used()) {
    if (image.isInside(table.get(index))) count++;
  }
  const positions = new Float64Array(count);
  let isSorted = true;
  let n = 0;
  for (const index of table.used()) {
    const position = table.get(index);
    if (!image.isInside(position)) continue;
    isSorted &&= n === 0 || positions[n - 1]! <= position;
    positions[n++] = position;
  }
  return isSorted ? positions : positions.sort();
}
