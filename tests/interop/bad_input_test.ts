/**
 * What a host can put in a program's way: missing permission, read-only file
 * systems, full disks. Both tools end alike, and leave what was there alone.
 */

import { assertEquals } from "@std/assert";
import { reference, run, runQimg, runReference, sha256 } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";
import { disk, folder, type Given, img, io } from "./_cases.ts";

const K = 1024;
const M = 1024 * K;
const NOBODY = 65534;

const isRoot = Deno.build.os === "linux" && Deno.uid() === 0;

const GIVEN: readonly Given[] = [
  disk("src", M, [[0, 300 * K, "noise"], [900 * K, 50 * K, "mixed"]]),
  img("create -f qcow2 a 1M"),
  io("a", "write -P 1 0 100k"),
  img("create -f qcow2 -b src -F raw over"),
  folder("sub"),
  img("create -f raw sub/b 1M"),
];

async function makeFolders(): Promise<[TempDir, TempDir]> {
  const [one, two] = [await tempDir(), await tempDir()];
  for (const { path } of [one, two]) {
    for (const step of GIVEN) await step.make(path);
  }
  return [one, two];
}

/** All files below a folder with their content. */
async function contents(dir: string): Promise<Record<string, string>> {
  const all: Record<string, string> = {};
  for await (const { name, isFile } of Deno.readDir(dir)) {
    if (isFile) all[name] = await sha256(`${dir}/${name}`);
  }
  return all;
}

// Without permission. Root may do everything, so it becomes somebody else.

/** Runs `body` as an ordinary user. */
async function asNobody<T>(body: () => Promise<T>): Promise<T> {
  const libc = Deno.dlopen("libc.so.6", {
    seteuid: { parameters: ["u32"], result: "i32" },
  });
  assertEquals(libc.symbols.seteuid(NOBODY), 0);
  try {
    return await body();
  } finally {
    assertEquals(libc.symbols.seteuid(0), 0);
    libc.close();
  }
}

/** Changes who may do what with which file, and the command lines that then fail. */
const DENIALS: readonly (readonly [
  file: string,
  mode: number,
  lines: readonly string[],
])[] = [
  ["src", 0o000, [
    "info src",
    "info -f raw src",
    "map -f raw src",
    "measure -f raw src",
    "measure -f raw -O qcow2 src",
    "compare -f raw src a",
    "compare a src",
    "convert -f raw src new",
    "convert -O qcow2 -f raw a src new",
    "dd if=src of=new",
    "create -f qcow2 -b src -F raw new",
    "info over",
    "map over",
    "convert over new",
    "info --backing-chain over",
  ]],
  ["src", 0o444, [
    "resize -f raw src 2M",
    "convert -f qcow2 a src",
    "convert -n -f qcow2 a src",
    "create src 1M",
    "create -f qcow2 src 1M",
    "dd if=a of=src",
  ]],
  ["a", 0o444, [
    "resize a 2M",
    "check -r all a",
    "convert -n -f raw -O qcow2 src a",
    "convert -f raw -O qcow2 src a",
  ]],
  ["a", 0o000, ["check a", "info a", "resize a 2M", "check -r all a"]],
  ["sub", 0o000, [
    "info sub/b",
    "create sub/new 1M",
    "create -f qcow2 sub/new 1M",
    "convert -f raw src sub/new",
    "convert -f raw sub/b new",
    "convert -n -f raw src sub/b",
  ]],
  ["sub", 0o555, [
    "create sub/new 1M",
    "create -f qcow2 sub/new 1M",
    "create -f qcow2 -o data_file=sub/d new 1M",
    "convert -f raw src sub/new",
    "convert -f raw -O qcow2 src sub/new",
    "dd if=src of=sub/new",
  ]],
];

for (const [file, mode, lines] of DENIALS) {
  for (const line of lines) {
    Deno.test({
      name: `no permission (${file} ${mode.toString(8).padStart(3, "0")}): ${line}`,
      ignore: reference.ignore || !isRoot,
      async fn() {
        const [one, two] = await makeFolders();
        await using _one = one;
        await using _two = two;
        const args = line.split(" ");
        // What is loaded late is loaded now: the ordinary user could not read it.
        await runQimg(args, { cwd: two.path });
        await two[Symbol.asyncDispose]();
        await Deno.mkdir(two.path);
        for (const step of GIVEN) await step.make(two.path);
        for (const { path } of [one, two]) {
          await run("chown", ["-R", `${NOBODY}`, "."], { cwd: path });
          await Deno.chmod(`${path}/${file}`, mode);
        }
        const before = await contents(two.path);
        const expected = await runReference(args, { cwd: one.path, uid: NOBODY });
        const actual = await asNobody(() => runQimg(args, { cwd: two.path, program: "qemu-img" }));
        assertEquals(actual, expected);
        await Deno.chmod(`${two.path}/${file}`, 0o700);
        assertEquals(await contents(two.path), before);
      },
    });
  }
}

