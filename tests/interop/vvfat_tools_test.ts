/** Folders as disks, looked at and changed by mtools and dosfstools. */
import { assert, assertEquals } from "@std/assert";
import { run, useQimg } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { Random } from "../_random.ts";
import { isInstalled } from "./_nbd_peers.ts";

const ignore = !(isInstalled("mcopy") && isInstalled("fsck.fat", "--help")) &&
  !Deno.env.get("QIMG_REQUIRE_REFERENCE");

/** Kinds of disks with the offset of their file system. */
const KINDS = { "floppy:": 0, "floppy:12:": 0, "12:": 32_256 } as const;

/** A disk of a folder `d` in its own file, for tools. */
class DiskFile {
  readonly #dir: string;
  readonly #words: string;
  readonly #offset: number;

  constructor(dir: string, words: keyof typeof KINDS) {
    this.#dir = dir;
    this.#words = words;
    this.#offset = KINDS[words];
  }

  async make(): Promise<void> {
    await useQimg(["convert", "-O", "raw", `fat:${this.#words}d`, "disk"], { cwd: this.#dir });
  }

  /** Gives the disk, changes and all, back to the folder. */
  async giveBack(): Promise<void> {
    const args = ["-n", "-f", "raw", "-O", "raw", "disk", `fat:${this.#words}rw:d`];
    await useQimg(["convert", ...args], { cwd: this.#dir });
  }

  /** Runs one of mtools. */
  async use(tool: string, ...args: string[]): Promise<string> {
    const all = ["-i", `disk@@${this.#offset}`, ...args];
    const { code, stdout, stderr } = await run(tool, all, { cwd: this.#dir });
    assertEquals(code, 0, `${tool} ${args.join(" ")}: ${stderr}`);
    return stdout;
  }

  /** What a check of the file system finds, which has to be nothing. */
  async check(): Promise<void> {
    const disk = await Deno.readFile(`${this.#dir}/disk`);
    await Deno.writeFile(`${this.#dir}/partition`, disk.subarray(this.#offset));
    const { code, stdout } = await run("fsck.fat", ["-n", "partition"], { cwd: this.#dir });
    assertEquals(code, 0, stdout);
    assert(/^partition: \d+ files, \d+\/\d+ clusters$/m.test(stdout), stdout);
  }
}

for (const words of Object.keys(KINDS) as (keyof typeof KINDS)[]) {
  Deno.test({
    name: `fat:${words}DIR is a file system in order, with all files in it`,
    ignore,
    async fn() {
      await using dir = await tempDir();
      const files = new Map<string, Uint8Array<ArrayBuffer>>();
      const random = new Random(7);
      Deno.mkdirSync(dir.file("d/sub/Deep er"), { recursive: true });
      for (const [i, size] of [0, 1, 8191, 8192, 8193, 50_000].entries()) {
        for (const path of [`file ${i}`, `sub/Another one ${i}.text`, `sub/Deep er/x${i}`]) {
          files.set(path, random.bytes(size));
          Deno.writeFileSync(dir.file(`d/${path}`), files.get(path)!);
        }
      }
      const disk = new DiskFile(dir.path, words);
      await disk.make();
      await disk.check();
      Deno.mkdirSync(dir.file("copy"));
      await disk.use("mcopy", "-s", "::*", "copy");
      for (const [path, bytes] of files) {
        assertEquals(Deno.readFileSync(dir.file(`copy/${path}`)), bytes, path);
      }
    },
  });

  Deno.test({
    name: `fat:${words}rw:DIR takes over what others do to the disk`,
    ignore,
    async fn() {
      await using dir = await tempDir();
      Deno.mkdirSync(dir.file("d/sub/deep"), { recursive: true });
      Deno.mkdirSync(dir.file("d/empty"));
      for (
        const name of ["hello.txt", "numbers.text", "UPPER.TXT", "sub/Mixed.Case", "sub/deep/x"]
      ) {
        Deno.writeTextFileSync(dir.file(`d/${name}`), name.repeat(1000));
      }
      const fresh = new Random(8).bytes(20_000);
      Deno.writeFileSync(dir.file("new.bin"), fresh);
      const disk = new DiskFile(dir.path, words);
      await disk.make();
      await disk.use("mcopy", "new.bin", "::");
      await disk.use("mcopy", "new.bin", "::sub/a brand new name.bin");
      await disk.use("mcopy", "-o", "new.bin", "::UPPER.TXT");
      await disk.use("mdel", "::hello.txt");
      await disk.use("mren", "::numbers.text", "::Numbers renamed.text");
      await disk.use("mmd", "::new dir");
      await disk.use("mmove", "::sub", "::new dir");
      await disk.use("mrd", "::empty");
      await disk.giveBack();
      const found: Record<string, number> = {};
      const list = (below: string) => {
        for (const { name, isDirectory } of Deno.readDirSync(dir.file(`d/${below}`))) {
          const path = below + name;
          if (isDirectory) list(`${path}/`);
          else found[path] = Deno.statSync(dir.file(`d/${path}`)).size;
        }
      };
      list("");
      assertEquals(found, {
        "Numbers renamed.text": 12_000,
        "UPPER.TXT": 20_000,
        "new dir/sub/Mixed.Case": 14_000,
        "new dir/sub/a brand new name.bin": 20_000,
        "new dir/sub/deep/x": 10_000,
        "new.bin": 20_000,
      });
      for (const path of ["new.bin", "UPPER.TXT", "new dir/sub/a brand new name.bin"]) {
        assertEquals(Deno.readFileSync(dir.file(`d/${path}`)), fresh, path);
      }
      // What the folder makes of it now is in order, too.
      await disk.make();
      await disk.check();
    },
  });
}
