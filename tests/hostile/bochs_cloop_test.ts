/** Bochs' and cloop's images made to do harm: an error or a disk, in bounded time and memory. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { deflateSync } from "node:zlib";
import { bochs } from "../../drivers/bochs/driver.ts";
import { cloop } from "../../drivers/cloop/driver.ts";
import type { FormatDriver } from "../../lib/block/driver.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { OptionSet } from "../../lib/block/options.ts";
import { context } from "../drivers/qcow2/_image.ts";
import { bochsImage, cloopImage } from "../_foreign_images.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { reference, runQimg, runReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";

type Change = (view: DataView) => void;

async function open(
  driver: FormatDriver,
  bytes: Uint8Array<ArrayBuffer>,
  change: Change = () => {},
  untrusted = false,
): Promise<BlockNode> {
  change(new DataView(bytes.buffer));
  return await driver.open(
    new MemoryNode({ bytes }),
    new OptionSet([]),
    context({}, { untrusted }),
  );
}

const openBochs = (change?: Change, untrusted?: boolean) =>
  open(bochs, new Uint8Array(bochsImage(2)), change, untrusted);
const openCloop = (change?: Change, untrusted?: boolean) =>
  open(cloop, new Uint8Array(cloopImage({ blockSize: 4096 })), change, untrusted);

async function readOf(node: BlockNode, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await node.read(offset, bytes);
  return bytes;
}

Deno.test("bochs: an extent far behind the end of the file is of zeros", async () => {
  await using node = await openBochs((view) => view.setUint32(512 + 4, 0xfffffffe, true));
  assertEquals(await readOf(node, 4096, 4096), new Uint8Array(4096));
});

Deno.test("bochs: a bitmap of 4 GiB takes no memory", async () => {
  await using node = await openBochs((view) => view.setUint32(76, 0xffffffff, true));
  // Extent 0 still begins where it did, and its bitmap says that sectors are there, far away.
  assertEquals(await readOf(node, 8192, 512), new Uint8Array(512));
});

Deno.test("bochs: a catalog far behind the end of the file makes all extents the first one", async () => {
  await using node = await openBochs((view) => view.setUint32(68, 0xfffffff0, true));
  assertEquals(await readOf(node, 0, 65536), new Uint8Array(65536));
});

Deno.test("bochs: all extents are one", async () => {
  await using node = await openBochs((view) => {
    for (let i = 0; i < 16; i++) view.setUint32(512 + i * 4, 1, true);
  });
  const one = await readOf(node, 0, 4096);
  assert(one.some((byte) => byte !== 0));
  for (let i = 1; i < 16; i++) assertEquals(await readOf(node, i * 4096, 4096), one);
});

Deno.test("bochs: the longest disk that a catalog can hold is read at its ends", async () => {
  await using node = await openBochs((view) => {
    view.setUint32(72, 0x100000, true);
    view.setUint32(80, 0x800000, true);
    view.setBigUint64(88, 2n ** 43n, true);
  });
  assertEquals(node.length, 2 ** 43);
  await readOf(node, 0, 4096);
  await readOf(node, node.length - 70_000, 70_000);
  assertEquals((await node.extent(0, node.length)).length, node.length);
});

Deno.test("cloop: a block that inflates to more than it may is refused", async () => {
  const bomb = deflateSync(new Uint8Array(16 << 20));
  await using node = await open(
    cloop,
    new Uint8Array(cloopImage({ blockSize: 4096, deflate: () => bomb })),
  );
  const error = await assertRejects(() => readOf(node, 0, 512), ImageError);
  assertEquals(error.errno, "EIO");
});

Deno.test("cloop: what cannot be inflated is refused, and what is beside it read", async () => {
  await using whole = await openCloop();
  const expected = await readOf(whole, 8192, 4096);
  await using node = await openCloop((view) => {
    const second = Number(view.getBigUint64(136 + 8));
    for (let i = 0; i < 20; i++) view.setUint8(second + i, 0xff);
  });
  await assertRejects(() => readOf(node, 4000, 200), ImageError);
  assertEquals(await readOf(node, 8192, 4096), expected);
});

Deno.test("cloop: offsets behind the end of the file take no memory", async () => {
  await using node = await openCloop((view) => {
    for (let i = 1; i < 6; i++) view.setBigUint64(136 + i * 8, 2n ** 20n * BigInt(i * 100));
  });
  const error = await assertRejects(() => readOf(node, 4096, 512), ImageError);
  assertEquals(error.errno, "EIO");
});

Deno.test("cloop: a table of 512 MiB that the file does not have takes no memory", async () => {
  const blocks = (512 << 20) / 8 - 1;
  const change: Change = (view) => view.setUint32(132, blocks);
  const bytes = new Uint8Array(cloopImage({ blockSize: 4096 })).slice(0, 136);
  await using node = await open(cloop, bytes, change);
  await assertRejects(() => readOf(node, 4096, 512), ImageError);
  const error = await assertRejects(() => openCloop(change, true), ImageError);
  assertEquals(error.field, "number of blocks");
});

const IMAGES = {
  bochs: () => bochsImage(2),
  cloop: () => cloopImage({ blockSize: 4096 }),
} as const;

for (const [format, make] of Object.entries(IMAGES)) {
  Deno.test({
    name: `damaged ${format} images: the reference reads what we read, and refuses what we refuse`,
    ignore: reference.ignore,
    async fn() {
      const image = new Uint8Array(make());
      const only = Deno.env.get("QIMG_SEED");
      const count = Number(Deno.env.get("QIMG_MUTATIONS") ?? 25);
      const seeds = only === undefined
        ? Array.from({ length: count }, (_, i) => i)
        : [Number(only)];
      await using dir = await tempDir();
      let read = 0;
      for (const seed of seeds) {
        const random = new Random(seed);
        const bytes = random.oneIn(5) ? image.slice(0, random.below(image.length)) : image.slice();
        for (let left = random.below(4); left > 0; left--) {
          // Names and texts in front of the fields are all or nothing.
          const at = random.between(format === "bochs" ? 64 : 128, random.pick([192, 640, 1024]));
          if (at >= bytes.length) continue;
          bytes[at] = random.oneIn(2)
            ? bytes[at]! ^ 1 << random.below(8)
            : random.pick([0, 1, 255]);
        }
        await Deno.writeFile(dir.file("a"), bytes);
        // Parts of it, as a disk may be of terabytes now.
        const line = (to: string) => [
          ...["dd", "-f", format, "-O", "raw", "if=a", `of=${to}`],
          ...["bs=512", "count=200"],
        ];
        const [theirs, ours] = [
          await runReference(line("theirs"), { cwd: dir.path }),
          await runQimg(line("ours"), { cwd: dir.path }),
        ];
        const what = `QIMG_SEED=${seed}: ${theirs.stderr}${ours.stderr}`;
        assertEquals(ours.code, theirs.code, what);
        if (ours.code === 0) {
          read++;
          const compare = ["compare", "-q", "-s", "-f", "raw", "-F", "raw", "theirs", "ours"];
          assertEquals((await runReference(compare, { cwd: dir.path })).code, 0, what);
        }
        for (const name of ["theirs", "ours"]) await Deno.remove(dir.file(name)).catch(() => {});
      }
      if (only === undefined) {
        assert(read > count / 10 && read < count, `${read} of ${count} read`);
      }
    },
  });
}
