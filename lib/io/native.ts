/**
 * What `Deno.FsFile` lacks, by direct calls of the C library on Linux: holes, space allocation,
 * cloning, byte locks.
 *
 * It is there only where the ffi permission is granted already; nothing asks for it, and everything
 * else works without. Once loaded it stays, and outlives a later revocation of the permission, in its
 * own thread: workers that start after the revocation have none.
 *
 * @module
 */
import {
  type ChangingLibc,
  closeLibc,
  lastErrno,
  type Libc,
  openChangingLibc,
  openLibc,
} from "./_libc.ts";
import { type Errno, errnoFromNumber, HostError } from "./errno.ts";
import type { HostFile } from "./_host_types.ts";

// Linux's interface, the same numbers on x86-64 and ARM.
const O_RDONLY = 0o0;
const O_RDWR = 0o2;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const FALLOC_FL_ZERO_RANGE = 16;
const AT_EMPTY_PATH = 0x1000;
const STATX_INO = 0x100;
const FICLONE = 0x40049409n;
const FS_IOC_GETFLAGS = 0x80086601n;
const FS_IOC_SETFLAGS = 0x40086602n;
const FS_NOCOW_FL = 0x0080_0000n;
const FS_IOC_FSGETXATTR = 0x801c581fn;
const FS_IOC_FSSETXATTR = 0x401c5820n;
const FS_XFLAG_EXTSIZE = 0x800;
/** Bytes of `struct fsxattr`: flags, then the hint, both 32 bits. */
const XATTR_LENGTH = 28;
const BLKDISCARD = 0x1277n;
const BLKZEROOUT = 0x127fn;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;

/** What is answered where a file system or device cannot do what it is asked for. */
const UNSUPPORTED: ReadonlySet<Errno> = new Set(["ENOTSUP", "ENOSYS", "ENOTTY", "ENODEV"]);

/** The same, where two files must be of one kind and place. */
const UNRELATED: ReadonlySet<Errno> = new Set([...UNSUPPORTED, "EXDEV", "EINVAL"]);

const NONE: ReadonlySet<Errno> = new Set();

/**
 * Loads the C library if it can be loaded, and says whether it is there: all of it, or for "reading"
 * only what holes and locks need, in half the time. A program that gives up the ffi permission calls
 * this first; what is not loaded then answers later that it cannot. Later calls cost nothing.
 */
export function loadNative(what: "reading" | "all" = "all"): boolean {
  return openLibc() !== undefined && (what === "reading" || openChangingLibc() !== undefined);
}

/**
 * Unloads the C library: for tests, whose resource sanitizer counts it when a test loads it first. Every
 * {@linkcode NativeFile} must be closed before. The next use loads it again.
 */
export function unloadNative(): void {
  closeLibc();
}

/**
 * Opens the file of `host` once more, natively, for writing if `host` is. `undefined` where native calls
 * are not available, or the name leads elsewhere by now: the file that was opened with Deno's checks
 * stays the only one that is touched. Throws `HostError`.
 */
