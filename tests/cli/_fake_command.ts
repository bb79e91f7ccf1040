/** A command that does what a test wants. */

import { type CommandContext, defineCommand } from "../../lib/commands/_command.ts";
import type { CommandEntry } from "../../lib/commands/mod.ts";
import { PROGRESS_STYLES } from "../../lib/commands/_options.ts";

/** The registry with the command `fake` alone, which runs `run`. */
export function fakeCommand(
  run: (ctx: CommandContext) => number | Promise<number>,
): readonly CommandEntry[] {
  const command = defineCommand({
    name: "fake",
    description: "Do as told",
    synopsis: ["[-q] [-n NUMBER] [-p]"],
    options: {
      quiet: { short: "q", long: ["quiet"], help: ["be quiet"] },
      number: {
        short: "n",
        long: ["number"],
        value: "NUMBER",
        help: ["numbers, added up"],
        parse: (text: string, previous: unknown) => Number(text) + ((previous ?? 0) as number),
      },
      text: { long: ["text"], value: "TEXT", help: ["text"] },
      progress: { short: "p", long: ["progress"], attached: PROGRESS_STYLES, help: ["progress"] },
    },
    operands: [],
    access: () => ({}),
    run: (ctx) => Promise.resolve(run(ctx as unknown as CommandContext)),
  });
  return [{
    name: command.name,
    description: command.description,
    load: () => Promise.resolve(command),
  }];
}
