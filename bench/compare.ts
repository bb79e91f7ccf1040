/**
 * The hot paths against the stored baseline: `deno task bench [--update]`.
 *
 * Every figure is a multiple of a calibration loop that ran in the same
 * process, so that baselines hold on machines of another speed. What got
 * slower by a quarter or more is measured again before it is named; the exit
 * code is 1 when it is still slower.
 */

import { parseArgs } from "@std/cli/parse-args";
import { bold, dim, green, red } from "@std/fmt/colors";
import { fromFileUrl } from "@std/path";

/** How much slower is too slow. */
const TOLERANCE = 1.25;

/** How often a slow figure is measured anew; other programs make noise, and only ever in one direction. */
const RETRIES = 3;

const BASELINE = new URL("baseline.json", import.meta.url);
const FOLDER = fromFileUrl(new URL(".", import.meta.url));

/** The name of the loop that everything is divided by. */
export const CALIBRATION = "calibration";

/** Benchmarks by name (`group: name`), each a multiple of the calibration loop. */
export type Figures = Readonly<Record<string, number>>;

/** What `deno bench --json` prints, as far as it matters here. */
interface Report {
  readonly benches: readonly {
    readonly group: string | null;
    readonly name: string;
    readonly results: readonly { readonly ok?: { readonly min: number } }[];
  }[];
}

/** The figures of a report. Throws when a benchmark failed or the calibration is missing. */
export function figuresOf(report: Report): Figures {
  const times = new Map<string, number>();
  for (const { group, name, results } of report.benches) {
    const label = group === null ? name : `${group}: ${name}`;
    const time = results[0]?.ok?.min;
    if (time === undefined) throw new Error(`The benchmark "${label}" failed`);
    times.set(label, time);
  }
  const unit = times.get(CALIBRATION);
  if (unit === undefined) throw new Error(`There is no benchmark "${CALIBRATION}"`);
  times.delete(CALIBRATION);
  return Object.fromEntries([...times].map(([label, time]) => [label, time / unit]));
}

/** The smaller of two figures of each benchmark. */
export function best(a: Figures, b: Figures): Figures {
  const merged: Record<string, number> = { ...a };
  for (const [label, value] of Object.entries(b)) {
    merged[label] = Math.min(value, merged[label] ?? Infinity);
  }
  return merged;
}

/** Benchmarks that take {@linkcode TOLERANCE} times as long as in the baseline, or longer. */
export function slower(figures: Figures, baseline: Figures): string[] {
  return Object.entries(figures)
    .filter(([label, value]) => value >= TOLERANCE * (baseline[label] ?? Infinity))
    .map(([label]) => label);
}

async function measureAll(): Promise<Figures> {
  const { success, stdout } = await new Deno.Command(Deno.execPath(), {
    args: ["bench", "--json", "--allow-read", "--allow-write", "--allow-ffi", FOLDER],
    stderr: "inherit",
  }).output();
  if (!success) {
    // It has said why.
    Deno.exit(1);
  }
  return figuresOf(JSON.parse(new TextDecoder().decode(stdout)));
}

async function readBaseline(): Promise<Figures> {
  try {
    return JSON.parse(await Deno.readTextFile(BASELINE));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return {};
    throw error;
  }
}

if (import.meta.main) {
  const { update } = parseArgs(Deno.args, { boolean: ["update"] });
  const baseline = await readBaseline();
  let figures = await measureAll();
  // A new baseline is the best of several runs as well, or the next run would look good for nothing.
  for (let i = 0; i < RETRIES; i++) {
    if (update !== true && slower(figures, baseline).length === 0) break;
    console.error(dim("measuring again …"));
    figures = best(figures, await measureAll());
  }

  const late = new Set(slower(figures, baseline));
  const width = Math.max(...Object.keys(figures).map((label) => label.length));
  console.log(bold(`${"benchmark".padEnd(width)}  of calibration  of baseline`));
  for (const [label, value] of Object.entries(figures)) {
    const before = baseline[label];
    const change = before === undefined ? "new" : (value / before).toFixed(2);
    const line = `${label.padEnd(width)}  ${value.toPrecision(4).padStart(14)}  ${
      change.padStart(11)
    }`;
    console.log(late.has(label) ? red(line) : line);
  }
  const gone = Object.keys(baseline).filter((label) => !Object.hasOwn(figures, label));
  for (const label of gone) console.log(`${label}: in the baseline and no longer measured`);

  if (update === true) {
    const rounded = Object.fromEntries(
      Object.entries(figures).sort().map(([label, value]) => [label, Number(value.toPrecision(4))]),
    );
    await Deno.writeTextFile(BASELINE, JSON.stringify(rounded, null, 2) + "\n");
    console.log(green("The baseline is written anew."));
  } else if (late.size > 0) {
    console.log(red(`Slower by a quarter or more: ${[...late].join("; ")}`));
    Deno.exit(1);
  }
}
