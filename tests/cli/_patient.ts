/**
 * A qimg whose only command works until it is interrupted, and reports
 * progress all the while; it says on standard output when it is at work and
 * when it has cleaned up.
 */

import { processIo, runCli } from "../../lib/cli/run.ts";
import { fakeCommand } from "./_fake_command.ts";

const commands = fakeCommand(async (ctx) => {
  const { progress: style = false } = ctx.options as { progress?: boolean };
  using progress = await ctx.progress({ style, step: 1 });
  console.log("at work");
  try {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      ctx.signal.throwIfAborted();
      progress.report(0.5);
    }
  } finally {
    console.log("cleaned up");
  }
});

Deno.exit(await runCli(Deno.args, processIo(), commands));
