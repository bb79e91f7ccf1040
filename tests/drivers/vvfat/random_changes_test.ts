/** Random changes of a disk, all of which its folder has to follow. More seeds: QIMG_VVFAT_SEEDS. */
import { assertEquals } from "@std/assert";
import { firstDifference } from "../../../lib/bytes/equal.ts";
import { Random } from "../../_random.ts";
import { withTempDir } from "../../_temp.ts";
import { FatEditor, parentOf } from "./_fat_editor.ts";
import { assertContent, type Content, FLOPPY, openFolder, WritableFolder } from "./_folder.ts";

const SEEDS = Number(Deno.env.get("QIMG_VVFAT_SEEDS") ?? 5);

const STEMS = ["a", "Read me", "numbers.text", "UPPER.TXT", ".hidden", "ünïcödé", "two.dots.txt"];

/** What a user of the disk does, and what the folder is to hold then. */
class Session {
  readonly #content: Content;
  readonly #folder: WritableFolder;
  readonly #random: Random;

  constructor(content: Content, folder: WritableFolder, random: Random) {
    this.#content = content;
    this.#folder = folder;
    this.#random = random;
  }

  step(): void {
    const { editor } = this.#folder;
    const file = this.#any((content) => content !== null);
    const folder = this.#any((content) => content === null);
    switch (this.#random.below(8)) {
      case 0:
      case 1: {
        const path = this.#newPath();
        const bytes = this.#bytes();
        editor.write(path, bytes);
        this.#content.set(path, bytes);
        break;
      }
      case 2: {
        const path = this.#newPath();
        editor.makeFolder(path);
        this.#content.set(path, null);
        break;
      }
      case 3: {
        if (file === undefined) break;
        const bytes = this.#bytes();
        editor.write(file, bytes);
        this.#content.set(file, bytes);
        break;
      }
      case 4: {
        const bytes = this.#content.get(file ?? "")?.slice();
        if (bytes === undefined || bytes.length === 0) break;
        const at = this.#random.below(bytes.length);
        const patch = this.#random.bytes(this.#random.between(1, bytes.length - at));
        bytes.set(patch, at);
        editor.patch(file!, at, patch);
        this.#content.set(file!, bytes);
        break;
      }
      case 5: {
        const path = this.#random.oneIn(3) ? folder : file;
        if (path === undefined || this.#below(path).length > 0) break;
        editor.remove(path);
        this.#content.delete(path);
        break;
      }
      default: {
        const path = this.#random.oneIn(2) ? folder : file;
        const to = this.#newPath();
        if (path === undefined || `${to}/`.startsWith(`${path}/`)) break;
        editor.rename(path, to);
        for (const old of [path, ...this.#below(path)]) {
          this.#content.set(to + old.slice(path.length), this.#content.get(old)!);
          this.#content.delete(old);
        }
        break;
      }
    }
  }

  #below(path: string): string[] {
    return [...this.#content.keys()].filter((other) => other.startsWith(`${path}/`));
  }

  #any(isWanted: (content: Uint8Array | null) => boolean): string | undefined {
    const paths = [...this.#content].flatMap(([path, content]) => isWanted(content) ? [path] : []);
    return paths.length === 0 ? undefined : this.#random.pick(paths);
  }

  #newPath(): string {
    const folder = this.#random.oneIn(2) ? this.#any((content) => content === null) : undefined;
    const name = `${this.#random.pick(STEMS)}${this.#random.u32()}`;
    return folder === undefined || folder.split("/").length > 5 ? name : `${folder}/${name}`;
  }

  #bytes(): Uint8Array {
    const length = this.#random.pick([0, 1, 511, 8191, 8192, 8193, 30_000]);
    return this.#random.bytes(length);
  }
}

for (let seed = 1; seed <= SEEDS; seed++) {
  Deno.test(`a folder follows random changes of its disk, seed ${seed}`, async () => {
    await withTempDir(async (dir) => {
      const random = new Random(seed);
      const top = `${dir}/top`;
      Deno.mkdirSync(top);
      const content: Content = new Map();
      // What is there in the beginning comes from random changes, too.
      for (let round = 0; round < 3; round++) {
        await using folder = await WritableFolder.open(top, random);
        const session = new Session(content, folder, random);
        for (let flush = 0; flush < 4; flush++) {
          for (let steps = random.between(1, 6); steps > 0; steps--) session.step();
          await folder.commit();
          assertContent(top, content, `seed ${seed}, round ${round}, flush ${flush}`);
        }
        const disk = new Uint8Array(folder.node.length);
        await folder.node.read(0, disk);
        // What no file has any more need not be there.
        const end = FLOPPY.root + FLOPPY.rootEntries * 32;
        const difference = firstDifference(disk.subarray(0, end), folder.editor.disk);
        assertEquals(difference, -1, `seed ${seed}: tables are as they were written`);
        const reader = new FatEditor(disk, FLOPPY, random);
        for (const [path, bytes] of content) {
          if (bytes !== null) assertEquals(reader.read(path), bytes, `seed ${seed}: ${path}`);
        }
      }
      await using again = await openFolder(top);
      assertEquals(again.length, 2_949_120);
    });
  });
}

Deno.test("paths have a folder that they are in", () => {
  assertEquals([parentOf("a"), parentOf("a/b"), parentOf("a/b/c")], ["", "a", "a/b"]);
});
