/** Differencing images, which the reference cannot read: made by hand. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import { QUIET } from "../../../lib/graph/environment.ts";
import { openImage } from "../../../lib/graph/open.ts";
import { convertImage } from "../../../lib/ops/convert.ts";
import { imageInfo } from "../../../lib/ops/info.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { type TempDir, tempDir } from "../../_temp.ts";
import {
  DIFFERENCING,
  DYNAMIC,
  FIXED,
  type HandMade,
  handMade,
  open,
  sectorsOf,
  utf16,
} from "./_images.ts";

/** Three blocks of eight sectors: one that is the child's in part, one not at all, one wholly. */
const CHILD: HandMade = {
  type: DIFFERENCING,
  length: 3 * 4096,
  id: 7,
  blocks: new Map([
    [2, { sectors: [0, 1, 2, 3, 4, 5, 6, 7], fill: 0x72 }],
    [0, { sectors: [0, 3, 4, 7], fill: 0x70 }],
  ]),
  parent: { id: 5, name: "parent.vhd", locators: [["W2ru", utf16(".\\parent.vhd")]] },
};
const PARENT: HandMade = { type: FIXED, length: 3 * 4096, id: 5 };
const MERGED = [
  ...[0x70, 5, 5, 0x70, 0x70, 5, 5, 0x70],
  ...Array<number>(8).fill(5),
  ...Array<number>(8).fill(0x72),
];

async function write(dir: TempDir, images: Readonly<Record<string, HandMade>>): Promise<void> {
  for (const [name, image] of Object.entries(images)) {
    await Deno.writeFile(dir.file(name), handMade(image));
  }
}

/** The child with other ways to its parent. */
function childBy(
  locators: readonly (readonly [string, Uint8Array])[],
  name = "",
): HandMade {
  return { ...CHILD, parent: { id: 5, name, locators } };
}

Deno.test("sector bitmaps say what is the child's and what the parent's", async () => {
  const parent = await open(new MemoryNode({ bytes: handMade(PARENT) }));
  await using node = await open(new MemoryNode({ bytes: handMade(CHILD) }), {}, { parent });
  assertEquals(await sectorsOf(node), MERGED);
  const bytes = new Uint8Array(1000);
  await node.read(400, bytes);
  assertEquals(bytes.findIndex((byte) => byte !== 0x70), 112);
  assertEquals(bytes.findLastIndex((byte) => byte !== 5), 111);
});

Deno.test("extents follow the sector bitmaps and go on over blocks that are not there", async () => {
  await using node = await open(new MemoryNode({ bytes: handMade(CHILD) }));
  const runs = [];
  for (let at = 0; at < node.length;) {
    const { length, state, offset } = await node.extent(at, node.length - at);
    runs.push([length, state, offset]);
    at += length;
  }
  const first = 2048 + 512 + 512 + 4096 + 512;
  assertEquals(runs, [
    [512, "data", first],
    [1024, "unallocated", undefined],
    [1024, "data", first + 3 * 512],
    [1024, "unallocated", undefined],
    [512, "data", first + 7 * 512],
    [4096, "unallocated", undefined],
    [4096, "data", first - 512 - 4096],
  ]);
  const { length, state } = await node.extent(512 * 3 + 100, 200);
  assertEquals([length, state], [200, "data"]);
});

Deno.test("a child of more sectors than a bitmap of one sector shows is read to its end", async () => {
  const blockSize = 8 * 1024 * 1024;
  const sectors = [0, 4095, 4096, 8191, 16383];
  const child = handMade({
    ...CHILD,
    length: blockSize,
    blockSize,
    blocks: new Map([[0, { sectors, fill: 9 }]]),
  });
  await using node = await open(new MemoryNode({ bytes: child }));
  const found = await sectorsOf(node);
  assertEquals(found.flatMap((byte, sector) => byte === 9 ? [sector] : []), sectors);
  assert(found.every((byte) => byte === 9 || byte === 0), "nothing of what is not stored shows");
});

