import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import { loadNative } from "../../lib/io/native.ts";
import { convertImage, type ConvertOptions } from "../../lib/ops/convert.ts";
import { Random } from "../_random.ts";
import { assertSame, reference, runQimg, sha256, useReference } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";
import { make } from "./_disks.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

const MiB = 1 << 20;

/** Damages the stream of the compressed cluster at a guest offset. */
async function damageCluster(dir: string, image: string, guest: number): Promise<void> {
  using file = await Deno.open(`${dir}/${image}`, { read: true, write: true });
  const entryAt = async (offset: number) => {
    await file.seek(offset, Deno.SeekMode.Start);
    const bytes = new Uint8Array(8);
    await file.read(bytes);
    return new DataView(bytes.buffer).getBigUint64(0);
  };
  const mask = (1n << 54n) - 1n;
  const l1 = Number(await entryAt(40));
  const l2 = Number(await entryAt(l1) & mask);
  const entry = await entryAt(l2 + guest / 65536 * 8);
  await file.seek(Number(entry & mask), Deno.SeekMode.Start);
  // The type of block that does not exist.
  await file.write(new Uint8Array(16).fill(0xff));
}

async function damagedDisk(dir: string): Promise<void> {
  await make(dir, "packed.qcow2");
  await damageCluster(dir, "packed.qcow2", 0xa0000);
}

for (
  const line of [
    "packed.qcow2 new",
    "-O qcow2 packed.qcow2 new",
    "-c -O qcow2 packed.qcow2 new",
    "-W -m 2 packed.qcow2 new",
  ]
) {
  Deno.test({
    name: `a cluster that cannot be read ends it: convert ${line}`,
    ignore: reference.ignore,
    fn: async () => {
      await using theirs = await tempDir();
      await damagedDisk(theirs.path);
      const { stderr } = await new Deno.Command("qemu-img", {
        args: ["convert", "-m", "1", ...line.replace("-W -m 2 ", "").split(" ")],
        cwd: theirs.path,
      }).output();
      const [message] = new TextDecoder().decode(stderr).split("\n");
      await using ours = await tempDir();
      await damagedDisk(ours.path);
      const error = await assertRejects(() => convert(ours, line), ImageError);
      assertEquals(`qemu-img: ${error.message}`, message);
      // Unlike the reference: nothing half-made is left.
      assertEquals(await exists(ours.file("new")), false);
    },
  });
}

for (const line of ["packed.qcow2 new", "-O qcow2 packed.qcow2 new", "-S 0 packed.qcow2 new"]) {
  Deno.test({
    name: `a salvage takes what there is, as the reference: convert --salvage ${line}`,
    ignore: reference.ignore,
    fn: async () => {
      await assertSame(["convert", "--salvage", "-m", "1", ...line.split(" ")], {
        setup: damagedDisk,
        code: 0,
        images: [{ name: "new" }],
      });
    },
  });
}

