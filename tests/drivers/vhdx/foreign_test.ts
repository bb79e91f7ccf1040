/** Images that the reference cannot make, by hand: differencing ones, and sectors of 4096 bytes. */
import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { runQimg, useQimg } from "../../_reference.ts";
import { Random } from "../../_random.ts";
import { tempDir } from "../../_temp.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { AT, contentOf, guid, guidText, type HandMade, handMade, MIB, open } from "./_image.ts";

const random = new Random(7);
const noise = (length: number) => random.bytes(length);

/** The parent's GUID for its data is that of `guid(2)`. */
const LOCATOR = [
  ["parent_linkage", guidText(2)],
  ["relative_path", ".\\parent.vhdx"],
  ["absolute_win32_path", "\\\\?\\C:\\disks\\parent.vhdx"],
] as const;

/** Opens a differencing image in front of a parent of these bytes. */
async function openOver(image: HandMade, parent: Uint8Array): Promise<BlockNode> {
  const node = await open(await handMade({ locator: LOCATOR, ...image }));
  node.backing!.attach(new MemoryNode({ filename: "parent", bytes: parent, readOnly: true }));
  return node;
}

async function states(node: BlockNode): Promise<[number, string, number | undefined][]> {
  const found: [number, string, number | undefined][] = [];
  for (let at = 0; at < node.length;) {
    const { length, state, offset } = await node.extent(at, node.length - at);
    found.push([length, state, offset]);
    at += length;
  }
  return found;
}

Deno.test("vhdx: states of blocks in front of a parent", async () => {
  const parent = noise(6 * MIB);
  const own = noise(MIB);
  await using node = await openOver({
    length: 6 * MIB,
    entries: [[1, 6, AT.data], [2, 2, 0], [3, 1, 0], [4, 3, 0]],
    data: [[AT.data, own]],
  }, parent);
  const expected = parent.slice();
  expected.set(own, MIB);
  expected.fill(0, 2 * MIB, 5 * MIB);
  assertEquals(await contentOf(node), expected);
  assertEquals(await states(node), [
    [MIB, "unallocated", undefined],
    [MIB, "data", AT.data],
    [3 * MIB, "zero", undefined],
    [MIB, "unallocated", undefined],
  ]);
});

for (const sectorSize of [512, 4096]) {
  Deno.test(`vhdx: blocks that are partly here, in sectors of ${sectorSize} bytes`, async () => {
    const parent = noise(3 * MIB);
    const own = noise(MIB);
    // Sectors 0, 3 to 8, and the last one of the second block.
    const bitmap = new Uint8Array(MIB);
    const perBlock = MIB / sectorSize;
    const here = [0, 3, 4, 5, 6, 7, 8, perBlock - 1];
    for (const at of here) {
      const bit = perBlock + at;
      bitmap[bit >> 3]! |= 1 << (bit & 7);
    }
    const ratio = 2 ** 23 * sectorSize / MIB;
    await using node = await openOver({
      length: 3 * MIB,
      sectorSize,
      entries: [[1, 7, AT.data + MIB], [ratio, 6, AT.data]],
      data: [[AT.data, bitmap], [AT.data + MIB, own]],
    }, parent);
    const expected = parent.slice();
    for (const at of here) {
      const from = at * sectorSize;
      expected.set(own.subarray(from, from + sectorSize), MIB + from);
    }
    assertEquals(await contentOf(node), expected);
    // Any piece, across all borders.
    for (let n = 0; n < 50; n++) {
      const offset = MIB - 3 * sectorSize + random.below(15 * sectorSize);
      const into = new Uint8Array(random.between(1, 9 * sectorSize));
      await node.read(offset, into);
      assertEquals(into, expected.subarray(offset, offset + into.length));
    }
    const found = (await states(node)).slice(1, 5);
    assertEquals(found, [
      [sectorSize, "data", AT.data + MIB],
      [2 * sectorSize, "unallocated", undefined],
      [6 * sectorSize, "data", AT.data + MIB + 3 * sectorSize],
      // As far as was looked for in one go, or to the sector at the end.
      [Math.min(16384 * 8, perBlock - 10) * sectorSize, "unallocated", undefined],
    ]);
  });
}

