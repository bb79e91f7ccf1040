/**
 * What a user reads of an exception. There is never a stack trace.
 */

import { ImageError } from "../block/error.ts";
import { CommandError } from "../commands/_command.ts";
import { HostError } from "../io/errno.ts";

/** How a program ends that an exception ends. */
export interface Failure {
  /** The line behind the program's name. */
  readonly message: string;
  /** Lines below it. */
  readonly hint: string | undefined;
  /** The exit code. */
  readonly exitCode: number;
}

/**
 * Describes any thrown value. `restricted`: the program gave up permissions of
 * its own accord, so that advice to grant them would be no help.
 */
export function describeFailure(
  error: unknown,
  { restricted = false }: { restricted?: boolean } = {},
): Failure {
  const hints: string[] = [];
  const denied = deniedPermission(error);
  if (error instanceof CommandError) {
    if (error.hint !== undefined) hints.push(error.hint);
    return { message: error.message, hint: join(hints), exitCode: error.exitCode };
  }
  if (error instanceof ImageError || error instanceof HostError) {
    if (error instanceof ImageError && error.hint !== undefined) hints.push(error.hint);
    if (denied !== undefined && denied !== error.message) hints.push(advice(denied, restricted));
    return { message: error.message, hint: join(hints), exitCode: 1 };
  }
  if (denied !== undefined) {
    return { message: advice(denied, restricted), hint: undefined, exitCode: 1 };
  }
  const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { message: `internal error: ${what}`, hint: undefined, exitCode: 1 };
}

function join(lines: readonly string[]): string | undefined {
  return lines.length === 0 ? undefined : lines.join("\n");
}

/** Deno's words for a missing permission, from wherever it lies below an error. */
function deniedPermission(error: unknown): string | undefined {
  for (let depth = 0; error instanceof Error && depth < 16; depth++) {
    if (error instanceof Deno.errors.NotCapable) return error.message;
    if (error instanceof HostError && error.denied !== undefined) return error.denied;
    error = error.cause;
  }
  return undefined;
}

function advice(denied: string, restricted: boolean): string {
  // Only a process with all permissions opens files below /dev, /proc and /sys.
  return restricted && denied.includes("--allow-all")
    ? `${
      denied.split(",")[0]
    }, which this program gives up unless the command line names such a file`
    : denied;
}