/** `convertImage` with the few options of the lines above. */
async function convert(
  dir: TempDir,
  line: string,
  more: Partial<ConvertOptions> = {},
  environment = QUIET,
): Promise<void> {
  const words = line.split(" ");
  const [source, target] = words.slice(-2).map((name) => dir.file(name));
  await convertImage({
    sources: [{ filename: source! }],
    target: target!,
    targetFormat: words.includes("qcow2") ? "qcow2" : "raw",
    compress: words.includes("-c"),
    outOfOrder: words.includes("-W"),
    ...more,
  }, environment);
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.lstat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** A raw disk that several threads copy: random, then poor bytes, with holes in between. */
async function makeLargeDisk(path: string): Promise<void> {
  const random = new Random(11);
  using file = await Deno.open(path, { write: true, create: true });
  const piece = random.bytes(3 * MiB);
  for (let at = 0; at < 80 * MiB; at += 4 * MiB) {
    await file.seek(at, Deno.SeekMode.Start);
    new DataView(piece.buffer).setUint32(0, at);
    for (let done = 0; done < piece.length;) done += await file.write(piece.subarray(done));
  }
  await file.truncate(80 * MiB);
}

Deno.test({
  name: "disks that are large enough for several threads come out as they were",
  ignore: reference.ignore,
  fn: async () => {
    await using dir = await tempDir();
    await makeLargeDisk(dir.file("src"));
    const sum = await sha256(dir.file("src"));
    const raw = { sources: [{ filename: dir.file("src"), format: "raw" }] };
    await convert(dir, "src copy", raw);
    assertEquals(await sha256(dir.file("copy")), sum);
    for (const line of ["-O qcow2 src plain", "-c -O qcow2 src packed", "-W -O qcow2 src other"]) {
      await convert(dir, line, raw);
      const name = line.split(" ").at(-1)!;
      await useReference(["check", "-q", name], { cwd: dir.path });
      assertEquals(
        await useReference(["compare", "-f", "raw", "src", name], { cwd: dir.path }),
        "Images are identical.\n",
      );
      await convert(dir, `${name} back`);
      assertEquals(await sha256(dir.file("back")), sum);
    }
    // Byte for byte what the reference makes.
    await useReference(["convert", "-f", "raw", "-O", "qcow2", "src", "theirs"], { cwd: dir.path });
    assertEquals(await sha256(dir.file("plain")), await sha256(dir.file("theirs")));
  },
});

for (const line of ["src new", "-O qcow2 src new", "-c -O qcow2 src new", "-W src new"]) {
  Deno.test(`an abort ends it and leaves nothing: convert ${line}`, async () => {
    await using dir = await tempDir();
    await makeLargeDisk(dir.file("src"));
    const controller = new AbortController();
    const reason = new Error("enough");
    const error = await assertRejects(() =>
      convert(dir, line, {
        sources: [{ filename: dir.file("src"), format: "raw" }],
        onProgress: (fraction) => {
          if (fraction > 0.2) controller.abort(reason);
        },
      }, { ...QUIET, signal: controller.signal })
    );
    assertEquals(error, reason);
    assertEquals(await exists(dir.file("new")), false);
    assertEquals((await Deno.stat(dir.file("src"))).size, 80 * MiB);
  });
}

Deno.test("an abort ends the wait for a rate limit", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("src"), new Random(1).bytes(4 * MiB));
  const controller = new AbortController();
  const reason = new Error("enough");
  setTimeout(() => controller.abort(reason), 50);
  const error = await assertRejects(() =>
    convert(dir, "src new", {
      sources: [{ filename: dir.file("src"), format: "raw" }],
      // Some weeks.
      rateLimit: 1,
    }, { ...QUIET, signal: controller.signal })
  );
  assertEquals(error, reason);
  assertEquals(await exists(dir.file("new")), false);
});

Deno.test("a target that was there stays when the copy fails, and other files are not touched", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("src"), new Random(1).bytes(MiB));
  await Deno.writeFile(dir.file("new"), new Uint8Array(1000).fill(1));
  const failing: Partial<ConvertOptions> = {
    sources: [{ filename: dir.file("src"), format: "raw" }],
    onProgress: () => {
      throw new Error("failing");
    },
  };
  await assertRejects(() => convert(dir, "src new", failing), Error, "failing");
  assertEquals(await exists(dir.file("new")), true);
  await Deno.writeFile(dir.file("existing"), new Uint8Array(2 * MiB).fill(1));
  await assertRejects(
    () => convert(dir, "src existing", { ...failing, noCreate: true }),
    Error,
    "failing",
  );
  assertEquals((await Deno.stat(dir.file("existing"))).size, 2 * MiB);
});

