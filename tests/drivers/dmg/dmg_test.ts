import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { deflateSync } from "node:zlib";
import { dmg } from "../../../drivers/dmg/driver.ts";
import { probeDmg } from "../../../drivers/dmg/probe.ts";
import type { DriverContext } from "../../../lib/block/driver.ts";
import { ImageError } from "../../../lib/block/error.ts";
import type { BlockNode, Extent } from "../../../lib/block/node.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { words } from "../../codec/_samples.ts";
import { ChunkType, type DmgChunk, dmgImage, type DmgOptions } from "../../_dmg.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { forSeeds, Random } from "../../_random.ts";
import { reference, useQimg, useReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { STORED } from "./_chunks.ts";
import { context as plainContext } from "../qcow2/_image.ts";

const NAME = "test.dmg";

function context(more: Partial<DriverContext> = {}): DriverContext {
  return { ...plainContext(), filename: NAME, ...more };
}

function open(options: DmgOptions, more: Partial<DriverContext> = {}): Promise<BlockNode> {
  const file = new MemoryNode({ filename: NAME, bytes: dmgImage(options), readOnly: true });
  return dmg.open(file, new OptionSet([]), context(more));
}

async function contentOf(node: BlockNode): Promise<Uint8Array> {
  const bytes = new Uint8Array(node.length);
  await node.read(0, bytes);
  return bytes;
}

const COMMENT: DmgChunk = { type: ChunkType.comment, sectors: 0 };
const LAST: DmgChunk = { type: ChunkType.last, sectors: 0 };

/** A disk of chunks in any order, `count` of them in several tables, and its content. */
function mixedDisk(random: Random, count: number) {
  const tables: DmgChunk[][] = [[]];
  const content: number[] = [];
  for (; count > 0; count--) {
    const next = random.pick(STORED);
    tables.at(-1)!.push(next.chunk);
    for (const byte of next.content) content.push(byte);
    if (random.oneIn(5)) tables.at(-1)!.push(COMMENT);
    if (random.oneIn(5)) {
      tables.at(-1)!.push(LAST);
      tables.push([]);
    }
  }
  return { tables, content: Uint8Array.from(content) };
}

for (const layout of ["plist", "resources"] as const) {
  Deno.test(`dmg, ${layout}: reads chunks of every type`, async () => {
    const tables = [STORED.map(({ chunk }) => chunk), [LAST]];
    await using node = await open({ tables, layout, dataOffset: 77 });
    const content = STORED.flatMap(({ content }) => [...content]);
    assertEquals(await contentOf(node), Uint8Array.from(content));
  });

  Deno.test(`dmg, ${layout}: any part of any disk reads as written`, async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const random = new Random(seed);
      const { tables, content } = mixedDisk(random, random.between(1, 20));
      await using node = await open({ tables, layout, padding: random.below(600) });
      assertEquals(node.length, content.length, `seed ${seed}`);
      for (let reads = 0; reads < 20; reads++) {
        const offset = 512 * random.below(content.length / 512);
        const into = new Uint8Array(512 * random.between(1, (content.length - offset) / 512));
        await node.read(offset, into);
        assertEquals(into, content.subarray(offset, offset + into.length), `seed ${seed}`);
      }
    }
  });
}

Deno.test("dmg: raw bytes that are fewer than their sectors are followed by zeros", async () => {
  const chunk = { type: ChunkType.raw, sectors: 4, bytes: new Uint8Array(700).fill(7) };
  await using node = await open({ tables: [[chunk]] });
  const expected = new Uint8Array(2048).fill(7, 0, 700);
  assertEquals(await contentOf(node), expected);
  const part = new Uint8Array(512);
  await node.read(1024, part);
  assertEquals(part, new Uint8Array(512));
});

Deno.test("dmg: a chunk that is read bit by bit is unpacked once", async () => {
  let reads = 0;
  const [{ chunk, content }] = STORED as readonly [(typeof STORED)[number]];
  const file = new MemoryNode({ bytes: dmgImage({ tables: [[chunk]] }) });
  await using node = await dmg.open(file, new OptionSet([]), context());
  file.onRequest(() => reads++);
  for (let at = 0; at < content.length; at += 512) {
    const sector = new Uint8Array(512);
    await node.read(at, sector);
    assertEquals(sector, content.subarray(at, at + 512));
  }
  assertEquals(reads, 1);
});

