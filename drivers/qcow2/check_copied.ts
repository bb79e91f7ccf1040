/**
 * The COPIED flags of the active tables: set exactly where the refcount of
 * what an entry points to is 1.
 *
 * @module
 */
import { reasonText } from "../../lib/block/error.ts";
import { hex } from "./_check_run.ts";
import type { CheckRun } from "./_check_run.ts";
import { Incompatible } from "./_layout.ts";
import { readPadded } from "./_read.ts";
import type { ComparedRefcounts } from "./check_refcounts.ts";
import { hasFeature } from "./header.ts";
import { writeL1Entry } from "./l1_table.ts";
import type { ReferenceCounts } from "./reference_counts.ts";
import { StoredRefcounts } from "./stored_refcounts.ts";
import { COMPRESSED_HIGH, COPIED_HIGH, EntryTable } from "./table.ts";

/** Stands for all higher refcounts, too. */
const SATURATED = 0xffff;
const OFFSET_HIGH = 0x00ffffff;
const OFFSET_LOW = 0xfffffe00;

/**
 * Checks the flags against `refcounts`, which hold what the file says of the
 * clusters below their length, `compared.unreadable` blocks aside.
 *
 * @throws {ImageError} if a table cannot be read or written.
 */
export async function checkCopiedFlags(
  run: CheckRun,
  refcounts: ReferenceCounts,
  compared: ComparedRefcounts,
): Promise<void> {
  const { checkErrors, corruptions, leaks } = run.result;
  // Where refcounts may still be wrong, flags that go by them may be so too; unless the user wants
  // everything repaired, that is no reason to write.
  const repair = run.fixErrors ||
    run.fixLeaks && checkErrors === 0 && corruptions === 0 && leaks === 0;
  // Flags follow counts, on the disk, too; what is marked dirty will be counted anyway.
  if (repair && !hasFeature(run.image.header, Incompatible.dirty)) {
    await run.image.refcounts.flush();
  }
  await new CopiedFlags(run, refcounts, compared, repair).all();
}

class CopiedFlags {
  readonly #run: CheckRun;
  readonly #refcounts: ReferenceCounts;
  readonly #unreadable: ReadonlySet<number>;
  readonly #repair: boolean;
  readonly #stored: StoredRefcounts;
  readonly #table: EntryTable;

  constructor(
    run: CheckRun,
    refcounts: ReferenceCounts,
    { unreadable }: ComparedRefcounts,
    repair: boolean,
  ) {
    this.#run = run;
    this.#refcounts = refcounts;
    this.#unreadable = unreadable;
    this.#repair = repair;
    this.#stored = new StoredRefcounts(run.image);
    this.#table = new EntryTable(new Uint8Array(run.image.geometry.clusterSize));
  }

  async all(): Promise<void> {
    const { l1, geometry } = this.#run.image;
    for (let i = 0; i < l1.length; i++) {
      const offset = l1.offset(i);
      if (offset === 0) continue;
      const refcount = await this.#refcount(Math.floor(offset / geometry.clusterSize));
      if (refcount === undefined) continue;
      await this.#l1Entry(i, refcount);
      await this.#l2(offset);
    }
  }

  /** The refcount of a cluster; `undefined` where it cannot be read, which was reported before. */
  async #refcount(cluster: number): Promise<bigint | undefined> {
    if (this.#unreadable.has(Math.floor(cluster / this.#stored.perBlock))) return undefined;
    if (cluster < this.#refcounts.length) {
      const refcount = this.#refcounts.get(cluster);
      if (refcount < SATURATED) return BigInt(refcount);
    }
    return await this.#stored.get(cluster);
  }

