/** Crashes of a qcow2 image with dirty bitmaps. */
import { assert } from "@std/assert";
import type { MemoryNode } from "../_memory_node.ts";
import { useReference } from "../_reference.ts";
import { withTempDir } from "../_temp.ts";
import { crashTest, preparedImage } from "./_crashes.ts";
import { readTags, SECTOR } from "./_guest.ts";
import { discardAnywhere, writeAnywhere, zeroAnywhere } from "./_habits.ts";
import { open } from "../drivers/qcow2/_image.ts";

/** A bitmap as it lies in a file. */
interface StoredBitmap {
  readonly name: string;
  readonly inUse: boolean;
  /** Whether the bit of a sector is set. */
  isDirty(sector: number): boolean;
}

const EXTENSION = 0x23852875;

/** The bitmaps of an image whose header says that they are in order; nothing of the driver is used. */
function storedBitmaps(file: MemoryNode): StoredBitmap[] {
  const image = file.bytes();
  const view = new DataView(image.buffer);
  const clusterSize = 2 ** view.getUint32(20);
  if ((view.getUint32(92) & 1) === 0) return [];
  let at = view.getUint32(100);
  while (view.getUint32(at) !== EXTENSION) at += 8 + Math.ceil(view.getUint32(at + 4) / 8) * 8;
  let entry = Number(view.getBigUint64(at + 24));
  const bitmaps: StoredBitmap[] = [];
  for (let left = view.getUint32(at + 8); left > 0; left--) {
    const table = Number(view.getBigUint64(entry));
    const granularity = 2 ** view.getUint8(entry + 17);
    const nameLength = view.getUint16(entry + 18);
    bitmaps.push({
      name: new TextDecoder().decode(image.subarray(entry + 24, entry + 24 + nameLength)),
      inUse: (view.getUint32(entry + 12) & 1) !== 0,
      isDirty(sector) {
        const bit = Math.floor(sector * SECTOR / granularity);
        const word = view.getBigUint64(table + Math.floor(bit / clusterSize / 8) * 8);
        const offset = Number(word & 0x00fffffffffffe00n);
        if (offset === 0) return (word & 1n) !== 0n;
        return (image[offset + (bit >> 3) % clusterSize]! & 1 << (bit & 7)) !== 0;
      },
    });
    entry += Math.ceil((24 + nameLength) / 8) * 8;
  }
  return bitmaps;
}

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
  const bitmaps = storedBitmaps(image!).filter(({ inUse }) => !inUse);
  if (bitmaps.length === 0) return;
  await using node = await open(image!.copy());
  const tags = await readTags(node);
  for (const [sector, tag] of tags.entries()) {
    if (tag === (baseline![sector] ?? 0)) continue;
    for (const { name, isDirty } of bitmaps) {
      assert(isDirty(sector), `sector ${sector} changed and '${name}' does not know`);
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
