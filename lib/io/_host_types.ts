/**
 * What the kinds of {@linkcode HostFile} have in common.
 *
 * @module
 */

/** How `openHostFile` opens. Without any it opens an existing file for reading. */
export interface HostFileOptions {
  /** Reading; true unless given. */
  read?: boolean;
  /** Writing. */
  write?: boolean;
  /** Make the file when it is not there (mode 0644, less the umask). Needs `write`. */
  create?: boolean;
  /** Make the file and fail with EEXIST when it is there. Needs `write`. */
  createNew?: boolean;
  /** Cut an existing file to length 0. Needs `write`. */
  truncate?: boolean;
  /**
   * Pass by the host's page cache (O_DIRECT), on Linux alone; EINVAL elsewhere and on file systems
   * that cannot. Requests of any alignment work; see {@linkcode HostFile.alignment}. Writing then
   * needs the permission to read, too.
   */
  direct?: boolean;
  /** Every write returns only when its data are on the medium, as after `datasync`. */
  sync?: boolean;
}

/** What the host knows of a file. */
export interface HostFileStat {
  /** What it is. */
  kind: "file" | "directory" | "block device" | "character device" | "fifo" | "socket" | "other";
  /** Length in bytes as the file system knows it: 0 for devices, unlike {@linkcode HostFile.size}. */
  size: number;
  /** Bytes that the file takes on its file system (512 times st_blocks), where the host tells. */
  allocated: number | undefined;
  /** The number of the file system. */
  device: number;
  /** The number of the file there, or `undefined` where the host has none (Windows). */
  inode: number | undefined;
  /** Time of the last change of content. */
  modified: Date | undefined;
}

/** An open file or block device. All requests of an object share one position: no object serves two threads. */
export interface HostFile extends Disposable {
  /** The name that it was opened by. */
  readonly path: string;
  /** Whether it was opened for writing. */
  readonly writable: boolean;
  /** Whether requests pass by the page cache. */
  readonly direct: boolean;
  /**
   * The unit in bytes in which requests go to the host: 1, or what direct I/O asks for. Requests that
   * do not keep to it work but cost a copy, as do all that use other memory than
   * `alignedBytes` gives. Such a write reads, changes and writes whole units, so that two writers on
   * neighbouring bytes of one unit must not run at the same time.
   */
  readonly alignment: number;
  /**
   * Reads at `offset` until `into` is full or the file ends, and returns the number of bytes read.
   * Throws `HostError`.
   */
  readAt(offset: number, into: Uint8Array): number;
  /** Writes all of `from` at `offset`. Throws `HostError`; how much was written is then unknown. */
  writeAt(offset: number, from: Uint8Array): void;
  /** The length in bytes now; of a block device its capacity. Throws `HostError`. */
  size(): number;
  /** Cuts or grows the file to `length` bytes; what is new reads as zeros. Throws `HostError`. */
  truncate(length: number): void;
  /** Returns when data and metadata are on the medium (fsync). Throws `HostError`. */
  sync(): void;
  /**
   * Returns when data, and the metadata needed to read them, are on the medium (fdatasync). Throws
   * `HostError`.
   */
  datasync(): void;
  /** What the host knows of the open file, whatever its name leads to by now. Throws `HostError`. */
  stat(): HostFileStat;
  /** Closes it; a second call does nothing. */
  close(): void;
}

/** The part of Deno's description of a file that is looked at here. */
export type FileFacts = Pick<
  Deno.FileInfo,
  | "isFile"
  | "isDirectory"
  | "isBlockDevice"
  | "isCharDevice"
  | "isFifo"
  | "isSocket"
  | "size"
  | "blocks"
  | "dev"
  | "ino"
  | "mtime"
>;

/** Deno's description of a file in the words of this module. */
export function toHostFileStat(info: FileFacts): HostFileStat {
  return {
    kind: kindOf(info),
    size: info.size,
    allocated: info.blocks === null ? undefined : info.blocks * 512,
    device: info.dev,
    inode: info.ino ?? undefined,
    modified: info.mtime ?? undefined,
  };
}

function kindOf(info: FileFacts): HostFileStat["kind"] {
  if (info.isFile) return "file";
  if (info.isDirectory) return "directory";
  if (info.isBlockDevice) return "block device";
  if (info.isCharDevice) return "character device";
  if (info.isFifo) return "fifo";
  if (info.isSocket) return "socket";
  return "other";
}
