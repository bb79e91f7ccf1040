/**
 * What `Deno.FsFile` lacks, by direct calls of the C library on Linux: holes, space allocation, cloning, byte locks.
 *
 * It is there only where the ffi permission is granted already; nothing asks for it, and everything else works without.
 * Once loaded it stays for the process' life and outlives a later revocation of the permission, in its own thread:
 * workers started after the revocation have none.
 *
 * `open`, `fcntl` and `ioctl` are variadic in C. On Linux x86-64 and ARM the fixed arguments of a variadic call travel
 * as in any other call; on other systems nothing of this is used.
 *
 * @module
 */
import type { HostFile } from "./host_file.ts";

/** Loads the library if it can be loaded, and says whether it is there. Later calls cost nothing. */
export function loadNative(): boolean {
  throw new Error("being written");
}

/** Closes the library. For tests, whose resource sanitizer counts it; every `NativeFile` must be closed before. */
export function unloadNative(): void {
  throw new Error("being written");
}

/** A run of a file with one state. */
export interface DataRun {
  /** Whether the run holds data; if not it is a hole and reads as zeros. */
  data: boolean;
  /** Length in bytes. */
  length: number;
}

/** A run of bytes in an open native file. */
export interface NativeRange {
  /** The file. */
  file: NativeFile;
  /** First byte. */
  offset: number;
}

/** A descriptor of its own on a file that is open already. */
export interface NativeFile extends Disposable {
  /** The name that it was opened by. */
  readonly path: string;
  /**
   * The first run of `length` bytes at `offset` that is all data or all hole (SEEK_DATA, SEEK_HOLE); past the end is
   * hole. Where the file system does not tell, all is data. The run is never longer than `length`.
   */
  dataRun(offset: number, length: number): DataRun;
  /** Makes a hole, the file's length unchanged. False where the file system cannot. Throws `HostError`. */
  punchHole(offset: number, length: number): boolean;
  /** Makes the range read as zeros without writing them; grows the file. False where the file system cannot. Throws `HostError`. */
  zeroRange(offset: number, length: number): boolean;
  /** Reserves space for the range, what is there unchanged, and grows the file (fallocate mode 0). False where the file system cannot. Throws `HostError`. */
  allocate(offset: number, length: number): boolean;
  /** As `allocate`, but on a file system that cannot, it writes to every block (posix_fallocate). Throws `HostError`. */
  preallocate(offset: number, length: number): void;
  /**
   * Copies up to `length` bytes from another file within the kernel and returns how many it copied: 0 at the source's
   * end, `undefined` where the two file systems cannot. Throws `HostError`.
   */
  copyFrom(source: NativeRange, offset: number, length: number): number | undefined;
  /** Makes this file share all blocks of `source` (FICLONE). False where the file systems cannot. Throws `HostError`. */
  cloneFrom(source: NativeFile): boolean;
  /** Takes a shared lock of one byte for this descriptor (OFD). Throws `HostError`: EAGAIN when someone holds it alone. */
  lockByte(offset: number): void;
  /** Gives a lock of one byte back. Throws `HostError`. */
  unlockByte(offset: number): void;
  /** Whether somebody else holds a lock on the byte that an exclusive lock of ours would meet. Throws `HostError`. */
  isByteLocked(offset: number): boolean;
  /** Closes the descriptor, which gives up its locks. A second call does nothing. */
  close(): void;
}

/**
 * Opens the file of `host` once more, natively; `undefined` where native calls are not available, or the name leads to
 * another file by now. Throws `HostError`.
 */
export function openNative(_host: HostFile): NativeFile | undefined {
  throw new Error("being written");
}
