import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { createImage, describeCreateOptions } from "../../lib/ops/create.ts";
import { loadNative } from "../../lib/io/native.ts";
import { reference, useReference, writeWithReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { testSame } from "./_same.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

/** Something to lie in the way, or behind. */
async function makeSurroundings(dir: string): Promise<void> {
  await useReference(["create", "-q", "-f", "raw", "back.raw", "1M"], { cwd: dir });
  await Deno.mkdir(`${dir}/folder`);
}

const RAW = [
  "create new 1M",
  "create new 1000",
  "create new 0",
  "create -f raw -o size=1M new",
  "create -f raw -o size=1M,size=2M new",
  "create -f raw -o preallocation=off new 1M",
  "create -f raw -o preallocation=falloc new 1M",
  "create -f raw -o preallocation=full new 1M",
  "create -f raw -o nocow=on,extent_size_hint=1M new 1M",
  "create -f raw file:new 1M",
  "create -q new 1M",
];

testSame(RAW, {
  setup: makeSurroundings,
  images: [{ name: "new", format: "raw" }],
  files: ["new"],
});

testSame([
  "create new",
  "create -o size=1M new 1M",
  "create -o zork=1 new 1M",
  "create -o zork=1 nosuch:new 1M",
  "create -f zork new 1M",
  "create -f zork nosuch:new 1M",
  "create nosuch:new 1M",
  "create json:new 1M",
  "create -f raw file:n:ew 1M",
  "create nodir/new 1M",
  "create folder 1M",
  "create back.raw/new 1M",
  "create -b back.raw new 1M",
  "create -F raw new 1M",
  "create -b back.raw -F raw new 1M",
  "create -o backing_file=back.raw new 1M",
  "create -o preallocation=some new 1M",
  "create -o nocow new 1M",
  "create -o nocow=maybe new 1M",
  "create -o size=1Q new",
  "create -o size=-1 new",
  "create -o extent_size_hint=4G new 1M",
  "create -f qcow2 nodir/new 1M",
  "create -f qcow2 folder 1M",
  "create -f qcow2 nosuch:new 1M",
  "create -f qcow2 new",
  "create -f qcow2 -b new new",
  "create -f qcow2 -b '' new",
  "create -f qcow2 -b back.raw new",
  "create -f qcow2 -b none new",
  "create -f qcow2 -b none -F raw new",
  "create -f qcow2 -b none -F raw new 1M",
  "create -f qcow2 -b folder -F raw new",
  "create -f qcow2 -b nosuch:x -F raw new",
  "create -f qcow2 -b back.raw -F qcow2 new",
  "create -f qcow2 -b back.raw -F zork new",
  "create -f qcow2 -b back.raw -F raw nodir/new",
  "create -f qcow2 -u -b none -F raw new",
  "create -f qcow2 -u -b none new 1M",
  "create -f qcow2 -o backing_file=back.raw new",
  "create -f qcow2 -o size=1M,lazy_refcounts=maybe new",
], { setup: makeSurroundings });

Deno.test({
  name: "where creation fails after the file was made, nothing is left of it",
  fn: async () => {
    await using dir = await tempDir();
    const error = await assertRejects(
      () => createImage({ filename: dir.file("new"), size: 7 * 2 ** 60 }),
      ImageError,
    );
    assertEquals(
      error.message,
      `${dir.file("new")}: The image size is too large for file format 'raw'`,
    );
    await assertRejects(() => Deno.stat(dir.file("new")), Deno.errors.NotFound);
  },
});

Deno.test({
  name: "a target that is the backing file under another name is refused and left alone",
  ignore: reference.ignore,
  fn: async () => {
    await using dir = await tempDir();
    const cwd = dir.path;
    await useReference(["create", "-q", "-f", "qcow2", "back", "1M"], { cwd });
    await useReference(["create", "-q", "-f", "qcow2", "-b", "back", "-F", "qcow2", "over"], {
      cwd,
    });
    await writeWithReference("back", ["write -P 7 0 64k"], { cwd });
    await Deno.symlink(dir.file("back"), dir.file("link"));
    const before = await Deno.readFile(dir.file("back"));
    for (const backing of ["link", "over"]) {
      const error = await assertRejects(
        () =>
          createImage({
            filename: dir.file("back"),
            format: "qcow2",
            backing,
            backingFormat: "qcow2",
          }),
        ImageError,
      );
      assertEquals(
        error.message,
        `${dir.file("back")}: Error: Trying to create an image with the same filename as the ` +
          "backing file",
      );
    }
    assertEquals(await Deno.readFile(dir.file("back")), before);
  },
});

Deno.test("the line that announces an image has sizes in full and in the reference's sign", async () => {
  await using dir = await tempDir();
  const announced = async (size: string) => {
    const lines: string[] = [];
    await assertRejects(() =>
      createImage({
        filename: dir.file("n"),
        options: [["size", size]],
        announce: (line) => void lines.push(line),
      }), ImageError);
    return lines.map((line) => line.replace(dir.path, "DIR"));
  };
  assertEquals(await announced("7E"), ["Formatting 'DIR/n', fmt=raw size=8070450532247928832"]);
  assertEquals(await announced("8E"), ["Formatting 'DIR/n', fmt=raw size=-9223372036854775808"]);
});

Deno.test("options are described as they sort, the protocol's with a file name only", async () => {
  const names = async (filename?: string) =>
    (await describeCreateOptions("raw", filename)).map((spec) => spec.name);
  assertEquals(await names(), ["size"]);
  assertEquals(await names("new"), ["extent_size_hint", "nocow", "preallocation", "size"]);
});
