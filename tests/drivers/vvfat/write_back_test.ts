/** What a folder takes over from its disk, and what it refuses. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { withTempDir } from "../../_temp.ts";
import {
  assertContent,
  contentOf,
  fill,
  FLOPPY,
  inodeOf,
  openFolder,
  WritableFolder,
} from "./_folder.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

/** A test with a folder that holds `files`. */
function folderTest(
  name: string,
  files: Readonly<Record<string, string | null>>,
  body: (top: string) => Promise<void>,
): void {
  Deno.test(name, () =>
    withTempDir(async (dir) => {
      const top = `${dir}/top`;
      Deno.mkdirSync(top);
      fill(top, files);
      await body(top);
    }));
}

/** Registers a test: a change is refused in words like these, and the folder stays as it is. */
function refused(
  name: string,
  files: Readonly<Record<string, string | null>>,
  change: (folder: WritableFolder, top: string) => unknown,
  words: RegExp,
): void {
  folderTest(name, files, async (top) => {
    const folder = await WritableFolder.open(top);
    try {
      await change(folder, top);
      await folder.send();
      const before = contentOf(top);
      const error = await assertRejects(() => folder.node.flush(), ImageError);
      assert(words.test(error.message), error.message);
      assertContent(top, before);
      // Nobody is told twice.
      await folder.node[Symbol.asyncDispose]();
      assertContent(top, before);
    } finally {
      await folder.node[Symbol.asyncDispose]();
    }
  });
}

folderTest("a file that moves stays the file that it is", { "a": "1", "d": null }, async (top) => {
  const inode = inodeOf(`${top}/a`);
  await using folder = await WritableFolder.open(top);
  folder.editor.rename("a", "d/another name");
  await folder.commit();
  assertContent(top, new Map([["d", null], ["d/another name", bytes("1")]]));
  assertEquals(inodeOf(`${top}/d/another name`), inode);
});

folderTest("two files change places", { "a": "1", "b": "2" }, async (top) => {
  await using folder = await WritableFolder.open(top);
  folder.editor.rename("a", "c");
  folder.editor.rename("b", "a");
  folder.editor.rename("c", "b");
  await folder.commit();
  assertContent(top, new Map([["a", bytes("2")], ["b", bytes("1")]]));
});

folderTest(
  "a folder goes into what was in it",
  { "a": null, "a/b": null, "a/b/f": "1" },
  async (top) => {
    await using folder = await WritableFolder.open(top);
    folder.editor.rename("a/b", "b");
    folder.editor.rename("a", "b/a");
    await folder.commit();
    assertContent(top, new Map([["b", null], ["b/f", bytes("1")], ["b/a", null]]));
  },
);

folderTest("a file becomes a folder of the same name", { "a": "1" }, async (top) => {
  await using folder = await WritableFolder.open(top);
  folder.editor.remove("a");
  folder.editor.makeFolder("a");
  folder.editor.write("a/f", bytes("2"));
  await folder.commit();
  assertContent(top, new Map([["a", null], ["a/f", bytes("2")]]));
});

folderTest("a file with other content keeps its permissions", { "a": "1" }, async (top) => {
  Deno.chmodSync(`${top}/a`, 0o640);
  await using folder = await WritableFolder.open(top);
  folder.editor.write("a", bytes("other"));
  await folder.commit();
  assertContent(top, new Map([["a", bytes("other")]]));
  assertEquals(Deno.statSync(`${top}/a`).mode! & 0o777, 0o640);
});

folderTest("a file has the time that its entry says", { "a": "1" }, async (top) => {
  await using folder = await WritableFolder.open(top);
  folder.editor.write("b", bytes("new"));
  await folder.commit();
  assertEquals(Deno.statSync(`${top}/b`).mtime, new Date(1990, 4, 1, 15, 4));
});

folderTest("what is written as it was changes no file", { "a": "1", "b": "2" }, async (top) => {
  const inode = inodeOf(`${top}/a`);
  await using folder = await WritableFolder.open(top);
  await folder.node.write(0, folder.editor.disk);
  await folder.node.flush();
  assertContent(top, new Map([["a", bytes("1")], ["b", bytes("2")]]));
  assertEquals(inodeOf(`${top}/a`), inode);
});

folderTest("closing makes the folder like the disk, too", { "a": "1" }, async (top) => {
  {
    await using folder = await WritableFolder.open(top);
    folder.editor.remove("a");
    await folder.send();
    assertContent(top, new Map([["a", bytes("1")]]));
  }
  assertContent(top, new Map());
});