export function openNative(host: HostFile): NativeFile | undefined {
  const libc = openLibc();
  if (libc === undefined || host.path.includes("\0")) return undefined;
  const { device, inode } = host.stat();
  const name = new TextEncoder().encode(`${host.path}\0`);
  // O_NONBLOCK: should the name lead to a FIFO by now, opening must not wait.
  const flags = (host.writable ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_CLOEXEC;
  for (;;) {
    const descriptor = libc.open(name, flags, 0);
    if (descriptor >= 0) {
      const file = new NativeFile(libc, descriptor, host.path);
      if (file.isSame(device, inode)) return file;
      file.close();
      return undefined;
    }
    const errno = lastErrno(libc);
    if (errno === "ENOENT" || errno === "ENOTDIR") return undefined;
    if (errno !== "EINTR") throw new HostError(errno, "open", host.path);
  }
}

/** A run of a file with one state. */
export interface DataRun {
  /** Whether the run holds data; if not it is a hole and reads as zeros. */
  data: boolean;
  /** Length in bytes. */
  length: number;
}

/** A descriptor of its own on a file that is open already; {@linkcode openNative} makes them. */
export class NativeFile implements Disposable {
  /** The name that it was opened by. */
  readonly path: string;
  readonly #libc: Libc;
  /** -1 once it is closed: a number given back may by now be another file's. */
  #descriptor: number;

  /** Takes over an open descriptor. */
  constructor(libc: Libc, descriptor: number, path: string) {
    this.#libc = libc;
    this.#descriptor = descriptor;
    this.path = path;
  }

  /** Whether this is the file `inode` of the file system `device`. */
  isSame(device: number, inode: number | undefined): boolean {
    const facts = new DataView(new ArrayBuffer(256));
    const path = new Uint8Array(1);
    const result = this.#libc.statx(this.#descriptor, path, AT_EMPTY_PATH, STATX_INO, facts);
    if (result !== 0) return false;
    const major = facts.getUint32(136, true);
    const minor = facts.getUint32(140, true);
    return Number(facts.getBigUint64(32, true)) === inode && deviceNumber(major, minor) === device;
  }

  /**
   * The first run of the `length` bytes at `offset` that is all data or all hole, never longer than
   * `length`; past the end of the file is hole. Where the file system does not tell, all is data. Raw
   * reference, section 5.
   */
  dataRun(offset: number, length: number): DataRun {
    const start = this.#seek(offset, SEEK_DATA);
    if (start === "ENXIO") return { data: false, length };
    if (typeof start === "string" || start < offset) return { data: true, length };
    if (start > offset) return { data: false, length: Math.min(start - offset, length) };
    const end = this.#seek(offset, SEEK_HOLE);
    // Not after the offset: the file is changing underneath, and any answer will do that moves on.
    if (typeof end === "string" || end <= offset) return { data: true, length };
    return { data: true, length: Math.min(end - offset, length) };
  }

  /**
   * Makes a hole, the file's length unchanged. False where the file system cannot. Throws `HostError`.
   */
  punchHole(offset: number, length: number): boolean {
    return this.#fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
  }

  /**
   * Makes the range read as zeros without writing them, its space reserved; grows the file. False
   * where the file system cannot. Throws `HostError`.
   */
  zeroRange(offset: number, length: number): boolean {
    return this.#fallocate(FALLOC_FL_ZERO_RANGE, offset, length);
  }

  /**
   * Reserves space for the range and leaves alone what is there; grows the file (fallocate mode 0).
   * False where the file system cannot. Throws `HostError`.
   */
  allocate(offset: number, length: number): boolean {
    return this.#fallocate(0, offset, length);
  }

  /**
   * As {@linkcode allocate}, but where the file system cannot, the C library writes to every block
   * (posix_fallocate). Throws `HostError`.
   */
  preallocate(offset: number, length: number): void {
    const libc = openChangingLibc();
    if (libc === undefined) throw new HostError("ENOTSUP", "allocate", this.path);
    const [start, size] = [BigInt(offset), BigInt(length)];
    let number: number;
    do {
      number = libc.posix_fallocate(this.#descriptor, start, size);
    } while (number !== 0 && errnoFromNumber(number) === "EINTR");
    if (number !== 0) throw new HostError(errnoFromNumber(number), "allocate", this.path);
  }

  /**
   * Copies up to `length` bytes within the kernel and returns how many it copied: 0 at the source's
   * end, `undefined` where the two files' systems cannot. Throws `HostError`.
   */
  copyFrom(
    source: NativeFile,
    sourceOffset: number,
    offset: number,
    length: number,
  ): number | undefined {
    const from = new BigInt64Array([BigInt(sourceOffset)]);
    const to = new BigInt64Array([BigInt(offset)]);
    const size = BigInt(length);
    const copied = this.#change(
      "copy",
      UNRELATED,
      (libc, fd) => Number(libc.copy_file_range(source.#descriptor, from, fd, to, size, 0)),
    );
    return copied < 0 ? undefined : copied;
  }

  /**
   * Makes this file share all blocks of `source` (FICLONE). False where the file systems cannot. Throws
   * `HostError`.
   */
  cloneFrom(source: NativeFile): boolean {
    const from = BigInt(source.#descriptor);
    return this.#change("clone", UNRELATED, (libc, fd) => libc.ioctl_number(fd, FICLONE, from)) >=
      0;
  }

  /**
   * Makes a range of a block device read as zeros (BLKZEROOUT). False where that cannot be, as on
   * everything but a block device. Throws `HostError`.
   */
  zeroDevice(offset: number, length: number): boolean {
    return this.#deviceRange("zero", BLKZEROOUT, offset, length);
  }

  /**
   * Tells a block device that a range is of no interest any more (BLKDISCARD). False where that cannot
   * be, as on everything but a block device. Throws `HostError`.
   */
  discardDevice(offset: number, length: number): boolean {
    return this.#deviceRange("discard", BLKDISCARD, offset, length);
  }

  /**
   * Asks for blocks that are overwritten in place (FS_NOCOW_FL of btrfs); for a file that is still
   * empty. False where the file system does not know it.
   */
  setNoCow(): boolean {
    const libc = openChangingLibc();
    const flags = new BigInt64Array(1);
    if (libc?.ioctl_buffer(this.#descriptor, FS_IOC_GETFLAGS, flags) !== 0) return false;
    flags[0]! |= FS_NOCOW_FL;
    return libc.ioctl_buffer(this.#descriptor, FS_IOC_SETFLAGS, flags) === 0;
  }

  /**
   * The unit in bytes in which the file system is asked to allocate (XFS's extent size hint): 0 for
   * none, `undefined` where it does not know such a thing.
   */
  extentSizeHint(): number | undefined {
    const flags = new DataView(new ArrayBuffer(XATTR_LENGTH));
    const libc = openChangingLibc();
    const result = libc?.ioctl_buffer(this.#descriptor, FS_IOC_FSGETXATTR, flags);
    return result === 0 ? flags.getUint32(4, true) : undefined;
  }

  /**
   * Sets the unit in bytes in which the file system is asked to allocate, up to 2^32 - 1; for a file
   * that is still empty. Throws `HostError`, also where the file system knows no hints or has another
   * range.
   */
  setExtentSizeHint(length: number): void {
    const flags = new DataView(new ArrayBuffer(XATTR_LENGTH));
    const operation = "set the extent size of";
    this.#change(
      operation,
      NONE,
      (libc, fd) => libc.ioctl_buffer(fd, FS_IOC_FSGETXATTR, flags),
    );
    flags.setUint32(0, flags.getUint32(0, true) | FS_XFLAG_EXTSIZE, true);
    flags.setUint32(4, length, true);
    this.#change(
      operation,
      NONE,
      (libc, fd) => libc.ioctl_buffer(fd, FS_IOC_FSSETXATTR, flags),
    );
  }

  /**
   * Takes a shared lock of one byte for this descriptor (OFD). Throws `HostError`: EAGAIN when somebody
   * has it for himself alone.
   */
  lockByte(offset: number): void {
    this.#lock(F_OFD_SETLK, F_RDLCK, offset);
  }

  /** Gives a lock of one byte back, if it is held; none is once the file is closed. Throws `HostError`. */
  unlockByte(offset: number): void {
    if (this.#descriptor < 0) return;
    this.#lock(F_OFD_SETLK, F_UNLCK, offset);
  }

  /**
   * Whether somebody else, another descriptor of this process included, holds a lock on the byte.
   * Throws `HostError`.
   */
  isByteLocked(offset: number): boolean {
    return this.#lock(F_OFD_GETLK, F_WRLCK, offset).getInt16(0, true) !== F_UNLCK;
  }

  /** Closes the descriptor, which gives up its locks. A second call does nothing. */
  close(): void {
    if (this.#descriptor < 0) return;
    this.#libc.close(this.#descriptor);
    this.#descriptor = -1;
  }

  /** Closes it. */
  [Symbol.dispose](): void {
    this.close();
  }

  #seek(offset: number, whence: number): number | Errno {
    const result = Number(this.#libc.lseek(this.#descriptor, BigInt(offset), whence));
    return result < 0 ? lastErrno(this.#libc) : result;
  }

  #fallocate(mode: number, offset: number, length: number): boolean {
    const [start, size] = [BigInt(offset), BigInt(length)];
    return this.#change(
      "allocate",
      UNSUPPORTED,
      (libc, fd) => libc.fallocate(fd, mode, start, size),
    ) >= 0;
  }

  #deviceRange(operation: string, request: bigint, offset: number, length: number): boolean {
    const range = new BigUint64Array([BigInt(offset), BigInt(length)]);
    return this.#change(
      operation,
      UNSUPPORTED,
      (libc, fd) => libc.ioctl_buffer(fd, request, range),
    ) >= 0;
  }

  /** `struct flock` of 64-bit Linux: type, whence, start at 8, length at 16, process (must be 0) at 24. */
  #lock(command: number, type: number, offset: number): DataView {
    const lock = new DataView(new ArrayBuffer(32));
    lock.setInt16(0, type, true);
    lock.setBigInt64(8, BigInt(offset), true);
    lock.setBigInt64(16, 1n, true);
    this.#call(`lock byte ${offset} of`, NONE, (libc, fd) => libc.fcntl(fd, command, lock));
    return lock;
  }

  /** As `#call`, with the functions that change files; where they are not loaded, nothing can. */
  #change(
    operation: string,
    expected: ReadonlySet<Errno>,
    body: (libc: ChangingLibc, descriptor: number) => number,
  ): number {
    const libc = openChangingLibc();
    return libc === undefined ? -1 : this.#call(operation, expected, (_, fd) => body(libc, fd));
  }

  /** Calls until nothing interrupts; a negative result stands for one of the `expected` errors. */
  #call(
    operation: string,
    expected: ReadonlySet<Errno>,
    body: (libc: Libc, descriptor: number) => number,
  ): number {
    for (;;) {
      const result = body(this.#libc, this.#descriptor);
      if (result >= 0) return result;
      const errno = lastErrno(this.#libc);
      if (expected.has(errno)) return result;
      if (errno !== "EINTR") throw new HostError(errno, operation, this.path);
    }
  }
}

/** One number of the two of a device, as `stat` gives it (gnu_dev_makedev). */
function deviceNumber(major: number, minor: number): number {
  return (major >>> 12) * 2 ** 44 + (minor >>> 8) * 2 ** 20 + (major & 0xfff) * 2 ** 8 +
    (minor & 0xff);
}
