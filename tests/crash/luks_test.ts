/** Crashes while a guest writes to a LUKS image, and while its passphrases change. */
import { assert, assertEquals } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { amendOptions, imageBytes, open } from "../drivers/luks/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { lookAtStates, SEED } from "./_crashes.ts";
import { findForeign, Guest, readTags } from "./_guest.ts";
import { writeAnywhere, writeTogether, zeroAnywhere } from "./_habits.ts";
import { Journal } from "./_journal.ts";

const SIZE = 256 << 10;

/** An image whose disk is zeros. */
async function emptyImage(): Promise<MemoryNode> {
  const file = new MemoryNode({ bytes: await imageBytes(SIZE) });
  {
    await using disk = await open(file, { writable: true });
    await disk.writeZeroes(0, SIZE, { unmap: false });
  }
  return file.copy();
}

for (
  const [name, act] of [
    ["writes", (guest: Guest, random: Random) => writeAnywhere(guest, random, 20)],
    ["writes at the same time", (guest: Guest, random: Random) => writeTogether(guest, random, 8)],
    [
      "zeros",
      (guest: Guest, random: Random) => zeroAnywhere(guest, random, 15, { unmap: false }),
    ],
  ] as const
) {
  Deno.test(`crash: luks, ${name}`, async () => {
    const file = await emptyImage();
    const journal = new Journal();
    let guest: Guest;
    {
      await using disk = await open(file.copy());
      guest = new Guest(journal, await readTags(disk));
    }
    journal.watch(file);
    {
      await using disk = await open(file, { writable: true });
      guest.attach(disk);
      await act(guest, new Random(SEED));
    }
    const expectations = guest.expectations();
    await lookAtStates(journal, new Random(SEED), async ([state], moment) => {
      await using disk = await open(state!.copy());
      assertEquals(await findForeign(disk, expectations.at(moment).sectors), undefined);
    });
    await using disk = await open(journal.replay().end()[0]!.copy());
    assertEquals(await findForeign(disk, guest.latest), undefined, "in the end");
  });
}

/** Whether a secret opens an image. */
async function opens(file: MemoryNode, secret: string): Promise<boolean> {
  let disk: BlockNode;
  try {
    disk = await open(file.copy(), {}, { secret });
  } catch (error) {
    assert(error instanceof ImageError);
    assertEquals(error.message, "Invalid password, cannot unlock any keyslot");
    return false;
  }
  await disk[Symbol.asyncDispose]();
  return true;
}

Deno.test("crash: luks, one passphrase takes another's place, and one of them always opens", async () => {
  const file = await emptyImage();
  const journal = new Journal();
  journal.watch(file);
  {
    await using disk = await open(file, { writable: true });
    const amend = (options: Record<string, string>) =>
      disk.amender!.amend(amendOptions(options), { force: false });
    await amend({ state: "active", "new-secret": "t", "iter-time": "0" });
    await amend({ state: "inactive", "old-secret": "s" });
  }
  await lookAtStates(journal, new Random(SEED), async ([state]) => {
    assert(await opens(state!, "s") || await opens(state!, "t"));
  });
  const end = journal.replay().end()[0]!;
  assertEquals([await opens(end, "s"), await opens(end, "t")], [false, true]);
});
