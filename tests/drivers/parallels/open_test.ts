/** Opening images: what is refused, what is marked, what is repaired. */
import { assertEquals, assertRejects } from "@std/assert";
import { MemoryNode } from "../../_memory_node.ts";
import { context } from "../qcow2/_image.ts";
import {
  bitmapFeature,
  CLOSED_BY_PARALLELS,
  extensionCluster,
  type Feature,
  imageWithExtension,
  IN_USE,
  open,
  parallelsImage,
  tableOf,
} from "./_images.ts";

const [K, SECTOR] = [1024, 512];
const CLUSTER = 8 * SECTOR;
const BITMAP = bitmapFeature({ sectors: 64, granularity: 1, table: [16] });
const ID = "e4f2eed0-37fe-4539-b50b-85d2e7fd235f";

const node = (bytes: Uint8Array) => new MemoryNode({ bytes });
const inUse = (file: MemoryNode) => new DataView(file.bytes().buffer).getUint32(44, true);
const extensionOf = (file: MemoryNode) => new DataView(file.bytes().buffer).getUint32(56, true);

Deno.test("an image is marked as in use before anything is written, and not any more when it is closed", async () => {
  const file = node(parallelsImage({ inUse: CLOSED_BY_PARALLELS }));
  {
    await using _image = await open(file, { writable: true });
    assertEquals(inUse(file), IN_USE);
  }
  assertEquals(inUse(file), 0);
});

Deno.test("an image that could not be stored stays marked as in use", async () => {
  const file = node(parallelsImage());
  const image = await open(file, { writable: true });
  await image.write(CLUSTER, new Uint8Array(SECTOR).fill(1));
  file.onRequest(({ kind, offset }) => {
    if (kind === "write" && offset === 64) throw new Error("no table today");
  });
  await assertRejects(async () => await image[Symbol.asyncDispose](), Error, "no table today");
  assertEquals(inUse(file), IN_USE);
});

Deno.test("a damaged image is opened for reading as it is", async () => {
  const file = node(
    parallelsImage({ table: [1, 1, 9, 0], fileLength: 2 * CLUSTER, inUse: IN_USE }),
  );
  const before = file.bytes();
  const using = context();
  await using image = await open(file, { using });
  const bytes = new Uint8Array(image.length);
  await image.read(0, bytes);
  assertEquals([bytes[0], bytes[CLUSTER], bytes[2 * CLUSTER]], [1, 1, 0]);
  assertEquals(file.bytes(), before);
  assertEquals(using.reports, []);
});

Deno.test("a damaged image is repaired when it is opened for writing, and then has room", async () => {
  const file = node(
    parallelsImage({ table: [1, 1, 9, 0, 2], fileLength: 3 * CLUSTER, inUse: IN_USE }),
  );
  const using = context({ writable: true });
  {
    await using image = await open(file, { using });
    await image.write(3 * CLUSTER, new Uint8Array(CLUSTER).fill(77));
    const bytes = new Uint8Array(image.length);
    await image.read(0, bytes);
    assertEquals([0, 1, 2, 3, 4].map((i) => bytes[i * CLUSTER]), [1, 1, 0, 77, 2]);
  }
  assertEquals(using.reports, [
    "Repairing image was not closed correctly",
    "Repairing cluster 2 is outside image",
    "Repairing duplicate offset in BAT entry 1",
  ]);
  assertEquals(tableOf(file.bytes()), [1, 3, 0, 4, 2]);
});

Deno.test("a cluster that lies in the table is no cluster", async () => {
  // Data begin behind two clusters of table.
  const table = [2, 1, ...Array<number>(1500).fill(0)];
  const file = node(parallelsImage({ table }));
  const using = context({ writable: true });
  {
    await using image = await open(file, { using });
    await image.write(CLUSTER, new Uint8Array(CLUSTER).fill(0xee));
  }
  assertEquals(using.reports, ["Repairing cluster 1 is outside image"]);
  assertEquals(tableOf(file.bytes()).slice(0, 3), [2, 3, 0]);
});

Deno.test("clusters behind the table of the image are zeros, and cannot be written", async () => {
  const file = node(parallelsImage({ table: [1], sectors: 32 }));
  await using image = await open(file, { writable: true });
  const bytes = new Uint8Array(16 * K).fill(1);
  await image.read(0, bytes);
  assertEquals(bytes.lastIndexOf(1), 0);
  await assertRejects(
    () => image.write(2 * CLUSTER, new Uint8Array(SECTOR)),
    Error,
    "Cluster 2 of the disk has no place in the table",
  );
});

Deno.test("a table in an image that nobody vouches for has a limit", async () => {
  const bytes = parallelsImage();
  new DataView(bytes.buffer).setUint32(32, 5 << 20, true);
  await assertRejects(
    () => open(node(bytes), { using: context({}, { untrusted: true }) }),
    Error,
    "untrusted image",
  );
});