Deno.test("a source is not overwritten, whatever name leads to it and whoever shares it", async () => {
  await using dir = await tempDir();
  const bytes = new Random(2).bytes(MiB);
  await Deno.writeFile(dir.file("src"), bytes);
  await Deno.symlink("src", dir.file("link"));
  await Deno.link(dir.file("src"), dir.file("hard"));
  for (const name of ["src", "link", "hard"]) {
    for (const forceShare of [false, true]) {
      await assertRejects(
        () =>
          convertImage({
            sources: [{ filename: dir.file("src"), format: "raw" }],
            target: dir.file(name),
            forceShare,
          }),
        ImageError,
        'Failed to get "write" lock',
      );
    }
  }
  assertEquals(await Deno.readFile(dir.file("src")), bytes);
});

Deno.test("an image is not made over its own backing file", async () => {
  await using dir = await tempDir();
  const bytes = new Random(3).bytes(MiB);
  await Deno.writeFile(dir.file("src"), new Uint8Array(MiB));
  await Deno.writeFile(dir.file("base"), bytes);
  await assertRejects(
    () =>
      convertImage({
        sources: [{ filename: dir.file("src"), format: "raw" }],
        target: dir.file("base"),
        targetFormat: "qcow2",
        backing: "base",
        backingFormat: "raw",
      }),
    ImageError,
    "Trying to create an image with the same filename as the backing file",
  );
  assertEquals(await Deno.readFile(dir.file("base")), bytes);
});

Deno.test("a level that the codec lacks is refused and leaves nothing", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("src"), new Uint8Array(MiB));
  await assertRejects(
    () => convert(dir, "-c -O qcow2 src new", { compressionLevel: 10 }),
    ImageError,
    "Compression level of deflate must be between 1 and 9",
  );
  assertEquals(await exists(dir.file("new")), false);
});

Deno.test("a higher level packs tighter", async () => {
  await using dir = await tempDir();
  // Words that come again: something to look for.
  const random = new Random(4);
  const words = Array.from({ length: 500 }, () => random.bytes(random.between(3, 12)));
  const bytes = new Uint8Array(MiB);
  for (let at = 0; at < bytes.length;) {
    const word = random.pick(words).subarray(0, bytes.length - at);
    bytes.set(word, at);
    at += word.length;
  }
  await Deno.writeFile(dir.file("src"), bytes);
  const sizes: number[] = [];
  for (const compressionLevel of [1, 9]) {
    await convert(dir, "-c -O qcow2 src new", { compressionLevel });
    sizes.push((await Deno.stat(dir.file("new"))).size);
  }
  assertEquals(sizes[0]! > sizes[1]!, true, `${sizes}`);
});

Deno.test({
  name: "images take the space that the reference's take, within a cluster",
  ignore: reference.ignore,
  fn: async () => {
    await using dir = await tempDir();
    for (const name of ["src", "mixed.qcow2", "overlay.qcow2"]) await make(dir.path, name);
    const cases: readonly (readonly [source: string, options: readonly string[]])[] = [
      ["src", []],
      ["src", ["-S", "64k"]],
      ["src", ["-S", "0"]],
      ["mixed.qcow2", []],
      ["src", ["-O", "qcow2"]],
      ["src", ["-O", "qcow2", "-o", "cluster_size=2M"]],
      ["overlay.qcow2", ["-O", "qcow2"]],
      ["overlay.qcow2", ["-O", "qcow2", "-o", "preallocation=metadata"]],
    ];
    for (const [source, options] of cases) {
      const args = ["convert", ...source === "src" ? ["-f", "raw"] : [], ...options, source];
      await useReference([...args, "theirs"], { cwd: dir.path });
      const { code, stderr } = await runQimg([...args, "ours"], { cwd: dir.path });
      assertEquals([code, stderr], [0, ""]);
      const [ours, theirs] = ["ours", "theirs"].map((name) =>
        Deno.statSync(dir.file(name)).blocks! * 512
      );
      const cluster = options.includes("cluster_size=2M") ? 2 * MiB : 65536;
      const difference = Math.abs(ours! - theirs!);
      assertEquals(difference <= cluster, true, `${args.join(" ")}: ${ours} and ${theirs} bytes`);
    }
  },
});