Deno.test("dmg: all is one extent, of parts that tell where they are", async () => {
  const [zlib, raw, zero] = [STORED[0]!, STORED[1]!, STORED[7]!];
  await using node = await open({
    tables: [[zlib, raw, zero].map(({ chunk }) => chunk)],
    dataOffset: 100,
  });
  const extent = await node.extent(512, node.length - 512);
  assertEquals([extent.state, extent.compressed, extent.length], [
    "data",
    false,
    node.length - 512,
  ]);
  assertEquals([extent.offset, extent.packed], [undefined, undefined]);
  const parts: Extent[] = [];
  for (let at = 512; at < node.length; at += parts.at(-1)!.length) {
    parts.push(extent.parts!(at, node.length - at));
  }
  const [{ node: file }] = node.children as readonly [(typeof node.children)[number]];
  const length = zlib.chunk.bytes!.length;
  assertEquals(parts.map(({ packed, file: _, ...part }) => ({ ...part, packed: packed?.codec })), [
    { length: 8192 - 512, compressed: false, state: "data", packed: "zlib-exact" },
    { length: 4096, compressed: false, state: "data", offset: 100 + length, packed: undefined },
    { length: 9 * 512, compressed: false, state: "zero", packed: undefined },
  ]);
  assert(parts[1]!.file === file);
  const { file: packedFile, ...packed } = parts[0]!.packed!;
  assert(packedFile === file);
  assertEquals(packed, { offset: 100, length, codec: "zlib-exact", size: 8192, skip: 512 });
});

Deno.test("dmg: nothing but the node reads large chunks and those that are cut", async () => {
  const large = new Uint8Array(3 << 20);
  await using node = await open({
    tables: [[
      { type: ChunkType.zlib, sectors: large.length / 512, bytes: deflateSync(large) },
      { type: ChunkType.raw, sectors: 2, bytes: new Uint8Array(1000) },
      { type: ChunkType.raw, sectors: 2, bytes: new Uint8Array(1024), offset: 1e9 },
    ]],
  });
  const { parts } = await node.extent(0, node.length);
  for (const at of [0, large.length, large.length + 1024]) {
    const { state, file, packed } = parts!(at, node.length - at);
    assertEquals([state, file, packed], ["data", undefined, undefined]);
  }
});

Deno.test("dmg: where no chunk is, nothing can be read", async () => {
  const [{ chunk }] = STORED as readonly [(typeof STORED)[number]];
  const disks: readonly DmgOptions[] = [
    { tables: [[chunk]], sectors: 100 },
    { tables: [[{ ...chunk, first: 90 }]], sectors: 100 },
    { tables: [[LAST]], sectors: 100 },
    { tables: [], extra: words(100), sectors: 100 },
  ];
  for (const options of disks) {
    await using node = await open(options);
    const error = await assertRejects(() => node.read(50 * 512, new Uint8Array(512)), ImageError);
    assertEquals(error.errno, "EIO");
    const { parts } = await node.extent(0, node.length);
    assertThrows(() => parts!(50 * 512, 512), ImageError);
  }
});

Deno.test("dmg: a stream that is damaged is an error of input", async () => {
  for (const { chunk } of STORED) {
    if (chunk.type === ChunkType.raw || chunk.bytes === undefined) continue;
    const bytes = chunk.bytes.slice(0, chunk.bytes.length - 13);
    await using node = await open({ tables: [[{ ...chunk, bytes }, LAST]] });
    const error = await assertRejects(() => contentOf(node), ImageError);
    assertEquals([error.errno, error.field], ["EIO", "chunk of sector 0"]);
  }
});

Deno.test("dmg: types that nobody knows are told once for each who listens", async () => {
  const tables = [[{ type: ChunkType.lzma, sectors: 8 }, { type: 0x77, sectors: 8 }]];
  const warnings: string[] = [];
  const warn = (text: string) => void warnings.push(text);
  for (let times = 0; times < 2; times++) {
    const node = await open({ tables }, { warn });
    await node[Symbol.asyncDispose]();
  }
  assertEquals(warnings, [
    "Image contains chunks of unknown type 80000008, accessing them will result in I/O errors",
  ]);
});

Deno.test("dmg: types that the reference lacks are read without a word", async () => {
  const warn = (text: string) => assert(false, text);
  await using node = await open({ tables: [STORED.map(({ chunk }) => chunk)] }, { warn });
  assert(node.length > 0);
});

Deno.test("dmg: nothing can be written", async () => {
  const tables = [[STORED[0]!.chunk]];
  const mode = { ...context().mode, writable: true };
  await assertRejects(() => open({ tables }, { mode }), ImageError, "Image is read-only");
  await using node = await open({ tables });
  await assertRejects(() => node.write(0, new Uint8Array(512)), ImageError);
});

Deno.test("dmg: names are what is probed", () => {
  const scores = ["a.dmg", "/b/c.dmg", ".dmg", "a.DMG", "a.dmg.bz2", "admg"].map((name) =>
    probeDmg(new Uint8Array(512), name)
  );
  assertEquals(scores, [2, 2, 0, 0, 0, 0]);
});

