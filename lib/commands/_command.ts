/**
 * What a command is: a table of options, a few lines of help and a function.
 *
 * Commands stand below the command line that runs them, so everything that
 * they need from a terminal reaches them through {@linkcode CommandContext}.
 * The one option table of a command drives the scanner, the help text and the
 * types that its `run` sees.
 */

import type { JsonValue } from "../bytes/json.ts";
import type { Progress } from "../ops/progress.ts";

/** One option of a command. */
export interface OptionSpec {
  /** The letter of the short form, without the dash. */
  readonly short?: string;
  /** The long forms, without dashes; the first is the one that help shows. */
  readonly long?: readonly string[];
  /** Present when the option takes a value: how help calls that value. */
  readonly value?: string;
  /**
   * The values that a flag may carry after an equals sign (`--progress=bar`).
   * Any other attached value is refused as for every flag.
   */
  readonly attached?: readonly string[];
  /** What help says, one string a line. An option without it is not listed. */
  readonly help?: readonly string[];
  /**
   * Set for the long options that `qemu-img` lacks: they have to be typed in
   * full, so that they never make one of its abbreviations ambiguous.
   */
  readonly exact?: boolean;
  /** The usage error, at once, for a second option among those of the command that have one. */
  readonly alone?: string;
  /**
   * Turns the value into what the command sees. It runs while the command line
   * is being scanned, so an error that it throws stops the scan at once.
   * `previous` is the result of an earlier use of the same option.
   */
  parse?(text: string, previous: unknown): unknown;
}

/** The options of a command by the name under which it reads them. */
export type OptionTable = Readonly<Record<string, OptionSpec>>;

/** What one option becomes: `true` for a flag, else its value. */
export type OptionValue<S extends OptionSpec> = S extends
  { parse(text: string, previous: never): infer R } ? R | undefined
  : S extends { value: string } ? string | undefined
  : S extends { attached: readonly (infer A)[] } ? boolean | A
  : boolean;

/** The options of a command line: flags are `false`, values `undefined` when not given. */
export type ParsedOptions<T extends OptionTable> = {
  readonly [K in keyof T]: OptionValue<T[K]>;
};

/** One operand as help lists it. */
export interface OperandSpec {
  /** How help calls it. */
  readonly name: string;
  /** What help says, one string a line. */
  readonly help: readonly string[];
}

/** The names on a command line that a command will open, which decide on its permissions. */
export interface Access {
  /** Names (paths, URLs, `json:` names) to be opened for reading. */
  readonly reads?: readonly (string | undefined)[];
  /**
   * Names to be created or written. Without any, the process gives up the
   * permission to write before the command runs.
   */
  readonly writes?: readonly (string | undefined)[];
  /**
   * The command lets others connect: needs the network and, to make a Unix socket, the permission to
   * write until it does ({@linkcode CommandContext.restrict}).
   */
  readonly listens?: "port" | "socket";
}

/** How progress is shown: as `qemu-img -p` does, or in one of the two ways of our own. */
export type ProgressStyle = boolean | "bar" | "json";

/** Where a running command says how far it is. */
export interface ProgressReporter extends Disposable {
  /** Takes a fraction from 0 to 1, as often as convenient, and the bytes there are to do in all. */
  readonly report: Progress;
}

/** Settings of {@linkcode CommandContext.progress}. */
export interface ProgressSettings {
  /** How it is shown; `false` only answers signals. */
  readonly style: ProgressStyle;
  /** Percent by which the value has to move before it is printed again. */
  readonly step: number;
  /** Silences `style` (`-q`). */
  readonly quiet?: boolean;
  /**
   * The line of percentages, if there is one, ends with the progress; otherwise a line ends behind all else
   * that is printed.
   */
  readonly endsLine?: boolean;
}