Deno.test("vhdx: the bitmap of the second chunk", async () => {
  const blockSize = 256 * MIB;
  const length = 18 * blockSize;
  // In the chunk's second block: the 17th of the disk.
  const bitmap = new Uint8Array(MIB);
  bitmap[2 ** 19 >> 3] = 0b10;
  const own = noise(1024);
  const image = {
    length,
    blockSize,
    locator: LOCATOR,
    entries: [[18, 7, AT.data + MIB], [33, 6, AT.data]],
    data: [[AT.data, bitmap], [AT.data + MIB, own]],
    fileLength: AT.data + MIB + blockSize,
  } as const;
  await using node = await open(await handMade(image));
  const into = new Uint8Array(2048);
  await node.read(17 * blockSize, into);
  const expected = new Uint8Array(2048);
  expected.set(own.subarray(512), 512);
  assertEquals(into, expected);
});

Deno.test("vhdx: a partial block without a bitmap cannot be read", async () => {
  const image = { length: MIB, entries: [[0, 7, AT.data]], fileLength: AT.data + MIB } as const;
  await using node = await openOver(image, noise(MIB));
  const error = await assertRejects(() => node.read(0, new Uint8Array(512)), ImageError);
  assertEquals([error.errno, error.field], ["EIO", "sector bitmap of block 0"]);
});

Deno.test("vhdx: behind the end of a shorter parent there are zeros", async () => {
  const parent = noise(MIB + 512);
  await using node = await openOver({ length: 3 * MIB }, parent);
  const expected = new Uint8Array(3 * MIB);
  expected.set(parent);
  assertEquals(await contentOf(node), expected);
});

Deno.test("vhdx: differencing images are not written to", async () => {
  const file = await handMade({ length: MIB, locator: LOCATOR });
  const before = file.bytes();
  const error = await assertRejects(() => open(file, { writable: true }), ImageError);
  assertEquals(error.message, "Differencing VHDX images can only be read");
  assertEquals(file.bytes(), before);
});

const WRONG: Readonly<Record<string, readonly (readonly [string, string])[]>> = {
  "no linkage": [["relative_path", "a"]],
  "a linkage that is no GUID": [["parent_linkage", "{x}"], ["relative_path", "a"]],
  "no path": [["parent_linkage", guidText(2)]],
  "an empty path": [["parent_linkage", guidText(2)], ["relative_path", ""]],
  "a path with NUL": [["parent_linkage", guidText(2)], ["relative_path", "a\0b"]],
};
for (const [what, locator] of Object.entries(WRONG)) {
  Deno.test(`vhdx: a parent locator with ${what} is refused`, async () => {
    const file = await handMade({ length: MIB, locator });
    const error = await assertRejects(() => open(file), ImageError);
    assertEquals(error.errno, "EINVAL");
    assertEquals(error.field?.startsWith("parent locator"), true, error.field);
  });
}

/** Puts images into a folder and answers with its path. */
async function withChain(
  images: Readonly<Record<string, HandMade>>,
  body: (dir: string) => Promise<void>,
): Promise<void> {
  await using dir = await tempDir();
  for (const [name, image] of Object.entries(images)) {
    const path = dir.file(name);
    await Deno.mkdir(path.replace(/[^/]*$/, ""), { recursive: true });
    await Deno.writeFile(path, (await handMade(image)).bytes());
  }
  await body(dir.path);
}

const CHILD: HandMade = { length: 2 * MIB, locator: LOCATOR };
const PARENT: HandMade = {
  length: 2 * MIB,
  entries: [[0, 6, AT.data]],
  data: [[AT.data, new Uint8Array(MIB).fill(9)]],
};

Deno.test("vhdx: a parent is found through its locator, and copied with its child", async () => {
  const grandchild: HandMade = {
    length: 2 * MIB,
    dataGuid: guid(8),
    locator: [["parent_linkage", guidText(6)], ["relative_path", "..\\mid\\child.vhdx"]],
    entries: [[1, 6, AT.data]],
    data: [[AT.data, new Uint8Array(MIB).fill(5)]],
  };
  await withChain({
    "mid/parent.vhdx": PARENT,
    "mid/child.vhdx": { ...CHILD, dataGuid: guid(6) },
    "top/top.vhdx": grandchild,
  }, async (dir) => {
    await useQimg(["convert", "-O", "raw", "top/top.vhdx", "out"], { cwd: dir });
    const expected = new Uint8Array(2 * MIB).fill(9, 0, MIB).fill(5, MIB);
    assertEquals(await Deno.readFile(`${dir}/out`), expected);
    const map = JSON.parse(await useQimg(["map", "--output=json", "top/top.vhdx"], { cwd: dir }));
    assertEquals(map.map(({ depth }: { depth: number }) => depth), [2, 0]);
    const info = await useQimg(["info", "--output=json", "mid/child.vhdx"], { cwd: dir });
    const { "backing-filename": name, "backing-filename-format": format } = JSON.parse(info);
    assertEquals([name, format], ["./parent.vhdx", "vhdx"]);
  });
});