Deno.test("dmg: a list is read as the reference reads it, which is not as XML", async () => {
  // What is no digit is passed over, and a list ends with its first zero byte.
  const [{ chunk, content }] = STORED as readonly [(typeof STORED)[number]];
  const plain = dmgImage({ tables: [[chunk]] });
  const text = new TextDecoder("latin1").decode(plain);
  const start = text.indexOf("<data>") + 6;
  for (const [at, byte] of [[start, 0x2a], [text.indexOf("</array>"), 0]] as const) {
    const bytes = plain.slice();
    bytes[at] = byte;
    await using node = await dmg.open(new MemoryNode({ bytes }), new OptionSet([]), context());
    assertEquals(await contentOf(node), content);
  }
});

for (const to of ["raw", "qcow2"]) {
  Deno.test(`dmg: converts all types to ${to} in other threads`, async () => {
    await using dir = await tempDir();
    const random = new Random(1);
    const { tables, content } = mixedDisk(random, 400);
    assert(content.length > 3 << 20);
    await Deno.writeFile(dir.file("a.dmg"), dmgImage({ tables }));
    await Deno.writeFile(dir.file("content"), content);
    const compressed = to === "raw" ? [] : ["-c"];
    await useQimg(["convert", ...compressed, "-O", to, "a.dmg", "b"], { cwd: dir.path });
    const args = ["compare", "-f", "raw", "-F", to, "content", "b"];
    assertEquals(await useQimg(args, { cwd: dir.path }), "Images are identical.\n");
  });
}

const SAMPLE = new URL("../../../../shared/samples/simple-dmg.dmg.bz2", import.meta.url);
const hasSample = await Deno.stat(SAMPLE).then(() => true, () => false);

Deno.test({
  name: "dmg: an image that hdiutil made is converted to the same bytes",
  ignore: reference.ignore || !hasSample,
  async fn() {
    await using dir = await tempDir();
    const cwd = dir.path;
    const { createBzip2 } = await import("../../../lib/codec/bzip2.ts");
    // The sample itself comes packed.
    const sample = new Uint8Array(19479);
    createBzip2().unpack(await Deno.readFile(SAMPLE), sample);
    await Deno.writeFile(dir.file("a.dmg"), sample);
    await useReference(["convert", "-O", "raw", "a.dmg", "theirs"], { cwd });
    await useQimg(["convert", "-O", "raw", "a.dmg", "ours"], { cwd });
    assertEquals(
      await useReference(["compare", "-s", "-f", "raw", "-F", "raw", "ours", "theirs"], { cwd }),
      "Images are identical.\n",
    );
  },
});

Deno.test("dmg: damage anywhere in trailer and tables is an error or a disk that can be read", async () => {
  const tables = [STORED.map(({ chunk }) => chunk), [LAST]];
  const sizes = STORED.reduce((sum, { chunk }) => sum + (chunk.bytes?.length ?? 0), 0);
  for (const layout of ["plist", "resources"] as const) {
    const image = dmgImage({ tables, layout });
    const attempts: Uint8Array[] = [];
    forSeeds(Number(Deno.env.get("QIMG_DMG_MUTATIONS") ?? 200), (random) => {
      const bytes = image.slice(0, random.oneIn(10) ? random.below(image.length) : undefined);
      for (let count = random.between(1, 6); count > 0 && bytes.length > sizes; count--) {
        // What hurts is around what lies: lengths, offsets and their signs.
        const at = random.between(random.oneIn(2) ? bytes.length - 512 : sizes, bytes.length - 1);
        bytes[Math.max(at, 0)] = random.pick([0, 1, 0x7f, 0x80, 0xff, random.below(256)]);
      }
      attempts.push(bytes);
    });
    for (const [index, bytes] of attempts.entries()) {
      const file = new MemoryNode({ bytes });
      try {
        await using node = await dmg.open(file, new OptionSet([]), context({ report() {} }));
        const into = new Uint8Array(Math.min(node.length, 1 << 20));
        await node.read(0, into);
        await node.extent(0, Math.max(into.length, 1));
      } catch (error) {
        assert(error instanceof ImageError, `${layout}, seed ${index + 1}: ${error}`);
      }
    }
  }
});

Deno.test("dmg: the largest chunk of the smallest stream costs no more than its size", async () => {
  const tables = [[{
    type: ChunkType.zlib,
    sectors: 131072,
    bytes: deflateSync(new Uint8Array(9)),
  }]];
  await using node = await open({ tables });
  await assertRejects(() => node.read(0, new Uint8Array(512)), ImageError, "Input/output error");
});
