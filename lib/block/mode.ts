/** How host caching and flushing are done for a node and everything below it. */
export interface CacheMode {
  /** Bypass the host's page cache (`O_DIRECT`). */
  readonly direct: boolean;
  /** Requests to flush are dropped (`cache.no-flush`). */
  readonly noFlush: boolean;
  /** Every write is followed by a flush (opened `O_DSYNC` where the system has it). */
  readonly writethrough: boolean;
}

/** The cache modes by the names that `-t` and `-T` take. */
export const CACHE_MODES: Readonly<Record<string, CacheMode>> = {
  writeback: { direct: false, noFlush: false, writethrough: false },
  none: { direct: true, noFlush: false, writethrough: false },
  off: { direct: true, noFlush: false, writethrough: false },
  writethrough: { direct: false, noFlush: false, writethrough: true },
  directsync: { direct: true, noFlush: false, writethrough: true },
  unsafe: { direct: false, noFlush: true, writethrough: false },
};

/** How an image and the nodes below it are opened. */
export interface OpenMode {
  /** Guest data and metadata may be written. */
  readonly writable: boolean;
  /** Only metadata will be looked at (`info`): no keys, no data file, no backing files needed. */
  readonly metadataOnly: boolean;
  /** Opened by `check`: damage that it repairs is let through. */
  readonly checking: boolean;
  /** Backing files are not opened. */
  readonly noBacking: boolean;
  /** Guest discards and unmapping zero writes reach the files (`discard=unmap`). */
  readonly unmap: boolean;
  /** Share the files with any other user (`-U`). Only with `writable: false`. */
  readonly forceShare: boolean;
  /** Nobody else may write or resize the files meanwhile, whatever the format (a copy's source). */
  readonly exclusive: boolean;
  /** The virtual size will be changed through this opening. */
  readonly resizing: boolean;
  /** Host caching. */
  readonly cache: CacheMode;
  /** Files whose options do not say how requests are done are opened as by `aio=native`. */
  readonly nativeAio?: boolean;
}

/** Read-only, everything else at its default. */
export const READ_ONLY: OpenMode = {
  writable: false,
  metadataOnly: false,
  checking: false,
  noBacking: false,
  unmap: false,
  forceShare: false,
  exclusive: false,
  resizing: false,
  cache: CACHE_MODES["writeback"]!,
};

/** What a user of a file may want of it, and may forbid others, in the order of the lock bytes. */
export type Permission = "consistent read" | "write" | "write unchanged" | "resize";

/** What the node above a file does with it, and what it lets others do meanwhile. */
export interface NodeAccess {
  /** Permissions used. */
  readonly uses: readonly Permission[];
  /** Permissions that nobody else may use meanwhile. */
  readonly unshares: readonly Permission[];
}

/**
 * What a format node needs of the file below it.
 *
 * `transparent` formats (raw) pass the needs of their user through; all others
 * keep metadata in the file that nobody else may change, and grow it when they
 * write.
 */
export function childAccess(mode: OpenMode, transparent: boolean): NodeAccess {
  const uses: Permission[] = [];
  const unshares: Permission[] = [];
  if (!mode.metadataOnly) uses.push("consistent read");
  if (mode.writable) {
    uses.push("write");
    if (!transparent || mode.resizing) uses.push("resize");
  }
  if (!mode.forceShare && (!transparent || mode.exclusive)) unshares.push("write", "resize");
  return { uses, unshares };
}
