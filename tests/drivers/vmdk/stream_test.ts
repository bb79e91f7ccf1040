/** What streams look like to those who read them from begin to end and never look back. */
import { assert, assertEquals } from "@std/assert";
import { inflateSync } from "node:zlib";
import { convertImage } from "../../../lib/ops/convert.ts";
import { Random } from "../../_random.ts";
import { reference, runQimg, useReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { assertBytes, contentOf, copyOf, create, GRAIN, NAME, open, SECTOR } from "./_images.ts";

const STREAM = { subformat: "streamOptimized" } as const;
const LAST = 2n ** 64n - 1n;

/** What an importer found. All positions in sectors. */
interface Imported {
  /** Grains in the order of the file: where on the disk, and their bytes. */
  readonly grains: readonly (readonly [lba: number, bytes: Uint8Array])[];
  /** What else there was, in order. */
  readonly marks: readonly string[];
}

/**
 * Reads a stream as an importer does: sector after sector, knowing nothing but the specification. Tables
 * and directory are held against the grains that came before them.
 */
function importStream(file: Uint8Array): Imported {
  const view = new DataView(file.buffer, file.byteOffset, file.length);
  const word = (at: number) => view.getUint32(at, true);
  const long = (at: number) => Number(view.getBigUint64(at, true));
  assertEquals(file.length % SECTOR, 0);
  assertEquals(new TextDecoder().decode(file.subarray(0, 4)), "KDMV");
  assertEquals([word(4), word(8)], [3, 0x30001], "version and flags");
  assertEquals(view.getBigUint64(56, true), LAST, "the directory is at the end");
  assertEquals(view.getUint16(77, true), 1, "deflate");
  const [grain, tableEntries] = [long(20), word(44)];
  let at = long(64);
  const placed = new Map<number, number>();
  const tables = new Map<number, number>();
  const grains: [number, Uint8Array][] = [];
  const marks: string[] = [];
  let directory = 0;
  let first = 0;
  for (;;) {
    const [value, size, type] = [long(at * SECTOR), word(at * SECTOR + 8), word(at * SECTOR + 12)];
    if (size > 0) {
      const start = at * SECTOR + 12;
      grains.push([value, new Uint8Array(inflateSync(file.subarray(start, start + size)))]);
      assert(!placed.has(value / grain), "a grain twice");
      placed.set(value / grain, at);
      at += Math.ceil((12 + size) / SECTOR);
      continue;
    }
    const behind = at + 1;
    at += 1 + value;
    if (type === 1) {
      // Of the table that the grains since the last one belong to.
      const index = Math.floor(grains[first]![0] / grain / tableEntries);
      assertEquals(value, tableEntries * 4 / SECTOR);
      for (let entry = 0; entry < tableEntries; entry++) {
        const wanted = placed.get(index * tableEntries + entry) ?? 0;
        assertEquals(word(behind * SECTOR + entry * 4), wanted, `table ${index}, entry ${entry}`);
      }
      tables.set(index, behind);
      first = grains.length;
      marks.push("table");
    } else if (type === 2) {
      directory = behind;
      const count = Math.ceil(long(12) / grain / tableEntries);
      for (let index = 0; index < count; index++) {
        assertEquals(word(behind * SECTOR + index * 4), tables.get(index) ?? 0, `table ${index}`);
      }
      marks.push("directory");
    } else if (type === 3) {
      assertEquals(value, 1);
      assertEquals(long(behind * SECTOR + 56), directory, "the footer names the directory");
      const [head, footer] = [file.slice(0, SECTOR), file.slice(behind * SECTOR, at * SECTOR)];
      for (const header of [head, footer]) header.fill(0, 56, 64);
      assertEquals(footer, head, "the footer is the header but for that");
      marks.push("footer");
    } else {
      assertEquals([value, type], [0, 0]);
      marks.push("end");
      assertEquals(at * SECTOR, file.length, "nothing comes behind the end");
      return { grains, marks };
    }
  }
}

function diskOf({ grains }: Imported, length: number): Uint8Array {
  const disk = new Uint8Array(length);
  let last = -1;
  for (const [lba, bytes] of grains) {
    assert(lba > last, "in the order of the disk");
    last = lba;
    disk.set(bytes.subarray(0, length - lba * SECTOR), lba * SECTOR);
  }
  return disk;
}

/** A raw disk of some grains with data in random places. */
function someDisk(random: Random, length: number): Uint8Array<ArrayBuffer> {
  const disk = new Uint8Array(length);
  for (let n = 0; n < 12; n++) {
    const at = random.below(length - 512);
    disk.set(
      random.bytes(Math.min(random.between(1, 200_000), length - at), random.pick([4, 256])),
      at,
    );
  }
  return disk;
}

for (
  const [what, length] of [
    ["a small disk", 10 * GRAIN],
    ["one that ends within a grain", 10 * GRAIN + 3 * SECTOR],
    ["one of several tables", 70 * 2 ** 20],
  ] as const
) {
  Deno.test(`vmdk stream: ${what} can be imported from begin to end`, async () => {
    await using dir = await tempDir();
    const disk = someDisk(new Random(length), length);
    await Deno.writeFile(dir.file("raw"), disk);
    await convertImage({
      sources: [{ filename: dir.file("raw"), format: "raw" }],
      target: dir.file("s.vmdk"),
      targetFormat: "vmdk",
      options: Object.entries(STREAM),
    });
    const found = importStream(await Deno.readFile(dir.file("s.vmdk")));
    assertEquals(found.marks.slice(-3), ["directory", "footer", "end"]);
    assert(found.marks.filter((mark) => mark === "table").length <= Math.ceil(length / 2 ** 25));
    assertBytes(diskOf(found, length), disk);
  });
}

Deno.test("vmdk stream: a disk of zeros has its end marked, too", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("raw"), new Uint8Array(2 ** 20));
  const { code } = await runQimg(
    ["convert", "-O", "vmdk", "-o", "subformat=streamOptimized", "raw", "s.vmdk"],
    { cwd: dir.path },
  );
  assertEquals(code, 0);
  const { grains, marks } = importStream(await Deno.readFile(dir.file("s.vmdk")));
  assertEquals(grains, []);
  assertEquals(marks, ["directory", "footer", "end"]);
});

