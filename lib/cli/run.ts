/**
 * The command line: from words to an exit code.
 */

import { reasonText } from "../block/error.ts";
import { formatJson } from "../bytes/json.ts";
import {
  type Access,
  type Command,
  HelpText,
  type OptionSpec,
  type OptionTable,
  type ParsedOptions,
  UsageError,
} from "../commands/_command.ts";
import { type CommandEntry, COMMANDS } from "../commands/mod.ts";
import { describeFailure } from "./_failure.ts";
import { scan, ScanError } from "./getopt.ts";
import { type ByteWriter, type Output, StreamOutput } from "./output.ts";
import { Interruption, NO_SIGNALS, type Signals, watchSignals } from "./signals.ts";
import { HELP_OPTION, STANDARD_OPTIONS } from "./standard_options.ts";

/** What the command line needs from the process around it. */
export interface CliIo {
  /** The program's name, as messages show it. */
  readonly program: string;
  /** The program as it was called, as usage advice shows it; default `program`. */
  readonly argv0?: string;
  /** Standard output. */
  readonly stdout: ByteWriter;
  /** Standard error. */
  readonly stderr: ByteWriter;
  /** Starts to listen to signals; without it there are none. */
  watchSignals?(): Signals;
  /** Gives up permissions before a command runs and answers with them; without it none are. */
  restrict?(access: Access): Promise<readonly unknown[]>;
}

/** The `CliIo` of this process, which it also keeps from ever printing a stack trace. */
export function processIo(): CliIo {
  const program = programName();
  addEventListener("error", (event) => endProcess(program, event, event.error));
  addEventListener("unhandledrejection", (event) => endProcess(program, event, event.reason));
  return {
    // Deno does not tell how the program was called, so there is no `argv0`.
    program,
    stdout: Deno.stdout,
    stderr: Deno.stderr,
    watchSignals,
    restrict: async (access) => (await import("./permissions.ts")).dropPermissions(access),
  };
}

/** Ends the process for an error that nobody caught, in the middle of whatever waits for its cause. */
function endProcess(program: string, event: Event, error: unknown): never {
  event.preventDefault();
  const { message } = describeFailure(error);
  new StreamOutput(Deno.stderr, { gather: false }).write(`${program}: ${message}\n`);
  Deno.exit(1);
}

/** The base name of a compiled program, so that a copy called `qemu-img` calls itself so. */
function programName(): string {
  if (!Deno.build.standalone) return "qimg";
  const name = Deno.execPath().split(/[/\\]/).at(-1) ?? "";
  return name.replace(/\.exe$/i, "") || "qimg";
}

/**
 * Runs one command line and answers with the exit code. Never throws.
 * `commands` are those that there are, by default all of this program's.
 */
export async function runCli(
  args: readonly string[],
  io: CliIo,
  commands: readonly CommandEntry[] = COMMANDS,
): Promise<number> {
  const terminal = new Terminal(io);
  let code: number;
  try {
    code = await runTopLevel(args, io, terminal, commands);
  } catch (error) {
    code = terminal.failure(error);
  }
  terminal.stdout.end();
  const { failure } = terminal.stdout;
  if (failure === undefined) return code;
  // A reader that went away knows that it did; anything else is worth a word.
  if (!(failure instanceof Deno.errors.BrokenPipe)) {
    terminal.error(`Could not write to standard output: ${reasonText(failure)}`);
  }
  return code === 0 ? 1 : code;
}

/** Both output streams, and the lines that have the program's name in front. */
class Terminal {
  readonly program: string;
  readonly stdout: StreamOutput;
  readonly stderr: Output;
  /** What stands before messages of the scanner and in the advice to try `--help`. */
  subject: string;
  /** Permissions were given up, so that advice to grant them would be no help. */
  restricted = false;
  /** The network was. */
  isOffline = false;

  constructor(io: CliIo) {
    this.program = io.program;
    this.subject = io.argv0 ?? io.program;
    this.stdout = new StreamOutput(io.stdout, { gather: true });
    this.stderr = new StreamOutput(io.stderr, { gather: false });
  }

  text(text: string): void {
    // Keeps the order of things where both streams go to one place.
    this.stdout.flush();
    this.stderr.write(text);
  }

  line(line: string, hint?: string): void {
    this.text(hint === undefined ? `${line}\n` : `${line}\n${hint.replace(/\n$/, "")}\n`);
  }

  error(message: string, hint?: string): void {
    this.line(`${this.program}: ${message}`, hint);
  }

