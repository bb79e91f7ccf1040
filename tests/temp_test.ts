import { assert, assertEquals, assertRejects } from "@std/assert";
import { tempDir, withTempDir } from "./_temp.ts";

Deno.test("a temporary folder and what is in it are gone after the test", async () => {
  let path = "";
  {
    await using dir = await tempDir();
    path = dir.path;
    await Deno.mkdir(dir.file("a/b"), { recursive: true });
    await Deno.writeTextFile(dir.file("a/b/c"), "x");
    assert((await Deno.stat(path)).isDirectory);
  }
  await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
});

Deno.test("a temporary folder is removed when its user throws", async () => {
  let path = "";
  const error = await assertRejects(() =>
    withTempDir((dir) => {
      path = dir;
      throw new RangeError("thrown on purpose");
    })
  );
  assert(error instanceof RangeError);
  await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
});

Deno.test("withTempDir answers with what its body answers", async () => {
  assertEquals(await withTempDir((dir) => Deno.realPathSync(dir) === dir), true);
});
