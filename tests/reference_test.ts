import { assert, assertEquals, assertRejects } from "@std/assert";
import { reference, run, sha256, useReference, writeWithReference } from "./_reference.ts";
import { tempDir } from "./_temp.ts";

Deno.test("a program's exit code, output and messages are told apart", async () => {
  await using dir = await tempDir();
  const script = dir.file("script.ts");
  await Deno.writeTextFile(
    script,
    `console.log(Deno.cwd()); console.error("no"); Deno.exit(7);`,
  );
  assertEquals(await run(Deno.execPath(), ["run", "-A", script], { cwd: dir.path }), {
    code: 7,
    stdout: `${dir.path}\n`,
    stderr: "no\n",
  });
});

Deno.test("the SHA-256 of a file is that of its content", async () => {
  await using dir = await tempDir();
  await Deno.writeTextFile(dir.file("abc"), "abc");
  assertEquals(
    await sha256(dir.file("abc")),
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
  );
});

Deno.test({
  name: "the reference tools make and write images",
  ignore: reference.ignore,
  async fn() {
    assert(reference.found, "QIMG_REQUIRE_REFERENCE is set and the reference tools are missing");
    await using dir = await tempDir();
    await useReference(["create", "-q", "-f", "raw", "a.img", "64k"], { cwd: dir.path });
    await writeWithReference("a.img", ["write -P 7 512 512"], { cwd: dir.path, format: "raw" });
    const bytes = await Deno.readFile(dir.file("a.img"));
    assertEquals([bytes[511], bytes[512], bytes[1023], bytes[1024]], [0, 7, 7, 0]);
  },
});

Deno.test({
  name: "a reference tool that fails fails the test",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    await assertRejects(() => useReference(["info", "missing"], { cwd: dir.path }));
  },
});
