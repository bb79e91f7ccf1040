/**
 * `-l`: which internal snapshot of a source is meant (cli.md, 12.3).
 */

import { optionPieces } from "../block/options.ts";
import type { SnapshotSelector } from "../ops/snapshot.ts";
import { type CommandContext, CommandError, type OptionSpec } from "./_command.ts";

/** What a text begins with that is a list of options and no name. */
const LIST = "snapshot.";

const LIST_HELP = "snapshot options:\n" +
  "  snapshot.id=<str>      - snapshot id\n" +
  "  snapshot.name=<str>    - snapshot name\n";

/** `-l` of commands that read an image: all that was given. */
export const SNAPSHOT = {
  short: "l",
  long: ["snapshot"],
  value: "SNAPSHOT",
  help: [
    "read this internal snapshot, an id or a name; or exactly",
    "[snapshot.id=ID][,][snapshot.name=NAME]",
  ],
  parse: (text: string, previous: unknown): readonly string[] => [
    ...(previous as readonly string[] | undefined ?? []),
    text,
  ],
} as const satisfies OptionSpec;

/**
 * The snapshot that the values of `-l` mean. The last list of options counts more than the last name.
 *
 * @throws {CommandError} `Failed in parsing snapshot param '…'`; why was printed before.
 */
export function readSelector(
  ctx: CommandContext,
  texts: readonly string[] | undefined,
): SnapshotSelector | undefined {
  let selected: SnapshotSelector | undefined;
  for (const text of texts ?? []) {
    if (text.startsWith(LIST)) selected = readList(ctx, text);
  }
  return selected ?? texts?.at(-1);
}

function readList(ctx: CommandContext, text: string): SnapshotSelector {
  const selected: { id?: string; name?: string } = {};
  const failure = new CommandError(`Failed in parsing snapshot param '${text}'`);
  for (const { key, value } of optionPieces(text)) {
    if (value === undefined && (key === "help" || key === "?")) {
      ctx.out(LIST_HELP);
      throw failure;
    }
    // As in every list, the key of the list itself means nothing here.
    if (key === "id" && value !== undefined) continue;
    const no = value === undefined && key.startsWith("no");
    const name = no ? key.slice(2) : key;
    if (value === undefined) {
      ctx.warn(
        `short-form boolean option '${key}' deprecated`,
        `Please use ${name}=${no ? "off" : "on"} instead`,
      );
    }
    const set = value ?? (no ? "off" : "on");
    if (name === "snapshot.id") selected.id = set;
    else if (name === "snapshot.name") selected.name = set;
    else {
      ctx.error(`Invalid parameter '${name}'`);
      throw failure;
    }
  }
  return selected;
}
