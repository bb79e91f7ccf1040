/**
 * The operating system's errors, as names, numbers and words.
 *
 * @module
 */

/** The name of an operating-system error. `EOPNOTSUPP` is spelled `ENOTSUP`, `EWOULDBLOCK` `EAGAIN`. */
export type Errno =
  | "EPERM"
  | "ENOENT"
  | "ESRCH"
  | "EINTR"
  | "EIO"
  | "ENXIO"
  | "E2BIG"
  | "EBADF"
  | "EAGAIN"
  | "ENOMEM"
  | "EACCES"
  | "EFAULT"
  | "EBUSY"
  | "EEXIST"
  | "EXDEV"
  | "ENODEV"
  | "ENOTDIR"
  | "EISDIR"
  | "EINVAL"
  | "ENFILE"
  | "EMFILE"
  | "ENOTTY"
  | "ETXTBSY"
  | "EFBIG"
  | "ENOSPC"
  | "ESPIPE"
  | "EROFS"
  | "EMLINK"
  | "EPIPE"
  | "EDOM"
  | "ERANGE"
  | "EDEADLK"
  | "ENAMETOOLONG"
  | "ENOLCK"
  | "ENOSYS"
  | "ENOTEMPTY"
  | "ELOOP"
  | "ENODATA"
  | "EPROTO"
  | "EBADMSG"
  | "EOVERFLOW"
  | "EILSEQ"
  | "EMSGSIZE"
  | "ENOTSUP"
  | "EADDRINUSE"
  | "EADDRNOTAVAIL"
  | "ENETUNREACH"
  | "ECONNABORTED"
  | "ECONNRESET"
  | "ENOBUFS"
  | "ENOTCONN"
  | "ESHUTDOWN"
  | "ETIMEDOUT"
  | "ECONNREFUSED"
  | "EHOSTUNREACH"
  | "EALREADY"
  | "EINPROGRESS"
  | "ESTALE"
  | "EDQUOT"
  | "ENOMEDIUM"
  | "EMEDIUMTYPE"
  | "ECANCELED";

/** Linux's numbers (the same on x86-64 and ARM) and the C library's words for them. */
const TABLE: Readonly<Record<Errno, readonly [number: number, text: string]>> = {
  EPERM: [1, "Operation not permitted"],
  ENOENT: [2, "No such file or directory"],
  ESRCH: [3, "No such process"],
  EINTR: [4, "Interrupted system call"],
  EIO: [5, "Input/output error"],
  ENXIO: [6, "No such device or address"],
  E2BIG: [7, "Argument list too long"],
  EBADF: [9, "Bad file descriptor"],
  EAGAIN: [11, "Resource temporarily unavailable"],
  ENOMEM: [12, "Cannot allocate memory"],
  EACCES: [13, "Permission denied"],
  EFAULT: [14, "Bad address"],
  EBUSY: [16, "Device or resource busy"],
  EEXIST: [17, "File exists"],
  EXDEV: [18, "Invalid cross-device link"],
  ENODEV: [19, "No such device"],
  ENOTDIR: [20, "Not a directory"],
  EISDIR: [21, "Is a directory"],
  EINVAL: [22, "Invalid argument"],
  ENFILE: [23, "Too many open files in system"],
  EMFILE: [24, "Too many open files"],
  ENOTTY: [25, "Inappropriate ioctl for device"],
  ETXTBSY: [26, "Text file busy"],
  EFBIG: [27, "File too large"],
  ENOSPC: [28, "No space left on device"],
  ESPIPE: [29, "Illegal seek"],
  EROFS: [30, "Read-only file system"],
  EMLINK: [31, "Too many links"],
  EPIPE: [32, "Broken pipe"],
  EDOM: [33, "Numerical argument out of domain"],
  ERANGE: [34, "Numerical result out of range"],
  EDEADLK: [35, "Resource deadlock avoided"],
  ENAMETOOLONG: [36, "File name too long"],
  ENOLCK: [37, "No locks available"],
  ENOSYS: [38, "Function not implemented"],
  ENOTEMPTY: [39, "Directory not empty"],
  ELOOP: [40, "Too many levels of symbolic links"],
  ENODATA: [61, "No data available"],
  EPROTO: [71, "Protocol error"],
  EBADMSG: [74, "Bad message"],
  EOVERFLOW: [75, "Value too large for defined data type"],
  EILSEQ: [84, "Invalid or incomplete multibyte or wide character"],
  EMSGSIZE: [90, "Message too long"],
  ENOTSUP: [95, "Operation not supported"],
  EADDRINUSE: [98, "Address already in use"],
  EADDRNOTAVAIL: [99, "Cannot assign requested address"],
  ENETUNREACH: [101, "Network is unreachable"],
  ECONNABORTED: [103, "Software caused connection abort"],
  ECONNRESET: [104, "Connection reset by peer"],
  ENOBUFS: [105, "No buffer space available"],
  ENOTCONN: [107, "Transport endpoint is not connected"],
  ESHUTDOWN: [108, "Cannot send after transport endpoint shutdown"],
  ETIMEDOUT: [110, "Connection timed out"],
  ECONNREFUSED: [111, "Connection refused"],
  EHOSTUNREACH: [113, "No route to host"],
  EALREADY: [114, "Operation already in progress"],
  EINPROGRESS: [115, "Operation now in progress"],
  ESTALE: [116, "Stale file handle"],
  EDQUOT: [122, "Disk quota exceeded"],
  ENOMEDIUM: [123, "No medium found"],
  EMEDIUMTYPE: [124, "Wrong medium type"],
  ECANCELED: [125, "Operation canceled"],
};

