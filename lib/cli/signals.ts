/**
 * Signals: an interruption ends the running operation in good order, a request
 * for the state of things is answered at the next opportunity.
 */

/** The signals that a running command heeds. */
export interface Signals extends Disposable {
  /** Aborted by the first interruption, with an {@linkcode Interruption}. */
  readonly signal: AbortSignal;
  /** Whether the state was asked for since the last call. */
  takeStatusRequest(): boolean;
}

/** Why an operation was aborted: the user, or the system, wants the program to end. */
export class Interruption extends Error {
  /** The class as shown in a stack trace. */
  override name = "Interruption";
  /** 128 plus the signal's number, as a shell shows the end by a signal. */
  readonly exitCode: number;

  /** By the signal of this number. */
  constructor(number: number) {
    super("Interrupted");
    this.exitCode = 128 + number;
  }
}

// Not SIGHUP: listening to it would undo what nohup did for the program.
const INTERRUPTIONS: readonly (readonly [Deno.Signal, number])[] = Deno.build.os === "windows"
  ? [["SIGINT", 2]]
  : [["SIGINT", 2], ["SIGTERM", 15]];

const STATUS_REQUESTS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? []
  : Deno.build.os === "darwin"
  ? ["SIGUSR1", "SIGINFO"]
  : ["SIGUSR1"];

/** Signals that never come. */
export const NO_SIGNALS: Signals = {
  signal: new AbortController().signal,
  takeStatusRequest: () => false,
  [Symbol.dispose]() {},
};

/**
 * Listens to the process' signals. A second interruption ends the process at
 * once.
 *
 * Listening to SIGUSR1 also keeps it from killing the process, or from opening
 * the inspector.
 */
export function watchSignals(): Signals {
  const controller = new AbortController();
  let statusRequested = false;
  const listeners: (readonly [Deno.Signal, () => void])[] = [
    ...INTERRUPTIONS.map(([name, number]) => {
      const interrupt = () => {
        const interruption = new Interruption(number);
        if (controller.signal.aborted) Deno.exit(interruption.exitCode);
        controller.abort(interruption);
      };
      return [name, interrupt] as const;
    }),
    ...STATUS_REQUESTS.map((name) => [name, () => void (statusRequested = true)] as const),
  ];
  for (const [name, listener] of listeners) Deno.addSignalListener(name, listener);
  return {
    signal: controller.signal,
    takeStatusRequest() {
      const requested = statusRequested;
      statusRequested = false;
      return requested;
    },
    [Symbol.dispose]() {
      for (const [name, listener] of listeners) Deno.removeSignalListener(name, listener);
    },
  };
}
