import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { type OpenMode, READ_ONLY } from "../../lib/block/mode.ts";
import { type Environment, QUIET } from "../../lib/graph/environment.ts";
import { fileIdentity, filesOf, pathIdentity } from "../../lib/graph/identity.ts";
import { NodeOptions } from "../../lib/graph/node_options.ts";
import { openImage, openNode } from "../../lib/graph/open.ts";
import { loadNative } from "../../lib/io/native.ts";
import { createImage } from "../../lib/ops/create.ts";
import { type TempDir, tempDir } from "../_temp.ts";

// Outside the tests, each of which would count it as left open. That nothing else is left open after an
// error is what the resource sanitizer sees to.
loadNative();

const WRITABLE: OpenMode = { ...READ_ONLY, writable: true };

/** Makes an image of 1 MiB, over another one if `backing` is there (which need not exist). */
async function make(dir: TempDir, name: string, backing?: string): Promise<string> {
  const filename = dir.file(name);
  await createImage({
    filename,
    format: "qcow2",
    size: 1 << 20,
    ...(backing === undefined ? {} : { backing, backingFormat: "qcow2", unsafeBacking: true }),
  });
  return filename;
}

async function failure(promise: Promise<unknown>): Promise<string> {
  return (await assertRejects(() => promise, ImageError)).message;
}

Deno.test("an image shows what lies behind it, through any number of files", async () => {
  await using dir = await tempDir();
  const depth = 40;
  await make(dir, "0");
  {
    await using bottom = await openImage({ filename: dir.file("0") }, WRITABLE, QUIET);
    await bottom.write(70_000, new TextEncoder().encode("deep"));
  }
  for (let i = 1; i < depth; i++) await make(dir, String(i), String(i - 1));
  await using top = await openImage({ filename: dir.file(String(depth - 1)) }, READ_ONLY, QUIET);
  const bytes = new Uint8Array(6);
  await top.read(69_999, bytes);
  assertEquals(bytes, new Uint8Array([0, ...new TextEncoder().encode("deep"), 0]));
  assertEquals([...filesOf(top)].length, depth);
});

Deno.test("a format that was named is not probed, one that was not is", async () => {
  await using dir = await tempDir();
  const filename = await make(dir, "a");
  for (
    const [format, driver, length] of [
      [undefined, "qcow2", 1 << 20],
      ["qcow2", "qcow2", 1 << 20],
      ["raw", "raw", Math.ceil(Deno.statSync(filename).size / 512) * 512],
      ["file", "file", Math.ceil(Deno.statSync(filename).size / 512) * 512],
    ] as const
  ) {
    await using node = await openImage({ filename, format }, READ_ONLY, QUIET);
    assertEquals([node.driver, node.length], [driver, length]);
  }
});

Deno.test("a backing chain that comes back to itself is an error, writable or not", async () => {
  await using dir = await tempDir();
  await make(dir, "self", "./self");
  await make(dir, "one", "two");
  await make(dir, "two", "sub/../one");
  await Deno.mkdir(dir.file("sub"));
  for (const mode of [READ_ONLY, WRITABLE]) {
    assertEquals(
      await failure(openImage({ filename: dir.file("self") }, mode, QUIET)),
      `Could not open '${dir.file("self")}': Could not open backing file: ` +
        `Backing file '${dir.path}/./self' creates an infinite loop.`,
    );
    assertEquals(
      await failure(openImage({ filename: dir.file("one") }, mode, QUIET)),
      `Could not open '${dir.file("one")}': Could not open backing file: ` +
        "Could not open backing file: " +
        `Backing file '${dir.path}/sub/../one' creates an infinite loop.`,
    );
  }
});

Deno.test("a backing file that cannot be opened is an error of the image", async () => {
  await using dir = await tempDir();
  await make(dir, "a", "none");
  await make(dir, "b", "a");
  await Deno.writeFile(dir.file("text"), new Uint8Array(512).fill(65));
  await make(dir, "c", "text");
  assertEquals(
    await failure(openImage({ filename: dir.file("b") }, READ_ONLY, QUIET)),
    `Could not open '${dir.file("b")}': Could not open backing file: ` +
      `Could not open backing file: Could not open '${dir.file("none")}': ` +
      "No such file or directory",
  );
  assertEquals(
    await failure(openImage({ filename: dir.file("c") }, READ_ONLY, QUIET)),
    `Could not open '${dir.file("c")}': Could not open backing file: ` +
      "Image is not in qcow2 format",
  );
});

Deno.test("who looks at metadata only, or wants no backing file, does not need it", async () => {
  await using dir = await tempDir();
  const filename = await make(dir, "a", "none");
  for (const extra of [{ metadataOnly: true }, { noBacking: true }]) {
    await using node = await openImage({ filename }, { ...READ_ONLY, ...extra }, QUIET);
    assertEquals(node.backing?.name, "none");
    assertEquals(node.backing?.node, null);
  }
});

Deno.test("a source may say which backing file to use, or that there is none", async () => {
  await using dir = await tempDir();
  const filename = await make(dir, "a", "none");
  const other = await make(dir, "b");
  {
    await using node = await openNode({ filename, backing: null }, READ_ONLY, QUIET);
    assertEquals(node.backing?.node, null);
  }
  await using node = await openNode(
    { filename, options: new NodeOptions([["backing.file.filename", other]]) },
    READ_ONLY,
    QUIET,
  );
  assertEquals(node.backing?.node?.filename, other);
});

Deno.test("a source's options are the driver's", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("a"), new Uint8Array(4096));
  const options = new NodeOptions([["offset", "1k"], ["size", "512"]]);
  await using node = await openNode(
    { filename: dir.file("a"), driver: "raw", options },
    READ_ONLY,
    QUIET,
  );
  assertEquals(node.length, 512);
});

Deno.test("no file that an untrusted image names is opened", async () => {
  await using dir = await tempDir();
  await make(dir, "secret");
  const filename = await make(dir, "a", "secret");
  const untrusted: Environment = { ...QUIET, untrusted: true };
  assertEquals(
    await failure(openImage({ filename }, READ_ONLY, untrusted)),
    `Could not open '${filename}': Could not open backing file: '${filename}' refers to 'secret' ` +
      "as its backing file, which is not opened for an untrusted image",
  );
  await using _metadata = await openImage(
    { filename },
    { ...READ_ONLY, metadataOnly: true },
    untrusted,
  );
  // What the user names is his own affair.
  await using _named = await openNode(
    { filename, options: new NodeOptions([["backing.file.filename", dir.file("secret")]]) },
    READ_ONLY,
    untrusted,
  );
});

Deno.test("sharing by force is for readers only", async () => {
  await using dir = await tempDir();
  const filename = await make(dir, "a");
  assertEquals(
    await failure(openImage({ filename }, { ...WRITABLE, forceShare: true }, QUIET)),
    `Could not open '${filename}': force-share=on can only be used with read-only images`,
  );
});

Deno.test("two names of one file are one file", async () => {
  await using dir = await tempDir();
  const filename = await make(dir, "a");
  await Deno.symlink(filename, dir.file("b"));
  await using one = await openImage({ filename }, READ_ONLY, QUIET);
  await using two = await openImage({ filename: dir.file("b") }, READ_ONLY, QUIET);
  const [first] = filesOf(one);
  const [second] = filesOf(two);
  assert(first !== undefined && second !== undefined);
  assertEquals(fileIdentity(first), fileIdentity(second));
  assertEquals(pathIdentity(dir.file("b")), fileIdentity(first));
  assertEquals(pathIdentity(dir.file("none")), undefined);
});
