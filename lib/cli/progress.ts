/**
 * How progress is shown (cli.md, 6): the reference's percentage on standard
 * output, a bar, or one JSON object a line.
 */

import { humanSize } from "../bytes/size.ts";
import type { ProgressReporter, ProgressSettings } from "../commands/_command.ts";
import { twoDecimals } from "../commands/_format.ts";
import type { Output } from "./output.ts";

/** What a progress display needs of the program. */
export interface ProgressHost {
  /** Standard output. */
  readonly stdout: Output;
  /** Standard error. */
  readonly stderr: Output;
  /** Whether the user asked for the state (SIGUSR1) since the last call. */
  takeStatusRequest(): boolean;
  /** Milliseconds on a clock that never goes back. */
  now(): number;
}

/** One way to show progress. */
interface Display {
  /** Shows a value of 0 to 100; `totalBytes` is the whole work where that is known. */
  show(percent: number, totalBytes: number | undefined): void;
  /** Called once when the operation has ended, well or not. */
  end(): void;
}

/** Starts to show progress as `settings` say. */
export function startProgress(settings: ProgressSettings, host: ProgressHost): ProgressReporter {
  const style = settings.quiet ? false : settings.style;
  const steps = new Stepper(settings.step);
  const display: Display = style === "json"
    ? jsonDisplay(steps, host)
    : style === "bar" && host.stderr.isTerminal
    ? barDisplay(host)
    : style === false
    ? statusDisplay(host)
    : percentDisplay(steps, host, settings.endsLine ?? false);
  let ended = false;
  let total: number | undefined;
  return {
    report(fraction, totalBytes) {
      total = totalBytes ?? total;
      display.show(fraction * 100, total);
    },
    [Symbol.dispose]() {
      if (!ended) display.end();
      ended = true;
    },
  };
}

/** Lets a value through when it moved by more than a step, and always at both ends. */
class Stepper {
  readonly #step: number;
  #last = 0;

  constructor(step: number) {
    this.#step = step;
  }

  passes(percent: number): boolean {
    const passes = percent === 0 || percent === 100 || percent < this.#last ||
      percent - this.#last > this.#step;
    if (passes) this.#last = percent;
    return passes;
  }
}

const percentText = (percent: number) => `    (${twoDecimals(percent)}/100%)`;

/** As `-p`: each report overwrites the one before. */
function percentDisplay(steps: Stepper, { stdout }: ProgressHost, endsLine: boolean): Display {
  let isShown = false;
  return {
    show(percent) {
      if (!steps.passes(percent)) return;
      isShown = true;
      stdout.write(`${percentText(percent)}\r`);
      stdout.flush();
    },
    end() {
      if (endsLine) {
        if (isShown) stdout.write("\n");
        return;
      }
      // Behind the result, and behind an error where both streams go to one place.
      stdout.writeLast("\n");
    },
  };
}

/** Without `-p`: one line for each signal that asks for it. */
function statusDisplay(host: ProgressHost): Display {
  return {
    show(percent) {
      if (host.takeStatusRequest()) host.stderr.write(`${percentText(percent)}\n`);
    },
    end() {},
  };
}

/** One object a line on standard error, for programs. Times in seconds. */
function jsonDisplay(steps: Stepper, { stderr, now }: ProgressHost): Display {
  const start = now();
  let shown: number | undefined;
  return {
    show(percent, totalBytes) {
      if (!steps.passes(percent) || percent === shown) return;
      shown = percent;
      const elapsed = (now() - start) / 1000;
      stderr.write(
        JSON.stringify({
          percent: Number(percent.toFixed(2)),
          elapsed: Number(elapsed.toFixed(3)),
          ...(totalBytes === undefined
            ? {}
            : { bytes: Math.round(percent / 100 * totalBytes), "total-bytes": totalBytes }),
        }) + "\n",
      );
    },
    end() {},
  };
}

/** Milliseconds between two states of the bar. */
const BAR_INTERVAL = 100;

/** A bar with rate and time left on a terminal; it stays, full or not, when the work ends. */
function barDisplay({ stderr, now }: ProgressHost): Display {
  const start = now();
  let drawn = -Infinity;
  let state = { percent: 0, totalBytes: undefined as number | undefined };
  const draw = () => {
    drawn = now();
    const line = barLine(state.percent, state.totalBytes, drawn - start, stderr.columns);
    stderr.write(`\r${line}\x1b[K`);
  };
  return {
    show(percent, totalBytes) {
      state = { percent, totalBytes };
      if (now() - drawn >= BAR_INTERVAL) draw();
    },
    end() {
      draw();
      stderr.write("\n");
    },
  };
}

/** One line of the bar, shorter than `columns`. `elapsed` in milliseconds. */
export function barLine(
  percent: number,
  totalBytes: number | undefined,
  elapsed: number,
  columns: number,
): string {
  const facts = [`${Math.floor(percent).toString().padStart(3)}%`];
  const fraction = percent / 100;
  if (totalBytes !== undefined && elapsed > 0) {
    facts.push(`${humanSize(Math.round(fraction * totalBytes / (elapsed / 1000)))}/s`);
  }
  facts.push(
    fraction >= 1
      ? `in ${durationText(elapsed)}`
      : fraction > 0 && elapsed > 0
      ? `${durationText(elapsed / fraction - elapsed)} left`
      : "",
  );
  const tail = facts.filter((fact) => fact !== "").join("  ");
  // Brackets, a space, and the last column, which would wrap the line.
  const room = columns - tail.length - 4;
  if (room < 5) return tail.slice(0, columns - 1);
  const filled = Math.round(Math.min(1, fraction) * room);
  return `[${"#".repeat(filled)}${" ".repeat(room - filled)}] ${tail}`;
}

/** Whole seconds as `1h 2m 3s`. */
function durationText(milliseconds: number): string {
  const seconds = Math.ceil(milliseconds / 1000);
  const parts = [
    [Math.floor(seconds / 3600), "h"],
    [Math.floor(seconds / 60) % 60, "m"],
    [seconds % 60, "s"],
  ].filter(([value]) => value !== 0);
  return parts.map(([value, unit]) => `${value}${unit}`).join(" ") || "0s";
}
