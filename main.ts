#!/usr/bin/env -S deno run -A --no-prompt
/**
 * The `qimg` program.
 *
 * It may be given all permissions: once it has read its command line it gives
 * up those that the command does not need.
 *
 * @module
 */

import { processIo, runCli } from "./lib/cli/run.ts";

Deno.exitCode = await runCli(Deno.args, processIo());
