/**
 * Where text goes: standard output and standard error, written synchronously.
 */

/** A stream of text. */
export interface Output {
  /** Whether it is a terminal. */
  readonly isTerminal: boolean;
  /** Columns of the terminal; 80 where there is none. */
  readonly columns: number;
  /** The first failure to write; what is written after it is dropped. */
  readonly failure: unknown;
  /** Takes text, to be written now or later. */
  write(text: string): void;
  /** Takes text that is to be the last of all. */
  writeLast(text: string): void;
  /** Writes what was held back. */
  flush(): void;
}

/** What bytes are written to: a standard stream of the process, or a test's collector. */
export interface ByteWriter {
  /** Writes some bytes and says how many. */
  writeSync(bytes: Uint8Array): number;
  /** Whether it is a terminal; absent, it is not. */
  isTerminal?(): boolean;
}

/** Text that may be held back, in characters. */
const HELD = 1 << 15;

const DEFAULT_COLUMNS = 80;

const encoder = new TextEncoder();

/**
 * Text written to a stream of bytes. It is gathered into large writes except on a terminal.
 *
 * A failure (a closed pipe, a full disk) is kept and not thrown: whoever copies
 * an image must not stop half-way because nobody reads the messages any more.
 * It decides on the exit code at the end.
 */
export class StreamOutput implements Output {
  readonly #stream: ByteWriter;
  readonly #gather: boolean;
  #held = "";
  #last = "";
  #failure: unknown;
  #isTerminal: boolean | undefined;

  /** Writes to `stream`; with `gather` not before there is much, or `flush`. */
  constructor(stream: ByteWriter, options: { gather: boolean }) {
    this.#stream = stream;
    this.#gather = options.gather;
  }

  get isTerminal(): boolean {
    return this.#isTerminal ??= this.#stream.isTerminal?.() ?? false;
  }

  get columns(): number {
    try {
      // Some terminals do not know their size and say 0.
      return Deno.consoleSize().columns || DEFAULT_COLUMNS;
    } catch {
      return DEFAULT_COLUMNS;
    }
  }

  get failure(): unknown {
    return this.#failure;
  }

  write(text: string): void {
    this.#held += text;
    if (!this.#gather || this.#held.length >= HELD || this.isTerminal) this.flush();
  }

  writeLast(text: string): void {
    this.#last += text;
  }

  /** Writes everything, the last of all included. */
  end(): void {
    this.write(this.#last);
    this.#last = "";
    this.flush();
  }

  flush(): void {
    let bytes = encoder.encode(this.#held);
    this.#held = "";
    try {
      while (bytes.length > 0 && this.#failure === undefined) {
        bytes = bytes.subarray(this.#stream.writeSync(bytes));
      }
    } catch (error) {
      this.#failure = error;
    }
  }
}
