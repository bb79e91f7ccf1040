import type { BlockNode } from "./node.ts";
import type { OptionSet } from "./options.ts";

/** A value in format-specific information; objects keep insertion order. */
export type InfoValue =
  | string
  | number
  | bigint
  | boolean
  | readonly InfoValue[]
  | { readonly [key: string]: InfoValue };

/** What `info` shows of a node beside name, size and children. */
export interface ImageDetails {
  /** Allocation unit, bytes; absent where the format shows none. */
  readonly clusterSize?: number;
  /** The image is encrypted. */
  readonly encrypted?: boolean;
  /** The image was not closed cleanly (`dirty-flag`); absent where the driver has no such information. */
  readonly dirty?: boolean;
  /** Keys as JSON output names them (`refcount-bits`), values plain. */
  readonly specific?: {
    readonly type: string;
    readonly data: { readonly [key: string]: InfoValue };
  };
}

/** A backing file: its stored name, and its node once it is open. */
export interface BackingLink {
  /** The name stored in the image, `""` if there is none. */
  readonly name: string;
  /** The stored format name, `undefined` if there is none. */
  readonly format: string | undefined;
  /** The open backing node; `null` until {@linkcode attach}, and where there is none. */
  readonly node: BlockNode | null;
  /** Hands over the backing node, which is then closed with the overlay. */
  attach(node: BlockNode | null): void;
  /** Rewrites the stored name and format. Absent where the format cannot. */
  change?(name: string, format: string | undefined): Promise<void>;
}

/** How to change an image's options. */
export interface AmendRequest {
  /** Allow what cannot be undone by anybody: to erase the last key of an encrypted image. */
  readonly force: boolean;
  /** Called with a fraction from 0 to 1, as often as the driver likes; it may go back when a next part begins. */
  readonly onProgress?: ((fraction: number) => void) | undefined;
}

/** Changing the options of an image in place. */
export interface Amender {
  /**
   * Gives an open, writable image other options; `options` are typed values of
   * its driver's `amendOptions`. What can be known to fail fails before anything
   * is changed.
   *
   * @throws {ImageError}
   */
  amend(options: OptionSet, request: AmendRequest): Promise<void>;
}

/** Emptying an image whose content is in its backing file by now. */
export interface Emptier {
  /**
   * Forgets all guest data, so that the backing file shows everywhere. If it ends early, each part of the
   * disk is either still there or already gone.
   */
  makeEmpty(): Promise<void>;
}

/** What a check may repair. */
export type RepairMode = "none" | "leaks" | "all";

/** The outcome of a check. Counts of clusters, except where it says bytes. */
export interface CheckResult {
  /** Internal errors: the check is incomplete. */
  checkErrors: number;
  /** Corruptions left. */
  corruptions: number;
  /** Corruptions repaired. */
  corruptionsFixed: number;
  /** Leaked clusters left. */
  leaks: number;
  /** Leaked clusters freed. */
  leaksFixed: number;
  /** End of the last used cluster, bytes; 0 if the format does not tell. */
  imageEndOffset: number;
  /** Clusters of the virtual disk; 0 if the format does not tell. */
  totalClusters: number;
  /** Of these, stored in the image. */
  allocatedClusters: number;
  /** Of these, not behind their predecessor. */
  fragmentedClusters: number;
  /** Of these, compressed. */
  compressedClusters: number;
}

/**
 * Takes one line that was found, complete and without the program's name.
 * `fromProgram`: the name and a colon belong in front of it.
 */
export type CheckReport = (line: string, fromProgram?: boolean) => void;

/** Consistency checks. */
export interface Checker {
  /**
   * Checks, and repairs what `repair` allows; findings go to `report`.
   *
   * @throws {ImageError} if the check could not be completed; its `errno` says
   * why, `report` has the details. `ENOTSUP`: the format cannot repair.
   */
  check(repair: RepairMode, report: CheckReport): Promise<CheckResult>;
}

/** An internal snapshot. */
export interface SnapshotInfo {
  /** Id, decimal digits as a rule. */
  readonly id: string;
  /** Name. */
  readonly name: string;
  /** Seconds since 1970. */
  readonly dateSeconds: number;
  /** Nanoseconds of the second. */
  readonly dateNanoseconds: number;
  /** Guest clock, nanoseconds. */
  readonly vmClock: bigint;
  /** Saved VM state, bytes. */
  readonly vmStateSize: number;
  /** Instruction count, if recorded. */
  readonly icount?: bigint;
}

/** Internal snapshots of an open image. */
export interface SnapshotStore {
  /** All, in table order. Those that the other members take come from here. */
  list(): readonly SnapshotInfo[];

  // The rest is there where the image can do it, as it was opened.

  /**
   * Makes a snapshot of the disk as it is, with the next id. `date` is in
   * milliseconds since 1970.
   *
   * @throws {ImageError}
   */
  create?(name: string, date: number): Promise<void>;
  /**
   * Makes the disk what it was when the snapshot was made, its size included.
   * What it held since is lost unless another snapshot has it.
   *
   * @throws {ImageError}
   */
  apply?(snapshot: SnapshotInfo): Promise<void>;
  /**
   * Removes a snapshot, and what nothing else uses.
   *
   * @throws {ImageError}
   */
  remove?(snapshot: SnapshotInfo): Promise<void>;
  /**
   * Lets the node, which is open for reading, show the snapshot's data. Its
   * length remains that of the disk as it is.
   *
   * @throws {ImageError}
   */
  select?(snapshot: SnapshotInfo): Promise<void>;
}

/** A persistent dirty bitmap. */
export interface BitmapInfo {
  /** Name. */
  readonly name: string;
  /** Bytes of the disk for a bit. */
  readonly granularity: number;
  /** `in-use`, `auto`: as the file says, or will say. */
  readonly flags: readonly string[];
  /** It follows what the guest writes. */
  readonly enabled: boolean;
  /** It was closed properly by those who had it before. Others can be removed, and nothing else. */
  readonly consistent: boolean;
}

/** A bitmap to be made. */
export interface NewBitmap {
  /** Name. */
  readonly name: string;
  /** Bytes of the disk for a bit, a power of two from 512 on. */
  readonly granularity: number;
  /** It follows what the guest writes from now on. */
  readonly enabled: boolean;
}

/**
 * Persistent dirty bitmaps of an open image. What changes is stored when the
 * image is closed, except for what is removed: that is gone at once.
 *
 * All but `list` throw an `ImageError` for a bitmap that is not there or, with
 * the exception of `remove`, not consistent.
 */
export interface BitmapStore {
  /** All, in directory order. */
  list(): readonly BitmapInfo[];
  /**
   * Calls `visit` for every run of dirty bytes of the disk, in order. Absent
   * where only metadata was opened.
   */
  visitDirty?(name: string, visit: (offset: number, length: number) => void): Promise<void>;

  // The rest is there where the image can be written.

  /**
   * Adds a bitmap in which nothing is dirty.
   *
   * @throws {ImageError} for a name that is taken, and for what the format cannot store.
   */
  add?(bitmap: NewBitmap): void;
  /** Removes a bitmap, be it consistent or not, from the file. */
  remove?(name: string): Promise<void>;
  /** Makes everything clean. */
  clear?(name: string): void;
  /** Makes a bitmap follow the guest's writes, or not. */
  setEnabled?(name: string, enabled: boolean): void;
  /** What makes ranges of the disk dirty, in bytes; bits that they touch are set. */
  marker?(name: string): (offset: number, length: number) => void;
}