const BY_NUMBER = new Map<number, Errno>(
  (Object.keys(TABLE) as Errno[]).map((errno) => [TABLE[errno][0], errno]),
);

/** Deno's error classes, for the errors that carry no code. Those without an entry say nothing about the cause. */
const BY_CLASS: Readonly<Record<string, Errno>> = {
  NotFound: "ENOENT",
  PermissionDenied: "EACCES",
  NotCapable: "EACCES",
  AlreadyExists: "EEXIST",
  Interrupted: "EINTR",
  IsADirectory: "EISDIR",
  NotADirectory: "ENOTDIR",
  FilesystemLoop: "ELOOP",
  WouldBlock: "EAGAIN",
  Busy: "EBUSY",
  BadResource: "EBADF",
  NotSupported: "ENOTSUP",
  InvalidData: "EINVAL",
  BrokenPipe: "EPIPE",
  TimedOut: "ETIMEDOUT",
  AddrInUse: "EADDRINUSE",
  AddrNotAvailable: "EADDRNOTAVAIL",
  ConnectionRefused: "ECONNREFUSED",
  ConnectionReset: "ECONNRESET",
  ConnectionAborted: "ECONNABORTED",
  NotConnected: "ENOTCONN",
  NetworkUnreachable: "ENETUNREACH",
};

/** The C library's words for an error: "No such file or directory". */
export function errnoText(errno: Errno): string {
  return TABLE[errno][1];
}

/** The number that Linux gives to an error. */
export function errnoNumber(errno: Errno): number {
  return TABLE[errno][0];
}

/** The error that has this number on Linux; `EIO` for a number without a name here. */
export function errnoFromNumber(number: number): Errno {
  return BY_NUMBER.get(number) ?? "EIO";
}

function isErrno(name: string): name is Errno {
  return Object.hasOwn(TABLE, name);
}

/**
 * The operating-system error that a caught value stands for: by its own `errno`, by the `code` that Deno and `node:fs`
 * put on it, by the number in its message, or by its class. `undefined` when it stands for none, such as a `TypeError`
 * from a mistake in the program.
 */
export function errnoOf(error: unknown): Errno | undefined {
  if (error instanceof HostError) return error.errno;
  if (!(error instanceof Error)) return undefined;
  const { code } = error as { code?: unknown };
  if (typeof code === "string") {
    if (code === "EOPNOTSUPP") return "ENOTSUP";
    if (code === "EWOULDBLOCK") return "EAGAIN";
    if (isErrno(code)) return code;
  }
  if (Deno.build.os === "linux") {
    const number = /\(os error (\d+)\)/.exec(error.message)?.[1];
    if (number !== undefined) return errnoFromNumber(Number(number));
  }
  return Object.hasOwn(BY_CLASS, error.name) ? BY_CLASS[error.name] : undefined;
}

/** What failed on the host: everything in `lib/io` throws this and nothing else, mistakes of the program apart. */
export class HostError extends Error {
  /** Tells it from other errors where classes do not. */
  override readonly name = "HostError";
  /** The operating system's error. */
  readonly errno: Errno;
  /** What was being done: "open", "read", "write" … */
  readonly operation: string;
  /** The file, as it was named. */
  readonly path: string;
  /** For a Deno permission that is missing: what was denied and the flag that grants it, in Deno's words. */
  readonly denied: string | undefined;

  /**
   * An error whose message is the C library's words for `errno`, or `denied`. `cause` keeps what was caught.
   */
  constructor(
    errno: Errno,
    operation: string,
    path: string,
    options?: ErrorOptions & { denied?: string },
  ) {
    super(options?.denied ?? errnoText(errno), options);
    this.errno = errno;
    this.operation = operation;
    this.path = path;
    this.denied = options?.denied;
  }

  /** What to throw for a caught value: a `HostError`, or the value itself where it is no operating-system error. */
  static from(error: unknown, operation: string, path: string): unknown {
    if (error instanceof HostError) return error;
    const errno = errnoOf(error);
    if (errno === undefined) return error;
    return new HostError(errno, operation, path, {
      cause: error,
      ...(error instanceof Deno.errors.NotCapable ? { denied: error.message } : {}),
    });
  }
}
