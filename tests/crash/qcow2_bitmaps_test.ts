/** Crashes of a qcow2 image with dirty bitmaps. */
import { assert, assertEquals } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { addBitmap, mergeBitmap } from "../../lib/ops/bitmap.ts";
import { copyBitmaps } from "../../lib/ops/copy/bitmaps.ts";
import { CACHE_MODES } from "../../lib/block/mode.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import { MemoryNode } from "../_memory_node.ts";
import { useReference } from "../_reference.ts";
import { bitsOf, storedBitmaps } from "../_stored_bitmaps.ts";
import { withTempDir } from "../_temp.ts";
import { Random } from "../_random.ts";
import { context, create, open } from "../drivers/qcow2/_image.ts";
import { assertSound, crashTest, preparedImage, SEED } from "./_crashes.ts";
import { readTags, SECTOR, stamps } from "./_guest.ts";
import { discardAnywhere, writeAnywhere, zeroAnywhere } from "./_habits.ts";
import { HostDisk, isHostFailure } from "./_host_disk.ts";
import { Journal } from "./_journal.ts";

let baseline: Uint32Array | undefined;

/** An image with two clean bitmaps, one of which follows writes. */
async function imageWithBitmaps(): Promise<Uint8Array> {
  const options = { size: "512k", cluster_size: "4096" };
  const bytes = await preparedImage(options, (guest, random) => writeAnywhere(guest, random, 20));
  return await withTempDir(async (cwd) => {
    await Deno.writeFile(`${cwd}/test.qcow2`, bytes);
    await useReference(["bitmap", "--add", "-g", "4096", "test.qcow2", "one"], { cwd });
    await useReference(["bitmap", "--add", "-g", "65536", "test.qcow2", "two"], { cwd });
    return await Deno.readFile(`${cwd}/test.qcow2`);
  });
}

/** A bitmap that says it is complete has a bit for everything that changed. */
async function assertTrueBitmaps([image]: readonly MemoryNode[]): Promise<void> {
  const bitmaps = storedBitmaps(image!.bytes()).filter(({ inUse }) => !inUse);
  if (bitmaps.length === 0) return;
  await using node = await open(image!.copy());
  const tags = await readTags(node);
  for (const [sector, tag] of tags.entries()) {
    if (tag === (baseline![sector] ?? 0)) continue;
    for (const { name, isDirty } of bitmaps) {
      assert(isDirty(sector * SECTOR), `sector ${sector} changed and '${name}' does not know`);
    }
  }
}

crashTest("an image with bitmaps", {
  image: imageWithBitmaps,
  needsReference: true,
  mode: { unmap: true },
  prepare: async (guest) => {
    baseline = await readTags(guest.node);
  },
  act: async (guest, random) => {
    await writeAnywhere(guest, random, 10);
    await zeroAnywhere(guest, random, 5);
    await discardAnywhere(guest, random, 5);
  },
  inspect: assertTrueBitmaps,
});

crashTest("an image with bitmaps that grows", {
  image: imageWithBitmaps,
  needsReference: true,
  mode: { resizing: true },
  prepare: async (guest) => {
    baseline = await readTags(guest.node);
  },
  act: async (guest, random) => {
    await writeAnywhere(guest, random, 4);
    await guest.resize(2048 * SECTOR, "off");
    await writeAnywhere(guest, random, 4);
  },
  inspect: assertTrueBitmaps,
});

/** All that the bitmaps of an image say, if they say that they are complete. */
function told(file: MemoryNode): string[] {
  const image = file.bytes();
  const size = Number(new DataView(image.buffer).getBigUint64(24));
  return storedBitmaps(image).filter(({ inUse }) => !inUse).map((bitmap) => {
    const { name, flags, granularity } = bitmap;
    return `${name} ${flags} ${granularity} ${bitsOf(bitmap, size)}`;
  });
}

/** What is done to the bitmaps of an image without writing to its disk. */
const OPERATIONS: Readonly<Record<string, (node: BlockNode) => unknown>> = {
  "one more": (node) => addBitmap(node, { name: "new", granularity: 512, enabled: true }),
  "one less": (node) => node.bitmaps!.remove!("one"),
  "the last one goes": async (node) => {
    for (const { name } of node.bitmaps!.list()) await node.bitmaps!.remove!(name);
  },
  "one is replaced": async (node) => {
    await node.bitmaps!.remove!("two");
    addBitmap(node, { name: "two", granularity: 1024, enabled: false });
    await mergeBitmap({ node, name: "two" }, { node, name: "one" });
  },
  "cleared": (node) => node.bitmaps!.clear!("one"),
  "disabled": (node) => node.bitmaps!.setEnabled!("two", false),
  "merged": (node) => mergeBitmap({ node, name: "two" }, { node, name: "one" }),
  "all kinds": async (node) => {
    addBitmap(node, { name: "new", granularity: 512, enabled: false });
    await mergeBitmap({ node, name: "new" }, { node, name: "one" });
    node.bitmaps!.clear!("one");
    await node.bitmaps!.remove!("two");
    node.bitmaps!.setEnabled!("new", true);
  },
};

