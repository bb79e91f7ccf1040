/** What a whole process costs. */

/** One run of a program. */
export interface Run {
  /** From start to end, seconds. */
  readonly wall: number;
  /** Time on all cores, in user space and in the kernel, seconds. */
  readonly cpu: number;
  /** Largest resident set, bytes. */
  readonly peak: number;
  /** Exit code. */
  readonly code: number;
  /** Standard output. */
  readonly stdout: string;
  /** Standard error. */
  readonly stderr: string;
}

const GNU_TIME = "/usr/bin/time";
const CLOCK_TICKS = 100;

async function exists(path: string): Promise<boolean> {
  try {
    return (await Deno.stat(path)).isFile;
  } catch {
    return false;
  }
}

const hasGnuTime = await exists(GNU_TIME);

/** Runs a program to its end. Throws on an exit code other than those allowed. */
export async function measure(
  command: readonly string[],
  options: { cwd: string; codes?: readonly number[] },
): Promise<Run> {
  const run = await (hasGnuTime ? measureWithTime : measureWithProc)(command, options.cwd);
  if (!(options.codes ?? [0]).includes(run.code)) {
    throw new Error(`${command.join(" ")}: exit code ${run.code}\n${run.stderr}`);
  }
  return run;
}

/** GNU time is told the exact figures by the kernel when its child ends. */
async function measureWithTime(command: readonly string[], cwd: string): Promise<Run> {
  const report = await Deno.makeTempFile();
  try {
    const started = performance.now();
    const { code, stdout, stderr } = await new Deno.Command(GNU_TIME, {
      args: ["-q", "-o", report, "-f", "%U %S %M", ...command],
      cwd,
      stdin: "null",
    }).output();
    const wall = (performance.now() - started) / 1000;
    const [user = 0, system = 0, peak = 0] = (await Deno.readTextFile(report)).trim().split(" ")
      .map(
        Number,
      );
    return { wall, cpu: user + system, peak: peak * 1024, code, ...decoded(stdout, stderr) };
  } finally {
    await Deno.remove(report);
  }
}

/** Without GNU time: what /proc said last before the end, a few milliseconds short of the truth. */
async function measureWithProc([program = "", ...args]: readonly string[], cwd: string) {
  const started = performance.now();
  const child = new Deno.Command(program, {
    args,
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let cpu = 0;
  let peak = 0;
  const timer = setInterval(() => {
    try {
      const status = Deno.readTextFileSync(`/proc/${child.pid}/status`);
      peak = Math.max(peak, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024);
      const stat = Deno.readTextFileSync(`/proc/${child.pid}/stat`);
      // The fields after the program's name, which may hold anything: state is the first.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      cpu = (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS;
    } catch {
      // It has just ended.
    }
  }, 2);
  try {
    const { code, stdout, stderr } = await child.output();
    const wall = (performance.now() - started) / 1000;
    return { wall, cpu, peak, code, ...decoded(stdout, stderr) };
  } finally {
    clearInterval(timer);
  }
}

function decoded(stdout: Uint8Array, stderr: Uint8Array) {
  const decoder = new TextDecoder();
  return { stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** The middle of some numbers; the mean of the middle two of an even count. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? NaN) + upper) / 2;
}
