import type { BlockNode } from "../../lib/block/node.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import type { Qcow2Header } from "./header.ts";
import { EntryTable } from "./table.ts";
import type { Refcounts } from "./allocation.ts";
import type { L2Tables } from "./l2_tables.ts";

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

/** An open image: what all modules of this driver share. Behaviour lives in the modules, not here. */
export class Qcow2Image {
  /** The file with the metadata. */
  readonly file: BlockNode;
  /** The file with the guest data: `file`, or the external data file. */
  dataFile: BlockNode;
  /** Name, mode, diagnostics. */
  readonly context: DriverContext;
  /** The header as it is, or will be at the next `writeHeader`. */
  readonly header: Qcow2Header;
  /** Sizes. */
  readonly geometry: Geometry;
  /** The active L1 table; replaced when it grows. */
  l1: EntryTable = new EntryTable(new Uint8Array(0));
  /** Cached L2 tables. */
  l2!: L2Tables;
  /** Refcounts and the allocator. */
  refcounts!: Refcounts;
  /** The open backing node, `null` if there is none. */
  backing: BlockNode | null = null;
  /** Set by a fatal corruption: all further requests fail. */
  broken = false;

  /** State over an open file and a parsed header. */
  constructor(file: BlockNode, header: Qcow2Header, geometry: Geometry, context: DriverContext) {
    this.file = file;
    this.dataFile = file;
    this.header = header;
    this.geometry = geometry;
    this.context = context;
  }

  /** Whether guest data lies in a file of its own. */
  get hasDataFile(): boolean {
    return this.dataFile !== this.file;
  }
}
