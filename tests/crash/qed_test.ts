/** Crashes while a guest writes to a QED image, and while one is made, resized, repaired or put in front of another. */
import { assert, assertArrayIncludes, assertEquals, assertRejects } from "@std/assert";
import type { BlockNode } from "../../lib/block/node.ts";
import { CACHE_MODES, type OpenMode } from "../../lib/block/mode.ts";
import { OptionSet } from "../../lib/block/options.ts";
import { qed } from "../../drivers/qed/driver.ts";
import { context } from "../drivers/qcow2/_image.ts";
import { CLUSTER, create, field, open, patch } from "../drivers/qed/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { assertSound, lookAtStates, SEED } from "./_crashes.ts";
import { type Allowed, findForeign, Guest, readTags, SECTOR, stamps } from "./_guest.ts";
import { writeAnywhere, writeTogether, zeroAnywhere } from "./_habits.ts";
import { Journal } from "./_journal.ts";

const NEED_CHECK = 2n;
const FEATURES = 16;
/** The number of the stamps of backing files, and of what is written after a crash. */
const [BACKING_TAG, LATER_TAG] = [1, 0x7fffffff];
/** One state in so many is written to once more. */
const DEEP = 4;

interface Scenario {
  readonly options?: Readonly<Record<string, string>>;
  /** The image has a backing file of so many sectors. */
  readonly backing?: number;
  readonly mode?: Partial<OpenMode>;
  readonly prepare?: (guest: Guest, random: Random) => Promise<void>;
  readonly act: (guest: Guest, random: Random) => Promise<void>;
}

function openState(
  { backing }: Scenario,
  file: MemoryNode,
  mode: Partial<OpenMode> = {},
): Promise<BlockNode> {
  const behind = backing === undefined ? null : new MemoryNode({
    bytes: stamps(BACKING_TAG, 0, backing),
    readOnly: true,
  });
  return open(mode.writable ? file : file.copy(), behind, context(mode));
}

/** Lets a guest act, and answers with what reached the file. */
async function play(
  scenario: Scenario,
  file: MemoryNode,
  act: Scenario["act"],
): Promise<{ journal: Journal; guest: Guest }> {
  const journal = new Journal();
  let guest: Guest;
  {
    await using node = await openState(scenario, file);
    guest = new Guest(journal, await readTags(node));
  }
  journal.watch(file);
  await using node = await openState(scenario, file, { writable: true, ...scenario.mode });
  guest.attach(node);
  await act(guest, new Random(SEED));
  return { journal, guest };
}

async function crash(scenario: Scenario): Promise<void> {
  let file = await create({ size: "1M", ...scenario.options });
  if (scenario.prepare !== undefined) {
    await play(scenario, file, scenario.prepare);
    file = file.copy();
  }
  const { journal, guest } = await play(scenario, file, scenario.act);
  const random = new Random(SEED);
  const expectations = guest.expectations();
  let count = 0;
  await lookAtStates(journal, random, async ([state], moment) => {
    const allowed = expectations.at(moment);
    {
      await using disk = await openState(scenario, state!);
      assertEquals(field(state!, FEATURES) & NEED_CHECK, 0n);
      await assertSound(disk);
      assertEquals(await findForeign(disk, allowed.sectors), undefined);
      assertArrayIncludes(allowed.lengths, [disk.length]);
    }
    if (count++ % DEEP === 0) await useAgain(scenario, state!.copy(), allowed, random);
  });
  await using disk = await openState(scenario, journal.replay().end()[0]!);
  await assertSound(disk, false);
  assertEquals(await findForeign(disk, guest.latest), undefined, "in the end");
}

