/**
 * A file or block device of the host, read and written at given offsets.
 *
 * Every operation is synchronous: a seek and a read with nothing between them cost a microsecond, an awaited pair
 * fifty. Code that must not block runs them in a worker.
 *
 * @module
 */

/** How {@linkcode openHostFile} opens. Without any it opens an existing file for reading. */
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
  /** Pass by the host's page cache (O_DIRECT). Requests of any alignment work; see {@linkcode HostFile.alignment}. */
  direct?: boolean;
  /** Every write returns when its data are on the medium (O_DSYNC). */
  sync?: boolean;
}

/** What the host knows of a file. */
export interface HostFileStat {
  /** What it is. */
  kind: "file" | "directory" | "block device" | "character device" | "fifo" | "socket" | "other";
  /** Length in bytes as the directory knows it: 0 for devices, whose {@linkcode HostFile.size} differs. */
  size: number;
  /** Bytes that the file takes on its file system (512 times st_blocks), or `undefined` where the host does not tell. */
  allocated: number | undefined;
  /** The number of the file system. */
  device: number;
  /** The number of the file there. */
  inode: number;
  /** Time of the last change of content. */
  modified: Date | undefined;
}

/** An open file or block device. One position is shared by all requests of an object: no object serves two threads. */
export interface HostFile extends Disposable {
  /** The name that it was opened by. */
  readonly path: string;
  /** Whether it was opened for writing. */
  readonly writable: boolean;
  /** Whether requests pass by the page cache. */
  readonly direct: boolean;
  /**
   * The unit in bytes in which requests go to the host: 1, or the sector that direct I/O asks for. Requests that do
   * not keep to it work but cost a copy; such a write reads, changes and writes whole units, so that two writers on
   * neighbouring bytes of one unit must not run at the same time.
   */
  readonly alignment: number;
  /** Reads at `offset` until `into` is full or the file ends, and returns the number of bytes read. Throws `HostError`. */
  readAt(offset: number, into: Uint8Array): number;
  /** Writes all of `from` at `offset`. Throws `HostError`; how much was written is then unknown. */
  writeAt(offset: number, from: Uint8Array): void;
  /** The length in bytes now; of a block device its capacity. Throws `HostError`. */
  size(): number;
  /** Cuts or grows the file to `length` bytes; what is new reads as zeros. Throws `HostError`. */
  truncate(length: number): void;
  /** Returns when data and metadata are on the medium (fsync). Throws `HostError`. */
  sync(): void;
  /** Returns when data, and the metadata needed to read them, are on the medium (fdatasync). Throws `HostError`. */
  datasync(): void;
  /** What the host knows of the open file, whatever its name leads to by now. Throws `HostError`. */
  stat(): HostFileStat;
  /** Closes it; a second call does nothing. */
  close(): void;
}

/** Opens `path`. Throws `HostError`. */
export function openHostFile(_path: string, _options?: HostFileOptions): Promise<HostFile> {
  throw new Error("being written");
}

/** What the host knows of `path`, links followed. Throws `HostError`. */
export function statHostFile(_path: string): HostFileStat {
  throw new Error("being written");
}