Deno.test("behind the end of a shorter parent there are zeros", async () => {
  const parent = await open(new MemoryNode({ bytes: handMade({ ...PARENT, length: 1536 }) }));
  await using node = await open(new MemoryNode({ bytes: handMade(CHILD) }), {}, { parent });
  assertEquals(await sectorsOf(node), MERGED.map((byte, i) => byte === 5 && i >= 3 ? 0 : byte));
});

Deno.test("parents are of any kind, and have parents", async () => {
  await using dir = await tempDir();
  await write(dir, {
    "child.vhd": CHILD,
    "parent.vhd": {
      ...CHILD,
      id: 5,
      blocks: new Map([[0, { sectors: [1, 3], fill: 0x55 }], [1, { sectors: [0], fill: 0x56 }]]),
      parent: { id: 4, locators: [["W2ru", utf16("base\\base.vhd")]] },
    },
  });
  await Deno.mkdir(dir.file("base"));
  await write(dir, {
    "base/base.vhd": {
      type: DYNAMIC,
      length: 3 * 4096,
      id: 4,
      blocks: new Map([[1, { sectors: [0, 1, 2, 3, 4, 5, 6, 7], fill: 0x44 }]]),
    },
  });
  const expected = [
    ...[0x70, 0x55, 0, 0x70, 0x70, 0, 0, 0x70],
    ...[0x56, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44],
    ...Array<number>(8).fill(0x72),
  ];
  {
    await using node = await openImage({ filename: dir.file("child.vhd") }, READ_ONLY, QUIET);
    assertEquals(await sectorsOf(node), expected);
  }
  await convertImage({
    sources: [{ filename: dir.file("child.vhd") }],
    target: dir.file("out"),
    targetFormat: "raw",
  });
  const bytes = await Deno.readFile(dir.file("out"));
  assertEquals(Array.from({ length: 24 }, (_, i) => bytes[i * 512]), expected);
  const chain = await imageInfo({ filename: dir.file("child.vhd") }, { chain: true });
  assertEquals(chain.map(({ format, filename }) => [format, filename]), [
    ["vpc", dir.file("child.vhd")],
    ["vpc", dir.file("./parent.vhd")],
    ["vpc", dir.file("././base/base.vhd")],
  ]);
});

const LOCATORS: Readonly<Record<string, (dir: string) => HandMade>> = {
  "relative": () => childBy([["W2ru", utf16(".\\parent.vhd")]]),
  "relative, with slashes and an end": () => childBy([["W2ru", utf16("./parent.vhd\0")]]),
  "absolute": (dir) => childBy([["W2ku", utf16(`${dir}/parent.vhd`)]]),
  "absolute on a drive of another host": () => childBy([["W2ku", utf16("C:\\vm\\parent.vhd")]]),
  "a URL": (dir) =>
    childBy([["MacX", new TextEncoder().encode(`file://localhost${dir}/parent.vhd`)]]),
  "a URL with a dot": () => childBy([["MacX", new TextEncoder().encode("file://./p%61rent.vhd")]]),
  "its mere name": () => childBy([], "C:\\vm\\parent.vhd"),
  "one that is stale, and another": (dir) =>
    childBy([["W2ku", utf16(`${dir}/parent.vhd`)], ["W2ru", utf16("..\\gone\\old.vhd")]]),
  "locators that are of no use, and a name": () =>
    childBy([
      ["Mac ", new Uint8Array(100)],
      ["Wi2r", new TextEncoder().encode("x.vhd")],
      ["MacX", new TextEncoder().encode("file://%")],
      ["W2ru", new Uint8Array(0)],
      ["W2ku", utf16("a\0b")],
    ], "parent.vhd"),
};
for (const [kind, image] of Object.entries(LOCATORS)) {
  Deno.test({
    name: `a parent is found by its path: ${kind}`,
    ignore: Deno.build.os === "windows",
    async fn() {
      await using dir = await tempDir();
      await write(dir, { "child.vhd": image(dir.path), "parent.vhd": PARENT });
      await using node = await openImage({ filename: dir.file("child.vhd") }, READ_ONLY, QUIET);
      assertEquals(await sectorsOf(node), MERGED);
    },
  });
}

