/** Crashes while a guest writes to a VHDX: all metadata go through its log. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { reference, runReference, useReference } from "../_reference.ts";
import { create, open } from "../drivers/vhdx/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { tempDir } from "../_temp.ts";
import { assertSound, lookAtStates, SEED } from "./_crashes.ts";
import { findForeign, Guest, readTags, SECTOR, stamps } from "./_guest.ts";
import { writeAnywhere, writeTogether } from "./_habits.ts";
import { Journal } from "./_journal.ts";

/** One state in so many is also written to. */
const DEEP = 4;
/** The number of the stamps of what is. */
const LATER_TAG = 0x7fffffff;

interface Scenario {
  readonly options: Readonly<Record<string, string>>;
  /** What happens before anything is recorded. */
  readonly prepare?: (guest: Guest, random: Random) => Promise<void>;
  readonly act: (guest: Guest, random: Random) => Promise<void>;
  /** The file does not heed flushes. */
  readonly deaf?: boolean;
}

/** Plays a scenario and answers with what reached the file, and what the disk may hold. */
async function record(
  { options, prepare, act, deaf = false }: Scenario,
  random: Random,
): Promise<{ journal: Journal; guest: Guest; file: MemoryNode }> {
  let file = await create(options);
  const play = async (act: Scenario["act"], journal: Journal): Promise<Guest> => {
    const reader = await open(file.copy());
    const guest = new Guest(journal, await readTags(reader));
    await reader[Symbol.asyncDispose]();
    journal.watch(file);
    if (deaf) file.flush = () => Promise.resolve();
    {
      await using node = await open(file, { writable: true });
      guest.attach(node);
      await act(guest, random);
    }
    file = file.copy();
    return guest;
  };
  if (prepare !== undefined) await play(prepare, new Journal());
  const journal = new Journal();
  const guest = await play(act, journal);
  return { journal, guest, file };
}

/** Looks at states that a crash may leave; answers in how many of them there was a log to replay. */
async function crashEverywhere(scenario: Scenario): Promise<number> {
  const random = new Random(SEED);
  const { journal, guest, file } = await record(scenario, random);
  const expectations = guest.expectations();
  let replayed = 0;
  let count = 0;
  await lookAtStates(journal, random, async ([state], moment) => {
    const allowed = expectations.at(moment).sectors;
    await using disk = await open(state!, { writable: true, checking: true });
    const { corruptionsFixed } = await assertSound(disk);
    replayed += corruptionsFixed;
    assertEquals(await findForeign(disk, allowed), undefined);
    if (count++ % DEEP > 0) return;
    // Whoever goes on with it finds room.
    const sector = random.below(disk.length / SECTOR - 8);
    await disk.write(sector * SECTOR, stamps(LATER_TAG, sector, 8));
    const now = allowed.map((tags, at) => at >= sector && at < sector + 8 ? [LATER_TAG] : tags);
    await disk.flush();
    assertEquals(await findForeign(disk, now), undefined, "written to");
    await assertSound(disk);
  });
  await using disk = await open(file.copy());
  await assertSound(disk);
  assertEquals(await findForeign(disk, guest.latest), undefined, "in the end");
  return replayed;
}

/** Two blocks are enough to go wrong with. */
const SMALL = { size: "2M", block_size: "1M" };

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  "writes": {
    options: SMALL,
    act: (guest, random) => writeAnywhere(guest, random, 8),
  },
  "writes at the same time": {
    options: SMALL,
    act: (guest, random) => writeTogether(guest, random, 5),
  },
  "space given out": {
    options: SMALL,
    async act(guest, random) {
      for (let n = 0; n < 6; n++) {
        await guest.allocate(
          random.below(guest.sectors - 300),
          random.between(1, 300),
          random.oneIn(3) ? "abandon" : "publish",
        );
        if (random.oneIn(4)) await guest.flush();
      }
    },
  },
};

for (const [name, scenario] of Object.entries(SCENARIOS)) {
  Deno.test(`crash: vhdx, ${name}`, async () => {
    assert(await crashEverywhere(scenario) > 0, "a log was replayed somewhere");
  });
}

Deno.test({
  name: "crash: vhdx, a sample through the reference's replay",
  ignore: reference.ignore,
  async fn() {
    const random = new Random(SEED);
    const { journal, guest } = await record(SCENARIOS["writes"]!, random);
    const expectations = guest.expectations();
    let count = 0;
    await lookAtStates(journal, random, async ([state], moment) => {
      const allowed = expectations.at(moment).sectors;
      if (count++ % 12 !== 5) return;
      await using dir = await tempDir();
      await Deno.writeFile(dir.file("a.vhdx"), state!.bytes());
      const { code, stdout, stderr } = await runReference(
        ["check", "-f", "vhdx", "-r", "all", "a.vhdx"],
        { cwd: dir.path },
      );
      assertEquals(code, 0, stdout + stderr);
      await useReference(["convert", "-f", "vhdx", "-O", "raw", "a.vhdx", "a"], { cwd: dir.path });
      const disk = new MemoryNode({ bytes: await Deno.readFile(dir.file("a")) });
      assertEquals(await findForeign(disk, allowed), undefined);
    });
    assert(count > 20, `${count} states`);
  },
});

Deno.test("crash: vhdx, without flushes of the file what was lost is found", async () => {
  await assertRejects(() =>
    crashEverywhere({
      ...SCENARIOS["writes"]!,
      // Nothing below heeds them.
      deaf: true,
    })
  );
});
