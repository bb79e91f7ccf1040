/**
 * The commands that work, in the order in which help lists them. Each is
 * loaded when it is used.
 */

import type { Command } from "./_command.ts";

/** What is known of a command before it is loaded. */
export interface CommandEntry {
  /** The word that selects it. */
  readonly name: string;
  /** One sentence without its full stop; the same as the command's own. */
  readonly description: string;
  /** Loads it. */
  load(): Promise<Command>;
}

/** All commands. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: "amend",
    description: "Change the options of an image",
    load: async () => (await import("./amend.ts")).amend,
  },
  {
    name: "bench",
    description: "Measure how many requests a second an image answers",
    load: async () => (await import("./bench.ts")).bench,
  },
  {
    name: "bitmap",
    description: "Change a dirty bitmap of an image",
    load: async () => (await import("./bitmap.ts")).bitmap,
  },
  {
    name: "check",
    description: "Check the consistency of an image, and repair it",
    load: async () => (await import("./check.ts")).check,
  },
  {
    name: "commit",
    description: "Write the content of an image into its backing file",
    load: async () => (await import("./commit.ts")).commit,
  },
  {
    name: "compare",
    description: "Compare the contents of two images",
    load: async () => (await import("./compare.ts")).compare,
  },
  {
    name: "convert",
    description: "Copy images to a new one, in the same or another format",
    load: async () => (await import("./convert.ts")).convert,
  },
  {
    name: "create",
    description: "Make a new image",
    load: async () => (await import("./create.ts")).create,
  },
  {
    name: "dd",
    description: "Copy part of an image to a new one",
    load: async () => (await import("./dd.ts")).dd,
  },
  {
    name: "info",
    description: "Show what an image is",
    load: async () => (await import("./info.ts")).info,
  },
  {
    name: "map",
    description: "Show where the data of an image lies",
    load: async () => (await import("./map.ts")).map,
  },
  {
    name: "measure",
    description: "Calculate how large a new image would be",
    load: async () => (await import("./measure.ts")).measure,
  },
  {
    name: "rebase",
    description: "Change the backing file of an image",
    load: async () => (await import("./rebase.ts")).rebase,
  },
  {
    name: "resize",
    description: "Change the virtual size of an image",
    load: async () => (await import("./resize.ts")).resize,
  },
  {
    name: "serve",
    description: "Let others read or write an image over NBD",
    load: async () => (await import("./serve.ts")).serve,
  },
  {
    name: "snapshot",
    description: "List, make, apply or delete the internal snapshots of an image",
    load: async () => (await import("./snapshot.ts")).snapshot,
  },
];
