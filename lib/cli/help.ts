/**
 * Help texts, built from the tables that also drive the scanner, in the layout
 * of the reference (cli.md, 1).
 */

import type { Command, OptionSpec } from "../commands/_command.ts";
import type { CommandEntry } from "../commands/mod.ts";
import { HELP_OPTION, STANDARD_OPTIONS } from "./standard_options.ts";
import { versionLine } from "./version.ts";

const LINE_LENGTH = 80;

/** What `--help` prints: `commands` and `drivers` are those that work. */
export function generalHelp(
  program: string,
  commands: readonly CommandEntry[],
  drivers: readonly string[],
): string {
  return [
    versionLine(program).trimEnd(),
    "Disk image utility.  Usage:",
    "",
    `  ${program} [standard options] COMMAND [--help | command options]`,
    "",
    "Standard options:",
    ...Object.values(STANDARD_OPTIONS).flatMap(optionLines),
    "",
    `Recognized commands (run ${program} COMMAND --help for what a command takes):`,
    "",
    ...commands.map(({ name, description }) => `  ${name} - ${description}`),
    "",
    "Supported image formats:",
    "",
    ...wrapWords(drivers.toSorted()),
    "",
  ].join("\n");
}

/** What `COMMAND --help` prints. */
export function commandHelp(program: string, command: Command): string {
  const [first = "", ...more] = command.synopsis;
  return [
    "Usage:",
    `${command.description}.  Usage:`,
    "",
    `  ${program} ${command.name} ${first}`,
    ...more.map((line) => `        ${line}`),
    "",
    "Arguments:",
    ...optionLines(HELP_OPTION),
    ...Object.values(command.options).flatMap(optionLines),
    ...command.operands.flatMap(({ name, help }) => entry(name, help)),
    "",
    "",
  ].join("\n");
}

function optionLines(spec: OptionSpec): string[] {
  if (spec.help === undefined) return [];
  const [long] = spec.long ?? [];
  const names = [
    spec.short === undefined ? undefined : `-${spec.short}`,
    long === undefined ? undefined : `--${long}`,
  ].filter((name) => name !== undefined).join(", ");
  const argument = spec.value !== undefined
    ? ` ${spec.value}`
    : spec.attached !== undefined
    ? `[=${spec.attached.join("|")}]`
    : "";
  return entry(names + argument, spec.help);
}

function entry(head: string, text: readonly string[]): string[] {
  return [`  ${head}`, ...text.map((line) => `     ${line}`)];
}

/** Words in lines that begin with two spaces and stay below 80 columns. */
function wrapWords(words: readonly string[]): string[] {
  const lines: string[] = [];
  let line = " ";
  for (const word of words) {
    if (line.length + 1 + word.length >= LINE_LENGTH) {
      lines.push(line);
      line = " ";
    }
    line += ` ${word}`;
  }
  lines.push(line);
  return lines;
}
