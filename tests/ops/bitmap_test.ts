import { assertEquals, assertRejects } from "@std/assert";
import { QUIET } from "../../lib/graph/environment.ts";
import { loadNative } from "../../lib/io/native.ts";
import {
  type BitmapAction,
  changeBitmap,
  createImage,
  ImageError,
  imageInfo,
  openImage,
} from "../../lib/mod.ts";
import { type StoredBitmap, storedBitmaps } from "../_stored_bitmaps.ts";
import { type TempDir, tempDir } from "../_temp.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

const SIZE = 1 << 20;

/** A new image with this cluster size. */
async function newImage(dir: TempDir, name = "a", clusterSize = "64k"): Promise<string> {
  const filename = dir.file(name);
  const options = [["cluster_size", clusterSize]] as const;
  await createImage({ filename, format: "qcow2", size: SIZE, options });
  return filename;
}

async function stored(filename: string): Promise<StoredBitmap[]> {
  return storedBitmaps(await Deno.readFile(filename));
}

const actions = (...names: Exclude<BitmapAction["action"], "merge">[]): BitmapAction[] =>
  names.map((action) => ({ action }));

for (const [clusterSize, granularity] of [["512", 4096], ["16k", 16384], ["2M", 65536]] as const) {
  Deno.test(`a bitmap in an image with clusters of ${clusterSize} has bits for ${granularity} bytes`, async () => {
    await using dir = await tempDir();
    const filename = await newImage(dir, "a", clusterSize);
    await changeBitmap({ filename }, { bitmap: "b", actions: actions("add") });
    const [bitmap] = await stored(filename);
    assertEquals([bitmap!.name, bitmap!.granularity, bitmap!.flags], ["b", granularity, 2]);
  });
}

Deno.test("actions are done in their order", async () => {
  await using dir = await tempDir();
  const filename = await newImage(dir);
  await changeBitmap({ filename }, { bitmap: "b", actions: actions("add", "disable") });
  assertEquals((await stored(filename)).map(({ flags }) => flags), [0]);
  await changeBitmap({ filename }, {
    bitmap: "b",
    actions: actions("enable", "disable", "enable"),
  });
  assertEquals((await stored(filename)).map(({ flags }) => flags), [2]);
  await changeBitmap({ filename }, { bitmap: "b", actions: actions("remove", "add", "remove") });
  assertEquals(await stored(filename), []);
});

Deno.test("what was done before an action that fails stays done", async () => {
  await using dir = await tempDir();
  const filename = await newImage(dir);
  const error = await assertRejects(
    () => changeBitmap({ filename }, { bitmap: "b", actions: actions("add", "disable", "add") }),
    ImageError,
  );
  assertEquals(error.message, "Operation add on bitmap b failed: Bitmap already exists: b");
  assertEquals((await stored(filename)).map(({ name, flags }) => [name, flags]), [["b", 0]]);
});

Deno.test("writes through an open image are found in its bitmaps, and merged from another one", async () => {
  await using dir = await tempDir();
  const source = await newImage(dir, "source");
  const target = await newImage(dir, "target", "4k");
  await changeBitmap({ filename: source }, {
    bitmap: "changes",
    granularity: 512,
    actions: actions("add"),
  });
  {
    await using disk = await openImage(source, { writable: true });
    await disk.write(5000, new Uint8Array(10));
    await disk.writeZeroes(600_000, 1);
  }
  await changeBitmap({ filename: target }, {
    bitmap: "merged",
    granularity: 65536,
    source: { filename: source, format: "qcow2" },
    actions: [{ action: "add" }, { action: "merge", from: "changes" }],
  });
  const [changes] = await stored(source);
  const [merged] = await stored(target);
  const dirty = (bitmap: StoredBitmap, unit: number) => {
    const found: number[] = [];
    for (let at = 0; at < SIZE; at += unit) if (bitmap.isDirty(at)) found.push(at);
    return found;
  };
  assertEquals(dirty(changes!, 512), [4608, 599_552]);
  assertEquals(dirty(merged!, 65536), [0, 589_824]);
});

