import { assert, assertEquals, assertRejects } from "@std/assert";
import { loadNative } from "../lib/io/native.ts";
import {
  checkImage,
  createImage,
  Image,
  ImageError,
  imageInfo,
  mapImage,
  measureImage,
  openImage,
  resizeImage,
} from "../lib/mod.ts";
import { run } from "./_reference.ts";
import { serveProject } from "./_server.ts";
import { type TempDir, tempDir } from "./_temp.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

const MIB = 1 << 20;

/** A disk of 3 MiB in qcow2 with bytes that count up from 1 MiB to 2 MiB. */
async function makeDisk(dir: TempDir): Promise<{ filename: string; content: Uint8Array }> {
  const filename = dir.file("disk");
  await createImage({ filename, format: "qcow2", size: 3 * MIB });
  const content = new Uint8Array(3 * MIB);
  for (let i = MIB; i < 2 * MIB; i++) content[i] = i % 251;
  await using disk = await openImage(filename, { writable: true });
  await disk.write(MIB, content.subarray(MIB, 2 * MIB));
  return { filename, content };
}

async function bytesOf(stream: ReadableStream<Uint8Array>): Promise<Uint8Array> {
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

Deno.test("an image is read and written at any place", async () => {
  await using dir = await tempDir();
  const { filename, content } = await makeDisk(dir);
  await using disk = await openImage({ filename, format: "qcow2" }, { writable: true });
  assert(disk instanceof Image);
  assertEquals([disk.filename, disk.format, disk.length, disk.readOnly, disk.clusterSize], [
    filename,
    "qcow2",
    3 * MIB,
    false,
    65536,
  ]);
  await disk.write(5, new Uint8Array([1, 2, 3]));
  await disk.writeZeroes(MIB + 10, 100_000);
  await disk.flush();
  content.set([1, 2, 3], 5);
  content.fill(0, MIB + 10, MIB + 10 + 100_000);
  const bytes = new Uint8Array(3 * MIB);
  await disk.read(0, bytes);
  assertEquals(bytes, content);
  await disk.read(3 * MIB, new Uint8Array(0));
});

Deno.test("requests past the end, and writes to what is only read, are errors", async () => {
  await using dir = await tempDir();
  const { filename } = await makeDisk(dir);
  await using disk = await openImage(filename);
  const attempts: [() => Promise<unknown>, string][] = [
    [() => disk.read(3 * MIB - 1, new Uint8Array(2)), "EIO"],
    [() => disk.read(-1, new Uint8Array(1)), "EIO"],
    [() => disk.write(3 * MIB, new Uint8Array(1)), "EIO"],
    [() => disk.write(0, new Uint8Array(1)), "EPERM"],
  ];
  for (const [attempt, errno] of attempts) {
    assertEquals((await assertRejects(attempt, ImageError)).errno, errno);
  }
});

Deno.test("extents tell where data is", async () => {
  await using dir = await tempDir();
  const { filename } = await makeDisk(dir);
  await using disk = await openImage(filename);
  const runs = async (range = {}) => {
    const found = [];
    for await (const { start, length, data } of disk.extents(range)) {
      found.push([start, length, data]);
    }
    return found;
  };
  assertEquals(await runs(), [[0, MIB, false], [MIB, MIB, true], [2 * MIB, MIB, false]]);
  assertEquals(await runs({ start: MIB + 1, end: MIB + 3 }), [[MIB + 1, 2, true]]);
  assertEquals(await runs({ start: 9 * MIB }), []);
});

Deno.test("a stream has the bytes of its range", async () => {
  await using dir = await tempDir();
  const { filename, content } = await makeDisk(dir);
  await using disk = await openImage(filename);
  assertEquals(await bytesOf(disk.readable()), content);
  for (const [start, end] of [[0, 0], [MIB - 5, MIB + 5], [MIB, 3 * MIB], [9, 9 * MIB]] as const) {
    assertEquals(await bytesOf(disk.readable({ start, end })), content.subarray(start, end));
  }
  assertEquals((await bytesOf(disk.readable({ start: 9 * MIB }))).length, 0);
});

Deno.test("a stream fills its reader's own buffer", async () => {
  await using dir = await tempDir();
  const { filename, content } = await makeDisk(dir);
  await using disk = await openImage(filename);
  const reader = disk.readable({ start: MIB, end: MIB + 1000 }).getReader({ mode: "byob" });
  let { value, done } = await reader.read(new Uint8Array(700));
  assertEquals([value, done], [content.slice(MIB, MIB + 700), false]);
  ({ value, done } = await reader.read(new Uint8Array(700)));
  assertEquals([value, done], [content.slice(MIB + 700, MIB + 1000), false]);
  assertEquals((await reader.read(new Uint8Array(700))).done, true);
});

Deno.test("a stream reads no further than it is read", async () => {
  await using dir = await tempDir();
  const { filename } = await makeDisk(dir);
  const disk = await openImage(filename);
  const reader = disk.readable().getReader();
  assertEquals((await reader.read()).value?.length, MIB);
  await reader.cancel();
  // Nothing is under way any more: closing is safe.
  await disk[Symbol.asyncDispose]();
});

Deno.test("the operations work with names alone", async () => {
  await using dir = await tempDir();
  const { filename } = await makeDisk(dir);
  await resizeImage({ filename }, { size: 4 * MIB });
  assertEquals((await imageInfo({ filename }))[0]?.virtualSize, 4 * MIB);
  assertEquals((await checkImage({ filename }))?.result.corruptions, 0);
  assertEquals((await measureImage({ size: 1000 })).required, 1024);
  let present = 0;
  for await (const entry of mapImage({ filename })) if (entry.present) present += entry.length;
  assertEquals(present, MIB);
});

Deno.test("a program imports the library by its address, without any configuration", async () => {
  await using dir = await tempDir();
  await using server = serveProject();
  await Deno.writeTextFile(
    dir.file("program.ts"),
    `
      import { checkImage, createImage, openImage } from "${server.url}lib/mod.ts";
      await createImage({ filename: "disk", format: "qcow2", size: 1 << 20 });
      {
        await using disk = await openImage("disk", { writable: true });
        await disk.write(0, new TextEncoder().encode("hello"));
      }
      await using disk = await openImage("disk");
      const bytes = new Uint8Array(5);
      await disk.read(0, bytes);
      const outcome = await checkImage({ filename: "disk" });
      console.log(disk.format, new TextDecoder().decode(bytes), outcome?.result.allocatedClusters);
    `,
  );
  const outcome = await run(Deno.execPath(), [
    "run",
    "--no-config",
    "--no-lock",
    "--quiet",
    "--check",
    `--reload=${server.url}`,
    `--allow-import=${server.host}`,
    `--allow-read=${dir.path}`,
    `--allow-write=${dir.path}`,
    "program.ts",
  ], { cwd: dir.path });
  assertEquals(outcome, { code: 0, stdout: "qcow2 hello 1\n", stderr: "" });
});
