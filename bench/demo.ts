/**
 * The main job on a real disk image, every step shown and checked:
 * `deno task demo [--dir FOLDER]`.
 */

import { parseArgs } from "@std/cli/parse-args";
import { bold, dim, green } from "@std/fmt/colors";
import { fromFileUrl, join } from "@std/path";
import { makeDisk } from "./_disk.ts";

const MiB = 1 << 20;

/** What the demonstration works with. */
export interface DemoOptions {
  /** How qimg is started: the program and its first arguments. */
  readonly program: readonly string[];
  /** An empty folder for the images. */
  readonly dir: string;
  /** Size of the disk in bytes, a multiple of 1 MiB. */
  readonly size: number;
  /** Whether what qimg prints may go straight to the terminal. */
  readonly terminal: boolean;
  /** Where the story goes, with line ends. */
  readonly say: (text: string) => void;
}

/** SHA-256 of a file in hex. */
async function hashOf(path: string): Promise<string> {
  const { createHash } = await import("node:crypto");
  const hash = createHash("sha256");
  using file = Deno.openSync(path);
  const buffer = new Uint8Array(MiB);
  for (let n = file.readSync(buffer); n !== null; n = file.readSync(buffer)) {
    hash.update(buffer.subarray(0, n));
  }
  return hash.digest("hex");
}

/** Bytes that a file really takes. */
function allocated(path: string): number {
  const { blocks, size } = Deno.statSync(path);
  return blocks === null ? size : blocks * 512;
}

const inMiB = (bytes: number) => `${(bytes / MiB).toFixed(1)} MiB`;

/**
 * Makes a disk image and takes it through qimg: convert to compressed qcow2,
 * check, compare, info, map, and back. Throws when a step fails or the disk
 * that comes back differs from the one that went in.
 */
export async function runDemo(options: DemoOptions): Promise<void> {
  const { dir, say } = options;
  const [disk, packed, back] = ["disk.img", "disk.qcow2", "back.img"].map((name) =>
    join(dir, name)
  ) as [string, string, string];

  const step = async (title: string, args: readonly string[], lines = Infinity) => {
    say(`\n${bold(title)}\n${dim(`$ qimg ${args.join(" ")}`)}\n`);
    const [command, ...first] = options.program as [string, ...string[]];
    const started = performance.now();
    const live = options.terminal && lines === Infinity;
    const child = new Deno.Command(command, {
      args: [...first, ...args],
      cwd: dir,
      stdin: "null",
      stdout: live ? "inherit" : "piped",
      stderr: "inherit",
    }).spawn();
    const [{ code }, text] = await Promise.all([
      child.status,
      live ? "" : new Response(child.stdout).text(),
    ]);
    if (code !== 0) throw new Error(`qimg ${args.join(" ")}: exit code ${code}`);
    // Progress without a terminal is one line written over and over; its end says enough.
    const shown = text.replaceAll(/[^\r\n]*\r(?!\n)(?=[^\n])/g, "").trimEnd().split("\n");
    if (text !== "") say(`${shown.slice(0, lines).join("\n")}\n`);
    if (shown.length > lines) say(`${dim(`… and ${shown.length - lines} lines more`)}\n`);
    say(`${dim(`(${((performance.now() - started) / 1000).toFixed(2)} s)`)}\n`);
  };
  const progress = options.terminal ? "--progress=bar" : "-p";

  say(`${bold("A disk of mixed data")}\n`);
  makeDisk(disk, options.size);
  const before = await hashOf(disk);
  say(
    `${disk}: ${inMiB(options.size)}, of which ${inMiB(allocated(disk))} hold data: ` +
      `GPT, an EFI system partition, a Linux partition\nSHA-256 ${before}\n`,
  );

  await step("Raw to compressed qcow2", [
    ...["convert", progress, "-c", "-f", "raw", "-O", "qcow2"],
    ...["disk.img", "disk.qcow2"],
  ]);
  say(`${inMiB(allocated(disk))} of data became ${inMiB(allocated(packed))}\n`);
  await step("Is the new image sound?", ["check", "disk.qcow2"]);
  await step("Does it hold the same disk?", ["compare", "-f", "raw", "disk.img", "disk.qcow2"]);
  await step("What is it?", ["info", "disk.qcow2"]);
  await step("Where is data?", ["map", "--output=json", "disk.qcow2"], 8);
  await step("And back to raw", ["convert", progress, "-O", "raw", "disk.qcow2", "back.img"]);

  const after = await hashOf(back);
  if (after !== before) throw new Error(`${back} differs from ${disk}: SHA-256 ${after}`);
  const left = dim("(nothing needs them any more)");
  say(
    `\n${green("Byte for byte the disk that went in")}: SHA-256 ${after}\n\n` +
      `Made a disk, packed it, checked it, looked into it and unpacked it again.\n` +
      `The files are in ${dir} ${left}:\n` +
      `  disk.img    the disk, raw          ${inMiB(allocated(disk))}\n` +
      `  disk.qcow2  the same, compressed   ${inMiB(allocated(packed))}\n` +
      `  back.img    and raw again          ${inMiB(allocated(back))}\n`,
  );
}

if (import.meta.main) {
  const { dir } = parseArgs(Deno.args, { string: ["dir"] });
  if (typeof dir === "string") await Deno.mkdir(dir, { recursive: true });
  const folder = typeof dir === "string"
    ? await Deno.realPath(dir)
    : await Deno.makeTempDir({ prefix: "qimg_demo_" });
  const main = fromFileUrl(new URL("../main.ts", import.meta.url));
  try {
    await runDemo({
      program: [
        ...[Deno.execPath(), "run", "--no-prompt", "--allow-read", `--allow-write=${folder}`],
        ...["--allow-ffi", main],
      ],
      dir: folder,
      size: 256 * MiB,
      terminal: Deno.stdout.isTerminal(),
      say: (text) => Deno.stdout.writeSync(new TextEncoder().encode(text)),
    });
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(1);
  }
}
