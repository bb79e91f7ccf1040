import { assertEquals, assertRejects } from "@std/assert";
import { raw } from "../../drivers/raw.ts";
import type { CreateRequest, FormatDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import { OptionSet, type OptionSpec } from "../../lib/block/options.ts";
import { createNode, createTarget } from "../../lib/graph/create.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import { loadNative } from "../../lib/io/native.ts";
import { type TempDir, tempDir } from "../_temp.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

const OPTIONS: readonly OptionSpec[] = [
  { name: "size", type: "size", help: "" },
  { name: "cluster_size", type: "size", help: "", default: "64k" },
];

/** A format whose creation does what a test wants. */
function formatThat(create: (request: CreateRequest) => Promise<void>): FormatDriver {
  return { ...raw, name: "test", transparent: false, createOptions: OPTIONS, create };
}

async function create(dir: TempDir, format: FormatDriver) {
  const target = await createTarget(format, dir.file("new"));
  return await createNode(target, new OptionSet(target.specs, [["size", "1M"]]), QUIET);
}

function namesIn(dir: TempDir): string[] {
  return Array.from(Deno.readDirSync(dir.path), (entry) => entry.name).sort();
}

/** Makes the file and one beside it, and puts something into both. */
async function makeTwo(request: CreateRequest, dir: TempDir): Promise<void> {
  await using base = await request.createBase();
  await base.write(0, new Uint8Array(100).fill(1));
  const { createFile } = request.context;
  await using beside = await createFile("data-file", dir.file("beside"), request.options);
  await beside.write(0, new Uint8Array(100).fill(1));
}

Deno.test("the file below a format is empty: the size is the disk's", async () => {
  await using dir = await tempDir();
  let length: number | undefined;
  await create(
    dir,
    formatThat(async (request) => {
      await using base = await request.createBase();
      length = base.length;
    }),
  );
  assertEquals(length, 0);
});

Deno.test("a file beside the image has the size that its options say", async () => {
  await using dir = await tempDir();
  await create(dir, formatThat((request) => makeTwo(request, dir)));
  assertEquals(Deno.statSync(dir.file("new")).size, 100);
  assertEquals(Deno.statSync(dir.file("beside")).size, 1 << 20);
});

Deno.test("what is stored of a file beside the image is its name without the prefix", async () => {
  await using dir = await tempDir();
  await create(
    dir,
    formatThat(async ({ context, options }) => {
      const name = `file:${dir.file("beside")}`;
      await using beside = await context.createFile("data-file", name, options);
      assertEquals(beside.filename, dir.file("beside"));
    }),
  );
});

Deno.test("a failed creation leaves no file that was not there", async () => {
  await using dir = await tempDir();
  const failing = formatThat(async (request) => {
    await makeTwo(request, dir);
    throw new ImageError("no");
  });
  await assertRejects(() => create(dir, failing), ImageError, "no");
  assertEquals(namesIn(dir), []);
});

Deno.test("a failed creation removes no file that was there", async () => {
  await using dir = await tempDir();
  Deno.writeTextFileSync(dir.file("new"), "content");
  Deno.writeTextFileSync(dir.file("beside"), "content");
  const early = formatThat(() => Promise.reject(new ImageError("no")));
  await assertRejects(() => create(dir, early), ImageError);
  assertEquals(Deno.readTextFileSync(dir.file("new")), "content");
  const late = formatThat(async (request) => {
    await makeTwo(request, dir);
    throw new ImageError("no");
  });
  await assertRejects(() => create(dir, late), ImageError);
  assertEquals(namesIn(dir), ["beside", "new"]);
  assertEquals(Deno.statSync(dir.file("new")).size, 0);
});

Deno.test("a finished creation can be undone", async () => {
  await using dir = await tempDir();
  const creation = await create(dir, formatThat((request) => makeTwo(request, dir)));
  assertEquals(namesIn(dir), ["beside", "new"]);
  await creation.undo();
  assertEquals(namesIn(dir), []);
});

Deno.test("what is too large is said in the words for sizes", async () => {
  await using dir = await tempDir();
  const huge = formatThat(() => Promise.reject(ImageError.fromErrno("EFBIG")));
  const error = await assertRejects(() => create(dir, huge), ImageError);
  assertEquals(
    error.message,
    "The image size is too large for file format 'test' (try using a larger cluster size)",
  );
});

Deno.test("a protocol that does not exist cannot create", async () => {
  const error = await assertRejects(() => createTarget(raw, "zork:new"), ImageError);
  assertEquals(error.message, "Unknown protocol 'zork'");
});
