/** Crashes while a guest writes to a VHD. */
import { assertEquals } from "@std/assert";
import type { OpenMode } from "../../lib/block/mode.ts";
import { CACHE_MODES } from "../../lib/block/mode.ts";
import { create, DYNAMIC, handMade, open } from "../drivers/vpc/_images.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { reference, runReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { lookAtStates, SEED } from "./_crashes.ts";
import { type Allowed, findForeign, Guest, readTags, SECTOR, stamps } from "./_guest.ts";
import { writeAnywhere, writeTogether, zeroAnywhere } from "./_habits.ts";
import { Journal } from "./_journal.ts";

/** One state in so many is shown to the reference. */
const SAMPLE = 40;

interface Scenario {
  readonly image: () => MemoryNode | Promise<MemoryNode>;
  readonly mode?: Partial<OpenMode>;
  /** What happens before anything is recorded. */
  readonly prepare?: (guest: Guest, random: Random) => Promise<void>;
  readonly act: (guest: Guest, random: Random) => Promise<void>;
}

/** Looks at a state: what each sector may hold is known. */
type Look = (state: MemoryNode, allowed: Allowed["sectors"], random: Random) => Promise<void>;

/** Plays a scenario and looks at states that a crash may leave. */
async function crashEverywhere(scenario: Scenario, look: Look): Promise<void> {
  const random = new Random(SEED);
  let file = await scenario.image();

  const play = async (act: Scenario["act"], journal: Journal): Promise<Guest> => {
    const reader = await open(file.copy());
    const guest = new Guest(journal, await readTags(reader));
    await reader[Symbol.asyncDispose]();
    const opened = file.copy();
    journal.watch(opened);
    {
      await using node = await open(opened, { writable: true, ...scenario.mode });
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
  await lookAtStates(
    journal,
    random,
    ([state], moment) => look(state!, expectations.at(moment).sectors, random),
  );
  await using disk = await open(file.copy());
  assertEquals(await findForeign(disk, guest.latest), undefined, "in the end");
}

/** It is a disk, and whoever goes on with it finds room, and nothing that was in that before. */
const takeIntoUse: Look = async (state, allowed, random) => {
  {
    await using disk = await open(state.copy());
    assertEquals(await findForeign(disk, allowed), undefined);
  }
  const taken = state.copy();
  const now = [...allowed];
  {
    await using disk = await open(taken, { writable: true });
    for (let n = 0; n < 3; n++) {
      const sector = random.below(disk.length / SECTOR - 8);
      await disk.write(sector * SECTOR, stamps(0x7fffffff, sector, 8));
      now.fill([0x7fffffff], sector, sector + 8);
    }
  }
  await using disk = await open(taken.copy());
  assertEquals(await findForeign(disk, now), undefined, "written to");
};

/** The reference opens it too, and finds the same in it. */
async function showReference(state: MemoryNode, allowed: Allowed["sectors"]): Promise<void> {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("a.vhd"), state.bytes());
  const args = ["convert", "-f", "vpc", "-O", "raw", "a.vhd", "raw"];
  const { code, stderr } = await runReference(args, { cwd: dir.path });
  assertEquals([code, stderr], [0, ""]);
  const disk = new MemoryNode({ bytes: await Deno.readFile(dir.file("raw")) });
  assertEquals(await findForeign(disk, allowed), undefined, "as the reference reads it");
}

function crashTest(name: string, scenario: Scenario): void {
  Deno.test(`crash: vpc, ${name}`, () => crashEverywhere(scenario, takeIntoUse));
  Deno.test({
    name: `crash: vpc, ${name}: a sample as the reference reads it`,
    ignore: reference.ignore,
    async fn() {
      let count = 0;
      await crashEverywhere(scenario, async (state, allowed) => {
        if (count++ % SAMPLE === 0) await showReference(state, allowed);
      });
    },
  });
}

/** A disk of 1 MiB in blocks of 8 KiB. */
function small(): MemoryNode {
  return new MemoryNode({ bytes: handMade({ type: DYNAMIC, length: 1 << 20, blockSize: 8192 }) });
}

crashTest("writes", { image: small, act: (guest, random) => writeAnywhere(guest, random, 40) });
crashTest("writes at the same time", {
  image: small,
  act: (guest, random) => writeTogether(guest, random, 20),
});
crashTest("writes to blocks of 2 MiB", {
  image: () => create({ size: "5M" }),
  act: (guest, random) => writeAnywhere(guest, random, 6),
});
crashTest("writes and zeros where there are blocks", {
  image: small,
  prepare: (guest, random) => writeAnywhere(guest, random, 20),
  act: (guest, random) => zeroAnywhere(guest, random, 30),
});
crashTest("writes that are all on the disk", {
  image: small,
  mode: { cache: CACHE_MODES["writethrough"]! },
  act: (guest, random) => writeAnywhere(guest, random, 15),
});
crashTest("writes to a fixed disk", {
  image: () => create({ size: "1M", subformat: "fixed" }),
  act: (guest, random) => writeAnywhere(guest, random, 20),
});
crashTest("room given out", {
  image: small,
  async act(guest, random) {
    for (let n = 0; n < 25; n++) {
      const sector = random.below(guest.sectors - 100);
      const end = random.oneIn(4) ? "abandon" : "publish";
      await guest.allocate(sector, random.between(1, 100), end);
      if (random.oneIn(5)) await guest.flush();
    }
  },
});
