/** Folders and disks that are out to do harm. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import {
  assertContent,
  contentOf,
  fill,
  FLOPPY,
  openFolder,
  WritableFolder,
} from "../drivers/vvfat/_folder.ts";
import { FatEditor } from "../drivers/vvfat/_fat_editor.ts";
import { Random } from "../_random.ts";
import { withTempDir } from "../_temp.ts";

/** What is on the disk of a folder. */
async function editorOf(node: BlockNode): Promise<FatEditor> {
  const disk = new Uint8Array(node.length);
  await node.read(0, disk);
  return new FatEditor(disk, FLOPPY, new Random(1));
}

/** Reads the whole disk, which must fail with these words. */
async function assertUnreadable(node: BlockNode, words: RegExp): Promise<void> {
  const error = await assertRejects(
    () => node.read(0, new Uint8Array(node.length)),
    ImageError,
  );
  assert(words.test(error.message), error.message);
}

function pipe(path: string): void {
  assert(new Deno.Command("mkfifo", { args: [path] }).outputSync().success);
}

const isUnix = Deno.build.os !== "windows";

Deno.test({
  name: "nobody waits for pipes and devices: they are empty files",
  ignore: !isUnix,
  fn: () =>
    withTempDir(async (dir) => {
      pipe(`${dir}/pipe`);
      Deno.symlinkSync("/dev/zero", `${dir}/zero`);
      await using node = await openFolder(dir);
      const editor = await editorOf(node);
      assertEquals([editor.find("pipe").size, editor.find("zero").size], [0, 0]);
    }),
});

Deno.test({
  name: "a pipe in the place of a file is an error, not a wait",
  ignore: !isUnix,
  fn: () =>
    withTempDir(async (dir) => {
      fill(dir, { "a": "1" });
      await using node = await openFolder(dir);
      Deno.removeSync(`${dir}/a`);
      pipe(`${dir}/a`);
      await assertUnreadable(node, /'.*\/a' is no file any more/);
    }),
});

Deno.test("a file that went away is an error that names it", () =>
  withTempDir(async (dir) => {
    fill(dir, { "a": "1" });
    await using node = await openFolder(dir);
    Deno.removeSync(`${dir}/a`);
    await assertUnreadable(node, /Could not read '.*\/a': No such file or directory/);
  }));

Deno.test("a file that became shorter is an error that names it", () =>
  withTempDir(async (dir) => {
    fill(dir, { "a": "1234" });
    await using node = await openFolder(dir);
    Deno.truncateSync(`${dir}/a`, 2);
    await assertUnreadable(node, /'.*\/a' has shrunk from 4 to 2 bytes while it was in use/);
  }));

Deno.test("a file that became longer is as long as it was", () =>
  withTempDir(async (dir) => {
    fill(dir, { "a": "1234" });
    await using node = await openFolder(dir);
    Deno.writeTextFileSync(`${dir}/a`, "123456");
    const editor = await editorOf(node);
    assertEquals(editor.read("a"), new TextEncoder().encode("1234"));
    const at = editor.offsetOf(editor.find("a").first);
    assertEquals(editor.disk.subarray(at + 4, at + 8192), new Uint8Array(8188));
  }));

Deno.test("more files than there are handles are read, and closed", () =>
  withTempDir(async (dir) => {
    Deno.mkdirSync(`${dir}/d`);
    for (let i = 0; i < 40; i++) Deno.writeTextFileSync(`${dir}/d/f${i}`, `content ${i}`);
    await using node = await openFolder(dir);
    for (let round = 0; round < 2; round++) {
      const editor = await editorOf(node);
      for (let i = 0; i < 40; i++) {
        assertEquals(new TextDecoder().decode(editor.read(`d/f${i}`)), `content ${i}`);
      }
    }
  }));

Deno.test("a folder as deep as names go is shown as far as it fits", () =>
  withTempDir(async (dir) => {
    let path = dir;
    for (let depth = 0; depth < 100; depth++) Deno.mkdirSync(path += "/d");
    await using node = await openFolder(dir);
    const editor = await editorOf(node);
    assertEquals(editor.find("d/d/d/d/d").isFolder, true);
  }));

for (let seed = 1; seed <= 20; seed++) {
  Deno.test(`noise in the tables of a disk does nothing outside its folder, seed ${seed}`, () =>
    withTempDir(async (dir) => {
      const random = new Random(seed);
      const top = `${dir}/top`;
      Deno.mkdirSync(top);
      fill(top, { "a": "1", "d": null, "d/e": "2".repeat(20_000), "d/g": null, "d/g/h": "3" });
      fill(dir, { "outside": "precious" });
      Deno.symlinkSync("../outside", `${top}/link`);
      const before = contentOf(top);
      const folder = await WritableFolder.open(top, random);
      const { disk } = folder.editor;
      const places = [
        ...Array.from({ length: 40 }, (_, i) => FLOPPY.fat + i),
        ...Array.from({ length: 384 }, (_, i) => FLOPPY.root + i),
        ...Array.from(
          { length: 256 },
          (_, i) => folder.editor.offsetOf(folder.editor.find("d").first) + i,
        ),
      ];
      for (let changes = random.between(1, 4); changes > 0; changes--) {
        disk[random.pick(places)] = random.below(256);
      }
      if (random.oneIn(2)) {
        const { fat, fatLength } = FLOPPY;
        disk.copyWithin(fat + fatLength, fat, fat + fatLength);
      }
      await folder.send();
      let isRefused = false;
      try {
        await folder.node.flush();
      } catch (error) {
        assert(error instanceof ImageError, `seed ${seed}: ${error}`);
        isRefused = true;
      } finally {
        await folder.node[Symbol.asyncDispose]();
      }
      if (isRefused) assertContent(top, before, `seed ${seed}`);
      assertEquals(Deno.readTextFileSync(`${dir}/outside`), "precious");
      assertEquals([...Deno.readDirSync(dir)].map(({ name }) => name).sort(), ["outside", "top"]);
      const left = [...contentOf(top).keys()].filter((path) => path.includes(".qimg-"));
      assertEquals(left, [], `seed ${seed}: nothing half-made is left`);
    }));
}
