/**
 * `-T`/`--trace`: the specification is taken as the reference takes it, with
 * the one difference that no trace event exists (cli.md, 1).
 */

import { optionPieces } from "../block/options.ts";
import { CommandError } from "../commands/_command.ts";
import { errnoOf, errnoText } from "../io/errno.ts";

/** What a trace specification leads to. */
export interface TraceRequest {
  /** The exit code, if the program is to end here. */
  readonly exitCode?: number;
  /** Where events would be written. */
  readonly file?: string | undefined;
}

/**
 * Reads one specification: `[[enable=]PATTERN][,events=FILE][,file=FILE]`.
 * Lines for standard error go to `print`.
 *
 * @throws {CommandError} for a key that there is not.
 */
export function readTraceSpec(
  spec: string,
  program: string,
  print: (line: string) => void,
): TraceRequest {
  if (spec === "help" || spec === "?" || spec === "enable=help" || spec === "enable=?") {
    return { exitCode: 0 };
  }
  const values = new Map<string, string>();
  for (const piece of optionPieces(spec, "enable")) {
    let { key, value } = piece;
    if (value === undefined) {
      const negated = key.startsWith("no");
      [key, value] = negated ? [key.slice(2), "off"] : [key, "on"];
      print(`${program}: warning: short-form boolean option '${piece.key}' deprecated`);
      print(`Please use ${key}=${value} instead`);
    }
    if (!["enable", "events", "file"].includes(key)) {
      throw new CommandError(`Invalid parameter '${key}'`);
    }
    values.set(key, value);
  }
  const enable = values.get("enable");
  if (enable !== undefined) checkPattern(enable, (text) => print(`${program}: ${text}`));
  const events = values.get("events");
  if (events !== undefined && !checkEventsFile(events, program, print)) return { exitCode: 1 };
  return { file: values.get("file") };
}

/**
 * Makes the file that events would be written to.
 *
 * @throws {CommandError}
 */
export function makeTraceFile(path: string): void {
  try {
    Deno.openSync(path, { write: true, create: true }).close();
  } catch (error) {
    throw new CommandError(`Error opening logfile ${path}: ${reasonOf(error)}`);
  }
}

/** A pattern with an asterisk may match nothing, a plain name has to exist. */
function checkPattern(pattern: string, print: (text: string) => void): void {
  const name = pattern.startsWith("-") ? pattern.slice(1) : pattern;
  if (!name.includes("*")) print(`warning: trace event '${name}' does not exist`);
}

/** Checks a file of patterns, one a line; false if it cannot be read. */
function checkEventsFile(path: string, program: string, print: (line: string) => void): boolean {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
  } catch (error) {
    print(`${program}:${path}: ${reasonOf(error)}`);
    return false;
  }
  for (const [index, line] of text.split("\n").entries()) {
    if (line === "" || line.startsWith("#")) continue;
    checkPattern(line, (message) => print(`${program}:${path}:${index + 1}: ${message}`));
  }
  return true;
}

function reasonOf(error: unknown): string {
  const errno = errnoOf(error);
  return errno === undefined ? String(error) : errnoText(errno);
}
