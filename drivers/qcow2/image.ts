import type { DebugEvent } from "../../lib/block/debug_event.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import type { DataEncryption } from "../../lib/block/encrypted_data.ts";
import { ImageError } from "../../lib/block/error.ts";
import { Mutex } from "../../lib/block/mutex.ts";
import { Incompatible } from "./_layout.ts";
import { hasFeature, type Qcow2Header } from "./header.ts";
import { EntryTable } from "./table.ts";
import { Refcounts } from "./allocation.ts";
import { PackedReader } from "./compressed.ts";
import { L2Tables } from "./l2_tables.ts";
import { OverlapGuard } from "./overlap.ts";
import { PendingRuns } from "./pending.ts";
import { NO_SNAPSHOTS, type SnapshotTable } from "./snapshots.ts";

/** Sizes that follow from the header and never change while the image is open. All in bytes or counts. */
export interface Geometry {
  /** Bytes of a cluster. */
  readonly clusterSize: number;
  /** log2 of it. */
  readonly clusterBits: number;
  /** Bytes of an L2 entry: 8, or 16 with extended L2 entries. */
  readonly entrySize: 8 | 16;
  /** Entries of an L2 table. */
  readonly l2Entries: number;
  /** Guest bytes that one L2 table maps. */
  readonly l2Span: number;
  /** Subclusters of a cluster: 32 with extended L2 entries, else 1. */
  readonly subclusters: 1 | 32;
  /** Bytes of a subcluster (a cluster without extended L2 entries). */
  readonly subclusterSize: number;
}

/** A range of host bytes. */
export interface HostRange {
  /** First byte. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/** Which freed clusters are deallocated in the file (section 6, reasons). */
export interface DiscardPolicy {
  /** Guest discards and unmapping zero writes: `pass-discard-request`, by default what `mode.unmap` says. */
  request: boolean;
  /** Deleted snapshots: `pass-discard-snapshot`. */
  snapshot: boolean;
  /** Replaced tables: `pass-discard-other`. */
  other: boolean;
  /** `discard-no-unref`: guest discards and unmapping zero writes keep the host cluster. */
  keepReferences: boolean;
}

/** What is known of an image once its header is read. */
export interface ImageFacts {
  /** The file with the metadata. */
  readonly file: BlockNode;
  /** Name, mode, diagnostics. */
  readonly context: DriverContext;
  /** The header. */
  readonly header: Qcow2Header;
  /** Sizes. */
  readonly geometry: Geometry;
}

/** An open image: what all modules of this driver share. Behaviour lives in the modules, not here. */
export class Qcow2Image implements ImageFacts {
  /** The file with the metadata. */
  readonly file: BlockNode;
  /** The file with the guest data: `file`, or the external data file (which `driver.ts` sets). */
  dataFile: BlockNode;
  /** Name, mode, diagnostics. */
  readonly context: DriverContext;
  /** The header as it is, or will be at the next `writeHeader`. */
  readonly header: Qcow2Header;
  /** Sizes. */
  readonly geometry: Geometry;
  /** Guest data lies in a file of its own. */
  readonly hasDataFile: boolean;
  /** The active L1 table; replaced when it grows. Whoever opens the image fills it. */
  l1: EntryTable = new EntryTable(new Uint8Array(0));
  /** Cached L2 tables. */
  readonly l2: L2Tables;
  /** Refcounts and the allocator. `refcounts.load()` reads the table. */
  readonly refcounts: Refcounts;
  /** Keeps writes off the metadata. */
  readonly overlap: OverlapGuard;
  /** Compressed clusters. */
  readonly packed: PackedReader;
  /** Allocations whose bytes are still being written. */
  readonly pending: PendingRuns;
  /**
   * Held by whatever changes metadata. Functions on an image that end in `At`
   * or `Guest` take it themselves; the methods of `refcounts` and `l2` expect
   * that their caller holds it, or is alone with the image.
   */
  readonly lock: Mutex = new Mutex();
  /** How guest data is encrypted, `undefined` if it is not. Whoever opens the image sets it. */
  encryption: DataEncryption | undefined;
  /** The open backing node, `null` if there is none. */
  backing: BlockNode | null = null;
  /** What becomes of freed clusters. */
  readonly discards: DiscardPolicy;
  /** Refcounts may reach the file late; at first what the header says, `lazy-refcounts` overrides it. */
  lazyRefcounts: boolean;
  /** The snapshot table as it is on disk. */
  snapshots: SnapshotTable = NO_SNAPSHOTS;
  /** Told of every guest range before it is written, zeroed or discarded (dirty bitmaps). */
  guestWrite: ((offset: number, length: number) => void) | undefined;
  /** Whether more clusters are in use than the file has space for; `undefined` until somebody asks. */
  reservedSpace: Promise<boolean> | boolean | undefined;
  /** Refcounts and COPIED flags were left half changed by a failure: the image stays marked dirty. */
  countsInDoubt = false;
  /** Set by a fatal corruption: all further requests fail. */
  broken = false;
  /** A corruption was reported; further ones are not. */
  corruptionReported = false;

  /** State over an open file and a parsed header. */
  constructor(file: BlockNode, header: Qcow2Header, geometry: Geometry, context: DriverContext) {
    this.file = file;
    this.dataFile = file;
    this.header = header;
    this.geometry = geometry;
    this.context = context;
    this.hasDataFile = hasFeature(header, Incompatible.dataFile);
    this.discards = {
      request: context.mode.unmap,
      snapshot: true,
      other: false,
      keepReferences: false,
    };
    this.lazyRefcounts = (header.compatible & 1n) !== 0n;
    this.l2 = new L2Tables(this);
    this.refcounts = new Refcounts(this);
    this.overlap = new OverlapGuard(this);
    this.packed = new PackedReader(this);
    this.pending = new PendingRuns();
  }

  /**
   * Fails once a corruption has made the image unusable.
   *
   * @throws {ImageError} `ENOMEDIUM`.
   */
  assertUsable(): void {
    if (this.broken) {
      throw ImageError.fromErrno("ENOMEDIUM", { file: this.context.filename });
    }
  }

  /** Says what is about to be done, to a file that fails on purpose. */
  event(name: DebugEvent): void {
    this.file.debugEvent?.(name);
  }

  /** Flushes a file, unless flushes are not wanted (`cache.no-flush`). */
  async barrier(file: BlockNode = this.file): Promise<void> {
    if (!this.context.mode.cache.noFlush) await file.flush();
  }
}
