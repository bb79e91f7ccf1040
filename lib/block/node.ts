import type { DebugEvent } from "./debug_event.ts";
import type { Allocator, PackedRun, PackTarget, SealedRun } from "./plan.ts";
import type {
  Amender,
  BackingLink,
  BitmapStore,
  Checker,
  Emptier,
  ImageDetails,
  SnapshotStore,
} from "./capabilities.ts";
import type { JsonValue } from "../bytes/json.ts";
import type { NodeAccess } from "./mode.ts";

/** What requests a node takes and likes. All in bytes. */
export interface NodeLimits {
  /** Offsets and lengths of requests must be multiples of this (1 for buffered files). */
  readonly requestAlignment: number;
  /** Allocation unit, 0 where there is none. Compressed writes are whole clusters. */
  readonly clusterSize: number;
  /** Zero writes and discards below this granularity cannot free anything; 0 = no preference. */
  readonly zeroAlignment: number;
  /** Requests that are worth having under way at a time, because answers come from afar; absent: one. */
  readonly requests?: number;
  /**
   * The reference looks at the state of a disk in parts that end at multiples of this, which its progress
   * shows; extents need not. Absent: in no parts.
   */
  readonly statusSpan?: number;
}

/** How a zero write may be done. */
export interface ZeroFlags {
  /** The host range may be deallocated if it then still reads as zeros. */
  readonly unmap: boolean;
  /** Throw `ENOTSUP` rather than write buffers of zeros. */
  readonly noFallback?: boolean;
}

/** How new space is provided when a node grows. */
export type Preallocation = "off" | "metadata" | "falloc" | "full";

/** A run of guest bytes with one state. */
export interface Extent {
  /** Bytes, at least 1, at most what was asked for. */
  readonly length: number;
  /**
   * `data`: stored in this node; `zero`: this node says that it reads as zeros;
   * `unallocated`: this node says nothing, its backing file (or zeros) shows.
   */
  readonly state: "data" | "zero" | "unallocated";
  /** Stored compressed. Such extents may end at every cluster. */
  readonly compressed: boolean;
  /** State `data`, but the file below has a hole there, so it reads as zeros. */
  readonly hole?: boolean;
  /** `true` in state `data`: what is read is to be found out by reading, and not stored as far as known. */
  readonly unknown?: boolean;
  /** The protocol node that holds the plain bytes, if they lie plainly anywhere. */
  readonly file?: BlockNode;
  /** Where they begin in `file`, bytes. */
  readonly offset?: number;
  /** `true`: it is known where the bytes lie, but they are to be read through the node that says so. */
  readonly guarded?: boolean;
  /** How to get at the bytes of a compressed extent without this node's help. */
  readonly packed?: PackedRun;
  /** How to get at the bytes of an encrypted extent without this node's help. */
  readonly sealed?: SealedRun;
  /**
   * For what the reference sees as one extent although it lies in several places: the first run of bytes
   * at an offset of the node that lies in one place, or nowhere (`zero`). Throws as reading would.
   */
  readonly parts?: (offset: number, length: number) => Extent;
}

/** A child of a node, as `info` lists it. */
export interface NodeChild {
  /** `file`, `extents.0` … */
  readonly name: string;
  /** The child. */
  readonly node: BlockNode;
  /** Only the image says which it is: no option can, and the name of the node above does not repeat it. */
  readonly stored?: boolean;
}

/** How to get at the bytes of a protocol that file names alone do not lead to. */
export interface NodeAddress {
  /** The name that alone gives this very node, if there is one. */
  readonly exact: string | undefined;
  /** The options that give it, without `driver`. */
  readonly options: { readonly [key: string]: JsonValue };
  /** Why no name in an image can be relative to this one; absent where names can. */
  readonly noFolder?: string;
}

/** A plain local file that other threads may open by its path. */
export interface LocalFile {
  /** Absolute path. */
  readonly path: string;
  /** Opened with `O_DIRECT`: buffers, offsets and lengths must be aligned. */
  readonly direct: boolean;
  /** Opened with `O_DSYNC`. */
  readonly sync: boolean;
}