folderTest("requests need not keep to sectors", { "a": "some text" }, async (top) => {
  await using folder = await WritableFolder.open(top);
  const at = folder.editor.offsetOf(folder.editor.find("a").first);
  await folder.node.write(at + 5, bytes("T"));
  await folder.node.flush();
  assertContent(top, new Map([["a", bytes("some Text")]]));
});

folderTest("data that no file has yet is still there after a flush", { "a": "1" }, async (top) => {
  await using folder = await WritableFolder.open(top);
  const at = folder.editor.offsetOf(200);
  await folder.node.write(at, new Uint8Array(512).fill(7));
  await folder.node.flush();
  const found = new Uint8Array(512);
  await folder.node.read(at, found);
  assertEquals(found, new Uint8Array(512).fill(7));
});

folderTest(
  "the boot sector takes the mark of a volume in use and nothing else",
  {},
  async (top) => {
    await using folder = await WritableFolder.open(top);
    const sector = folder.editor.disk.slice(0, 512);
    sector[0x25] = 1;
    await folder.node.write(0, sector);
    sector[0x2b] = 0x41;
    const error = await assertRejects(() => folder.node.write(0, sector), ImageError);
    assertEquals(error.message, "Operation not permitted");
  },
);

refused("two FATs that differ", { "a": "1" }, ({ editor }) => {
  editor.disk[FLOPPY.fat + FLOPPY.fatLength + 100] = 1;
}, /its two FATs differ/);

refused(
  "a chain that leads into another file",
  { "a": "1".repeat(9000), "b": "2" },
  ({ editor }) => {
    editor.setNext(editor.find("a").first, editor.find("b").first);
  },
  /used more than once|taken, but by no file/,
);

refused("a chain that leads into itself", { "a": "1".repeat(9000) }, ({ editor }) => {
  const { first } = editor.find("a");
  editor.setNext(editor.chain(first)[1]!, first);
}, /used more than once/);

refused("a chain that leads off the disk", { "a": "1" }, ({ editor }) => {
  editor.setNext(editor.find("a").first, FLOPPY.clusterEnd);
}, /which the disk does not have/);

refused("a chain that ends in a free cluster", { "a": "1".repeat(9000) }, ({ editor }) => {
  editor.setNext(editor.find("a").first, 0);
}, /leads to cluster 0/);

refused("a file that is longer than its clusters", { "a": "1" }, ({ editor }) => {
  new DataView(editor.disk.buffer).setUint32(editor.find("a").at + 28, 9000, true);
}, /fewer clusters than its size/);

refused("a root directory of zeros", { "a": "1", "d": null }, ({ editor }) => {
  editor.disk.fill(0, FLOPPY.root, FLOPPY.root + 1024);
}, /taken, but by no file/);

refused("an entry without its long name's other parts", { "a name of three parts at least": "1" }, (
  { editor },
) => {
  editor.disk[editor.find("a name of three parts at least").slots[1]!] = 0xe5;
}, /long name in '\/' is not whole/);

refused("two files of one name", { "a": "1", "b": "2" }, ({ editor }) => {
  const { slots } = editor.find("a");
  editor.rename("b", "c");
  editor.rename("c", "A");
  // The long name becomes that of the other file.
  const at = editor.find("A").slots[0]!;
  editor.disk[at + 1] = editor.disk[slots[0]! + 1]!;
}, /two files called 'a'/);

refused(
  "a folder that does not know the one above it",
  { "d": null, "d/e": null },
  ({ editor }) => {
    const { first } = editor.find("d/e");
    editor.disk[editor.offsetOf(first) + 32 + 26] = 0;
  },
  /does not begin with itself and the one above/,
);

for (const name of ["..", ".", "a/b", "../evil", "a\\b", "c:d", "a\nb", "/abs", "x\u007f"]) {
  refused(`a file called ${JSON.stringify(name)}`, { "a": "1" }, ({ editor }) => {
    editor.write("harmless", bytes("evil"));
    const long = editor.find("harmless").slots[0]!;
    const units = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
    units.forEach((offset, i) => {
      const unit = i < name.length ? name.charCodeAt(i) : i === name.length ? 0 : 0xffff;
      new DataView(editor.disk.buffer).setUint16(long + offset, unit, true);
    });
  }, /No file can be called/);
}

