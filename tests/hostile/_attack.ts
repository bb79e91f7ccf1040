/**
 * Does everything there is to do with evil images, in one process, and prints
 * what came of it: a line of JSON for each command, the peak of memory last.
 *
 * `deno run -A tests/hostile/_attack.ts FOLDER`: a folder with the secret file.
 */
import { runCli } from "../../lib/cli/run.ts";
import { evilImages, writeEvil } from "./_evil_qcow2.ts";

/** What one command did. */
export interface Attack {
  /** The image. */
  readonly image: string;
  /** The command and its options. */
  readonly command: string;
  /** Exit code. */
  readonly code: number;
  /** The end of standard error. */
  readonly stderr: string;
  /** The secret came out. */
  readonly leaked: boolean;
}

/** The last line. */
export interface Peak {
  /** Most memory that the process took, bytes. */
  readonly peak: number;
}

/** A file that images name and nobody may show. */
export const SECRET = "secret.txt";
/** What it says. */
export const SECRET_TEXT = "the secret of this house";

/** Commands without their operands; the image is `evil.qcow2`. */
export const COMMANDS: readonly (readonly string[])[] = [
  ["info", "-f", "qcow2"],
  ["info", "-f", "qcow2", "--backing-chain", "--output=json"],
  ["map", "-f", "qcow2", "--output=json"],
  ["measure", "-f", "qcow2", "-O", "raw"],
  ["check", "-f", "qcow2"],
  ["check", "-f", "qcow2", "-r", "leaks"],
  ["check", "-f", "qcow2", "-r", "all"],
  ["dd", "-f", "qcow2", "-O", "raw", "bs=64k", "count=16"],
  ["convert", "-f", "qcow2", "-O", "raw"],
  ["convert", "-f", "qcow2", "-O", "qcow2", "-c"],
  ["convert", "-f", "qcow2", "-O", "qcow2", "--bitmaps", "--skip-broken-bitmaps"],
  ["resize", "-f", "qcow2"],
  ["bitmap", "-f", "qcow2", "--remove"],
  ["bitmap", "-f", "qcow2", "--clear", "--merge", "a"],
  ["snapshot", "-f", "qcow2", "-l"],
  ["snapshot", "-f", "qcow2", "-c", "new"],
  ["snapshot", "-f", "qcow2", "-a", "1"],
  ["snapshot", "-f", "qcow2", "-d", "one"],
  ["amend", "-f", "qcow2", "-o", "refcount_bits=32"],
  ["amend", "-f", "qcow2", "-o", "compat=0.10"],
  ["info", "-f", "qcow2", "--backing-chain", "--untrusted"],
  ["map", "-f", "qcow2", "--output=json", "--untrusted"],
  ["check", "-f", "qcow2", "--untrusted"],
  ["dd", "-f", "qcow2", "-O", "raw", "bs=64k", "count=16", "--untrusted"],
];

/** Keeps the end of what is written to it, and looks for the secret on the way. */
class Sink {
  /** The secret was in it. */
  leaked = false;
  /** The last few lines. */
  end = "";

  /** Takes bytes as a stream does. */
  writeSync(bytes: Uint8Array): number {
    const text = new TextDecoder().decode(bytes);
    this.leaked ||= (this.end + text).includes(SECRET_TEXT);
    this.end = (this.end + text).slice(-1000);
    return bytes.length;
  }
}

function peakMemory(): number {
  try {
    const status = Deno.readTextFileSync("/proc/self/status");
    return Number(/VmHWM:\s*(\d+) kB/.exec(status)![1]) * 1024;
  } catch {
    return Deno.memoryUsage().rss;
  }
}

/** The first MiB of a file, which may be huge, or not there. */
async function beginningOf(path: string): Promise<string> {
  try {
    using file = await Deno.open(path);
    const bytes = new Uint8Array(1024 * 1024);
    const length = file.readSync(bytes) ?? 0;
    return new TextDecoder().decode(bytes.subarray(0, length));
  } catch {
    return "";
  }
}

async function attack(dir: string): Promise<void> {
  const secret = `${dir}/${SECRET}`;
  Deno.chdir(dir);
  for (const image of evilImages(secret)) {
    for (const command of COMMANDS) {
      const name = command.join(" ");
      // Known before it begins: what hangs is the last line that was printed.
      console.log(JSON.stringify({ begins: `${image.name}: ${name}` }));
      await writeEvil(`${dir}/evil.qcow2`, image);
      const operands = command[0] === "dd"
        ? ["if=evil.qcow2", "of=out.raw"]
        : command[0] === "resize"
        ? ["evil.qcow2", "+1M"]
        : command[0] === "bitmap"
        ? ["evil.qcow2", "a"]
        : command[0] === "convert"
        ? ["evil.qcow2", "out.raw"]
        : ["evil.qcow2"];
      const stdout = new Sink();
      const stderr = new Sink();
      const code = await runCli([...command, ...operands], { program: "qimg", stdout, stderr });
      const copied = await beginningOf(`${dir}/out.raw`);
      await Deno.remove(`${dir}/out.raw`).catch(() => {});
      const result: Attack = {
        image: image.name,
        command: name,
        code,
        stderr: stderr.end,
        leaked: stdout.leaked || stderr.leaked || copied.includes(SECRET_TEXT),
      };
      console.log(JSON.stringify(result));
    }
  }
  console.log(JSON.stringify({ peak: peakMemory() } satisfies Peak));
}

if (import.meta.main) await attack(Deno.args[0]!);