/**
 * A run of bytes with a length: a protocol, a format on top of one, or a
 * filter. All offsets and lengths are bytes. Requests must lie within
 * `[0, length)`; what reaches past it throws `EIO`.
 *
 * Failures are {@linkcode ImageError}s with an `errno`.
 */
export interface BlockNode extends AsyncDisposable {
  /** The driver's name: `raw`, `file` … */
  readonly driver: string;
  /** The name as messages show it. */
  readonly filename: string;
  /** Whether writes are refused. */
  readonly readOnly: boolean;
  /** Bytes; for protocols rounded up to a multiple of 512. */
  readonly length: number;
  /** What requests the node takes. */
  readonly limits: NodeLimits;
  /** The nodes below, the last attached first; backing files are not among them. */
  readonly children: readonly NodeChild[];

  /** Fills `into` from `offset`: through backing files, zeros where nothing is stored. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /** Writes all of `from` at `offset`. */
  write(offset: number, from: Uint8Array): Promise<void>;
  /** Makes a range read as zeros. */
  writeZeroes(offset: number, length: number, flags: ZeroFlags): Promise<void>;
  /** Says that a range's content is of no use any more. May do nothing. */
  discard(offset: number, length: number): Promise<void>;
  /**
   * Gives a range within the length the space that it lacks; what it holds stays as it is. Nodes without it
   * reserve space by writing zeros.
   */
  reserve?(offset: number, length: number): Promise<void>;
  /** The first run with one state at `offset`; `length` ≥ 1 is the most that is of interest. */
  extent(offset: number, length: number): Promise<Extent>;
  /**
   * The same for copies, where the node knows more than it is to tell: the reference takes all of some
   * formats' disks for data, wherever they are.
   */
  locate?(offset: number, length: number): Promise<Extent>;
  /** Everything written so far is on stable storage when this resolves. */
  flush(): Promise<void>;
  /** Sets the virtual size. New space reads as zeros. */
  resize(length: number, how: Preallocation): Promise<void>;
  /** Bytes that the image takes on its host (`st_blocks` · 512); `undefined` where nobody knows. */
  allocatedSize(): Promise<number | undefined>;

  // Capabilities: present where the driver has them, found by property and never by the driver's name.

  /** Nodes that others can refer to: the name that the options gave it. */
  readonly nodeName?: string;
  /** Filters: the node that shows through. Its backing file is theirs, and no name alone leads to them. */
  readonly filtered?: BlockNode;
  /**
   * Nodes that fail on purpose: told of a step of the node above just before it is done. Nobody else is
   * to fill a file that wants to know.
   */
  debugEvent?(event: DebugEvent): void;
  /** Protocols whose nodes are not reached by `filename` alone. */
  readonly address?: NodeAddress;
  /** Protocols on local files: how other threads reach the same bytes. */
  readonly local?: LocalFile;
  /** Protocols: takes (or changes) the locks that the node above needs. */
  lock?(access: NodeAccess): Promise<void>;
  /** Protocols: the exact length in bytes where `length` is rounded up. */
  readonly exactLength?: number;
  /** Protocols: the length is a device's capacity, which nothing here can change. */
  readonly fixedLength?: boolean;
  /** Formats: what `info` shows. */
  details?(): Promise<ImageDetails>;
  /** Whether everything not yet written reads as zeros (a fresh, not preallocated image). */
  readsZeroWhenNew?(): Promise<boolean>;
  /** The backing file's name and node. */
  readonly backing?: BackingLink;
  /** Emptying, where the image can be written. */
  readonly emptier?: Emptier;
  /** Consistency checks and repair. */
  readonly checker?: Checker;
  /** Other options for an image that exists. */
  readonly amender?: Amender;
  /** Internal snapshots. */
  readonly snapshots?: SnapshotStore;
  /** Persistent dirty bitmaps. */
  readonly bitmaps?: BitmapStore;
  /** Why this image can have no bitmaps although others of its format can. */
  readonly withoutBitmaps?: string;
  /** Host space for guest ranges, to be filled by someone else. */
  readonly allocator?: Allocator;
  /** The format stores compressed clusters, whether or not this image is open for writing. */
  readonly packs?: boolean;
  /** Compressed writes. */
  readonly packer?: PackTarget;
  /** Compressed writes are taken, and stored like any others: not all images of the format compress. */
  readonly packsPlainly?: boolean;
}
