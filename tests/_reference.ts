/**
 * The reference tools, qimg, and the comparison of the two.
 *
 * Tests that need the reference say `ignore: reference.ignore`, so they are
 * counted as ignored where it is not installed; with `QIMG_REQUIRE_REFERENCE`
 * in the environment they run all the same, and fail.
 */

import { assert, assertEquals } from "@std/assert";
import { join } from "@std/path";
import { tempDir } from "./_temp.ts";

/** The release that qimg is measured by; another one is as good as none. */
const REFERENCE_VERSION = "10.0.2";

/** The name that both tools go by in a comparison, so that messages can be equal to the byte. */
const REFERENCE_NAME = "qemu-img";

/** Longest that a reference tool may take, milliseconds. */
const TIME_LIMIT = 120_000;

/** Bytes of a qcow2 cluster unless told otherwise. */
const USUAL_CLUSTER = 65536;

/** From how many bytes on a file is expected to consist of holes. */
const SPARSE_FILE = 64 << 20;

const PROJECT = new URL("../", import.meta.url);

function findReference(): boolean {
  try {
    return ["qemu-img", "qemu-io", "qemu-nbd"].every((tool) => {
      const { stdout } = new Deno.Command(tool, { args: ["--version"], stderr: "null" })
        .outputSync();
      return new TextDecoder().decode(stdout).includes(` ${REFERENCE_VERSION} `);
    });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

const found = findReference();

/** Whether the reference tools are here. */
export const reference = {
  /** `qemu-img`, `qemu-io` and `qemu-nbd` of the right release are installed. */
  found,
  /** For `Deno.test({ ignore })` of tests that cannot do without them. */
  ignore: !found && !Deno.env.get("QIMG_REQUIRE_REFERENCE"),
} as const;

/** What a program did. */
export interface Outcome {
  /** Exit code. */
  readonly code: number;
  /** Standard output, whole. */
  readonly stdout: string;
  /** Standard error, whole. */
  readonly stderr: string;
}

/** Where and how a program runs. */
export interface RunOptions {
  /** Working folder. */
  readonly cwd: string;
  /** The user, by number, that a process runs as; only root can choose. */
  readonly uid?: number;
}

/** Runs any program to its end, without standard input and in the C locale. */
export async function run(
  program: string,
  args: readonly string[],
  options: RunOptions,
): Promise<Outcome> {
  const { code, stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    cwd: options.cwd,
    ...(options.uid === undefined ? {} : { uid: options.uid }),
    env: { LC_ALL: "C", NO_COLOR: "1" },
    stdin: "null",
    signal: AbortSignal.timeout(TIME_LIMIT),
  }).output();
  // Names in messages need not be UTF-8: latin1 keeps bytes apart that UTF-8 decoding would merge.
  return { code, stdout: decode(stdout), stderr: decode(stderr) };
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return new TextDecoder("latin1").decode(bytes);
  }
}

/** Runs the reference `qemu-img`, or another tool of it. */
export function runReference(
  args: readonly string[],
  options: RunOptions & { readonly tool?: "qemu-img" | "qemu-io" | "qemu-nbd" },
): Promise<Outcome> {
  return run(options.tool ?? REFERENCE_NAME, args, options);
}

/** Runs a reference tool that must succeed and answers with its standard output: for making images. */
export async function useReference(
  args: readonly string[],
  options: RunOptions & { readonly tool?: "qemu-img" | "qemu-io" | "qemu-nbd" },
): Promise<string> {
  const { code, stdout, stderr } = await runReference(args, options);
  assert(code === 0, `${options.tool ?? REFERENCE_NAME} ${args.join(" ")}: ${code}\n${stderr}`);
  return stdout;
}

/** Lets `qemu-io` run its commands (`write -P 7 0 64k`) on an image. */
export function writeWithReference(
  image: string,
  commands: readonly string[],
  options: RunOptions & { readonly format?: string },
): Promise<string> {
  const format = options.format === undefined ? [] : ["-f", options.format];
  return useReference(
    [...format, ...commands.flatMap((command) => ["-c", command]), image],
    { cwd: options.cwd, tool: "qemu-io" },
  );
}