Deno.test("no word of a path is taken for a protocol", async () => {
  const file = new MemoryNode({ bytes: handMade(childBy([["W2ru", utf16("nbd:host:10809")]])) });
  await using node = await open(file);
  assertEquals(node.backing?.name, "./nbd:host:10809");
});

Deno.test("locators that reach out of the file, or are too long, are none", async () => {
  for (const [field, value] of [[8, 0x20000], [16, 0x7fffffff]] as const) {
    const bytes = handMade(childBy([["W2ru", utf16("wrong.vhd")]], "right.vhd"));
    new DataView(bytes.buffer).setUint32(512 + 576 + field, value);
    await using node = await open(new MemoryNode({ bytes }));
    assertEquals(node.backing?.name, "./right.vhd");
  }
});

Deno.test("an image that does not say where its parent is cannot be opened", async () => {
  const file = new MemoryNode({ bytes: handMade(childBy([])) });
  const error = await assertRejects(() => open(file), ImageError, "does not say where");
  assertEquals(error.field, "parent locator");
});

Deno.test("another disk in the parent's place is refused", async () => {
  await using dir = await tempDir();
  await write(dir, { "child.vhd": CHILD, "parent.vhd": { ...PARENT, id: 6 } });
  const error = await assertRejects(
    () => openImage({ filename: dir.file("child.vhd") }, READ_ONLY, QUIET),
    ImageError,
  );
  assertStringIncludes(error.message, "is not the parent of");
  assertEquals(error.field, "parent unique id");
});

Deno.test("a parent that is not there is an error, and none for those who only want to know", async () => {
  await using dir = await tempDir();
  await write(dir, { "child.vhd": CHILD });
  const filename = dir.file("child.vhd");
  await assertRejects(
    () => openImage({ filename }, READ_ONLY, QUIET),
    ImageError,
    "Could not open backing file",
  );
  const [info] = await imageInfo({ filename });
  assertEquals([info?.backingFilename, info?.backingFormat], ["./parent.vhd", "vpc"]);
  await using node = await openImage({ filename }, { ...READ_ONLY, noBacking: true }, QUIET);
  assertEquals(await sectorsOf(node), MERGED.map((byte) => byte === 5 ? 0 : byte));
});

Deno.test("an untrusted image does not get at its parent", async () => {
  await using dir = await tempDir();
  await write(dir, { "child.vhd": CHILD, "parent.vhd": PARENT });
  await assertRejects(
    () => openImage({ filename: dir.file("child.vhd") }, READ_ONLY, { ...QUIET, untrusted: true }),
    ImageError,
    "not opened for an untrusted image",
  );
});

Deno.test("an image that is its own parent is an error", async () => {
  await using dir = await tempDir();
  await write(dir, {
    "child.vhd": { ...CHILD, parent: { id: 7, locators: [["W2ru", utf16(".\\child.vhd")]] } },
  });
  await assertRejects(
    () => openImage({ filename: dir.file("child.vhd") }, READ_ONLY, QUIET),
    ImageError,
  );
});

Deno.test("differencing images cannot be written", async () => {
  const bytes = handMade(CHILD);
  await assertRejects(
    () => open(new MemoryNode({ bytes }), { writable: true }),
    ImageError,
    "Differencing VHD images can only be read",
  );
});

Deno.test("a child is closed with its parent", async () => {
  const [below, above] = [PARENT, CHILD].map((image) => new MemoryNode({ bytes: handMade(image) }));
  const parent = await open(below!);
  const node = await open(above!, {}, { parent });
  await node[Symbol.asyncDispose]();
  assertEquals([below!.closed, above!.closed], [true, true]);
});
