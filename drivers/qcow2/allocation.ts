import type { Qcow2Image } from "./image.ts";
import type { EntryTable } from "./table.ts";
import type { RefcountFormat } from "./refcount_format.ts";

/** Why clusters are freed, which decides what becomes of their bytes (section 6). */
export type FreeReason = "always" | "snapshot" | "request" | "other" | "never";

/**
 * Refcounts and the allocator (sections 4 and 6). Clusters are given out in
 * exactly the reference's order. Callers hold `image.lock`, or are alone.
 */
export class Refcounts {
  /** How refcounts lie in a block. */
  readonly format!: RefcountFormat;

  constructor(_image: Qcow2Image) {}

  /** The refcount table as it is on disk: read it, do not write it. */
  get table(): EntryTable {
    throw new Error("being written");
  }
  /** Reads the refcount table. Blocks are read when they are needed. */
  load(): Promise<void> {
    throw new Error("being written");
  }
  /** Bytes of refcount block `index` as cached (valid until the next await), `undefined` where there is none. */
  block(_index: number): Promise<Uint8Array | undefined> {
    throw new Error("being written");
  }
  /** Refcount of a cluster; exact below 2^53. */
  get(_cluster: number): Promise<number> {
    throw new Error("being written");
  }
  /** Contiguous clusters for `bytes`: their offset, refcounts are 1. */
  allocate(_bytes: number): Promise<number> {
    throw new Error("being written");
  }
  /** Takes as many of `clusters` clusters from `offset` on as are free; how many these are. */
  allocateAt(_offset: number, _clusters: number): Promise<number> {
    throw new Error("being written");
  }
  /** Room for compressed bytes, packed behind the last such room: its offset. */
  allocateBytes(_length: number): Promise<number> {
    throw new Error("being written");
  }
  /** Adds `delta` to the refcounts of all clusters that the range touches. */
  add(
    _offset: number,
    _length: number,
    _delta: number,
    _reason: FreeReason = "never",
  ): Promise<void> {
    throw new Error("being written");
  }
  /** Takes one reference from each cluster that the range touches. Failure is reported, not thrown. */
  free(_offset: number, _length: number, _reason: FreeReason): Promise<void> {
    throw new Error("being written");
  }
  /**
   * A new refcount table at host offset `start` (behind everything used), with
   * blocks for `extra` more clusters; answers with the end of what was made, bytes.
   */
  growTable(_start: number, _extra: number, _size: "exact" | "generous"): Promise<number> {
    throw new Error("being written");
  }
  /** Writes refcount table entry `index` (0: none) and flushes. */
  setTableEntry(_index: number, _blockOffset: number): Promise<void> {
    throw new Error("being written");
  }
  /** Index of the last cluster with a refcount, -1 if there is none; looks at clusters below `clusters`. */
  lastUsed(_clusters: number): Promise<number> {
    throw new Error("being written");
  }
  /** Writes changed blocks. */
  write(): Promise<void> {
    throw new Error("being written");
  }
  /** Writes changed blocks and flushes. */
  flush(): Promise<void> {
    throw new Error("being written");
  }
  /** Forgets everything cached and the place where the search for free clusters stands (after a repair). */
  reset(): Promise<void> {
    throw new Error("being written");
  }
}
