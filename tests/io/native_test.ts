import { assert, assertEquals, assertThrows } from "@std/assert";
import { HostError } from "../../lib/io/errno.ts";
import { type HostFile, openHostFile } from "../../lib/io/host_file.ts";
import { loadNative, type NativeFile, openNative, unloadNative } from "../../lib/io/native.ts";
import { run } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";

/** Native calls are Linux's and need the ffi permission: elsewhere these tests are ignored, visibly. */
const ignore = !loadNative();
unloadNative();

const KI = 1024;

interface Opened extends Disposable {
  host: HostFile;
  native: NativeFile;
}

async function open(path: string, options: { write: boolean }): Promise<Opened> {
  const host = await openHostFile(path, { ...options, ...(options.write ? { create: true } : {}) });
  const native = openNative(host);
  assert(native !== undefined);
  return {
    host,
    native,
    [Symbol.dispose]() {
      native.close();
      host.close();
    },
  };
}

function test(name: string, fn: (dir: TempDir) => void | Promise<void>): void {
  Deno.test({
    name: `native: ${name}`,
    ignore,
    sanitizeResources: true,
    sanitizeOps: true,
    async fn() {
      await using dir = await tempDir();
      try {
        await fn(dir);
      } finally {
        unloadNative();
      }
    },
  });
}

test("holes and data are told apart, in runs no longer than asked for", async (dir) => {
  using file = await open(dir.file("file"), { write: true });
  const { host, native } = file;
  host.truncate(1024 * KI);
  host.writeAt(256 * KI, new Uint8Array(128 * KI).fill(1));
  assertEquals(native.dataRun(0, 1024 * KI), { data: false, length: 256 * KI });
  assertEquals(native.dataRun(0, 10), { data: false, length: 10 });
  assertEquals(native.dataRun(256 * KI, 1024 * KI), { data: true, length: 128 * KI });
  assertEquals(native.dataRun(300 * KI, 4 * KI), { data: true, length: 4 * KI });
  assertEquals(native.dataRun(384 * KI, 640 * KI), { data: false, length: 640 * KI });
});

test("past the end of the file all is hole", async (dir) => {
  using file = await open(dir.file("file"), { write: true });
  file.host.writeAt(0, new Uint8Array(1000).fill(1));
  assertEquals(file.native.dataRun(0, 5000), { data: true, length: 1000 });
  assertEquals(file.native.dataRun(1000, 5000), { data: false, length: 5000 });
  assertEquals(file.native.dataRun(2 ** 50, 7), { data: false, length: 7 });
});

test("a punched range is a hole of zeros and the length stays", async (dir) => {
  using file = await open(dir.file("file"), { write: true });
  const { host, native } = file;
  host.writeAt(0, new Uint8Array(256 * KI).fill(1));
  assertEquals(native.punchHole(64 * KI, 128 * KI), true);
  assertEquals(native.punchHole(255 * KI, 128 * KI), true);
  assertEquals(host.size(), 256 * KI);
  assertEquals(native.dataRun(64 * KI, 128 * KI), { data: false, length: 128 * KI });
  const expected = new Uint8Array(256 * KI).fill(1).fill(0, 64 * KI, 192 * KI).fill(0, 255 * KI);
  assertEquals(await Deno.readFile(dir.file("file")), expected);
});

test("zeroing a range grows the file where the file system knows how", async (dir) => {
  using file = await open(dir.file("file"), { write: true });
  const { host, native } = file;
  host.writeAt(0, new Uint8Array(128 * KI).fill(1));
  const known = native.zeroRange(64 * KI, 128 * KI);
  const expected = new Uint8Array(known ? 192 * KI : 128 * KI).fill(
    1,
    0,
    known ? 64 * KI : 128 * KI,
  );
  assertEquals(await Deno.readFile(dir.file("file")), expected);
});

test("allocating reserves space, keeps content and grows the file", async (dir) => {
  using file = await open(dir.file("file"), { write: true });
  const { host, native } = file;
  host.writeAt(0, new Uint8Array(4 * KI).fill(1));
  native.preallocate(0, 1024 * KI);
  assertEquals(host.size(), 1024 * KI);
  assert(host.stat().allocated! >= 1024 * KI);
  assertEquals(
    await Deno.readFile(dir.file("file")),
    new Uint8Array(1024 * KI).fill(1, 0, 4 * KI),
  );
  if (native.allocate(1024 * KI, 1024 * KI)) {
    assertEquals(host.size(), 2048 * KI);
    assert(host.stat().allocated! >= 2048 * KI);
  } else {
    assertEquals(host.size(), 1024 * KI);
  }
});

