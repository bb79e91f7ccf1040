/** Crashes while a qcow2 image is made or repaired. */
import { assert, assertEquals } from "@std/assert";
import type { CreateRequest } from "../../lib/block/driver.ts";
import { qcow2 } from "../../drivers/qcow2/driver.ts";
import { context, createOptions, open, patch } from "../drivers/qcow2/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { assertSound, lookAtStates, preparedImage, SEED } from "./_crashes.ts";
import { findForeign, readTags } from "./_guest.ts";
import { compressAnywhere, writeAnywhere, zeroAnywhere } from "./_habits.ts";
import { Journal } from "./_journal.ts";

/** What every image says at its begin. */
const MAGIC = 0x514649fb;

const CREATIONS: readonly Record<string, string>[] = [
  { size: "1M" },
  { size: "1M", cluster_size: "512" },
  { size: "1M", compat: "0.10" },
  { size: "1M", lazy_refcounts: "on", refcount_bits: "64", cluster_size: "4096" },
  { size: "1M", backing_file: "base.raw", backing_fmt: "raw" },
  { size: "1M", cluster_size: "4096", preallocation: "metadata" },
  { size: "1M", cluster_size: "512", preallocation: "metadata", refcount_bits: "64" },
  { size: "1M", cluster_size: "4096", preallocation: "falloc" },
  { size: "1M", cluster_size: "16k", preallocation: "full", extended_l2: "on" },
  { size: "1M", cluster_size: "4096", data_file: "data.raw", data_file_raw: "on" },
];

for (const options of CREATIONS) {
  const list = Object.entries(options).map((option) => option.join("=")).join(",");
  Deno.test(`crash: creation (${list})`, async () => {
    const journal = new Journal();
    const file = new MemoryNode({ filename: "test.qcow2" });
    journal.watch(file);
    const base = context({ writable: true });
    const request: CreateRequest = {
      filename: "test.qcow2",
      options: createOptions(options),
      createBase: () => Promise.resolve(file),
      context: {
        ...base,
        createFile: (_role, filename) => {
          const node = new MemoryNode({ filename });
          journal.watch(node);
          return Promise.resolve(node);
        },
      },
    };
    await qcow2.create!(request);

    let whole = 0;
    const look = async ([image, dataFile]: readonly MemoryNode[]) => {
      const head = new DataView(image!.slice(0, 4).buffer);
      // Before its end nobody takes the file for an image; from then on it is one.
      if (head.getUint32(0) !== MAGIC) return;
      whole++;
      const files = new Map(dataFile === undefined ? [] : [["data.raw", dataFile]]);
      await using node = await open(image!, context({}, { files }));
      assertEquals(node.length, 2 ** 20);
      assertEquals(node.backing!.name, options["backing_file"] ?? "");
      await assertSound(node, false);
      assertEquals(await findForeign(node, []), undefined);
    };
    await lookAtStates(journal, new Random(SEED), look);
    await look(journal.replay().end());
    assert(whole > 0);
  });
}

/** Ways to damage an image with clusters of 4 KiB of which the guest's content is not part. */
const DAMAGES: Record<string, (image: Uint8Array) => void> = {
  "lost refcounts": (image) => {
    // The counts of clusters that surely are in use.
    image.fill(0, firstBlock(image) + 8, firstBlock(image) + 24);
  },
  "a lost refcount block": (image) => patch(image, [refcountTable(image), 8, 0]),
  "leaks": (image) => patch(image, [firstBlock(image) + 4000, 2, 1], [firstBlock(image) + 4, 2, 3]),
  "wrong COPIED flags": (image) => {
    const view = new DataView(image.buffer);
    const l1 = Number(view.getBigUint64(40));
    patch(image, [l1, 1, view.getUint8(l1) & 0x7f]);
    const l2 = Number(view.getBigUint64(l1) & 0x00fffffffffffe00n);
    for (let entry = l2; entry < l2 + 4096; entry += 8) {
      if (view.getUint8(entry) === 0x80) patch(image, [entry, 1, 0]);
    }
  },
  "the corrupt bit": (image) => patch(image, [72, 8, 2]),
};

function refcountTable(image: Uint8Array): number {
  return Number(new DataView(image.buffer).getBigUint64(48));
}

function firstBlock(image: Uint8Array): number {
  return Number(new DataView(image.buffer).getBigUint64(refcountTable(image)));
}