  async #l1Entry(index: number, refcount: bigint): Promise<void> {
    const { image, result } = this.#run;
    const { l1 } = image;
    const [high, low] = [l1.high(index), l1.low(index)];
    if ((refcount === 1n) === ((high & COPIED_HIGH) !== 0)) return;
    this.#run.corruption(
      `${this.#repair ? "Repairing" : "ERROR"} OFLAG_COPIED L2 cluster: l1_index=${index} ` +
        `l1_entry=${hex(l1.word(index))} refcount=${refcount}`,
    );
    if (!this.#repair) return;
    l1.set(index, (high ^ COPIED_HIGH) >>> 0, low);
    try {
      await writeL1Entry(image, index);
    } catch (error) {
      l1.set(index, high, low);
      result.checkErrors++;
      throw error;
    }
    result.corruptions--;
    result.corruptionsFixed++;
  }

  async #l2(offset: number): Promise<void> {
    const { image, result } = this.#run;
    const { l2Entries, clusterSize } = image.geometry;
    const table = this.#table;
    try {
      await readPadded(image.file, offset, table.bytes);
    } catch (error) {
      this.#run.checkError(`ERROR: I/O error in check_oflag_copied: ${reasonText(error)}`);
      throw error;
    }
    let changed = 0;
    for (let i = this.#nextSuspect(0); i < l2Entries; i = this.#nextSuspect(i + 1)) {
      if (await this.#l2Entry(i)) changed++;
    }
    if (changed === 0) return;
    try {
      await image.overlap.check(offset, clusterSize, "active L2 table");
    } catch (error) {
      this.#run.checkError(
        `ERROR: Could not write L2 table; metadata overlap check failed: ${reasonText(error)}`,
      );
      throw error;
    }
    try {
      await image.file.write(offset, table.bytes);
    } catch (error) {
      this.#run.checkError(`ERROR: Could not write L2 table: ${reasonText(error)}`);
      throw error;
    }
    result.corruptions -= changed;
    result.corruptionsFixed += changed;
  }

  /** The next entry from `from` on that is not plainly right. */
  #nextSuspect(from: number): number {
    const { geometry, hasDataFile } = this.#run.image;
    const { l2Entries, clusterSize, entrySize } = geometry;
    const table = this.#table;
    const refcounts = this.#refcounts;
    const words = entrySize / 8;
    const known = this.#unreadable.size === 0 ? refcounts.length * clusterSize : 0;
    for (let i = from; i < l2Entries; i++) {
      const high = table.high(i * words);
      if ((high & COMPRESSED_HIGH) !== 0) continue;
      const low = table.low(i * words);
      const offset = (high & OFFSET_HIGH) * 0x100000000 + ((low & OFFSET_LOW) >>> 0);
      // In a data file, place 0 is told from none by the flag itself, so there the flag is right.
      if (offset === 0) continue;
      const copied = (high & COPIED_HIGH) !== 0;
      if (hasDataFile) {
        if (!copied) return i;
        continue;
      }
      if (offset >= known) return i;
      if ((refcounts.get(Math.floor(offset / clusterSize)) === 1) !== copied) return i;
    }
    return l2Entries;
  }

  /** Checks an entry with a host offset; whether it was changed in memory. */
  async #l2Entry(index: number): Promise<boolean> {
    const { image } = this.#run;
    const { clusterSize, entrySize } = image.geometry;
    const table = this.#table;
    const at = index * entrySize / 8;
    const [high, low] = [table.high(at), table.low(at)];
    const copied = (high & COPIED_HIGH) !== 0;
    const refcount = image.hasDataFile
      ? 1n
      : await this.#refcount(Math.floor(table.offset(at) / clusterSize));
    if (refcount === undefined || (refcount === 1n) === copied) return false;
    this.#run.corruption(
      `${this.#repair ? "Repairing" : "ERROR"} OFLAG_COPIED data cluster: ` +
        `l2_entry=${hex(table.word(at))} refcount=${refcount}`,
    );
    if (!this.#repair) return false;
    table.set(at, (high ^ COPIED_HIGH) >>> 0, low);
    return true;
  }
}
