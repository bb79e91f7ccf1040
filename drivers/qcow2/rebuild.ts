import { ImageError, reasonText } from "../../lib/block/error.ts";
import { alignUp } from "../../lib/bytes/align.ts";
import type { CheckRun } from "./_check_run.ts";
import { MAX_REFCOUNT_TABLE_BYTES } from "./_layout.ts";
import type { ReferenceCounts } from "./reference_counts.ts";
import { EntryTable } from "./table.ts";

/** Offset of `refcount_table_offset` and `refcount_table_clusters` in the header. */
const HEADER_TABLE = 48;

/**
 * Builds the whole refcount structure anew from the references that were
 * counted: blocks, table, and the header's pointer to it. Room is taken where
 * nothing is referenced, and counted in `counts`. The old structure stays as
 * it is until the header points to the new one; from then on it is leaked.
 *
 * @throws {ImageError} if it cannot be written; what made it fail is reported.
 */
export async function rebuildRefcounts(run: CheckRun, counts: ReferenceCounts): Promise<void> {
  await new Rebuild(run, counts).all();
}

class Rebuild {
  readonly #run: CheckRun;
  readonly #counts: ReferenceCounts;
  /** Block offsets by table index, 0 for none; as long as the table will be. */
  #table: number[] = [];

  constructor(run: CheckRun, counts: ReferenceCounts) {
    this.#run = run;
    this.#counts = counts;
  }

  async all(): Promise<void> {
    const { image } = this.#run;
    const { clusterSize } = image.geometry;
    const counts = this.#counts;
    await this.#blocks(0, counts.length);
    let start: number;
    for (;;) {
      const clusters = this.#table.length * 8 / clusterSize;
      start = this.#allocate(clusters, 0).start;
      // The blocks there know nothing of the table yet, or are missing; new ones may not fit in.
      if (!await this.#blocks(start, start + clusters)) break;
      for (let i = 0; i < clusters; i++) counts.set(start + i, 0);
    }
    await this.#writeTable(start * clusterSize);
  }

  /**
   * Writes the blocks for all referenced clusters in a range, and for the
   * clusters that these blocks take; answers whether the table had to grow.
   */
  async #blocks(from: number, to: number): Promise<boolean> {
    const counts = this.#counts;
    const { perBlock } = this.#run.image.refcounts.format;
    const { clusterSize } = this.#run.image.geometry;
    let grown = false;
    let end = to;
    let firstFree = 0;
    for (let cluster = counts.nextUsed(from, end); cluster < end;) {
      const index = Math.floor(cluster / perBlock);
      const first = index * perBlock;
      if ((this.#table[index] ?? 0) === 0) {
        // Not below its own range: the blocks there are on disk already.
        const found = this.#allocate(1, Math.max(firstFree, first));
        firstFree = found.firstFree;
        end = Math.max(end, found.start + 1);
        if (index >= this.#table.length) {
          this.#grow(index + 1);
          grown = true;
        }
        this.#table[index] = found.start * clusterSize;
      }
      await this.#writeBlock(this.#table[index]!, first);
      cluster = counts.nextUsed(first + perBlock, end);
    }
    return grown;
  }

  #allocate(clusters: number, from: number): { start: number; firstFree: number } {
    try {
      return this.#counts.allocate(clusters, from);
    } catch (error) {
      this.#run.result.checkErrors++;
      throw new ImageError(reasonText(error), { errno: "EFBIG", cause: error });
    }
  }

  #grow(entries: number): void {
    const { clusterSize } = this.#run.image.geometry;
    const length = alignUp(entries * 8, clusterSize);
    if (length > MAX_REFCOUNT_TABLE_BYTES) {
      // A longer table would make an image that nobody opens.
      throw this.#failed("writing reftable", ImageError.fromErrno("EFBIG"));
    }
    while (this.#table.length < length / 8) this.#table.push(0);
  }

  async #writeBlock(offset: number, first: number): Promise<void> {
    const { image } = this.#run;
    const { format } = image.refcounts;
    const block = new Uint8Array(image.geometry.clusterSize);
    const counts = this.#counts;
    const end = first + format.perBlock;
    for (
      let cluster = counts.nextUsed(first, end);
      cluster < end;
      cluster = counts.nextUsed(cluster + 1, end)
    ) format.set(block, cluster - first, counts.get(cluster));
    try {
      await image.overlap.check(offset, block.length);
      await image.file.write(offset, block);
    } catch (error) {
      throw this.#failed("writing refblock", error);
    }
  }

  async #writeTable(offset: number): Promise<void> {
    const { image } = this.#run;
    const { file, header, refcounts } = image;
    const table = new EntryTable(new Uint8Array(this.#table.length * 8));
    for (const [index, block] of this.#table.entries()) table.setOffset(index, block);
    try {
      await image.overlap.check(offset, table.bytes.length);
      await file.write(offset, table.bytes);
      await image.barrier();
    } catch (error) {
      throw this.#failed("writing reftable", error);
    }
    const pointer = new DataView(new ArrayBuffer(12));
    const clusters = table.bytes.length / image.geometry.clusterSize;
    pointer.setBigUint64(0, BigInt(offset));
    pointer.setUint32(8, clusters);
    try {
      await file.write(HEADER_TABLE, new Uint8Array(pointer.buffer));
      await image.barrier();
    } catch (error) {
      throw this.#failed("setting reftable", error);
    }
    header.refcountTableOffset = offset;
    header.refcountTableClusters = clusters;
    await refcounts.reset();
  }

  #failed(what: string, error: unknown): ImageError {
    this.#run.checkError(`ERROR ${what}: ${reasonText(error)}`, true);
    return ImageError.from(error);
  }
}