Deno.test("vhdx: without the relative path the name beside the image is tried", async () => {
  const locator = LOCATOR.filter(([key]) => key !== "relative_path");
  await withChain({ "parent.vhdx": PARENT, "child.vhdx": { ...CHILD, locator } }, async (dir) => {
    await useQimg(["compare", "child.vhdx", "parent.vhdx"], { cwd: dir });
  });
});

Deno.test("vhdx: a parent that was written to is no parent any more", async () => {
  await withChain({
    "parent.vhdx": { ...PARENT, dataGuid: guid(3) },
    "child.vhdx": CHILD,
  }, async (dir) => {
    const { code, stderr } = await runQimg(["convert", "-O", "raw", "child.vhdx", "out"], {
      cwd: dir,
    });
    assertEquals(code, 1);
    assertEquals(
      stderr,
      "qimg: Could not open 'child.vhdx': './parent.vhdx' is not the parent of 'child.vhdx', or " +
        "has been written to since: its data are 03030303-0303-0303-0303-030303030303, " +
        "not 02020202-0202-0202-0202-020202020202\n",
    );
  });
});

Deno.test("vhdx: the second linkage will do, too", async () => {
  const locator = [["parent_linkage", guidText(1)], ["parent_linkage2", guidText(2)]] as const;
  await withChain({
    "parent.vhdx": PARENT,
    "child.vhdx": { ...CHILD, locator: [...locator, ...LOCATOR.slice(1)] },
  }, async (dir) => {
    await useQimg(["compare", "child.vhdx", "parent.vhdx"], { cwd: dir });
  });
});

Deno.test("vhdx: parents of images that nobody vouches for are not opened", async () => {
  await withChain({ "parent.vhdx": PARENT, "child.vhdx": CHILD }, async (dir) => {
    const { code, stderr } = await runQimg(
      ["convert", "--untrusted", "-O", "raw", "child.vhdx", "out"],
      { cwd: dir },
    );
    assertEquals(code, 1);
    assertEquals(stderr.includes("which is not opened for an untrusted image"), true, stderr);
  });
});

Deno.test("vhdx: a disk with sectors of 4096 bytes is read and written", async () => {
  // A bitmap's entry is behind 32768 blocks of 1 MiB, and behind 4096 with sectors of 512 bytes.
  const length = 32770 * MIB;
  const last = 32769;
  const own = noise(MIB);
  const file = await handMade({
    length,
    sectorSize: 4096,
    entries: [[0, 2, 0], [last + 1, 6, AT.data], [32768, 0, 0]],
    data: [[AT.data, own]],
  });
  const expected = own.slice();
  {
    await using node = await open(file, { writable: true });
    const into = new Uint8Array(MIB);
    await node.read(last * MIB, into);
    assertEquals(into, own);
    await node.write(last * MIB + 512, new Uint8Array(512).fill(1));
    expected.fill(1, 512, 1024);
    await node.write(5000 * MIB + 100, new Uint8Array(5000).fill(2));
  }
  await using node = await open(file.copy());
  const into = new Uint8Array(MIB);
  await node.read(last * MIB, into);
  assertEquals(into, expected);
  await node.read(5000 * MIB, into);
  assertEquals(into, new Uint8Array(MIB).fill(2, 100, 5100));
  // In the table there are no bitmaps before.
  const entry = file.slice(AT.table + 5000 * 8, 8);
  assertEquals(entry, Uint8Array.of(6, 0, 0x70, 0, 0, 0, 0, 0));
  const { corruptions } = await node.checker!.check("none", () => {});
  assertEquals(corruptions, 0);
});