function usedImage(options: Readonly<Record<string, string>> = {}): Promise<Uint8Array> {
  return preparedImage(
    { size: "512k", cluster_size: "4096", ...options },
    async (guest, random) => {
      await compressAnywhere(guest, random, 20);
      await writeAnywhere(guest, random, 20);
      await zeroAnywhere(guest, random, 5);
    },
  );
}

async function repair(file: MemoryNode): Promise<void> {
  await using node = await open(file, context({ writable: true, checking: true }));
  const result = await node.checker!.check("all", () => {});
  assertEquals([result.corruptions, result.leaks, result.checkErrors], [0, 0, 0]);
}

for (const [name, damage] of Object.entries(DAMAGES)) {
  Deno.test(`crash: repair of ${name}`, async () => {
    const image = await usedImage();
    const tags = await contentOf(image);
    damage(image);
    const file = new MemoryNode({ filename: "test.qcow2", bytes: image });
    await using damaged = await open(file.copy());
    const found = await damaged.checker!.check("none", () => {});
    const corrupt = (file.slice(79, 1)[0]! & 2) !== 0;
    assert(corrupt || found.corruptions + found.leaks > 0, "the image is not damaged");

    const journal = new Journal();
    journal.watch(file);
    await repair(file);
    await lookAtStates(journal, new Random(SEED), async ([state]) => {
      // Half a repair has harmed nothing, and another one ends it.
      await assertContent(state!, tags);
      await repair(state!.copy());
      const again = state!.copy();
      await repair(again);
      await using node = await open(again.copy());
      await assertSound(node, false);
      await assertContent(again, tags);
    });
  });
}

for (
  const names of [["lost refcounts", "leaks"], ["leaks", "wrong COPIED flags"], [
    "a lost refcount block",
  ]]
) {
  Deno.test(`crash: half a repair of ${names.join(" and ")} is ended by who opens the image`, async () => {
    const image = await usedImage();
    const tags = await contentOf(image);
    for (const name of names) DAMAGES[name]!(image);
    const file = new MemoryNode({ filename: "test.qcow2", bytes: image });
    const journal = new Journal();
    journal.watch(file);
    await repair(file);
    const before = await corruptionsOf(new MemoryNode({ bytes: image }));
    let halves = 0;
    await lookAtStates(journal, new Random(SEED), async ([state]) => {
      const copy = state!.copy();
      if ((copy.slice(79, 1)[0]! & 1) !== 0) {
        halves++;
        await openAndClose(copy);
        assertEquals(await corruptionsOf(copy), 0);
      } else {
        // Without the mark all is as it was, or as it should be.
        assert([0, before].includes(await corruptionsOf(copy)));
      }
      await assertContent(copy, tags);
    });
    assert(halves > 0);
  });
}

Deno.test("crash: repair of a dirty image when it is opened", async () => {
  const image = await usedImage({ lazy_refcounts: "on" });
  const tags = await contentOf(image);
  // As a driver leaves it that writes no refcounts for a while.
  patch(image, [72, 8, 1]);
  image.fill(0, firstBlock(image) + 8, firstBlock(image) + 24);
  const file = new MemoryNode({ filename: "test.qcow2", bytes: image });
  const journal = new Journal();
  journal.watch(file);
  await openAndClose(file);
  await lookAtStates(journal, new Random(SEED), async ([state]) => {
    await assertContent(state!, tags);
    const isDirty = (state!.slice(79, 1)[0]! & 1) !== 0;
    const again = state!.copy();
    if (!isDirty) await assertSound(await open(again.copy()));
    await openAndClose(again);
    await using node = await open(again.copy());
    await assertSound(node);
    await assertContent(again, tags);
  });
});

async function openAndClose(file: MemoryNode): Promise<void> {
  await using _node = await open(file, context({ writable: true }));
}

async function corruptionsOf(file: MemoryNode): Promise<number> {
  await using node = await open(file.copy());
  return (await node.checker!.check("none", () => {})).corruptions;
}

async function contentOf(image: Uint8Array): Promise<Uint32Array> {
  await using node = await open(new MemoryNode({ bytes: image }));
  return await readTags(node);
}

async function assertContent(file: MemoryNode, tags: Uint32Array): Promise<void> {
  await using node = await open(file.copy());
  assertEquals(await findForeign(node, Array.from(tags, (tag) => [tag])), undefined);
}
