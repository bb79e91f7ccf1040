/** Images of Parallels made to do harm: an error or a disk, in bounded time and memory. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { createHash } from "node:crypto";
import { ImageError } from "../../lib/block/error.ts";
import {
  bitmapFeature,
  extensionCluster,
  imageWithExtension,
  open,
  parallelsImage,
} from "../drivers/parallels/_images.ts";
import { context } from "../drivers/qcow2/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";

const SECTOR = 512;
const CLUSTER = 8 * SECTOR;
const SEEDS = 300;

const IMAGES: Readonly<Record<string, Uint8Array<ArrayBuffer>>> = {
  "of the newer kind": parallelsImage({ table: [1, 3, 0, 2, 0, 0, 5, 4] }),
  "of the older kind": parallelsImage({ version: 1, table: [8, 24, 0, 16, 0, 0, 40, 32] }),
  "with bitmaps": imageWithExtension(
    extensionCluster(CLUSTER, [
      bitmapFeature({ sectors: 64, granularity: 1, table: [16] }),
      bitmapFeature({ sectors: 64, granularity: 2, table: [1], id: "00".repeat(16) }),
    ]),
    { bits: new Uint8Array([0x61, 0x1c]) },
  ),
};

/** Changes bits and bytes of header, table and extension, and puts the extension's checksum right. */
function mutate(image: Uint8Array, random: Random): string[] {
  const log: string[] = [];
  const extension = 3 * CLUSTER;
  const hasExtension = image[57] !== 0 || image[56] !== 0;
  for (let count = random.between(1, 8); count > 0; count--) {
    const at = hasExtension && random.oneIn(2)
      ? extension + random.below(160)
      : 16 + random.below(random.pick([48, 90]));
    image[at] = random.oneIn(2)
      ? image[at]! ^ 1 << random.below(8)
      : random.pick([0, 1, 0x7f, 0xff]);
    log.push(`${at}=${image[at]}`);
  }
  if (hasExtension && !random.oneIn(8)) {
    const body = image.subarray(extension + 24, extension + CLUSTER);
    image.set(createHash("md5").update(body).digest(), extension + 8);
  }
  return log;
}

/** Maps, reads, checks and repairs whatever disk there is, and writes to it. */
async function use(bytes: Uint8Array, writable: boolean): Promise<void> {
  const file = new MemoryNode({ bytes });
  try {
    await using node = await open(file, {
      writable,
      unmap: true,
      options: { "prealloc-size": "0" },
    });
    for (const at of new Set([0, Math.max(node.length - 65536, 0)])) {
      const length = Math.min(node.length - at, 65536);
      await node.read(at, new Uint8Array(length));
      for (let done = 0; done < length;) {
        const extent = await node.extent(at + done, length - done);
        assert(extent.length >= 1 && extent.length <= length - done, "a run within what was asked");
        done += extent.length;
      }
    }
    for (const { name } of node.bitmaps!.list()) {
      await node.bitmaps!.visitDirty!(name, (offset, length) => {
        assert(offset >= 0 && length > 0 && offset + length <= node.length, "a part of the disk");
      });
    }
    const header = file.slice(0, 40);
    if (writable && node.length > 0) {
      await node.write(0, new Uint8Array(Math.min(node.length, 1000)).fill(0xab));
      await node.discard(0, Math.min(node.length, CLUSTER));
      assertEquals(file.slice(0, 40), header, "the fields in front");
    }
    await node.checker!.check(writable ? "all" : "none", () => {});
  } catch (error) {
    if (!(error instanceof ImageError)) throw error;
    assert(error.message !== "");
  }
}

for (const [kind, sound] of Object.entries(IMAGES)) {
  Deno.test(`mutated images of Parallels ${kind}`, async () => {
    const only = Deno.env.get("QIMG_SEED");
    const seeds = only === undefined ? Array.from({ length: SEEDS }, (_, i) => i) : [Number(only)];
    for (const seed of seeds) {
      const random = new Random(seed);
      const bytes = sound.slice();
      const log = mutate(bytes, random);
      try {
        await use(bytes, random.oneIn(2));
      } catch (error) {
        throw new Error(`QIMG_SEED=${seed} ${log.join(" ")}`, { cause: error });
      }
    }
  });

  Deno.test(`truncated images of Parallels ${kind}`, async () => {
    for (let length = 0; length < sound.length; length += SECTOR) {
      for (const cut of [length, length + 1, length + 63, length + 511]) {
        for (const writable of [false, true]) await use(sound.slice(0, cut), writable);
      }
    }
  });
}

Deno.test("an extension that the file does not hold to its end is not computed over", async () => {
  const bytes = imageWithExtension(extensionCluster(CLUSTER, []));
  // Clusters of 2 GiB.
  new DataView(bytes.buffer).setUint32(28, 4186127, true);
  await assertRejects(() => open(new MemoryNode({ bytes })), ImageError, "Wrong checksum");
});

Deno.test("a table of half a milliard entries in a short file takes neither time nor memory", async () => {
  const bytes = parallelsImage({ sectors: 2 ** 42 });
  new DataView(bytes.buffer).setUint32(32, 536870911, true);
  const before = Deno.memoryUsage().rss;
  const lines: string[] = [];
  await using node = await open(new MemoryNode({ bytes }), { using: context({ checking: true }) });
  await node.checker!.check("none", (line) => void lines.push(line));
  assert(lines.length < 3000, `${lines.length} lines`);
  await node.extent(0, node.length);
  assert(Deno.memoryUsage().rss - before < 256 << 20);
});

Deno.test("a cluster at the end of all numbers makes no file of that length", async () => {
  const file = new MemoryNode({
    bytes: parallelsImage({ table: [1, 0xffffffff], fileLength: 2 * CLUSTER }),
  });
  await (await open(file, { writable: true }))[Symbol.asyncDispose]();
  assertEquals(file.bytes().length, 2 * CLUSTER);
});
