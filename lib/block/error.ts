import { type Errno, errnoOf, errnoText } from "../io/errno.ts";

/** What an {@linkcode ImageError} carries beside its message. */
export interface ImageErrorDetails {
  /** The operating system's or the format's error class; `undefined` where the text alone says it. */
  readonly errno?: Errno | undefined;
  /** One or more lines of advice printed below the message, without the program's name. */
  readonly hint?: string | undefined;
  /** The file whose content or absence caused the error, as messages show it. */
  readonly file?: string | undefined;
  /** The on-disk field, option or table that was wrong. */
  readonly field?: string | undefined;
  /** The underlying error. */
  readonly cause?: unknown;
}

/**
 * The one error type that drivers and operations throw for bad images, failed
 * I/O and refused requests. The message is complete and fit for users; it has
 * no program name, no trailing newline and no stack trace.
 */
export class ImageError extends Error {
  /** Always `"ImageError"`. */
  override readonly name = "ImageError";
  /** The error class, or `undefined`. */
  readonly errno: Errno | undefined;
  /** Advice lines below the message, or `undefined`. */
  readonly hint: string | undefined;
  /** The file concerned, or `undefined`. */
  readonly file: string | undefined;
  /** The field, option or table concerned, or `undefined`. */
  readonly field: string | undefined;

  /** Makes an error from a message and its details. */
  constructor(message: string, details: ImageErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.errno = details.errno;
    this.hint = details.hint;
    this.file = details.file;
    this.field = details.field;
  }

  /** The same error with `prefix` in front of the message: `Could not open 'x': …`. */
  prefixed(prefix: string): ImageError {
    return new ImageError(prefix + this.message, {
      errno: this.errno,
      hint: this.hint,
      file: this.file,
      field: this.field,
      cause: this,
    });
  }

  /** An error whose message is the operating system's text for `errno`. */
  static fromErrno(errno: Errno, details: Omit<ImageErrorDetails, "errno"> = {}): ImageError {
    return new ImageError(errnoText(errno), { ...details, errno });
  }

  /** Any thrown value as an `ImageError`: unchanged if it is one, else its errno's text or its message. */
  static from(error: unknown, details: ImageErrorDetails = {}): ImageError {
    if (error instanceof ImageError) return error;
    const errno = errnoOf(error);
    const message = errno !== undefined
      ? errnoText(errno)
      : error instanceof Error
      ? error.message
      : String(error);
    return new ImageError(message, { errno, cause: error, ...details });
  }
}

/**
 * Runs a step of something larger.
 *
 * @throws {ImageError} `<what>: <errno text>` for whatever the step throws.
 */
export async function during<T>(what: string, step: () => Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (error) {
    const { errno, field, file } = ImageError.from(error);
    throw new ImageError(`${what}: ${reasonText(error)}`, { errno, field, file, cause: error });
  }
}

/** The operating system's words for an error's class, for messages of the form `…: <errno text>`. */
export function reasonText(error: unknown): string {
  const known = ImageError.from(error);
  return known.errno === undefined ? known.message : errnoText(known.errno);
}
