import type { Qcow2Image } from "./image.ts";
import type { EntryTable } from "./table.ts";

/** A cached L2 table. */
export interface L2Table {
  /** Host offset, bytes. */
  readonly offset: number;
  /** Its words: one an entry, two with extended L2 entries (descriptor, bitmap). */
  readonly entries: EntryTable;
}

/** The L2 tables in memory: bounded, written back late and in order. */
export class L2Tables {
  constructor(_image: Qcow2Image) {}

  /** The table at a host offset, if it is cached. */
  peek(_offset: number): L2Table | undefined {
    throw new Error("being written");
  }
  /** The table at a host offset. What it holds may be changed (with `touch`) only before the next await. */
  load(_offset: number): Promise<L2Table> {
    throw new Error("being written");
  }
  /**
   * The table that maps a guest offset, ready to be changed: allocated or
   * copied first if the active L1 table does not own it alone.
   */
  own(_guestOffset: number): Promise<L2Table> {
    throw new Error("being written");
  }
  /** Says that a table was changed. */
  touch(_table: L2Table): void {
    throw new Error("being written");
  }
  /** Forgets the table at a host offset, changed or not. */
  forget(_offset: number): void {
    throw new Error("being written");
  }
  /** Writes changed tables. */
  write(): Promise<void> {
    throw new Error("being written");
  }
  /** Writes changed tables and flushes. */
  flush(): Promise<void> {
    throw new Error("being written");
  }
  /** Forgets everything cached. */
  reset(): Promise<void> {
    throw new Error("being written");
  }
}
