import { type Errno, errnoFromNumber, errnoNumber } from "../io/errno.ts";

/** What a peer sent is not NBD, or not what was agreed upon. The message is complete but names no peer. */
export class NbdProtocolError extends Error {
  /** Tells it from other errors where classes do not. */
  override readonly name = "NbdProtocolError";
}

/** The connection ended in the middle of something. */
export class NbdClosedError extends Error {
  /** Tells it from other errors where classes do not. */
  override readonly name = "NbdClosedError";

  /** An error with the usual words. */
  constructor(options?: ErrorOptions) {
    super("Unexpected end-of-file before all data were read", options);
  }
}

/** The errors that have numbers on the wire. */
const ON_THE_WIRE: ReadonlySet<Errno> = new Set<Errno>([
  "EPERM",
  "EIO",
  "ENOMEM",
  "EINVAL",
  "ENOSPC",
  "EOVERFLOW",
  "ENOTSUP",
  "ESHUTDOWN",
]);

/** The number that an error has on the wire; those that have none go as others that say nearly the same. */
export function wireError(errno: Errno): number {
  switch (errno) {
    case "EROFS":
    case "EACCES":
      return errnoNumber("EPERM");
    case "EDQUOT":
    case "EFBIG":
      return errnoNumber("ENOSPC");
    default:
      return errnoNumber(ON_THE_WIRE.has(errno) ? errno : "EINVAL");
  }
}

/** The error of a number on the wire, not 0; `EINVAL` for what the protocol does not know. */
export function errnoFromWire(number: number): Errno {
  const errno = errnoFromNumber(number);
  return errnoNumber(errno) === number && ON_THE_WIRE.has(errno) ? errno : "EINVAL";
}