test("errors that are no lack of support are thrown with their names", async (dir) => {
  using file = await open(dir.file("file"), { write: true });
  const errno = (body: () => unknown) => {
    const error = assertThrows(body, HostError);
    assertEquals([error.operation, error.path], ["allocate", dir.file("file")]);
    return error.errno;
  };
  assertEquals(errno(() => file.native.allocate(0, 0)), "EINVAL");
  assertEquals(errno(() => file.native.preallocate(0, 0)), "EINVAL");
  assert(["EFBIG", "ENOSPC"].includes(errno(() => file.native.preallocate(0, 2 ** 53 - 1))));
  file.host.truncate(0);
});

test("a file that is open for reading is not changed", async (dir) => {
  await Deno.writeFile(dir.file("file"), new Uint8Array(64 * KI).fill(1));
  using file = await open(dir.file("file"), { write: false });
  assertEquals(assertThrows(() => file.native.punchHole(0, 4096), HostError).errno, "EBADF");
  assertEquals(file.native.dataRun(0, 64 * KI), { data: true, length: 64 * KI });
});

test("copying within the kernel copies what is there, up to the end", async (dir) => {
  const content = Uint8Array.from({ length: 100_000 }, (_, i) => i * i >> 4);
  await Deno.writeFile(dir.file("source"), content);
  using source = await open(dir.file("source"), { write: false });
  using target = await open(dir.file("target"), { write: true });
  let copied = 0;
  for (;;) {
    const count = target.native.copyFrom(source.native, 1000 + copied, 500 + copied, 1_000_000);
    assert(count !== undefined, "on one file system it can be done");
    if (count === 0) break;
    copied += count;
  }
  assertEquals(copied, 99_000);
  const expected = new Uint8Array(99_500);
  expected.set(content.subarray(1000), 500);
  assertEquals(await Deno.readFile(dir.file("target")), expected);
});

test("cloning either shares everything or changes nothing", async (dir) => {
  await Deno.writeFile(dir.file("source"), new Uint8Array(64 * KI).fill(1));
  using source = await open(dir.file("source"), { write: false });
  using target = await open(dir.file("target"), { write: true });
  const done = target.native.cloneFrom(source.native);
  assertEquals(target.host.size(), done ? 64 * KI : 0);
});

test("what only devices can, a file answers with false", async (dir) => {
  using file = await open(dir.file("file"), { write: true });
  file.host.writeAt(0, new Uint8Array(8192).fill(1));
  assertEquals(file.native.zeroDevice(0, 4096), false);
  assertEquals(file.native.discardDevice(0, 4096), false);
  assertEquals(await Deno.readFile(dir.file("file")), new Uint8Array(8192).fill(1));
});

test("hints to the file system are taken or refused, and nothing else happens", async (dir) => {
  using file = await open(dir.file("file"), { write: true });
  const hint = file.native.extentSizeHint();
  assert(hint === undefined || hint === 0);
  try {
    file.native.setExtentSizeHint(1 << 20);
    assert(hint !== undefined);
  } catch (error) {
    // Some tell of hints and take none.
    assert(error instanceof HostError);
    assert(["ENOTSUP", "ENOTTY", "EINVAL"].includes(error.errno), error.message);
  }
  const inPlace = file.native.setNoCow();
  assertEquals(file.native.setNoCow(), inPlace);
  file.host.writeAt(0, new Uint8Array(10));
  assertEquals(file.host.size(), 10);
});

test("a name that leads to another file by now is not followed", async (dir) => {
  await Deno.writeTextFile(dir.file("file"), "first");
  using host = await openHostFile(dir.file("file"));
  await Deno.rename(dir.file("file"), dir.file("moved"));
  assertEquals(openNative(host), undefined);
  await Deno.writeTextFile(dir.file("file"), "second");
  assertEquals(openNative(host), undefined);
  await Deno.remove(dir.file("file"));
  await Deno.link(dir.file("moved"), dir.file("file"));
  using native = openNative(host);
  assertEquals(native?.dataRun(0, 5), { data: true, length: 5 });
});