refused("a file that somebody else changed meanwhile", { "a": "1" }, (folder, top) => {
  folder.editor.remove("a");
  Deno.writeTextFileSync(`${top}/a`, "precious");
}, /was changed by somebody else/);

refused(
  "a new file where there is one that the disk does not show",
  { "a": "1" },
  (folder, top) => {
    folder.editor.write("b", bytes("new"));
    Deno.writeTextFileSync(`${top}/b`, "precious");
  },
  /is there already/,
);

refused(
  "a deleted folder with a file that the disk does not show",
  { "d": null },
  (folder, top) => {
    folder.editor.remove("d");
    Deno.writeTextFileSync(`${top}/d/f`, "precious");
  },
  /which the disk does not show/,
);

refused("a folder whose place a link has taken", { "d": null, "d/f": "1" }, (folder, top) => {
  folder.editor.write("d/g", bytes("2"));
  Deno.renameSync(`${top}/d`, `${top}-elsewhere`);
  Deno.symlinkSync(`${top}-elsewhere`, `${top}/d`);
}, /was changed by somebody else/);

/** Registers a test: something outside the folder stays as it is although the disk shows it. */
function outside(name: string, change: (folder: WritableFolder) => void): void {
  Deno.test(`links: ${name}`, () =>
    withTempDir(async (dir) => {
      const top = `${dir}/top`;
      Deno.mkdirSync(top);
      Deno.mkdirSync(`${dir}/outside`);
      Deno.writeTextFileSync(`${dir}/outside/f`, "precious");
      Deno.symlinkSync("../outside", `${top}/folder`);
      Deno.symlinkSync("../outside/f", `${top}/file`);
      const folder = await WritableFolder.open(top);
      try {
        change(folder);
        await folder.send();
        const error = await assertRejects(() => folder.node.flush(), ImageError);
        assert(/is a link/.test(error.message), error.message);
      } finally {
        await folder.node[Symbol.asyncDispose]();
      }
      assertContent(`${dir}/outside`, new Map([["f", bytes("precious")]]));
      assertEquals(Deno.readLinkSync(`${top}/folder`), "../outside");
      assertEquals(Deno.readLinkSync(`${top}/file`), "../outside/f");
      assertEquals([...Deno.readDirSync(top)].length, 2);
    }));
}

outside("content of a file behind one", ({ editor }) => editor.patch("file", 0, bytes("P")));
outside("a file in a folder behind one", ({ editor }) => editor.write("folder/f", bytes("x")));
outside("a new file in a folder behind one", ({ editor }) => editor.write("folder/g", bytes("x")));
outside("a file out of a folder behind one", ({ editor }) => editor.rename("folder/f", "f"));
outside("another name for one", ({ editor }) => editor.rename("file", "other"));
outside("one that is deleted", ({ editor }) => editor.remove("file"));

Deno.test("what is refused once can be done once the disk is whole again", () =>
  withTempDir(async (dir) => {
    fill(dir, { "a": "1", "b": "2" });
    await using folder = await WritableFolder.open(dir);
    folder.editor.disk[FLOPPY.fat + FLOPPY.fatLength + 100] = 1;
    folder.editor.remove("a");
    folder.editor.disk[FLOPPY.fat + FLOPPY.fatLength + 100] = 1;
    await assertRejects(() => folder.commit(), ImageError);
    folder.editor.disk[FLOPPY.fat + FLOPPY.fatLength + 100] = 0;
    await folder.commit();
    assertContent(dir, new Map([["b", bytes("2")]]));
  }));

Deno.test("a file system with more bits than that is not written", () =>
  withTempDir(async (dir) => {
    const error = await assertRejects(
      () => openFolder(dir, { words: "rw:32:", writable: true }),
      ImageError,
    );
    assert(error.message.endsWith("Changes can be written back with FAT12 and FAT16 only"));
  }));

refused(
  "everything that was done before something fails is taken back",
  { "a": "1", "b": "2", "d": null, "d/f": "3", "e": "4" },
  (folder, top) => {
    folder.editor.rename("a", "d/z");
    folder.editor.rename("d", "moved");
    folder.editor.remove("b");
    folder.editor.makeFolder("new");
    folder.editor.write("e", bytes("other"));
    folder.editor.write("new/c", bytes("5"));
    // Comes after the others: the folder is made, and then it is in the way.
    folder.editor.write("zzz", bytes("new"));
    Deno.writeTextFileSync(`${top}/zzz`, "precious");
  },
  /is there already/,
);