Deno.test("an image is not its own source", async () => {
  await using dir = await tempDir();
  const filename = await newImage(dir);
  await Deno.link(filename, dir.file("same"));
  await assertRejects(
    () =>
      changeBitmap({ filename }, {
        bitmap: "b",
        source: { filename: dir.file("same") },
        actions: [{ action: "merge", from: "b" }],
      }),
    ImageError,
    'Failed to get shared "write" lock',
  );
});

Deno.test("the backing file is not looked for", async () => {
  await using dir = await tempDir();
  const backing = await newImage(dir, "backing");
  const filename = dir.file("overlay");
  await createImage({
    filename,
    format: "qcow2",
    options: [["backing_file", backing], ["backing_fmt", "qcow2"]],
  });
  await Deno.remove(backing);
  await changeBitmap({ filename }, { bitmap: "b", actions: actions("add") });
  assertEquals((await stored(filename)).map(({ name }) => name), ["b"]);
});

for (const granularity of [1, 256, 513, 65535, 2 ** 32, 2 ** 32 + 4096, 2 ** 62]) {
  Deno.test(`no bitmap has bits for ${granularity} bytes`, async () => {
    await using dir = await tempDir();
    const filename = await newImage(dir);
    await assertRejects(
      () => changeBitmap({ filename }, { bitmap: "b", granularity, actions: actions("add") }),
      ImageError,
      "Granularity must be power of 2 and at least 512",
    );
  });
}

Deno.test("formats and versions that have no bitmaps say so", async () => {
  await using dir = await tempDir();
  const raw = dir.file("raw");
  const old = dir.file("old");
  await createImage({ filename: raw, format: "raw", size: SIZE });
  await createImage({ filename: old, format: "qcow2", size: SIZE, options: [["compat", "0.10"]] });
  const add = (filename: string, format: string) =>
    changeBitmap({ filename, format }, { bitmap: "b", actions: actions("add") });
  await assertRejects(
    () => add(raw, "raw"),
    ImageError,
    `Operation add on bitmap b failed: Can't store persistent bitmaps to ${raw}: ` +
      "Operation not supported",
  );
  await assertRejects(
    () => add(old, "qcow2"),
    ImageError,
    `Operation add on bitmap b failed: Can't make bitmap 'b' persistent in '${old}': ` +
      "Cannot store dirty bitmaps in qcow2 v2 files",
  );
});

Deno.test("bitmaps that cannot be stored are told of when the image is closed", async () => {
  await using dir = await tempDir();
  const backing = await newImage(dir, "b".repeat(150));
  const filename = dir.file("a");
  // A header of 512 bytes has no room for more than a name of 360 bytes.
  const detour = "/".repeat(360 - backing.length);
  await createImage({
    filename,
    format: "qcow2",
    size: SIZE,
    options: [
      ["cluster_size", "512"],
      ["backing_file", `${dir.path}${detour}${backing.slice(dir.path.length)}`],
      ["backing_fmt", "qcow2"],
    ],
  });
  const before = await imageInfo({ filename });
  const said: string[] = [];
  const environment = { ...QUIET, report: (line: string) => void said.push(line) };
  const closing = "Error while closing the image: " +
    "Failed to update bitmap extension: No space left on device";
  const alone = await assertRejects(
    () => changeBitmap({ filename }, { bitmap: "b", actions: actions("add") }, environment),
    ImageError,
  );
  assertEquals([alone.message, said], [closing, []]);
  const both = await assertRejects(
    () => changeBitmap({ filename }, { bitmap: "b", actions: actions("add", "add") }, environment),
    ImageError,
  );
  assertEquals(both.message, "Operation add on bitmap b failed: Bitmap already exists: b");
  assertEquals(said, [closing]);
  assertEquals((await imageInfo({ filename }))[0]!.details, before[0]!.details);
});

Deno.test("an aborted change ends between two actions", async () => {
  await using dir = await tempDir();
  const filename = await newImage(dir);
  const reason = new Error("enough");
  const signal = AbortSignal.abort(reason);
  const thrown = await assertRejects(() =>
    changeBitmap({ filename }, { bitmap: "b", actions: actions("add") }, { ...QUIET, signal })
  );
  assertEquals(thrown, reason);
  assertEquals(await stored(filename), []);
});