/** What is written to an image after a crash meets nothing of what was lost. */
async function useAgain(
  scenario: Scenario,
  file: MemoryNode,
  allowed: Allowed,
  random: Random,
): Promise<void> {
  const written = [...allowed.sectors];
  {
    await using disk = await openState(scenario, file, { writable: true });
    for (let n = 0; n < 3; n++) {
      const sector = random.below(disk.length / SECTOR);
      const count = random.between(1, Math.min(disk.length / SECTOR - sector, 24));
      await disk.write(sector * SECTOR, stamps(LATER_TAG, sector, count));
      for (let at = sector; at < sector + count; at++) written[at] = [LATER_TAG];
    }
  }
  await using disk = await openState(scenario, file);
  await assertSound(disk);
  assertEquals(await findForeign(disk, written), undefined, "after writing");
}

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  "writes": { act: (guest, random) => writeAnywhere(guest, random, 30) },
  "writes to larger clusters": {
    options: { size: "2M", cluster_size: "65536" },
    act: (guest, random) => writeAnywhere(guest, random, 20),
  },
  "writes through to the host": {
    mode: { cache: CACHE_MODES["writethrough"]! },
    act: (guest, random) => writeAnywhere(guest, random, 20),
  },
  "writes to many tables": {
    options: { size: "9M" },
    act: async (guest) => {
      // A table maps 8192 sectors.
      for (const sector of [100, 16500, 8190, 0, 9000]) {
        await guest.write(sector, 20);
        if (sector % 200 === 100) await guest.flush();
      }
    },
  },
  "writes at the same time": { act: (guest, random) => writeTogether(guest, random, 12) },
  "copy-on-write of a backing file": {
    backing: 700,
    act: (guest, random) => writeAnywhere(guest, random, 30, 12),
  },
  "copy-on-write by requests at the same time": {
    backing: 1024,
    act: (guest, random) => writeTogether(guest, random, 10),
  },
  "zeros": {
    backing: 1500,
    prepare: (guest, random) => writeAnywhere(guest, random, 20),
    act: (guest, random) => zeroAnywhere(guest, random, 40, { unmap: false }),
  },
  "writes to zeros": {
    backing: 1500,
    prepare: (guest, random) => zeroAnywhere(guest, random, 20, { unmap: false }),
    act: (guest, random) => writeAnywhere(guest, random, 30, 12),
  },
  "space given out, filled, and published or not": {
    act: async (guest, random) => {
      for (let n = 0; n < 30; n++) {
        const sector = random.below(guest.sectors);
        const count = random.between(1, Math.min(40, guest.sectors - sector));
        await guest.allocate(sector, count, "publish");
        if (random.oneIn(5)) await guest.flush();
      }
    },
  },
  "space given out to several at the same time": {
    backing: 1000,
    prepare: (guest, random) => zeroAnywhere(guest, random, 10),
    act: async (guest, random) => {
      for (let n = 0; n < 12; n++) {
        const requests: Promise<void>[] = [];
        let sector = random.below(guest.sectors - 100);
        for (let left = random.between(2, 5); left > 0; left--) {
          const count = random.between(1, 16);
          requests.push(guest.allocate(sector, count, "publish"));
          sector += count + random.below(4);
        }
        await Promise.all(requests);
        if (random.oneIn(3)) await guest.flush();
      }
    },
  },
  "a growing disk": {
    act: async (guest, random) => {
      for (let n = 0; n < 6; n++) {
        await writeAnywhere(guest, random, 3);
        await guest.resize(guest.node.length + 100 * SECTOR, "off");
      }
    },
  },
};

for (const [name, scenario] of Object.entries(SCENARIOS)) {
  Deno.test(`crash: qed: ${name}`, () => crash(scenario));
}

Deno.test("crash: qed: without flushes of the file damage is found", async () => {
  await assertRejects(() =>
    crash({
      mode: { cache: CACHE_MODES["unsafe"]! },
      act: (guest, random) => writeAnywhere(guest, random, 30),
    })
  );
});

Deno.test("crash: qed: creation", async () => {
  for (const name of ["", "base.raw", "b".repeat(1000)]) {
    const journal = new Journal();
    const file = new MemoryNode({ filename: "test.qed" });
    journal.watch(file);
    const options: [string, string][] = [["size", "1M"], ["cluster_size", "4096"]];
    if (name !== "") options.push(["backing_file", name], ["backing_fmt", "raw"]);
    await qed.create!({
      filename: "test.qed",
      options: new OptionSet(qed.createOptions!, options),
      createBase: () => Promise.resolve(file),
      context: context({ writable: true }),
    });
    let whole = 0;
    await lookAtStates(journal, new Random(SEED), async ([state]) => {
      // Before its end nobody takes the file for an image; from then on it is one.
      if (state!.slice(0, 1)[0] === 0) return;
      whole++;
      await using node = await open(state!, null, context());
      assertEquals([node.length, node.backing!.name], [1 << 20, name]);
      await assertSound(node, false);
      assertEquals(await findForeign(node, []), undefined);
    });
    assert(whole > 0);
  }
});

Deno.test("crash: qed: another backing file", async () => {
  const names = ["a", "b".repeat(448), "c".repeat(449), "d".repeat(700), "e".repeat(1500), "", "f"];
  let before = "";
  let file = await create();
  for (const name of names) {
    const journal = new Journal();
    journal.watch(file);
    {
      await using node = await open(file);
      await node.backing!.change!(name, name === "" ? undefined : "raw");
    }
    await lookAtStates(journal, new Random(SEED), async ([state]) => {
      await using node = await open(state!, null, context());
      assertArrayIncludes([before, name], [node.backing!.name]);
    });
    file = file.copy();
    before = name;
  }
});

Deno.test("crash: qed: repair of an image that was not closed", async () => {
  const file = await create();
  let tags: Uint32Array;
  {
    await using node = await open(file);
    for (let n = 0; n < 20; n++) await node.write(n * 5 * CLUSTER, stamps(9, n * 40, 8));
    await node.flush();
    tags = await readTags(node);
  }
  const l2 = Number(field(file, CLUSTER));
  const damaged = file.copy();
  // A cluster that was never written, a table that was not, and a value that none can have.
  await patch(
    damaged,
    { at: FEATURES, value: NEED_CHECK },
    { at: l2 + 8, value: 0x7000000n },
    { at: l2 + 2000, value: 0x1234567n },
    { at: CLUSTER + 8, value: 0x7000000n },
  );
  const journal = new Journal();
  journal.watch(damaged);
  await (await open(damaged))[Symbol.asyncDispose]();
  await lookAtStates(journal, new Random(SEED), async ([state]) => {
    const again = state!.copy();
    await (await open(again))[Symbol.asyncDispose]();
    assertEquals(field(again.copy(), FEATURES), 0n);
    await using node = await open(again.copy());
    await assertSound(node, false);
    assertEquals(await findForeign(node, Array.from(tags, (tag) => [tag])), undefined);
  });
});