/** A stream that keeps what is written to it. */
class Collector {
  #chunks: Uint8Array[] = [];

  writeSync(bytes: Uint8Array): number {
    this.#chunks.push(bytes.slice());
    return bytes.length;
  }

  /** Everything so far. */
  text(): string {
    const all = new Uint8Array(this.#chunks.reduce((sum, chunk) => sum + chunk.length, 0));
    let at = 0;
    for (const chunk of this.#chunks) {
      all.set(chunk, at);
      at += chunk.length;
    }
    return decode(all);
  }
}

// The working folder belongs to the process, so in-process runs take turns.
let turn: Promise<unknown> = Promise.resolve();

/**
 * Runs a qimg command line in this process, as `qimg` unless told otherwise.
 *
 * Fast, and the test's resource sanitizer sees what it leaves open. The
 * process keeps its permissions; {@linkcode runQimgProcess} shows the rest.
 */
export function runQimg(
  args: readonly string[],
  options: RunOptions & { readonly program?: string },
): Promise<Outcome> {
  const outcome = turn.then(async () => {
    // Lazily, so that tests of the leaves run while the command line is broken.
    const { runCli } = await import("../lib/cli/run.ts");
    const stdout = new Collector();
    const stderr = new Collector();
    const before = Deno.cwd();
    Deno.chdir(options.cwd);
    try {
      const code = await runCli(args, { program: options.program ?? "qimg", stdout, stderr });
      return { code, stdout: stdout.text(), stderr: stderr.text() };
    } finally {
      Deno.chdir(before);
    }
  });
  turn = outcome.catch(() => {});
  return outcome;
}

/** Runs a qimg command line that must succeed and answers with its standard output. */
export async function useQimg(args: readonly string[], options: RunOptions): Promise<string> {
  const { code, stdout, stderr } = await runQimg(args, options);
  assert(code === 0, `qimg ${args.join(" ")}: ${code}\n${stderr}`);
  return stdout;
}

/** Runs qimg as a user does, `deno run … main.ts`, with the permissions given (default `-A`). */
export function runQimgProcess(
  args: readonly string[],
  options: RunOptions & { readonly permissions?: readonly string[] },
): Promise<Outcome> {
  return run(Deno.execPath(), [
    "run",
    "--no-prompt",
    ...(options.permissions ?? ["-A"]),
    join(PROJECT.pathname, "main.ts"),
    ...args,
  ], options);
}

/** An image that both tools made, compared by content. */
export interface ComparedImage {
  /** Its name within the folder. */
  readonly name: string;
  /** Its format; without it the tool probes. */
  readonly format?: string;
  /** Whether holes, zeros and data must lie alike too; default true. */
  readonly map?: boolean;
  /** Whether the reference must find nothing wrong with ours (formats with a check); default false. */
  readonly check?: boolean;
}

/** What {@linkcode assertSame} sets up and looks at. */
export interface SameOptions {
  /** Fills a folder; runs once for each tool and must do the same each time. */
  readonly setup?: (dir: string) => void | Promise<void>;
  /** Files that must be equal byte for byte afterwards. */
  readonly files?: readonly string[];
  /**
   * The bytes of a file with what cannot be equal made so: ids that are drawn by lot, times. Be sparing
   * with it.
   */
  readonly mask?: (bytes: Uint8Array, name: string) => Uint8Array;
  /**
   * Bytes of those files may be 0 in ours where the reference leaves what was there before: it takes used
   * clusters for new space as they are.
   */
  readonly zeroed?: boolean;
  /** Images whose content must be equal afterwards, by the reference's own judgement. */
  readonly images?: readonly (string | ComparedImage)[];
  /**
   * By how many bytes the space that those files and images take on the host may differ, default
   * 64 KiB: a cluster of the usual size.
   */
  readonly slack?: number;
  /** Files that the reference leaves behind half-made, and qimg does not. */
  readonly leftByReference?: readonly string[];
  /** The exit code that both must end with, where a test is about that. */
  readonly code?: number;
  /** Takes out of either output what cannot be equal (times, host sizes); be sparing with it. */
  readonly normalize?: (text: string) => string;
}

/**
 * Runs one command line through both tools, each in a folder of its own with
 * the same content, and asserts equal exit codes, equal standard output, equal
 * standard error and equal folder listings, and that qimg changed no file that
 * the reference left alone. Both go by the same name, so all
 * of the text is compared. Answers with what the two did.
 */
export async function assertSame(
  args: readonly string[] | ((dir: string) => readonly string[]),
  options: SameOptions = {},
): Promise<Outcome> {
  await using theirs = await tempDir();
  await using ours = await tempDir();
  for (const dir of [theirs.path, ours.path]) await options.setup?.(dir);
  const before = { theirs: await states(theirs.path), ours: await states(ours.path) };
  const argsFor = (dir: string) => typeof args === "function" ? args(dir) : args;
  const [expected, actual] = await Promise.all([
    runReference(argsFor(theirs.path), { cwd: theirs.path }),
    runQimg(argsFor(ours.path), { cwd: ours.path, program: REFERENCE_NAME }),
  ]);

  const clean = (outcome: Outcome, dir: string): Outcome => {
    const text = (raw: string) => {
      // Deno calls programs by their full path, which usage advice then repeats.
      const named = raw.replaceAll(dir, "DIR").replaceAll(
        /^((?:Try ')?)\/\S*\/(?=qemu-img[ :])/gm,
        "$1",
      );
      return options.normalize?.(named) ?? named;
    };
    return { code: outcome.code, stdout: text(outcome.stdout), stderr: text(outcome.stderr) };
  };
  const commandLine = `qemu-img ${argsFor("DIR").join(" ")}`;
  const outcome = clean(expected, theirs.path);
  assertEquals(clean(actual, ours.path), outcome, commandLine);
  if (options.code !== undefined) assertEquals(outcome.code, options.code, commandLine);
  const { leftByReference = [] } = options;
  const left = await listing(theirs.path);
  for (const name of leftByReference) {
    assert(left.includes(name), `${commandLine}: the reference left no ${name}`);
  }
  assertEquals(
    await listing(ours.path),
    left.filter((name) => !leftByReference.includes(name)),
    `${commandLine}: files`,
  );
  const after = { theirs: await states(theirs.path), ours: await states(ours.path) };
  for (const [name, state] of before.ours) {
    if (before.theirs.get(name) !== after.theirs.get(name)) continue;
    assertEquals(after.ours.get(name), state, `${commandLine}: only qimg touched ${name}`);
  }

  for (const name of options.files ?? []) {
    const message = `${commandLine}: bytes of ${name}`;
    if (options.zeroed) await assertZeroed(theirs.file(name), ours.file(name), message);
    else await assertSameBytes(theirs.file(name), ours.file(name), message, options.mask, name);
  }
  for (const image of options.images ?? []) {
    await assertSameImage(theirs.path, ours.path, image, commandLine);
  }
  for (const item of [...options.files ?? [], ...options.images ?? []]) {
    const name = typeof item === "string" ? item : item.name;
    const [expected, actual] = [
      await hostBytes(theirs.file(name)),
      await hostBytes(ours.file(name)),
    ];
    assert(
      Math.abs(actual - expected) <= (options.slack ?? USUAL_CLUSTER),
      `${commandLine}: ${name} takes ${actual} bytes on the host instead of ${expected}`,
    );
  }
  return outcome;
}

/** The bytes that a file takes on the host; 0 where the system does not tell. */
async function hostBytes(path: string): Promise<number> {
  return ((await Deno.stat(path)).blocks ?? 0) * 512;
}

async function assertZeroed(theirs: string, ours: string, message: string): Promise<void> {
  const [expected, actual] = [await Deno.readFile(theirs), await Deno.readFile(ours)];
  assertEquals(actual.length, expected.length, message);
  const difference = actual.findIndex((byte, at) => byte !== 0 && byte !== expected[at]);
  assertEquals(difference, -1, `${message}: first difference that is not 0`);
}

async function assertSameBytes(
  theirs: string,
  ours: string,
  message: string,
  mask: SameOptions["mask"],
  name: string,
): Promise<void> {
  const [expected, actual] = [await Deno.stat(theirs), await Deno.stat(ours)];
  if (mask !== undefined && actual.size < SPARSE_FILE) {
    const wanted = mask(await Deno.readFile(theirs), name);
    const found = mask(await Deno.readFile(ours), name);
    assertEquals(found.length, wanted.length, message);
    const difference = wanted.findIndex((byte, at) => byte !== found[at]);
    assertEquals(difference, -1, `${message}: first difference`);
    return;
  }
  assertEquals(actual.size, expected.size, message);
  if (actual.size < SPARSE_FILE) {
    assertEquals(await sha256(ours), await sha256(theirs), message);
    return;
  }
  // The reference passes over holes, which a digest would read.
  const args = ["compare", "-f", "raw", "-F", "raw", theirs, ours];
  const { code, stdout, stderr } = await runReference(args, { cwd: "." });
  assertEquals([code, stdout], [0, "Images are identical.\n"], `${message}: ${stderr}`);
}

async function assertSameImage(
  theirs: string,
  ours: string,
  image: string | ComparedImage,
  commandLine: string,
): Promise<void> {
  const { name, format, map = true, check = false } = typeof image === "string"
    ? { name: image }
    : image;
  const one = format === undefined ? [] : ["-f", format];
  const both = format === undefined ? [] : ["-f", format, "-F", format];
  const compared = await runReference(
    ["compare", ...both, `${theirs}/${name}`, `${ours}/${name}`],
    { cwd: ours },
  );
  assertEquals(
    [compared.code, compared.stdout],
    [0, "Images are identical.\n"],
    `${commandLine}: content of ${name}: ${compared.stderr}`,
  );
  const [ourMap, theirMap] = await Promise.all([
    mapOf(`${ours}/${name}`, one, ours),
    mapOf(`${theirs}/${name}`, one, theirs),
  ]);
  // A comparison takes a shorter image for one that ends in zeros.
  assertEquals(ourMap.length, theirMap.length, `${commandLine}: size of ${name}`);
  if (map) assertEquals(ourMap.extents, theirMap.extents, `${commandLine}: map of ${name}`);
  if (check) {
    const checked = await runReference(["check", ...one, `${ours}/${name}`], { cwd: ours });
    assertEquals(
      checked.code,
      0,
      `${commandLine}: check of ${name}\n${checked.stdout}${checked.stderr}`,
    );
  }
}

/** What the reference finds in an image, host offsets aside: neighbours that then look alike are one. */
async function mapOf(
  path: string,
  format: readonly string[],
  cwd: string,
): Promise<{ length: number; extents: Record<string, unknown>[] }> {
  const text = await useReference(["map", "--output=json", ...format, path], { cwd });
  const extents: { start: number; length: number; kind: string }[] = [];
  let end = 0;
  for (const { start, length, offset: _, ...rest } of JSON.parse(text)) {
    const kind = JSON.stringify(rest);
    const last = extents.at(-1);
    if (last?.kind === kind) last.length += length;
    else extents.push({ start, length, kind });
    end = start + length;
  }
  return { length: end, extents };
}

/** The names below a folder, sorted, folders with a slash. */
async function listing(dir: string, prefix = ""): Promise<string[]> {
  const names: string[] = [];
  for await (const entry of Deno.readDir(join(dir, prefix))) {
    names.push(prefix + entry.name + (entry.isDirectory ? "/" : ""));
    if (entry.isDirectory) names.push(...await listing(dir, `${prefix}${entry.name}/`));
  }
  return names.sort();
}

/** Size and time of change of the files below a folder: what writing to one changes. */
async function states(dir: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for (const name of await listing(dir)) {
    const { isFile, size, mtime } = await Deno.lstat(join(dir, name));
    if (isFile) found.set(name, `${size} bytes, changed ${mtime?.getTime()}`);
  }
  return found;
}

/** The SHA-256 of a file's content in hex, in bounded memory. */
export async function sha256(path: string): Promise<string> {
  const { createHash } = await import("node:crypto");
  const hash = createHash("sha256");
  using file = await Deno.open(path);
  const buffer = new Uint8Array(1 << 20);
  for (let n = file.readSync(buffer); n !== null; n = file.readSync(buffer)) {
    hash.update(buffer.subarray(0, n));
  }
  return hash.digest("hex");
}
