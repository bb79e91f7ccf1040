import { assertEquals } from "@std/assert";
import { fromFileUrl } from "@std/path";
import { surplusPermissions } from "../../lib/cli/permissions.ts";
import { tempDir } from "../_temp.ts";
import type { Attempts } from "./_attempts.ts";

const SCRIPT = fromFileUrl(new URL("./_attempts.ts", import.meta.url));

/** What remains possible after a command line, in the main thread and in a worker, started with `-A`. */
async function attemptsAfter(
  args: readonly string[],
  dir: string,
): Promise<{ main: Attempts; worker: Attempts }> {
  const { stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", SCRIPT, dir, ...args],
    cwd: dir,
    stdout: "null",
  }).output();
  return JSON.parse(new TextDecoder().decode(stderr));
}

const NOTHING_BUT_READING: Attempts = {
  write: false,
  net: false,
  run: false,
  env: false,
  sys: false,
  ffi: false,
  read: true,
};

const READ_ONLY: readonly string[][] = [
  ["info", "a.img"],
  ["map", "a.img"],
  ["check", "a.img"],
  ["measure", "a.img"],
  ["measure", "--size", "1M"],
  ["compare", "a.img", "b.img"],
  ["info", "--image-opts", "driver=raw,file.filename=a.img"],
  ["map", 'json:{"driver":"raw","file":{"filename":"a.img"}}'],
  ["compare", "--object", "secret,id=a,file=a.img", "a.img", "b.img"],
];

for (const args of READ_ONLY) {
  Deno.test(`permissions: after "${args.join(" ")}" nothing can be written, here or in a worker`, async () => {
    await using dir = await tempDir();
    await Deno.writeFile(dir.file("a.img"), new Uint8Array(1024));
    await Deno.writeFile(dir.file("b.img"), new Uint8Array(1024));
    assertEquals(await attemptsAfter(args, dir.path), {
      main: NOTHING_BUT_READING,
      worker: NOTHING_BUT_READING,
    });
  });
}

Deno.test("permissions: a command that writes keeps reading and writing alone", async () => {
  await using dir = await tempDir();
  const expected = { ...NOTHING_BUT_READING, write: true };
  assertEquals(await attemptsAfter(["create", "a.img", "1M"], dir.path), {
    main: expected,
    worker: expected,
  });
});

Deno.test("permissions: options that ask for writing keep it", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("a.img"), new Uint8Array(1024));
  const list = "driver=raw,file.filename=a.img,read-only=off";
  const { main } = await attemptsAfter(["info", "--image-opts", list], dir.path);
  assertEquals(main, { ...NOTHING_BUT_READING, write: true });
});

Deno.test("permissions: nothing is given up before the command line is known to be right", async () => {
  await using dir = await tempDir();
  const { main } = await attemptsAfter(["info", "-Z"], dir.path);
  assertEquals(Object.values(main).every((possible) => possible), true);
});

const EVERYTHING = ["env", "ffi", "net", "run", "sys", "write"];

const SURPLUS: readonly (readonly [reads: string[], writes: string[], kept: string[]])[] = [
  [["a"], [], []],
  [[], [], []],
  [["a"], ["b"], ["write"]],
  [["file:a"], [], []],
  [["./nbd:a"], [], []],
  [["nbd://host/export"], [], ["net"]],
  [["nbd://host/export"], ["b"], ["net", "write"]],
  [["nbd+unix:///export?socket=s"], [], ["net", "write"]],
  [["ssh://me@host/a"], [], ["run"]],
  [["a"], ["ssh://host/b"], ["run", "write"]],
  [["driver=raw,file.driver=ssh,file.host=h,file.path=/a"], [], ["run"]],
  [["./ssh:a"], [], []],
  [['json:{"driver":"nbd","host":"h"}'], [], ["net"]],
  [['json:{"driver":"qcow2","file":{"filename":"a"}}'], [], []],
  [['json:{"backing":{"file":{"driver":"nbd","host":"h"}}}'], [], ["net"]],
  [['json:{"driver":"raw","file":{"filename":"nbd://host"}}'], [], []],
  [['json:{"driver":"raw","file":{"filename":"/home/nbd/a"}}'], [], []],
  [["driver=qcow2,file.filename=a"], [], []],
  [["driver=raw,file.driver=nbd,file.server.type=unix"], [], ["net", "write"]],
  [["driver=raw,file.driver=nbd,file.host=h"], [], ["net"]],
  [["driver=raw,file.filename=nbd/a"], [], []],
  [["driver=qcow2,file.filename=a,read-only=on"], [], []],
  [["driver=qcow2,file.filename=a,read-only=off"], [], ["write"]],
  [["driver=qcow2,file.filename=a,file.read-only=no"], [], ["write"]],
  [["driver=qcow2,file.filename=a,noread-only"], [], ["write"]],
  [['json:{"driver":"qcow2","read-only":false,"file":{"filename":"a"}}'], [], ["write"]],
  [["a"], ["driver=qcow2,file.filename=b"], ["write"]],
  [["json:{"], [], []],
  [["a=b=c=d"], [], []],
];

for (const [reads, writes, kept] of SURPLUS) {
  Deno.test(`permissions: reads ${reads} and writes ${writes} keeps ${kept}`, () => {
    assertEquals(
      surplusPermissions({ reads, writes }).toSorted(),
      EVERYTHING.filter((name) => !kept.includes(name)),
    );
  });
}

const GUARDED: readonly string[] = [
  "/dev/loop0",
  "/dev/shm/a.img",
  "/proc/self/fd/3",
  "/sys/x",
  "file:/dev/loop0",
  "host_device:/dev/loop0",
  'json:{"file":{"filename":"/dev/loop0"}}',
  "json:{'driver':'raw','file.filename':'/dev/shm/a'}",
  'json:{"file":{"filename":"\\u002fdev/loop0"}}',
  "driver=raw,file.filename=/dev/loop0",
  "driver=qcow2,file.filename=a,backing.file.driver=host_device,backing.file.filename=/dev/loop0",
];

for (const name of GUARDED) {
  Deno.test({
    name: `permissions: ${name} can only be opened with all of them`,
    ignore: Deno.build.os === "windows",
    fn: () => {
      assertEquals(surplusPermissions({ reads: [name] }), []);
      assertEquals(surplusPermissions({ reads: ["a"], writes: [name] }), []);
    },
  });
}

Deno.test({
  name: "permissions: a link into /dev is followed",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    await using dir = await tempDir();
    await Deno.symlink("/dev/null", dir.file("link"));
    await Deno.symlink("/dev", dir.file("folder"));
    assertEquals(surplusPermissions({ reads: [dir.file("link")] }), []);
    assertEquals(surplusPermissions({ reads: [`file.filename=${dir.file("link")}`] }), []);
    assertEquals(surplusPermissions({ writes: [dir.file("folder/still-to-be-made")] }), []);
    assertEquals(surplusPermissions({ writes: [dir.file("folder/missing/file")] }), []);
    assertEquals(surplusPermissions({ reads: [dir.file("missing")] }).length, EVERYTHING.length);
  },
});
