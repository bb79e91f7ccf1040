import { assert, assertEquals, assertRejects } from "@std/assert";
import { file, hostDevice } from "../../../drivers/file/driver.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import { type OptionPair, OptionSet } from "../../../lib/block/options.ts";
import { driverContext } from "../../../lib/graph/context.ts";
import { QUIET } from "../../../lib/graph/environment.ts";
import { loadNative } from "../../../lib/io/native.ts";
import { mayOpenDevices } from "../../_devices.ts";
import { reference, useReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { openFile } from "./_node.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

const CREATING = { ...READ_ONLY, writable: true };

function create(path: string, ...pairs: OptionPair[]): Promise<boolean> {
  const options = new OptionSet(file.createOptions!, pairs);
  return file.create!(path, options, driverContext(path, CREATING, QUIET));
}

Deno.test("creating answers whether the file is new, and empties one that is not", async () => {
  await using dir = await tempDir();
  assertEquals(await create(dir.file("a"), ["size", "1000"]), true);
  assertEquals(Deno.readFileSync(dir.file("a")), new Uint8Array(1024));
  Deno.writeFileSync(dir.file("a"), new Uint8Array(5000).fill(1));
  assertEquals(await create(dir.file("a"), ["size", "512"]), false);
  assertEquals(Deno.readFileSync(dir.file("a")), new Uint8Array(512));
});

Deno.test({
  name: "a new file can be read and written by its owner, and read by others",
  ignore: Deno.build.os === "windows",
  fn: async () => {
    await using dir = await tempDir();
    await create(dir.file("a"), ["size", "0"]);
    assertEquals(Deno.statSync(dir.file("a")).mode! & 0o777, 0o644 & ~Deno.umask());
  },
});

for (const how of ["off", "falloc", "full"]) {
  for (const size of ["0", "512", "4096", "1M"]) {
    Deno.test({
      name: `preallocation=${how} of ${size} takes as much space as the reference takes`,
      ignore: reference.ignore,
      fn: async () => {
        await using dir = await tempDir();
        await create(dir.file("ours"), ["size", size], ["preallocation", how]);
        await useReference(
          ["create", "-q", "-f", "raw", "-o", `preallocation=${how}`, "theirs", size],
          { cwd: dir.path },
        );
        const [ours, theirs] = ["ours", "theirs"].map((name) => Deno.statSync(dir.file(name)));
        assertEquals([ours!.size, ours!.blocks], [theirs!.size, theirs!.blocks]);
      },
    });
  }
}

Deno.test("options that are wrong are found before the file is touched", async () => {
  await using dir = await tempDir();
  const wrong: [OptionPair, string][] = [
    [["preallocation", "metadata"], "Unsupported preallocation mode: metadata"],
    [["preallocation", "some"], "invalid parameter value: some"],
    [["extent_size_hint", "4G"], "Extent size hint is too large"],
  ];
  for (const [pair, message] of wrong) {
    Deno.writeTextFileSync(dir.file("a"), "content");
    const error = await assertRejects(() => create(dir.file("a"), pair), ImageError);
    assertEquals(error.message, message);
    assertEquals(Deno.readTextFileSync(dir.file("a")), "content");
  }
});

Deno.test("hints do not keep a file from being made", async () => {
  await using dir = await tempDir();
  await create(
    dir.file("a"),
    ["size", "1M"],
    ["nocow", "on"],
    ["extent_size_hint", "1M"],
  );
  assertEquals(Deno.statSync(dir.file("a")).size, 1 << 20);
});

Deno.test("a new file that cannot be given its size is gone again, an old one is empty", async () => {
  await using dir = await tempDir();
  const attempt = () => create(dir.file("a"), ["size", "7E"]);
  const error = await assertRejects(attempt, ImageError);
  assertEquals(
    [error.message, error.errno],
    ["Could not resize file: File too large", "EFBIG"],
  );
  await assertRejects(() => Deno.stat(dir.file("a")), Deno.errors.NotFound);
  Deno.writeTextFileSync(dir.file("a"), "content");
  await assertRejects(attempt, ImageError);
  assertEquals(Deno.statSync(dir.file("a")).size, 0);
});

Deno.test("where nothing can be made the words say why", async () => {
  await using dir = await tempDir();
  const missing = dir.file("none/a");
  assertEquals(
    (await assertRejects(() => create(missing), ImageError)).message,
    `Could not create '${missing}': No such file or directory`,
  );
  assertEquals(
    (await assertRejects(() => create(dir.path), ImageError)).message,
    `Could not create '${dir.path}': Is a directory`,
  );
});

Deno.test("a file that somebody uses is not emptied", async () => {
  await using dir = await tempDir();
  Deno.writeTextFileSync(dir.file("a"), "content");
  await using user = await openFile(dir.file("a"));
  await user.lock!({ uses: ["consistent read"], unshares: ["write", "resize"] });
  const error = await assertRejects(() => create(dir.file("a"), ["size", "1M"]), ImageError);
  assertEquals(error.message, 'Failed to get "write" lock');
  assert(error.hint !== undefined);
  assertEquals(Deno.readTextFileSync(dir.file("a")), "content");
});

Deno.test("removing removes", async () => {
  await using dir = await tempDir();
  await create(dir.file("a"));
  await file.remove!(dir.file("a"));
  await assertRejects(() => Deno.stat(dir.file("a")), Deno.errors.NotFound);
  const error = await assertRejects(() => file.remove!(dir.file("a")), ImageError);
  assertEquals(error.errno, "ENOENT");
});

Deno.test({
  name: "a device stands in for a new file if it is large enough",
  ignore: !mayOpenDevices,
  fn: async () => {
    const context = driverContext("/dev/null", CREATING, QUIET);
    const options = (...pairs: OptionPair[]) => new OptionSet(hostDevice.createOptions!, pairs);
    const create = (...pairs: OptionPair[]) =>
      hostDevice.create!("/dev/null", options(...pairs), context);
    assertEquals(await create(["size", "0"]), false);
    assertEquals(
      (await assertRejects(() => create(["size", "1"]), ImageError)).message,
      "Cannot grow device files",
    );
    assertEquals(
      (await assertRejects(() => create(["preallocation", "full"]), ImageError)).message,
      "Unsupported preallocation mode 'full'",
    );
    const error = await assertRejects(
      () => hostDevice.create!("/dev/none", options(), context),
      ImageError,
    );
    assertEquals(
      error.message,
      "Protocol driver 'host_device' does not support creating new images, so an existing image " +
        "must be selected as the target; however, opening the given target as an existing image " +
        "failed: Could not open '/dev/none': No such file or directory",
    );
  },
});