/** What a running command is given. */
export interface CommandContext<T extends OptionTable = OptionTable> {
  /** The name that stands before messages: `qimg`. */
  readonly program: string;
  /** The options of the command line. */
  readonly options: ParsedOptions<T>;
  /** The names of the options that the command line has, in its order and as often. */
  readonly given: readonly (keyof T)[];
  /** The operands, in order. */
  readonly operands: readonly string[];
  /** Aborted when the user interrupts the program. */
  readonly signal: AbortSignal;
  /** Gives up the permissions that nothing needs any more which is still to be done. */
  restrict(access: Access): Promise<void>;
  /** Writes text to standard output, as it is. */
  out(text: string): void;
  /** Writes what was held back of standard output, for those who wait for it. */
  flush(): void;
  /** Writes text to standard error, as it is. */
  err(text: string): void;
  /** Prints `<program>: <message>` and the lines of the hint on standard error. */
  error(message: string, hint?: string): void;
  /** Prints `<program>: warning: <message>` and the lines of the hint on standard error. */
  warn(message: string, hint?: string): void;
  /**
   * Prints an exception as an uncaught one would be: for commands whose exit
   * code depends on what failed. Rethrows a {@linkcode UsageError} and an abort.
   */
  report(error: unknown): void;
  /** Prints a JSON document on standard output, with a newline after it. */
  json(value: JsonValue): void;
  /** Starts to show progress; disposing of the result ends it. */
  progress(settings: ProgressSettings): Promise<ProgressReporter>;
}

/** A command with the option table `T`. */
export interface Command<T extends OptionTable = OptionTable> {
  /** The word that selects it. */
  readonly name: string;
  /** One sentence without its full stop. */
  readonly description: string;
  /** The usage after the command's name, one string a line. */
  readonly synopsis: readonly string[];
  /** Its options in the order of the help; `-h`/`--help` is added to all. */
  readonly options: T;
  /** Its operands in the order of the help. */
  readonly operands: readonly OperandSpec[];
  /**
   * Set when operands are looked at in their place among the options: a word of
   * a dash and a digit directly behind the first one is an operand too
   * (`resize FILE -1G`), and one too many stops the scan.
   */
  readonly ordered?: {
    /** How many operands there may be. */
    readonly most: number;
    /** The usage error for one more. */
    readonly excess: string;
  };
  /** The files that the command line names. Must not throw; operands may be missing. */
  access(options: ParsedOptions<T>, operands: readonly string[]): Access;
  /** Runs the command and answers with the exit code; may throw anything. */
  run(ctx: CommandContext<T>): Promise<number>;
}

/** Gives a command's `access` and `run` the types of its option table. */
export function defineCommand<const T extends OptionTable>(command: Command<T>): Command {
  // The scanner builds the options from this very table, which the erased type
  // cannot say.
  return command as unknown as Command;
}

/** A failure of a command: `<program>: <message>` and an exit code. */
export class CommandError extends Error {
  /** The class as shown in a stack trace. */
  override name = "CommandError";
  /** The exit code, 1 unless told. */
  readonly exitCode: number;
  /** Lines printed below the message, without the program's name. */
  readonly hint: string | undefined;

  /** Makes an error with the text that the user sees. */
  constructor(
    message: string,
    options: {
      readonly exitCode?: number;
      readonly hint?: string | undefined;
      readonly cause?: unknown;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.exitCode = options.exitCode ?? 1;
    this.hint = options.hint;
  }
}

/** A wrong command line: the message is followed by the advice to try `--help`. */
export class UsageError extends CommandError {
  /** The class as shown in a stack trace. */
  override name = "UsageError";
}

/** Thrown by an option's `parse`: the command line asks for this text, and for nothing else. */
export class HelpText extends Error {
  /** The class as shown in a stack trace. */
  override name = "HelpText";
  /** Complete, for standard output. */
  readonly text: string;

  /** Asks for a text. */
  constructor(text: string) {
    super("help was asked for");
    this.text = text;
  }
}
