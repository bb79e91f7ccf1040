/** Crashes while a guest writes to a qcow image, version 1. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { CACHE_MODES, type OpenMode } from "../../lib/block/mode.ts";
import {
  assertSound,
  create,
  createEncrypted,
  handMade,
  open,
  secretly,
} from "../drivers/qcow/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { lookAtStates, SEED } from "./_crashes.ts";
import { findForeign, Guest, readTags, SECTOR, stamps } from "./_guest.ts";
import { compressAnywhere, writeAnywhere, writeTogether } from "./_habits.ts";
import { Journal } from "./_journal.ts";

/** The number of the stamps of backing files. */
const BACKING_TAG = 1;

interface Scenario {
  readonly image: () => Promise<MemoryNode> | MemoryNode;
  /** The image has a backing file of so many sectors, all of them stamped. */
  readonly backing?: number;
  readonly secret?: string;
  /** How the image is opened. */
  readonly mode?: Partial<OpenMode>;
  /** What happens before anything is recorded. */
  readonly prepare?: (guest: Guest, random: Random) => Promise<void>;
  readonly act: (guest: Guest, random: Random) => Promise<void>;
}

/** Plays a scenario and looks at states that a crash may leave. */
async function crashEverywhere(scenario: Scenario): Promise<void> {
  const random = new Random(SEED);
  const opening = (mode: Partial<OpenMode>) => ({
    using: secretly(mode),
    ...(scenario.secret === undefined ? {} : { secret: scenario.secret }),
    backing: scenario.backing === undefined ? undefined : new MemoryNode({
      bytes: stamps(BACKING_TAG, 0, scenario.backing),
      readOnly: true,
    }),
  });
  let file = await scenario.image();

  const play = async (act: Scenario["act"], journal: Journal): Promise<Guest> => {
    const reader = await open(file.copy(), opening({}));
    const guest = new Guest(journal, await readTags(reader));
    await reader[Symbol.asyncDispose]();
    const opened = file.copy();
    journal.watch(opened);
    {
      await using node = await open(opened, opening({ writable: true, ...scenario.mode }));
      guest.attach(node);
      await act(guest, random);
    }
    file = opened.copy();
    return guest;
  };
  if (scenario.prepare !== undefined) await play(scenario.prepare, new Journal());
  const journal = new Journal();
  const guest = await play(scenario.act, journal);

  const expectations = guest.expectations();
  let count = 0;
  await lookAtStates(journal, random, async ([state], moment) => {
    count++;
    const allowed = expectations.at(moment).sectors;
    assertSound(state!);
    const crashed = state!.copy();
    {
      await using disk = await open(crashed, opening({ writable: true }));
      assertEquals(await findForeign(disk, allowed), undefined);
      // Whoever goes on with it finds room.
      const sector = random.below(disk.length / SECTOR - 8);
      await disk.write(sector * SECTOR, stamps(0x7fffffff, sector, 8));
      const now = allowed.map((tags, at) => at >= sector && at < sector + 8 ? [0x7fffffff] : tags);
      await disk.flush();
      assertEquals(await findForeign(disk, now), undefined, "written to");
    }
    assertSound(crashed);
  });
  assert(count > 10, `${count} states`);
  assertSound(file);
  await using disk = await open(file.copy(), opening({}));
  assertEquals(await findForeign(disk, guest.latest), undefined, "in the end");
}

function crashTest(name: string, scenario: Scenario): void {
  Deno.test(`crash: qcow, ${name}`, () => crashEverywhere(scenario));
}

/** Clusters of 512 bytes in tables of 64 entries: many tables. */
const manyTables = () => handMade({ size: 1 << 20, clusterBits: 9, l2Bits: 6, length: 1024 });

crashTest("writes", {
  image: () => create({ size: "6M" }),
  act: (guest, random) => writeAnywhere(guest, random, 30),
});
crashTest("writes to many tables", {
  image: manyTables,
  act: (guest, random) => writeAnywhere(guest, random, 30),
});
crashTest("writes at the same time", {
  image: () => create(),
  act: (guest, random) => writeTogether(guest, random, 12),
});
crashTest("writes at the same time to many tables", {
  image: manyTables,
  act: (guest, random) => writeTogether(guest, random, 12),
});
crashTest("copy-on-write", {
  image: () => handMade({ size: 1 << 20, length: 4096 }),
  backing: 1500,
  act: (guest, random) => writeAnywhere(guest, random, 20),
});
crashTest("writes in front of another image", {
  image: () => create({ backing_file: "base" }),
  backing: 1500,
  act: (guest, random) => writeTogether(guest, random, 12),
});
crashTest("encrypted writes", {
  image: () => createEncrypted(),
  secret: "s",
  act: (guest, random) => writeAnywhere(guest, random, 20),
});
crashTest("compressed clusters", {
  image: () => create(),
  act: (guest, random) => compressAnywhere(guest, random, 40),
});
crashTest("writes to compressed clusters", {
  image: () => create(),
  prepare: (guest, random) => compressAnywhere(guest, random, 200),
  act: (guest, random) => writeTogether(guest, random, 12),
});
crashTest("space given out", {
  image: () => create(),
  backing: 2048,
  async act(guest, random) {
    for (let n = 0; n < 20; n++) {
      const sector = random.below(guest.sectors - 300);
      const end = random.oneIn(4) ? "abandon" : "publish";
      await guest.allocate(sector, random.between(1, 300), end);
      if (random.oneIn(5)) await guest.flush();
    }
  },
});
crashTest("an image that is emptied", {
  image: () => create({ size: "8M", backing_file: "base" }),
  backing: 2048,
  prepare: (guest, random) => writeAnywhere(guest, random, 40),
  async act(guest, random) {
    await writeAnywhere(guest, random, 5);
    await guest.flush();
    // Each sector shows what it held, or what is behind.
    for (let at = 0; at < guest.sectors; at++) {
      guest.change(at, 1, [...guest.latest[at]!, at < 2048 ? BACKING_TAG : 0]);
    }
    await guest.node.emptier!.makeEmpty();
    for (let at = 0; at < guest.sectors; at++) guest.change(at, 1, [at < 2048 ? BACKING_TAG : 0]);
    await guest.flush();
    await writeAnywhere(guest, random, 5);
  },
});

Deno.test("crash: qcow, without flushes of the file what was lost is found", async () => {
  await assertRejects(() =>
    crashEverywhere({
      image: () => create(),
      mode: { cache: CACHE_MODES["unsafe"]! },
      act: (guest, random) => writeAnywhere(guest, random, 30),
    })
  );
});