Deno.test("vmdk stream: grains out of order make one table each time, all in the directory's reach", async () => {
  const files = await create({ ...STREAM, size: "100M" });
  const expected = new Uint8Array(100 * 2 ** 20);
  {
    await using node = await open(files, { writable: true });
    for (const [n, grain] of [3, 600, 4, 1500, 1599, 601].entries()) {
      const bytes = new Uint8Array(GRAIN).fill(n + 1);
      await node.write(grain * GRAIN, bytes);
      expected.set(bytes, grain * GRAIN);
      const back = new Uint8Array(GRAIN);
      await node.read(grain * GRAIN, back);
      assertEquals(back, bytes, "readable at once");
    }
  }
  await using node = await open(copyOf(files));
  assertBytes(await contentOf(node), expected);
});

Deno.test("vmdk stream: what is not written yet is read as zeros from the start", async () => {
  const files = await create({ ...STREAM, size: "100M" });
  await using node = await open(files, { writable: true });
  await node.write(0, new Uint8Array(GRAIN).fill(1));
  const bytes = new Uint8Array(GRAIN).fill(7);
  await node.read(90 * 2 ** 20, bytes);
  assertEquals(bytes, new Uint8Array(GRAIN));
  assertEquals((await node.extent(90 * 2 ** 20, GRAIN)).state, "unallocated");
});

Deno.test("vmdk stream: bytes that do not shrink are stored", async () => {
  const files = await create({ ...STREAM, size: "1M" });
  const bytes = new Random(5).bytes(GRAIN);
  {
    await using node = await open(files, { writable: true });
    await node.packer!.writeUnpacked!(GRAIN, bytes);
    await node.packer!.finish();
  }
  const { grains } = importStream(copyOf(files).get(NAME)!.bytes());
  assertEquals(grains.map(([lba]) => lba), [128]);
  assertEquals(grains[0]![1], bytes);
});

Deno.test({
  name: "vmdk stream: one that the reference made is written on, and it reads what came of it",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    const cwd = dir.path;
    const disk = someDisk(new Random(3), 5 * 2 ** 20);
    disk.fill(0, 2 ** 20, 2 * 2 ** 20);
    await Deno.writeFile(dir.file("raw"), disk);
    const options = ["-O", "vmdk", "-o", "subformat=streamOptimized"];
    await useReference(["convert", ...options, "raw", "s.vmdk"], { cwd });
    {
      const file = dir.file("s.vmdk");
      const { openImage } = await import("../../../lib/ops/image.ts");
      await using image = await openImage({ filename: file, format: "vmdk" }, { writable: true });
      const bytes = new Random(4).bytes(2 * GRAIN, 4);
      await image.write(2 ** 20, bytes);
      disk.set(bytes, 2 ** 20);
    }
    await Deno.writeFile(dir.file("raw"), disk);
    await useReference(["compare", "-F", "raw", "s.vmdk", "raw"], { cwd });
    await useReference(["check", "s.vmdk"], { cwd });
    const { code } = await runQimg(["compare", "-F", "raw", "s.vmdk", "raw"], { cwd });
    assertEquals(code, 0);
  },
});
