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

/** What the program gave up of its own accord, so that advice to grant it would be no help. */
export interface Surrender {
  /** Any permission. */
  readonly restricted?: boolean;
  /** The network. */
  readonly isOffline?: boolean;
}

/** Describes any thrown value. */
export function describeFailure(error: unknown, surrender: Surrender = {}): Failure {
  // What went wrong first is what the user can do something about.
  if (error instanceof SuppressedError) return describeFailure(error.suppressed, surrender);
  const denied = deniedPermission(error);
  if (
    error instanceof CommandError || error instanceof ImageError || error instanceof HostError
  ) {
    const hints = [
      "hint" in error ? error.hint : undefined,
      denied === undefined ? undefined : denialHint(denied, error.message, surrender),
    ].filter((hint) => hint !== undefined);
    return {
      message: error.message,
      hint: hints.length === 0 ? undefined : hints.join("\n"),
      exitCode: error instanceof CommandError ? error.exitCode : 1,
    };
  }
  if (denied !== undefined) {
    return { message: denied, hint: denialHint(denied, denied, surrender), exitCode: 1 };
  }
  const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { message: `internal error: ${what}`, hint: undefined, exitCode: 1 };
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

/** What there is to say of a missing permission below a message. */
function denialHint(
  denied: string,
  message: string,
  { restricted = false, isOffline = false }: Surrender,
): string | undefined {
  if (restricted && denied.includes("--allow-all")) {
    return "Deno opens files below /dev, /proc and /sys for a process with all permissions only;\n" +
      "this one keeps them when such a file is named on the command line.";
  }
  if (isOffline && denied.includes("--allow-net")) {
    return "The server is not named on the command line, and the network was given up. To name the\n" +
      "driver that reaches it (nbd, http, https) will do, as in:\n" +
      "--image-opts driver=FMT,file.filename=FILENAME,backing.file.driver=DRIVER";
  }
  return message.includes(denied) ? undefined : denied;
}
