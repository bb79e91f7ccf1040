/**
 * Runtime options of local files and devices (cli.md, 4.3).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { OpenMode } from "../../lib/block/mode.ts";
import { OptionSet, type OptionSpec } from "../../lib/block/options.ts";

/** All but the name. */
export const OPEN_OPTIONS: readonly OptionSpec[] = [
  { name: "locking", type: "str", help: "Lock the file against other users: auto, on or off" },
  { name: "aio", type: "str", help: "How requests are done: threads, native or io_uring" },
  { name: "aio-max-batch", type: "num", help: "Requests that are handed over at once" },
  { name: "pr-manager", type: "str", help: "ID of a manager of persistent reservations" },
  { name: "drop-cache", type: "bool", help: "Drop the page cache when others take over" },
  { name: "x-check-cache-dropped", type: "bool", help: "Check that it was dropped" },
];

/** What there is without any options. */
export const NO_OPTIONS: OptionSet = new OptionSet([]);

const LOCKING = ["auto", "on", "off"];
const AIO = ["threads", "native", "io_uring"];

/** What the options ask for. */
export interface OpenRequest {
  /** Lock the file against other users. */
  readonly locks: boolean;
  /** What requests are to be done with cannot be had with the host's page cache. */
  readonly needsDirect: boolean;
}

/**
 * Reads the options. All requests are done in the same way here, and the page cache is left alone; what
 * asks for something else is checked and has no effect.
 *
 * @throws {ImageError} for a value that is none.
 */
export function readOpenOptions(options: OptionSet, mode: OpenMode): OpenRequest {
  const aio = oneOf(AIO, options.string("aio") ?? (mode.nativeAio ? "native" : "threads"), "aio");
  const locking = oneOf(LOCKING, options.string("locking") ?? "auto", "locking");
  const manager = options.string("pr-manager");
  if (manager !== undefined) {
    throw new ImageError(`No persistent reservation manager with id '${manager}'`, {
      errno: "EINVAL",
      field: "pr-manager",
    });
  }
  return { locks: locking !== "off", needsDirect: aio === "native" };
}

/** The error for a file that is there, but not opened as {@linkcode OpenRequest.needsDirect} asks. */
export function notDirect(): ImageError {
  return new ImageError(
    "aio=native was specified, but it requires cache.direct=on, which was not specified.",
    { errno: "EINVAL", field: "aio" },
  );
}

function oneOf(values: readonly string[], value: string, field: string): string {
  if (values.includes(value)) return value;
  throw new ImageError(`invalid parameter value: ${value}`, { errno: "EINVAL", field });
}
