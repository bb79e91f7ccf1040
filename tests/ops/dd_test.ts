import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { loadNative } from "../../lib/io/native.ts";
import { ddImage } from "../../lib/ops/dd.ts";
import { reference, useReference, writeWithReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { testSame } from "./_same.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

async function makeSource(dir: string): Promise<void> {
  await useReference(["create", "-q", "-f", "raw", "src", "3M"], { cwd: dir });
  await writeWithReference("src", [
    "write -P 1 0 1000",
    "write -P 2 64k 64k",
    "write -P 3 1500k 700k",
  ], { cwd: dir, format: "raw" });
  await Deno.writeFile(`${dir}/odd`, new Uint8Array(1000).fill(5));
}

const COPIES = [
  "if=src of=new",
  "if=src of=new bs=1M",
  "if=src of=new bs=1k count=2 skip=1",
  "if=src of=new bs=1000 count=3",
  "if=src of=new bs=1000 count=3 skip=2",
  "if=src of=new bs=1M count=2 skip=1",
  "if=src of=new bs=777 skip=1000",
  "if=src of=new bs=1M count=0",
  "if=src of=new bs=1M skip=3",
  "if=src of=new bs=1M skip=4",
  "if=src of=new bs=1M count=1 skip=2",
  "if=src of=new count=9223372036854775807",
  "if=src of=new bs=1G skip=9223372036854775807",
  "if=odd of=new",
  "if=odd of=new bs=100 skip=3",
  "-f raw if=src of=new bs=2M",
];

testSame(COPIES.map((line) => `dd ${line}`), {
  setup: makeSource,
  images: [{ name: "new", format: "raw" }],
  files: ["new"],
});

testSame(COPIES.map((line) => `dd -O qcow2 ${line}`), {
  setup: makeSource,
  images: [{ name: "new", format: "qcow2", check: true }],
  files: ["new"],
});

testSame([
  "dd if=src of=nodir/new",
  "dd if=src of=nosuch:new",
  "dd if=src of=new -O zork",
  "dd -f zork if=src of=new",
  "dd if=none of=new",
], { setup: makeSource });

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
