/** The whole program, killed, terminated, or on a full disk. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { Random } from "../_random.ts";
import { runQimg, sha256, useQimg } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const SEED = Number(Deno.env.get("QIMG_CRASH_SEED") ?? 1);
const ROUNDS = Number(Deno.env.get("QIMG_CRASH_STATES") ?? 1) * 2;
/** Bytes of the disk, and how many of them are data. */
const SIZE = 12 * 2 ** 20;
const DATA = 8 * 2 ** 20;
/** Slow enough to be caught in the middle, bytes a second. */
const RATE = "16M";
const SECTOR = 512;
const isWindows = Deno.build.os === "windows";

/** Command-line words that start qimg. */
const QIMG = [Deno.execPath(), "run", "-A", "--no-prompt", MAIN];

function startQimg(args: readonly string[], cwd: string): Deno.ChildProcess {
  return new Deno.Command(QIMG[0]!, {
    args: [...QIMG.slice(1), ...args],
    cwd,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
}

/** A disk of random data with a hole in it. */
async function writeDisk(path: string, random: Random): Promise<void> {
  using file = await Deno.open(path, { write: true, create: true });
  const part = random.bytes(2 ** 20);
  for (let at = 0; at < DATA; at += part.length) {
    new DataView(part.buffer).setUint32(0, random.u32());
    // No two parts are alike, nor two clusters.
    for (let i = 4; i < part.length; i += 4096) part[i] = random.below(256);
    await file.seek(at + (at >= DATA / 2 ? SIZE - DATA : 0), Deno.SeekMode.Start);
    await file.write(part);
  }
}

/** Waits until a file takes so many bytes on its disk, or the process has ended. */
async function untilWritten(path: string, bytes: number, process: Deno.ChildProcess) {
  let ended = false;
  process.status.then(() => ended = true);
  while (!ended) {
    try {
      const { blocks } = await Deno.stat(path);
      if ((blocks ?? 0) * SECTOR >= bytes) return;
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** A folder with a disk in several shapes; nothing in it may change but `target`. */
async function folder(random: Random): Promise<TempDir> {
  const dir = await tempDir();
  const { path: cwd } = dir;
  await writeDisk(dir.file("new.raw"), random);
  await writeDisk(dir.file("old.raw"), random);
  await useQimg(["convert", "-O", "qcow2", "-o", "cluster_size=4k", "new.raw", "new.qcow2"], {
    cwd,
  });
  await Deno.writeTextFile(dir.file("bystander"), "not yours");
  return dir;
}

async function hashes({ path }: TempDir, except: string): Promise<Record<string, string>> {
  const all: Record<string, string> = {};
  for await (const { name } of Deno.readDir(path)) {
    if (name !== except) all[name] = await sha256(join(path, name));
  }
  return all;
}

/** A command that is interrupted. */
interface Job {
  readonly args: readonly string[];
  /** What it writes to. */
  readonly target: string;
  /** Makes the target beforehand; without it there is none. */
  readonly prepare?: (cwd: string) => Promise<unknown>;
  /** The format to open the target in. */
  readonly format: "raw" | "qcow2";
  /** What the target holds in the end. */
  readonly result: string;
}

const JOBS: Readonly<Record<string, Job>> = {
  "convert to qcow2": {
    args: ["convert", "-r", RATE, "-O", "qcow2", "-o", "cluster_size=4k", "new.raw", "target"],
    target: "target",
    format: "qcow2",
    result: "new.raw",
  },
  "convert -c": {
    args: ["convert", "-r", RATE, "-c", "-O", "qcow2", "new.raw", "target"],
    target: "target",
    format: "qcow2",
    result: "new.raw",
  },
  "convert to raw": {
    args: ["convert", "-r", RATE, "-O", "raw", "new.qcow2", "target"],
    target: "target",
    format: "raw",
    result: "new.raw",
  },
  "convert -n to a raw image": {
    args: ["convert", "-r", RATE, "-n", "-O", "raw", "new.qcow2", "target"],
    target: "target",
    prepare: (cwd) => Deno.copyFile(join(cwd, "old.raw"), join(cwd, "target")),
    format: "raw",
    result: "new.raw",
  },
  "convert -n to a qcow2 image": {
    args: ["convert", "-r", RATE, "-n", "-O", "qcow2", "new.raw", "target"],
    target: "target",
    prepare: (cwd) =>
      useQimg(["convert", "-O", "qcow2", "-o", "cluster_size=4k", "old.raw", "target"], { cwd }),
    format: "qcow2",
    result: "new.raw",
  },
  "convert -n to a compressed qcow2 image": {
    args: ["convert", "-r", RATE, "-n", "-t", "writeback", "-O", "qcow2", "new.raw", "target"],
    target: "target",
    prepare: (cwd) => useQimg(["convert", "-c", "-O", "qcow2", "old.raw", "target"], { cwd }),
    format: "qcow2",
    result: "new.raw",
  },
  "commit": {
    args: ["commit", "-d", "-r", RATE, "front"],
    target: "target",
    prepare: async (cwd) => {
      await useQimg(["convert", "-O", "qcow2", "-o", "cluster_size=4k", "old.raw", "target"], {
        cwd,
      });
      await useQimg(["create", "-q", "-f", "qcow2", "-b", "target", "-F", "qcow2", "front"], {
        cwd,
      });
      await useQimg(["convert", "-n", "-O", "qcow2", "new.raw", "front"], { cwd });
    },
    format: "qcow2",
    result: "new.raw",
  },
  "dd": {
    args: ["dd", "-O", "qcow2", "bs=8k", "if=new.raw", "of=target"],
    target: "target",
    format: "qcow2",
    result: "new.raw",
  },
};

/** Every sector of the image is the new one or the old one. */
async function assertOldOrNew(dir: TempDir, job: Job): Promise<void> {
  const { path: cwd } = dir;
  await useQimg(["convert", "-f", job.format, "-O", "raw", job.target, "content"], { cwd });
  const content = await Deno.readFile(dir.file("content"));
  await Deno.remove(dir.file("content"));
  const fresh = await Deno.readFile(dir.file(job.result));
  const old = job.prepare === undefined
    ? new Uint8Array(SIZE)
    : await Deno.readFile(dir.file("old.raw"));
  const part = (bytes: Uint8Array, at: number) =>
    new BigUint64Array(bytes.buffer, at, Math.min(SECTOR, bytes.length - at) / 8);
  for (let at = 0; at < content.length; at += SECTOR) {
    const [found, ...known] = [content, old, fresh].map((bytes) => part(bytes, at));
    assert(
      known.some((sector) => sector.every((word, i) => word === found![i])),
      `sector ${at / SECTOR} is neither the old nor the new one`,
    );
  }
}

for (const [name, job] of Object.entries(JOBS)) {
  Deno.test({
    name: `killed: ${name}`,
    ignore: isWindows,
    fn: async () => {
      const random = new Random(SEED);
      await using dir = await folder(random);
      const { path: cwd } = dir;
      let caught = 0;
      // A fast machine may be through before it is caught.
      for (let round = 0; round < ROUNDS || (caught === 0 && round < 20); round++) {
        await job.prepare?.(cwd);
        const before = await hashes(dir, job.target);
        const process = startQimg(job.args, cwd);
        if (job.prepare === undefined) {
          await untilWritten(dir.file(job.target), random.below(DATA / 2), process);
        } else {
          await untilChanged(process, dir.file(job.target));
          await new Promise((resolve) => setTimeout(resolve, random.below(400)));
        }
        try {
          process.kill("SIGKILL");
        } catch (error) {
          // It was faster.
          if (!(error instanceof TypeError)) throw error;
        }
        if ((await process.status).signal === "SIGKILL") caught++;

        assertEquals(await hashes(dir, job.target), before, `seed ${SEED}, round ${round}`);
        await assertUsable(dir, job, `seed ${SEED}, round ${round}`);
        await Deno.remove(dir.file(job.target)).catch(() => {});
      }
      assert(caught > 0, "it was always faster");
    },
  });
}

/** A qcow2 image has at worst leaks, and what it holds is old or new. A file without magic is none. */
async function assertUsable(dir: TempDir, job: Job, message: string): Promise<void> {
  const { path: cwd } = dir;
  let head: Uint8Array;
  try {
    head = (await Deno.readFile(dir.file(job.target))).subarray(0, 4);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound && job.prepare === undefined) return;
    throw error;
  }
  if (job.format === "qcow2") {
    if (job.prepare === undefined && (head.length < 4 || head[0] === 0)) return;
    const { code, stdout } = await runQimg(["check", "-f", "qcow2", job.target], { cwd });
    assert(code === 0 || code === 3, `${message}: exit code ${code}\n${stdout}`);
  }
  await assertOldOrNew(dir, job);
}

for (const [name, job] of Object.entries(JOBS)) {
  for (const [signal, code] of [["SIGTERM", 143], ["SIGINT", 130]] as const) {
    // dd has no brake: it may be through before the signal comes.
    if (name === "dd") continue;
    if (signal === "SIGINT" && name !== "convert to qcow2") continue;
    Deno.test({
      name: `${signal}: ${name}`,
      ignore: isWindows,
      fn: async () => {
        const random = new Random(SEED);
        await using dir = await folder(random);
        const { path: cwd } = dir;
        await job.prepare?.(cwd);
        const before = await hashes(dir, job.target);
        const args = job.args.map((word) => word === RATE ? "4M" : word);
        const process = startQimg(args, cwd);
        if (job.prepare === undefined) {
          await untilWritten(dir.file(job.target), DATA / 8, process);
        } else {
          await untilChanged(process, dir.file(job.target));
        }
        process.kill(signal);
        assertEquals((await process.status).code, code);
        assertEquals(await hashes(dir, job.target), before);
        const isThere = await Deno.stat(dir.file(job.target)).then(() => true, () => false);
        // What this run made is gone, what was there stays.
        assertEquals(isThere, job.prepare !== undefined);
        if (isThere) await assertUsable(dir, job, `seed ${SEED}`);
      },
    });
  }
}

/** Waits until a file has been changed. */
async function untilChanged(process: Deno.ChildProcess, path: string): Promise<void> {
  const before = (await Deno.stat(path)).mtime!.getTime();
  let ended = false;
  process.status.then(() => ended = true);
  while (!ended && (await Deno.stat(path)).mtime!.getTime() === before) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** Whether this machine lets a process of ours mount a file system of its own. */
function canMount(): boolean {
  if (Deno.build.os !== "linux") return false;
  try {
    const { success } = new Deno.Command("unshare", {
      args: ["-rm", "mount", "-t", "tmpfs", "none", "/mnt"],
      stdout: "null",
      stderr: "null",
    }).outputSync();
    return success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** What a command did on a disk of few bytes. */
interface SmallDiskOutcome {
  readonly code: number;
  readonly stderr: string;
  /** The files that are on it afterwards. */
  readonly files: readonly string[];
}

/**
 * Runs qimg with `dir/small` being a disk of `size` bytes, as long as it runs;
 * afterwards that folder holds a copy of the disk.
 */
async function onSmallDisk(
  dir: TempDir,
  size: string,
  args: readonly string[],
): Promise<SmallDiskOutcome> {
  const script = `
    size=$1; shift
    mkdir -p disk && mount -t tmpfs -o size=$size none disk || exit 99
    cp --sparse=always small/* disk/ 2> /dev/null
    "$@"
    code=$?
    rm -rf small/* && cp --sparse=always disk/* small/ 2> /dev/null
    exit $code`;
  await Deno.mkdir(dir.file("small"), { recursive: true });
  const { code, stderr } = await new Deno.Command("unshare", {
    args: ["-rm", "sh", "-c", script, "sh", size, ...QIMG, ...args],
    cwd: dir.path,
    stdin: "null",
    stdout: "null",
  }).output();
  const files = [];
  for await (const { name } of Deno.readDir(dir.file("small"))) files.push(name);
  return { code, stderr: new TextDecoder().decode(stderr), files: files.sort() };
}

const mountable = canMount();

const NO_SPACE: Readonly<Record<string, readonly string[]>> = {
  "convert to raw": ["convert", "-O", "raw", "new.qcow2", "disk/target"],
  "convert to qcow2": ["convert", "-O", "qcow2", "new.raw", "disk/target"],
  "convert to qcow2 -W": ["convert", "-W", "-m", "8", "-O", "qcow2", "new.raw", "disk/target"],
  "convert -c": ["convert", "-c", "-O", "qcow2", "new.raw", "disk/target"],
  "convert with preallocation": [
    "convert",
    "-O",
    "qcow2",
    "-o",
    "preallocation=full",
    "new.raw",
    "disk/target",
  ],
  "create of a raw image": ["create", "-f", "raw", "-o", "preallocation=full", "disk/target", "9M"],
  "create of a qcow2 image": [
    "create",
    "-f",
    "qcow2",
    "-o",
    "preallocation=full",
    "disk/target",
    "9M",
  ],
};

for (const [name, args] of Object.entries(NO_SPACE)) {
  Deno.test({
    name: `no space left: ${name} leaves nothing`,
    ignore: !mountable,
    fn: async () => {
      await using dir = await folder(new Random(SEED));
      const before = await hashes(dir, "");
      const { code, stderr, files } = await onSmallDisk(dir, "3m", args);
      assertEquals([code, files], [1, []], stderr);
      assertStringIncludes(stderr, "No space left on device");
      await Deno.remove(dir.file("small"));
      await Deno.remove(dir.file("disk"));
      assertEquals(await hashes(dir, ""), before);
    },
  });
}

Deno.test({
  name: "no space left: convert -n keeps the target, and its image whole",
  ignore: !mountable,
  fn: async () => {
    await using dir = await folder(new Random(SEED));
    await Deno.mkdir(dir.file("small"));
    const { path: cwd } = dir;
    await Deno.truncate(dir.file("old.raw"), 2 ** 20);
    await useQimg(["convert", "-O", "qcow2", "old.raw", "small/target"], { cwd });
    await useQimg(["resize", "small/target", `${SIZE}`], { cwd });
    await Deno.truncate(dir.file("old.raw"), SIZE);
    const args = ["convert", "-n", "-O", "qcow2", "new.raw", "disk/target"];
    const { code, stderr, files } = await onSmallDisk(dir, "4m", args);
    assertEquals([code, files], [1, ["target"]], stderr);
    assertStringIncludes(stderr, "No space left on device");
    await assertUsable(dir, {
      args,
      target: "small/target",
      prepare: () => Promise.resolve(),
      format: "qcow2",
      result: "new.raw",
    }, `seed ${SEED}`);
  },
});

Deno.test({
  name: "no space left: resize keeps the image as it was",
  ignore: !mountable,
  fn: async () => {
    for (const [format, how] of [["qcow2", "full"], ["qcow2", "falloc"], ["raw", "full"]]) {
      await using dir = await folder(new Random(SEED));
      await Deno.mkdir(dir.file("small"));
      const { path: cwd } = dir;
      await useQimg(["convert", "-O", format!, "new.raw", "small/target"], { cwd });
      const args = ["resize", "-f", format!, `--preallocation=${how}`, "disk/target", "+16M"];
      const { code, stderr } = await onSmallDisk(dir, "14m", args);
      assertEquals(code, 1, stderr);
      assertStringIncludes(stderr, "No space left on device");
      if (format === "qcow2") {
        const check = await runQimg(["check", "small/target"], { cwd });
        assert(check.code === 0 || check.code === 3, check.stdout);
      }
      const info = await useQimg(["info", "-f", format!, "--output=json", "small/target"], { cwd });
      assertEquals(JSON.parse(info)["virtual-size"], SIZE);
      await useQimg(["compare", "-f", "raw", "-F", format!, "new.raw", "small/target"], { cwd });
    }
  },
});
