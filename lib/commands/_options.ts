/**
 * Options that several commands share, and readers of option values.
 */

import { CACHE_MODES, type CacheMode } from "../block/mode.ts";
import { optionPieces } from "../block/options.ts";
import { type ParsedNumber, parseInteger, parseSize } from "../bytes/size.ts";
import type { Environment } from "../graph/environment.ts";
import { type DefinedObject, objectStore, secretStore } from "./_objects.ts";
import { type CommandContext, CommandError, type OptionSpec, UsageError } from "./_command.ts";

export { OBJECT, objectOption } from "./_objects.ts";

/** `-q`. */
export const QUIET = {
  short: "q",
  long: ["quiet"],
  help: ["print nothing but errors"],
} as const satisfies OptionSpec;

/** `-U`. */
export const FORCE_SHARE = {
  short: "U",
  long: ["force-share"],
  help: ["open the image even if others write to it meanwhile"],
} as const satisfies OptionSpec;

/** `-f` for the one image of a command. */
export const FORMAT = {
  short: "f",
  long: ["format"],
  value: "FMT",
  help: ["format of FILENAME; without it the content decides"],
} as const satisfies OptionSpec;

/** `--untrusted`: ours, on every command that opens images. */
export const UNTRUSTED = {
  long: ["untrusted"],
  exact: true,
  help: [
    "the image comes from a stranger: open no file that it refers to,",
    "accept no oversized tables",
  ],
} as const satisfies OptionSpec;

/** `--output`. */
export const OUTPUT = {
  long: ["output"],
  value: "human|json",
  help: ["how to print the result, default human"],
  parse(text: string): "human" | "json" {
    if (text === "human" || text === "json") return text;
    throw new UsageError(`--output expects 'human' or 'json' not '${text}'`);
  },
} as const satisfies OptionSpec;

/** The styles of progress that `--progress` names beside the reference's. */
export const PROGRESS_STYLES = ["bar", "json"] as const;

/** What help says of `-p`. */
export const PROGRESS_HELP = [
  "show progress: a percentage, a bar with rate and time left,",
  "or one JSON object a line on standard error",
] as const;

/** A cache mode is looked up when the command runs: after the operands were counted. */
export function cacheOption<const L extends string>(
  short: string,
  long: L,
  help: string,
): {
  readonly short: string;
  readonly long: readonly [L];
  readonly value: "CACHE";
  readonly help: readonly string[];
} {
  return { short, long: [long], value: "CACHE", help: [help, CACHE_HELP] };
}

const CACHE_HELP = "(writeback, none, writethrough, directsync, unsafe)";

/**
 * The cache mode of this name.
 *
 * @throws {CommandError} `Invalid cache option: …`, for a `source` with that word in it.
 */
export function cacheMode(
  name: string,
  { source = false, exitCode = 1 }: { source?: boolean; exitCode?: number } = {},
): CacheMode {
  const mode = Object.hasOwn(CACHE_MODES, name) ? CACHE_MODES[name] : undefined;
  if (mode !== undefined) return mode;
  throw new CommandError(`Invalid ${source ? "source " : ""}cache option: ${name}`, { exitCode });
}

/**
 * Adds one `-o` list to those before; for `parse` of an option.
 *
 * @throws {CommandError} for a list that is empty or has a comma where none belongs.
 */
export function addOptionList(text: string, previous: unknown): string {
  const trailing = /,*$/.exec(text)![0].length;
  if (text === "" || text.startsWith(",") || trailing % 2 === 1) {
    throw new CommandError(`Invalid option list: ${text}`);
  }
  return typeof previous === "string" ? `${previous},${text}` : text;
}

/** Whether an option list asks for the list of options. */
export function asksForHelp(list: string | undefined): boolean {
  return list !== undefined &&
    optionPieces(list).some(({ key, value }) =>
      value === undefined && (key === "help" || key === "?")
    );
}

/** What a number on the command line must be. */
export interface NumberRange {
  /** Smallest value, default 0. */
  readonly min?: number;
  /** Largest value, default 2^63 - 1. */
  readonly max?: number;
}

const INT64_MAX = 2n ** 63n - 1n;

/**
 * A size in bytes (cli.md, 2). `noun` names it in messages.
 *
 * The result is exact up to 2^53 - 1. A larger one can only be refused, which
 * its approximate value is as good for.
 *
 * @throws {CommandError}
 */
export function readSize(noun: string, text: string, range: NumberRange = {}): number {
  return Number(readExactSize(noun, text, range));
}

/** As {@linkcode readSize}, exact whatever it is. */
export function readExactSize(noun: string, text: string, range: NumberRange = {}): bigint {
  return inRange(noun, text, parseSize(text), range);
}

/**
 * A plain integer in C's base 0 (cli.md, 2). `noun` names it in messages.
 *
 * @throws {CommandError}
 */
export function readInteger(noun: string, text: string, range: NumberRange = {}): number {
  return Number(inRange(noun, text, parseInteger(text), range));
}

function inRange(noun: string, text: string, parsed: ParsedNumber, range: NumberRange): bigint {
  if (parsed === "malformed") {
    throw new CommandError(`Invalid ${noun} specified: '${text}'.`);
  }
  const min = BigInt(range.min ?? 0);
  const max = range.max === undefined ? INT64_MAX : BigInt(range.max);
  if (parsed === "out-of-range" || parsed.value < min || parsed.value > max) {
    throw new CommandError(`Invalid ${noun} specified. Must be between ${min} and ${max}.`);
  }
  return parsed.value;
}

/** The only operand of a command that takes one image. */
export function onlyImage(operands: readonly string[]): string {
  const [filename, ...others] = operands;
  if (filename === undefined || others.length > 0) {
    throw new UsageError("Expecting one image file name");
  }
  return filename;
}

/** `--image-opts`. */
export const IMAGE_OPTS = {
  long: ["image-opts"],
  help: ["FILENAME is a list of options, key=value,..., and no name"],
} as const satisfies OptionSpec;

/** The options of every command that `environmentOf` looks at. */
export interface SharedOptions {
  /** `--untrusted`. */
  readonly untrusted: boolean;
  /** `--object`. */
  readonly objects?: readonly DefinedObject[] | undefined;
}

/** What the operations want to know of the program around them. */
export function environmentOf(
  ctx: CommandContext,
  { untrusted, objects = [] }: SharedOptions,
): Environment {
  return {
    secrets: secretStore(objects),
    objects: objectStore(objects),
    // The images of a command line, and only those, know each other's nodes.
    scope: ctx,
    warn: (text) => ctx.warn(text),
    report: (line, fromProgram = false) =>
      ctx.err(fromProgram ? `${ctx.program}: ${line}\n` : `${line}\n`),
    untrusted,
    signal: ctx.signal,
  };
}

/**
 * The files that the options of an image to be made name: its backing file, to
 * be read, and its data file, to be written.
 */
export function filesInOptions(list: string | undefined): { reads: string[]; writes: string[] } {
  const reads: string[] = [];
  const writes: string[] = [];
  for (const { key, value } of optionPieces(list ?? "")) {
    if (value === undefined) continue;
    if (key === "backing_file") reads.push(value);
    if (key === "data_file") writes.push(value);
  }
  return { reads, writes };
}
