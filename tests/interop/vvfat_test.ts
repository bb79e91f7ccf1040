/** Folders as disks: options, names and messages as the reference has them, and the same bytes. */
import { assertEquals } from "@std/assert";
import { reference, runQimg, runReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { type Case, folder, type Given, hole, img, same, sameForEach, text } from "./_cases.ts";

/** A link. */
function link(name: string, to: string): Given {
  return { key: `link ${name} ${to}`, make: (dir) => Deno.symlink(to, `${dir}/${name}`) };
}

/** Many empty files. */
function files(within: string, count: number): Given {
  return {
    key: `files ${within} ${count}`,
    make(dir) {
      for (let i = 0; i < count; i++) Deno.writeTextFileSync(`${dir}/${within}/f${i}`, "");
    },
  };
}

const FOLDER = [folder("d"), folder("d/sub"), text("d/hello.txt", "hello"), text("d/sub/x", "y")];

for (
  const options of [
    "driver=vvfat",
    "driver=vvfat,dir=d",
    "driver=vvfat,dir=",
    "driver=vvfat,dir=none",
    "driver=vvfat,dir=d/hello.txt",
    "driver=vvfat,dir=d,fat-type=0",
    "driver=vvfat,dir=d,fat-type=12",
    "driver=vvfat,dir=d,fat-type=13",
    "driver=vvfat,dir=d,fat-type=32",
    "driver=vvfat,dir=d,fat-type=-1",
    "driver=vvfat,dir=d,fat-type=4294967308",
    "driver=vvfat,dir=d,fat-type=x",
    "driver=vvfat,dir=d,floppy=on,fat-type=16,label=q",
    "driver=vvfat,dir=d,floppy=maybe",
    "driver=vvfat,dir=d,label=elevenbytes",
    "driver=vvfat,dir=d,label=twelve bytes",
    "driver=vvfat,dir=d,rw=on",
    "driver=vvfat,dir=d,rw=off,read-only=off",
    "driver=vvfat,filename=d",
    "driver=vvfat,filename=fat:d,dir=d",
    "driver=vvfat,dir=d,x=y",
    "driver=raw,file.driver=vvfat,file.dir=d,file.label=abc",
    "file.driver=vvfat,file.dir=d",
    "file.filename=fat:d",
  ]
) {
  sameForEach("options of folders", [
    `info --image-opts ${options}`.replace("twelve bytes", "twelvebytes."),
    `info --output=json --image-opts ${options}`.replace("twelve bytes", "twelvebytes."),
  ], { given: FOLDER });
}

for (
  const name of [
    "fat:d",
    "fat:12:d",
    "fat:16:32:d",
    "fat:floppy:d",
    "fat:floppy:12:d",
    "fat:floppy:16:d",
    "fat:floppy:32:d",
    "fat:8:junk:d",
    "fat:rw:d",
    "fat:label:d",
    "fat:d:e",
    "fat:",
    "fat:none",
    'json:{"driver":"vvfat","dir":"d","fat-type":16}',
    'json:{"driver":"vvfat","dir":"d","fat-type":"16","floppy":true}',
    'json:{"driver":"vvfat","dir":"d","fat-type":{"x":1}}',
  ]
) {
  sameForEach("names of folders", [
    `info ${name}`,
    `info --output=json ${name}`,
    `map ${name}`,
    `map --output=json ${name}`,
    `measure ${name}`,
  ], { given: FOLDER });
}

const CASES: Readonly<Record<string, Case>> = {
  "a folder's name without the prefix": { run: "info -f vvfat d" },
  "the protocol by its name": { run: "info -f vvfat fat:d" },
  "no folder is made": { run: "create -f vvfat fat:d 10M" },
  "no folder is made for raw either": { run: "create fat:d 10M" },
  "a disk for reading is not resized": { run: "resize -f raw fat:d 10M" },
  "a disk is not resized": { run: "resize -f raw --shrink fat:rw:d 10M" },
  "a disk for reading is not written": { run: "convert -O raw -n d/hello.txt fat:d" },
  "no check": { run: "check fat:d" },
  "a disk is like itself": { run: "compare fat:floppy:d fat:floppy:d" },
  "disks of two kinds differ": { run: "compare fat:d fat:12:d" },
};
for (const [name, testCase] of Object.entries(CASES)) {
  same(`folders: ${name}`, { given: FOLDER, ...testCase });
}

sameForEach("folders behind an image", ["info o", "info --backing-chain o"], {
  given: [...FOLDER, img("create -f qcow2 -b fat:d -F raw o")],
});

const TOO_MUCH: Readonly<Record<string, readonly Given[]>> = {
  "a file of 2 GiB": [folder("d"), hole("d/big", 2 ** 31)],
  "a file of 2 GiB less one byte": [folder("d"), hole("d/big", 2 ** 31 - 1)],
  "more than a disk holds": [folder("d"), folder("d/sub"), hole("d/sub/big", 600 << 20)],
  "too many files at the top": [folder("d"), files("d", 256)],
  "links that lead round and round": [folder("d"), link("d/x", "."), link("d/y", ".")],
};
for (const [name, given] of Object.entries(TOO_MUCH)) {
  sameForEach(name, ["info fat:d", "info fat:12:d", "info fat:floppy:d"], { given });
}

/** Whole clusters: behind the end of a file the reference shows what it read before. */
const CLUSTER = "0123456789abcdef".repeat(512);

/** Names that are difficult in one way or another. */
const NAMES = [
  "a+b;c=d.txt",
  "UPPER.TXT",
  "upper.txt",
  "My Long File Name.document",
  "My Long File Name 2.document",
  "exactly13long",
  "trail.",
  ".hidden",
  "..x",
  "+++",
  "ß.txt",
  "ſ.txt",
  "ı.txt",
  "Ĥa.txt",
  "āb.txt",
  "emoji🎉.txt",
  "new\nline",
  "n".repeat(255),
];

/** A folder with all kinds of things in it. */
function fill(top: string): void {
  Deno.mkdirSync(`${top}/deep/deeper/deepest`, { recursive: true });
  Deno.mkdirSync(`${top}/empty`);
  Deno.mkdirSync(`${top}/many`);
  for (const name of NAMES) Deno.writeTextFileSync(`${top}/${name}`, CLUSTER);
  for (let i = 0; i < 300; i++) Deno.writeTextFileSync(`${top}/many/collide name ${i}.text`, "");
  Deno.writeTextFileSync(`${top}/deep/deeper/deepest/long`, CLUSTER.repeat(5));
  Deno.symlinkSync("nowhere", `${top}/dangling`);
  Deno.symlinkSync("loop1", `${top}/loop1`);
  Deno.symlinkSync("deep/deeper", `${top}/link`);
  Deno.symlinkSync("..", `${top}/deep/up`);
  new Deno.Command("mkfifo", { args: [`${top}/fifo`] }).outputSync();
}

for (const words of ["12:", "floppy:", "floppy:16:", "floppy:32:", "floppy:12:", "", "32:"]) {
  Deno.test({
    name: `the bytes of fat:${words}DIR are the reference's`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      // A link leads to what is above the folder: the results are not to change its time.
      Deno.mkdirSync(dir.file("above/d"), { recursive: true });
      // Up and round and round: a floppy disk would be too small.
      if (words.includes("floppy:")) {
        Deno.writeTextFileSync(dir.file("above/d/x"), CLUSTER.repeat(3));
      } else fill(dir.file("above/d"));
      const options = { cwd: dir.path };
      const convert = (to: string) => ["convert", "-O", "raw", `fat:${words}above/d`, to];
      const theirs = await runReference(convert("theirs"), options);
      const ours = await runQimg(convert("ours"), { ...options, program: "qemu-img" });
      assertEquals(ours, theirs);
      assertEquals(theirs.code, 0);
      const compared = await runReference(
        ["compare", "-s", "-f", "raw", "-F", "raw", "theirs", "ours"],
        options,
      );
      assertEquals([compared.code, compared.stdout], [0, "Images are identical.\n"]);
    },
  });
}