  /** Prints what ended the program and answers with its exit code. */
  failure(error: unknown): number {
    if (error instanceof Interruption) return error.exitCode;
    if (error instanceof HelpText) {
      this.stdout.write(error.text);
      return 0;
    }
    if (error instanceof ScanError) {
      this.line(`${this.subject}: ${error.message}`, this.#tryHelp());
      return 1;
    }
    const { message, hint, exitCode } = describeFailure(error, this);
    this.error(message, error instanceof UsageError ? this.#tryHelp() : hint);
    return exitCode;
  }

  #tryHelp(): string {
    return `Try '${this.subject} --help' for more info`;
  }
}

async function runTopLevel(
  args: readonly string[],
  io: CliIo,
  terminal: Terminal,
  commands: readonly CommandEntry[],
): Promise<number> {
  const specs: readonly OptionSpec[] = Object.values(STANDARD_OPTIONS);
  const words: string[] = [];
  let traceFile: string | undefined;
  for (const item of scan(args, specs, { stopAtOperand: true })) {
    if (item.kind === "operand") {
      words.push(item.text);
    } else if (item.spec === STANDARD_OPTIONS.help) {
      const { FILTERS, FORMATS, PROTOCOLS } = await import("../../drivers/mod.ts");
      const { generalHelp } = await import("./help.ts");
      const drivers = [...FORMATS, ...FILTERS, ...PROTOCOLS].map(({ name }) => name);
      terminal.stdout.write(generalHelp(io.program, commands, drivers));
      return 0;
    } else if (item.spec === STANDARD_OPTIONS.version) {
      const { versionLine } = await import("./version.ts");
      terminal.stdout.write(versionLine(io.program));
      return 0;
    } else {
      const { readTraceSpec } = await import("./_trace.ts");
      const trace = readTraceSpec(item.value ?? "", io.program, (line) => terminal.line(line));
      if (trace.exitCode !== undefined) return trace.exitCode;
      traceFile = trace.file ?? traceFile;
    }
  }
  const [name, ...rest] = words;
  if (name === undefined) throw new UsageError("Not enough arguments");
  if (traceFile !== undefined) {
    const { makeTraceFile } = await import("./_trace.ts");
    makeTraceFile(traceFile);
  }
  const entry = commands.find((entry) => entry.name === name);
  if (entry === undefined) throw new UsageError(`Command not found: ${name}`);
  terminal.subject += ` ${name}`;
  return await runCommand(await entry.load(), rest, io, terminal);
}

async function runCommand(
  command: Command,
  args: readonly string[],
  io: CliIo,
  terminal: Terminal,
): Promise<number> {
  const commandLine = parseCommandLine(command, args);
  if (commandLine === "help") {
    const { commandHelp } = await import("./help.ts");
    terminal.stdout.write(commandHelp(io.program, command));
    return 0;
  }
  const { options, given, operands } = commandLine;
  const restrict = async (access: Access) => {
    if (io.restrict === undefined) return;
    const dropped = await io.restrict(access);
    terminal.restricted ||= dropped.length > 0;
    terminal.isOffline ||= dropped.includes("net");
  };
  await restrict(command.access(options, operands));
  using signals = io.watchSignals?.() ?? NO_SIGNALS;
  return await command.run({
    program: io.program,
    options,
    given,
    operands,
    signal: signals.signal,
    restrict,
    out: (text) => terminal.stdout.write(text),
    flush: () => terminal.stdout.flush(),
    err: (text) => terminal.text(text),
    error: (message, hint) => terminal.error(message, hint),
    warn: (message, hint) => terminal.error(`warning: ${message}`, hint),
    report(error) {
      if (error instanceof UsageError || error instanceof Interruption) throw error;
      terminal.failure(error);
    },
    json: (value) => terminal.stdout.write(`${formatJson(value, "pretty")}\n`),
    progress: async (settings) => {
      const { startProgress } = await import("./progress.ts");
      return startProgress(settings, {
        stdout: terminal.stdout,
        stderr: terminal.stderr,
        takeStatusRequest: () => signals.takeStatusRequest(),
        now: () => performance.now(),
      });
    },
  });
}

/** What stands behind the name of a command. */
interface CommandLine {
  readonly options: ParsedOptions<OptionTable>;
  /** The names of the options as they stand there. */
  readonly given: readonly string[];
  readonly operands: readonly string[];
}

/** The options and operands of a command, or that its help was asked for. */
function parseCommandLine(command: Command, args: readonly string[]): CommandLine | "help" {
  const names = new Map<OptionSpec, string>();
  const options: Record<string, unknown> = {};
  for (const [name, spec] of Object.entries(command.options)) {
    names.set(spec, name);
    options[name] = spec.value === undefined ? false : undefined;
  }
  const specs: readonly OptionSpec[] = [HELP_OPTION, ...names.keys()];
  const given: string[] = [];
  const operands: string[] = [];
  const { ordered } = command;
  for (const item of scan(args, specs, { negativeOperand: ordered !== undefined })) {
    if (item.kind === "operand") {
      if (ordered !== undefined && !item.literal && operands.length >= ordered.most) {
        throw new UsageError(ordered.excess);
      }
      operands.push(item.text);
      continue;
    }
    const { spec, value } = item;
    const name = names.get(spec);
    if (name === undefined) return "help";
    if (spec.alone !== undefined && given.some((other) => command.options[other]?.alone)) {
      throw new UsageError(spec.alone);
    }
    given.push(name);
    if (value === undefined) options[name] = true;
    else options[name] = spec.parse === undefined ? value : spec.parse(value, options[name]);
  }
  return { options: options as ParsedOptions<OptionTable>, given, operands };
}
