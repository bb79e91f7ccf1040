import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import { loadNative } from "../../lib/io/native.ts";
import { ddImage } from "../../lib/ops/dd.ts";
import { reference, useReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

Deno.test("to skip more than there is makes an empty image, and is told", async () => {
  await using dir = await tempDir();
  await Deno.writeTextFile(dir.file("a"), "content");
  const lines: string[] = [];
  await ddImage(
    { source: { filename: dir.file("a") }, target: dir.file("new"), skip: 2 },
    { ...QUIET, report: (line, fromProgram) => lines.push(`${fromProgram}: ${line}`) },
  );
  assertEquals(lines, [`true: ${dir.file("a")}: cannot skip to specified offset`]);
  assertEquals(await Deno.readTextFile(dir.file("new")), "");
});

Deno.test("what is to be read is not overwritten, whatever it is called", async () => {
  await using dir = await tempDir();
  await Deno.writeTextFile(dir.file("a"), "content");
  await Deno.symlink(dir.file("a"), dir.file("b"));
  for (const target of ["a", "b"]) {
    const error = await assertRejects(
      () => ddImage({ source: { filename: dir.file("a") }, target: dir.file(target) }),
      ImageError,
    );
    assertEquals(
      error.message,
      `${dir.file(target)}: error while creating output image: ` +
        `'${dir.file(target)}' is what is to be read`,
    );
  }
  assertEquals(await Deno.readTextFile(dir.file("a")), "content");
});

Deno.test({
  name: "nor is what lies behind it",
  ignore: reference.ignore,
  fn: async () => {
    await using dir = await tempDir();
    const cwd = dir.path;
    await useReference(["create", "-q", "back", "1M"], { cwd });
    await useReference(["create", "-q", "-f", "qcow2", "-b", "back", "-F", "raw", "a"], { cwd });
    await assertRejects(
      () => ddImage({ source: { filename: dir.file("a") }, target: dir.file("back") }),
      ImageError,
    );
    assertEquals((await Deno.stat(dir.file("back"))).size, 1 << 20);
  },
});

Deno.test("an aborted copy leaves nothing behind", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("a"), new Uint8Array(5 << 20));
  const reason = new Error("enough");
  const environment = {
    warn() {},
    report() {},
    untrusted: false,
    signal: AbortSignal.abort(reason),
  };
  const copying = ddImage(
    { source: { filename: dir.file("a") }, target: dir.file("b") },
    environment,
  );
  assertEquals(await assertRejects(() => copying), reason);
  await assertRejects(() => Deno.stat(dir.file("b")), Deno.errors.NotFound);
});
