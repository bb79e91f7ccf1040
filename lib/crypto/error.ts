/** Key material, a header or a choice of algorithms that cannot be used. Callers name the file. */
export class CryptoError extends Error {
  /** Tells it from other errors where classes do not. */
  override readonly name = "CryptoError";
  /** What is at fault: a field of a header, or an option. */
  readonly field: string;

  /** What was being done, in a line of its own. */
  readonly hint: string | undefined;

  /** With the message for the user; it never holds secret bytes. */
  constructor(message: string, field: string, hint?: string) {
    super(message);
    this.field = field;
    this.hint = hint;
  }
}