test("a FIFO in the file's place does not make it wait", async (dir) => {
  await Deno.writeTextFile(dir.file("file"), "first");
  using host = await openHostFile(dir.file("file"));
  await Deno.remove(dir.file("file"));
  assertEquals((await run("mkfifo", [dir.file("file")], { cwd: dir.path })).code, 0);
  assertEquals(openNative(host), undefined);
});

test("names with other letters than ASCII are found", async (dir) => {
  using file = await open(dir.file("Größe 大小"), { write: true });
  file.host.writeAt(0, new Uint8Array(10));
  assertEquals(file.native.dataRun(0, 10).data, true);
});

test("a closed file is never taken for another one", async (dir) => {
  using first = await open(dir.file("first"), { write: true });
  first.native.close();
  first.native.close();
  using second = await open(dir.file("second"), { write: true });
  second.host.writeAt(0, new Uint8Array(64 * KI).fill(1));
  assertEquals(assertThrows(() => first.native.punchHole(0, 64 * KI), HostError).errno, "EBADF");
  assertEquals(second.native.dataRun(0, 64 * KI), { data: true, length: 64 * KI });
});

/** Runs a script that has `lib/io` at hand, and answers with what it prints. */
async function script(dir: TempDir, permissions: string[], body: string): Promise<string> {
  const from = (name: string) =>
    JSON.stringify(new URL(`../../lib/io/${name}.ts`, import.meta.url).href);
  await Deno.writeTextFile(
    dir.file("script.ts"),
    `import { openHostFile } from ${from("host_file")};
    import { loadNative, openNative } from ${from("native")};
    import { ImageLock } from ${from("locks")};
    ${body}`,
  );
  const { code, stdout, stderr } = await run(
    Deno.execPath(),
    ["run", "--no-prompt", "--no-config", "--no-check", ...permissions, dir.file("script.ts")],
    { cwd: dir.path },
  );
  assertEquals(code, 0, stderr);
  return stdout;
}

test("what was loaded goes on working when the permission is revoked", async (dir) => {
  const output = await script(
    dir,
    ["-A"],
    `console.log(loadNative());
    Deno.permissions.revokeSync({ name: "ffi" });
    console.log(loadNative());
    using host = await openHostFile("file", { write: true, create: true });
    host.truncate(1 << 20);
    using native = openNative(host);
    console.log(native.dataRun(0, 1 << 20).data, native.punchHole(0, 4096));
    try { native.allocate(0, 0); } catch (error) { console.log(error.errno); }
    using lock = ImageLock.acquire(native, { uses: ["write"], unshares: ["write"] });
    using other = openNative(host);
    console.log(other.isByteLocked(101), other.isByteLocked(103));`,
  );
  assertEquals(output, "true\ntrue\nfalse true\nEINVAL\ntrue false\n");
});

test("the half that reads works alone when the rest was not loaded in time", async (dir) => {
  const output = await script(
    dir,
    ["-A"],
    `console.log(loadNative("reading"));
    Deno.permissions.revokeSync({ name: "ffi" });
    console.log(loadNative("reading"), loadNative());
    using host = await openHostFile("file", { write: true, create: true });
    host.writeAt(0, new Uint8Array(4096).fill(1));
    using native = openNative(host);
    console.log(native.dataRun(0, 4096).data, native.punchHole(0, 4096), native.cloneFrom(native));
    console.log(native.copyFrom(native, 0, 4096, 4096), native.setNoCow(), native.extentSizeHint());
    try { native.preallocate(0, 8192); } catch (error) { console.log(error.errno); }`,
  );
  assertEquals(
    output,
    "true\ntrue false\ntrue false false\nundefined false undefined\nENOTSUP\n",
  );
});

test("without the permission there is nothing, and nobody is asked", async (dir) => {
  const output = await script(
    dir,
    ["--allow-read", "--allow-write"],
    `console.log(loadNative(), loadNative("reading"));
    using host = await openHostFile("file", { write: true, create: true });
    console.log(openNative(host));`,
  );
  assertEquals(output, "false false\nundefined\n");
});