// On other file systems.

/** A file system that is there until it is disposed of. */
function mounted(path: string, options: string): Disposable {
  mount("mount", "-t", "tmpfs", "-o", options, "none", path);
  return { [Symbol.dispose]: () => mount("umount", path) };
}

function mount(program: string, ...args: readonly string[]): void {
  const { success, stderr } = new Deno.Command(program, { args: [...args] }).outputSync();
  if (!success) throw new Error(`${program}: ${new TextDecoder().decode(stderr)}`);
}

const canMount = isRoot && (() => {
  const path = Deno.makeTempDirSync();
  try {
    mounted(path, "size=64k")[Symbol.dispose]();
    return true;
  } catch {
    return false;
  } finally {
    Deno.removeSync(path);
  }
})();

/** Runs a command line through both tools, in `disk` a file system of its own. */
function onFileSystem(
  name: string,
  line: string,
  options: string,
  fill: (disk: string, dir: string) => unknown,
  lock: readonly string[] = [],
): void {
  Deno.test({
    name: `${name}: ${line}`,
    ignore: reference.ignore || !canMount,
    async fn() {
      const [one, two] = await makeFolders();
      await using _one = one;
      await using _two = two;
      const args = line.split(" ");
      const outcomes = [];
      const left: Record<string, string>[] = [];
      let before: Record<string, string> = {};
      for (const dir of [one, two]) {
        const path = dir.file("disk");
        await Deno.mkdir(path);
        using _mounted = mounted(path, options);
        await fill(path, dir.path);
        before = await contents(path);
        if (lock.length > 0) mount("mount", ...lock, path);
        outcomes.push(
          dir === one
            ? await runReference(args, { cwd: dir.path })
            : await runQimg(args, { cwd: dir.path, program: "qemu-img" }),
        );
        left.push(await contents(path));
      }
      assertEquals(outcomes[0]!.code, 1);
      assertEquals(outcomes[1], outcomes[0]);
      // Nothing half-made of ours; the reference leaves some.
      assertEquals(Object.keys(left[1]!), Object.keys(before));
      assertEquals(await contents(two.path), await contents(one.path));
    },
  });
}

for (
  const line of [
    "create disk/new 1M",
    "create -f qcow2 disk/new 1M",
    "create disk/old 1M",
    "create -f qcow2 -o data_file=disk/d new 1M",
    "convert -f raw src disk/new",
    "convert -f raw -O qcow2 src disk/new",
    "convert -n -f raw src disk/old",
    "dd if=src of=disk/new",
    "resize -f raw disk/old 2M",
    "resize disk/old.qcow2 2M",
    "check -r all disk/old.qcow2",
  ]
) {
  onFileSystem("read-only file system", line, "size=3m", async (path, dir) => {
    await Deno.copyFile(`${dir}/src`, `${path}/old`);
    await Deno.copyFile(`${dir}/a`, `${path}/old.qcow2`);
  }, ["-o", "remount,ro"]);
}

for (
  const line of [
    "create -f qcow2 -o preallocation=full disk/new 1M",
    "create -f qcow2 -o preallocation=falloc disk/new 1M",
    "create -f qcow2 -o preallocation=metadata,cluster_size=512 disk/new 1G",
    "convert -m 1 -f raw -O qcow2 -o preallocation=full src disk/new",
  ]
) {
  onFileSystem("no space left", line, "size=640k", () => {});
}
for (
  const line of [
    "create -o preallocation=full disk/new 1M",
    "create -o preallocation=falloc disk/new 1M",
    "convert -m 1 -f raw src disk/new",
    "convert -m 1 -S 0 -f raw src disk/new",
    "convert -m 1 -f raw -O qcow2 src disk/new",
    "convert -m 1 -f raw -O qcow2 -o cluster_size=4k src disk/new",
    "convert -m 1 -c -f raw -O qcow2 -o cluster_size=4k src disk/new",
    "dd if=src of=disk/new bs=64k",
    "dd -O qcow2 if=src of=disk/new bs=64k",
  ]
) {
  onFileSystem("no space left", line, "size=256k", () => {});
}
for (
  const line of [
    "resize -f raw --preallocation=full disk/old 2M",
    "resize -f raw --preallocation=falloc disk/old 2M",
    "resize --preallocation=full disk/old.qcow2 4M",
    "resize --preallocation=falloc disk/old.qcow2 4M",
  ]
) {
  onFileSystem("no space left", line, "size=1300k", async (path, dir) => {
    await run("cp", ["--sparse=always", "src", `${path}/old`], { cwd: dir });
    await run("cp", ["--sparse=always", "a", `${path}/old.qcow2`], { cwd: dir });
  });
}
