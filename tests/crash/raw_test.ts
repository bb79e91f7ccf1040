/** Crashes of a raw image: nothing but the sectors that were written changes. */
import { assertArrayIncludes, assertEquals } from "@std/assert";
import { raw } from "../../drivers/raw.ts";
import { OptionSet } from "../../lib/block/options.ts";
import { context } from "../drivers/qcow2/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { lookAtStates, SEED } from "./_crashes.ts";
import { findForeign, Guest, SECTOR, stamps } from "./_guest.ts";
import { discardAnywhere, writeAnywhere, writeTogether, zeroAnywhere } from "./_habits.ts";
import { Journal } from "./_journal.ts";

Deno.test("crash: a raw image", async () => {
  const random = new Random(SEED);
  const sectors = 700;
  const file = new MemoryNode({ filename: "test.raw", bytes: stamps(1, 0, sectors) });
  const journal = new Journal();
  journal.watch(file);
  const guest = new Guest(journal, new Uint32Array(sectors).fill(1));
  {
    const mode = { writable: true, unmap: true, resizing: true };
    await using node = await raw.open(file, new OptionSet([]), context(mode));
    guest.attach(node);
    await writeAnywhere(guest, random, 10);
    await zeroAnywhere(guest, random, 10);
    await discardAnywhere(guest, random, 10);
    await guest.flush();
    await guest.resize(1000 * SECTOR, "off");
    await writeTogether(guest, random, 4);
    await guest.flush();
    await guest.resize(300 * SECTOR, "off");
    await writeAnywhere(guest, random, 4);
  }
  const expectations = guest.expectations();
  await lookAtStates(journal, random, async ([state], moment) => {
    const allowed = expectations.at(moment);
    await using node = await raw.open(state!, new OptionSet([]), context());
    assertEquals(await findForeign(node, allowed.sectors), undefined);
    // Nobody promises when a new length is on the disk.
    assertArrayIncludes([300, 700, 1000].map((count) => count * SECTOR), [node.length]);
  });
  assertEquals(await findForeign(file.copy(), guest.latest), undefined);
});
