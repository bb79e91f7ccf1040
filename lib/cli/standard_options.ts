/** The options before the command, and the one that every command has. */

import type { OptionSpec } from "../commands/_command.ts";

/** The options before the command. */
export const STANDARD_OPTIONS = {
  help: {
    short: "h",
    long: ["help"],
    help: ["print this help and exit"],
  },
  version: {
    short: "V",
    long: ["version"],
    help: ["print the version and exit"],
  },
  trace: {
    short: "T",
    long: ["trace"],
    value: "TRACE",
    help: [
      "choose what to trace; this program has no trace events, so it only",
      "checks the specification:",
      "   [[enable=]<pattern>][,events=<file>][,file=<file>]",
    ],
  },
} as const satisfies Record<string, OptionSpec>;

/** The option that every command has. */
export const HELP_OPTION = {
  short: "h",
  long: ["help"],
  help: ["print this help and exit"],
} as const satisfies OptionSpec;