/** An image whose bitmaps have something to say. */
async function imageWithMarks(): Promise<Uint8Array> {
  const file = new MemoryNode({ filename: "test.qcow2", bytes: await imageWithBitmaps() });
  {
    await using node = await open(file, context({ writable: true }));
    await writeAnywhereOn(node, new Random(SEED));
  }
  return file.bytes();
}

async function writeAnywhereOn(node: BlockNode, random: Random): Promise<void> {
  for (let n = 0; n < 12; n++) {
    const sector = random.below(node.length / SECTOR - 8);
    await node.write(sector * SECTOR, stamps(3, sector, random.between(1, 8)));
  }
}

for (const [what, operate] of Object.entries(OPERATIONS)) {
  let before: string[] = [];
  let after: string[] = [];
  crashTest(`bitmaps, ${what}`, {
    image: async () => {
      const bytes = await imageWithMarks();
      const file = new MemoryNode({ bytes });
      before = told(file);
      {
        await using node = await open(file, context({ writable: true }));
        await operate(node);
      }
      after = told(file);
      return bytes;
    },
    needsReference: true,
    act: async ({ node }) => void await operate(node),
    inspect: ([file]) => {
      // Either nothing happened yet, or everything, or nobody claims to know.
      const now = told(file!);
      if (now.length > 0 && now.join() !== before.join()) assertEquals(now, after);
      return Promise.resolve();
    },
  });
}

crashTest("bitmaps come and go while the guest writes", {
  image: imageWithBitmaps,
  needsReference: true,
  mode: { unmap: true },
  prepare: async (guest) => {
    baseline = await readTags(guest.node);
  },
  act: async (guest, random) => {
    const { node } = guest;
    await writeAnywhere(guest, random, 4);
    await node.bitmaps!.remove!("two");
    await writeAnywhere(guest, random, 4);
    addBitmap(node, { name: "new", enabled: true });
    await mergeBitmap({ node, name: "new" }, { node, name: "one" });
    await zeroAnywhere(guest, random, 4);
    await discardAnywhere(guest, random, 4);
  },
  inspect: assertTrueBitmaps,
});

/** Others take what is given back. */
class CrowdedDisk extends HostDisk {
  override get isFull(): boolean {
    return this.hasFailed || super.isFull;
  }
}

for (const blocks of [0, 1, 2, 3, 5]) {
  crashTest(`bitmaps on a disk with ${blocks} blocks left`, {
    image: imageWithBitmaps,
    needsReference: true,
    disk: () => new CrowdedDisk(blocks * 4096),
    prepare: async (guest) => {
      baseline = await readTags(guest.node);
    },
    act: async (guest, random) => {
      const { node } = guest;
      addBitmap(node, { name: "new", granularity: 512, enabled: true });
      node.bitmaps!.marker!("new")(0, node.length);
      try {
        await writeAnywhere(guest, random, 3);
        await node.bitmaps!.remove!("one");
      } catch (error) {
        if (!isHostFailure(error)) throw error;
      }
    },
    inspect: assertTrueBitmaps,
  });
}

for (const often of [4, 8, 12, 16, 24]) {
  crashTest(`bitmaps, one in ${often} writes and flushes fails`, {
    image: imageWithBitmaps,
    needsReference: true,
    disk: () => new CrowdedDisk(),
    prepare: async (guest) => {
      baseline = await readTags(guest.node);
    },
    act: async (guest, random, disk) => {
      const { node } = guest;
      await writeAnywhere(guest, random, 3);
      addBitmap(node, { name: "new", granularity: 512, enabled: true });
      node.bitmaps!.marker!("new")(0, node.length);
      await guest.flush();
      // From here to the end of the closing.
      disk.fault = ({ kind }) => {
        if (kind !== "read" && random.oneIn(often)) throw ImageError.fromErrno("EIO");
      };
      try {
        await node.bitmaps!.remove!("one");
      } catch (error) {
        if (!isHostFailure(error)) throw error;
      }
    },
    inspect: assertTrueBitmaps,
  });
}

Deno.test("a copy with bitmaps that is killed at any write claims no bitmap that it has not", async () => {
  const source = await open(new MemoryNode({ bytes: await imageWithMarks() }));
  await using _ = source;
  const file = await create({ size: "512k", cluster_size: "4096" });
  const journal = new Journal();
  journal.watch(file);
  {
    const mode = { writable: true, cache: CACHE_MODES["unsafe"]! };
    await using target = await open(file, context(mode));
    const bytes = new Uint8Array(64 * 1024);
    for (let at = 0; at < source.length; at += bytes.length) {
      await source.read(at, bytes);
      await target.write(at, bytes);
    }
    await copyBitmaps(source, target, { skipBroken: false }, QUIET);
  }
  const replay = journal.replay();
  const complete = told(replay.end()[0]!);
  assertEquals(complete.length, 2);
  let seen = 0;
  do {
    const [state] = replay.killed();
    const now = told(state!);
    if (now.length > 0) {
      seen++;
      assertEquals(now, complete);
    }
    await using node = await open(state!.copy());
    await assertSound(node);
  } while (replay.step());
  assert(seen > 0, "in the end they are there");
});