Deno.test("a large table that is not in the file takes no memory", async () => {
  const bytes = parallelsImage({ table: [0, 0], sectors: 2 ** 40 });
  new DataView(bytes.buffer).setUint32(32, 536870911, true);
  await using image = await open(node(bytes));
  const { length, state } = await image.extent(0, image.length);
  assertEquals([length, state], [image.length, "unallocated"]);
  const sector = new Uint8Array(SECTOR).fill(1);
  await image.read(image.length - SECTOR, sector);
  assertEquals(sector, new Uint8Array(SECTOR));
});

async function dirtyRuns(file: MemoryNode, name = ID): Promise<number[][]> {
  await using image = await open(file);
  const runs: number[][] = [];
  await image.bitmaps!.visitDirty!(
    name,
    (offset, length) => void runs.push([offset / SECTOR, length / SECTOR]),
  );
  return runs;
}

Deno.test("a bitmap of the format extension is shown", async () => {
  const bits = new Uint8Array([0x60, 0x1c, 0, 0x40, 0xff, 0xff]);
  const file = node(imageWithExtension(extensionCluster(CLUSTER, [BITMAP]), { bits }));
  {
    await using image = await open(file.copy());
    assertEquals(image.bitmaps!.list(), [
      { name: ID, granularity: SECTOR, flags: [], enabled: false, consistent: true },
    ]);
    assertEquals(image.bitmaps!.add, undefined);
  }
  assertEquals(await dirtyRuns(file), [[5, 2], [10, 3], [30, 1], [32, 16]]);
});

Deno.test("bits beyond the end of the disk do not count", async () => {
  const feature = bitmapFeature({ sectors: 33, granularity: 2, table: [1] });
  const file = node(imageWithExtension(extensionCluster(CLUSTER, [feature]), { sectors: 33 }));
  assertEquals(await dirtyRuns(file), [[0, 33]]);
});

Deno.test("a bitmap of many pieces", async () => {
  // A piece has 32768 bits.
  const sectors = 32768 * 4;
  const feature = bitmapFeature({ sectors, granularity: 1, table: [0, 1, 16, 1] });
  const bits = new Uint8Array(CLUSTER).fill(0xff, 0, CLUSTER - 1);
  const file = node(
    imageWithExtension(extensionCluster(CLUSTER, [feature]), { sectors, bits }),
  );
  assertEquals(await dirtyRuns(file), [[32768, 65536 - 8], [32768 * 3, 32768]]);
});

for (
  const [what, feature, left] of [
    ["no room", { data: BITMAP.data, size: CLUSTER - 48 }, 0],
    ["little room", { data: BITMAP.data, size: CLUSTER - 64 }, 16],
  ] as readonly (readonly [string, Feature, number])[]
) {
  Deno.test(`a feature that leaves ${what} for another is the last one that there may be`, async () => {
    const file = node(imageWithExtension(extensionCluster(CLUSTER, [feature])));
    await assertRejects(
      () => open(file),
      Error,
      `Can not read feature header, as remaining bytes (${left}) in Format Extension`,
    );
  });
}

for (const granularity of [0, 3, 2 ** 31]) {
  Deno.test(`a bitmap of a granularity of ${granularity} sectors is refused`, async () => {
    const feature = bitmapFeature({ sectors: 64, granularity, table: [0] });
    const file = node(imageWithExtension(extensionCluster(CLUSTER, [feature])));
    await assertRejects(() => open(file), Error, "granularity");
  });
}

Deno.test("bitmaps stay in an image that was opened for writing and not changed", async () => {
  const file = node(imageWithExtension(extensionCluster(CLUSTER, [BITMAP])));
  const using = context({ writable: true });
  await (await open(file, { using }))[Symbol.asyncDispose]();
  assertEquals(using.warnings, ["Format Extension ignored in RW mode"]);
  await using image = await open(file.copy());
  assertEquals(image.bitmaps!.list().length, 1);
});

for (
  const [what, change] of [
    ["writing to a new cluster", 2 * CLUSTER],
    ["writing to one that there is", 0],
  ] as const
) {
  Deno.test(`bitmaps that do not know of what is changed are forgotten: ${what}`, async () => {
    const file = node(imageWithExtension(extensionCluster(CLUSTER, [BITMAP])));
    {
      await using image = await open(file, { writable: true });
      await image.write(change, new Uint8Array(SECTOR).fill(9));
      assertEquals(extensionOf(file), 0);
    }
    await using image = await open(file.copy());
    assertEquals(image.bitmaps!.list(), []);
    assertEquals(await clean(file), []);
  });
}

async function clean(file: MemoryNode): Promise<string[]> {
  const lines: string[] = [];
  await using image = await open(file.copy());
  await image.checker!.check("none", (line) => void lines.push(line));
  return lines;
}
