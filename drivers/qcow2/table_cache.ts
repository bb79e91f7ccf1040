import type { DebugEvent } from "../../lib/block/debug_event.ts";
import type { Qcow2Image } from "./image.ts";
import type { Structure } from "./overlap.ts";
import { readPadded } from "./_read.ts";
import { EntryTable } from "./table.ts";

/** A table of one cluster in memory. */
export interface CachedTable {
  /** Host offset, bytes. */
  readonly offset: number;
  /** Its words (and bytes). */
  readonly entries: EntryTable;
}

interface Slot extends CachedTable {
  dirty: boolean;
  /** Looked at since the last sweep: gets a second chance. */
  recent: boolean;
}

/** Fewer tables would make neighbours push each other out. */
const MIN_TABLES = 4;
/** What a table takes beside its bytes: objects, and its places in maps. */
const OVERHEAD = 512;

/**
 * Tables of one kind, written back late and in order.
 *
 * Reading is for everybody at any time. Changing is for the holder of
 * `image.lock`, between `load` and the next await, followed by `touch`.
 * Only the lock's holder writes tables out, so readers never wait for writes:
 * they push out unchanged tables, and the number of changed ones is bounded by
 * {@linkcode makeRoom}.
 */
export class TableCache {
  readonly #image: Qcow2Image;
  readonly #kind: Structure;
  readonly #events: { readonly load: DebugEvent; readonly update: DebugEvent };
  readonly #size: number;
  readonly #limit: number;
  readonly #slots = new Map<number, Slot>();
  readonly #loading = new Map<number, Promise<Slot>>();
  readonly #dirty = new Set<Slot>();
  /** Has to be on disk before any table of this cache. */
  #first: TableCache | undefined;
  /** The files have to be flushed before any table of this cache is written. */
  #barrierFirst = false;
  #flushes = 0;

  /** A cache of at most about `budget` bytes. */
  constructor(image: Qcow2Image, kind: Structure, budget: number) {
    this.#image = image;
    this.#kind = kind;
    this.#events = kind === "active L2 table"
      ? { load: "l2_load", update: "l2_update" }
      : { load: "refblock_load", update: "refblock_update_part" };
    this.#size = image.geometry.clusterSize;
    this.#limit = Math.max(Math.floor(budget / (this.#size + OVERHEAD)), MIN_TABLES);
  }

  /** How often `flush` has brought all changes of its time to the disk. */
  get flushes(): number {
    return this.#flushes;
  }

  /** The table at a host offset, if it is cached. */
  peek(offset: number): CachedTable | undefined {
    const slot = this.#slots.get(offset);
    if (slot !== undefined) slot.recent = true;
    return slot;
  }

  /** The table at a host offset; what lies past the end of the file is zeros. */
  load(offset: number): Promise<CachedTable> {
    const slot = this.#slots.get(offset);
    if (slot !== undefined) {
      slot.recent = true;
      return Promise.resolve(slot);
    }
    // Two readers of one table must get the same object, or changes would be lost.
    let loading = this.#loading.get(offset);
    if (loading === undefined) {
      const current: Promise<Slot> = this.#read(
        offset,
        () => this.#loading.get(offset) === current && this.#loading.delete(offset),
      );
      loading = current;
      this.#loading.set(offset, loading);
    }
    return loading;
  }

  async #read(offset: number, wanted: () => boolean): Promise<Slot> {
    const bytes = new Uint8Array(this.#size);
    try {
      this.#image.event(this.#events.load);
      await readPadded(this.#image.file, offset, bytes);
    } catch (error) {
      wanted();
      throw error;
    }
    const slot: Slot = { offset, entries: new EntryTable(bytes), dirty: false, recent: true };
    // Forgotten while it was read: whoever asked may use it, nobody later.
    if (wanted()) this.#insert(slot);
    return slot;
  }

  /** A new table of zeros at a host offset, changed already. */
  create(offset: number): CachedTable {
    this.forget(offset);
    const entries = new EntryTable(new Uint8Array(this.#size));
    const slot: Slot = { offset, entries, dirty: true, recent: true };
    this.#dirty.add(slot);
    this.#insert(slot);
    return slot;
  }

  /** Says that a table was changed. */
  touch(table: CachedTable): void {
    const slot = table as Slot;
    slot.dirty = true;
    slot.recent = true;
    this.#dirty.add(slot);
    // A reader may have pushed it out meanwhile, and even read it anew.
    if (this.#slots.get(slot.offset) !== slot) this.#slots.set(slot.offset, slot);
  }

  /** Forgets the table at a host offset, changed or not. */
  forget(offset: number): void {
    const slot = this.#slots.get(offset);
    this.#loading.delete(offset);
    if (slot === undefined) return;
    slot.dirty = false;
    this.#slots.delete(offset);
    this.#dirty.delete(slot);
  }

  /** Forgets everything, changed or not. */
  clear(): void {
    this.#loading.clear();
    this.#slots.clear();
    this.#dirty.clear();
    this.#first = undefined;
    this.#barrierFirst = false;
  }

  /** Writes changed tables out when there are many. Call it before changing some, with the lock held. */
  async makeRoom(): Promise<void> {
    if (this.#dirty.size >= Math.ceil(this.#limit / 2)) await this.write();
  }

  /** From now on `other`'s changes reach the disk before this cache's. */
  async after(other: TableCache): Promise<void> {
    if (this.#first === other) return;
    // Both ways at once would be a circle: end the older one.
    if (other.#first !== undefined) await other.#settleOrder();
    if (this.#first !== undefined) await this.#settleOrder();
    this.#first = other;
  }

  /** From now on what is in the files, guest data above all, reaches the disk before this cache's changes. */
  afterBarrier(): void {
    this.#barrierFirst = true;
  }

  async #settleOrder(): Promise<void> {
    const image = this.#image;
    if (this.#barrierFirst && image.hasDataFile) await image.barrier(image.dataFile);
    if (this.#first !== undefined) {
      await this.#first.flush();
      this.#first = undefined;
    } else if (this.#barrierFirst) {
      await image.barrier();
    }
    this.#barrierFirst = false;
  }

  /** Writes changed tables. */
  async write(): Promise<void> {
    if (this.#dirty.size === 0) return;
    await this.#settleOrder();
    const { file, overlap } = this.#image;
    for (const slot of [...this.#dirty].sort((a, b) => a.offset - b.offset)) {
      await overlap.check(slot.offset, this.#size, this.#kind);
      this.#image.event(this.#events.update);
      await file.write(slot.offset, slot.entries.bytes);
      slot.dirty = false;
      this.#dirty.delete(slot);
    }
  }

  /** Writes changed tables and flushes the file. */
  async flush(): Promise<void> {
    await this.write();
    await this.#image.barrier();
    this.#flushes++;
  }

  #insert(slot: Slot): void {
    this.#slots.set(slot.offset, slot);
    if (this.#slots.size <= this.#limit) return;
    // Two rounds at most: the first takes away second chances.
    let tries = this.#slots.size * 2;
    for (const [offset, oldest] of this.#slots) {
      if (this.#slots.size <= this.#limit || tries-- === 0) break;
      if (oldest === slot) continue;
      this.#slots.delete(offset);
      if (oldest.dirty || oldest.recent) {
        oldest.recent = false;
        this.#slots.set(offset, oldest);
      }
    }
  }
}
