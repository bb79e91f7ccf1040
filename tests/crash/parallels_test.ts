/** Crashes while a guest writes to an image of Parallels. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { OpenMode } from "../../lib/block/mode.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { type ImageFields, open, parallelsImage } from "../drivers/parallels/_images.ts";
import { context } from "../drivers/qcow2/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { lookAtStates, SEED } from "./_crashes.ts";
import { findForeign, Guest, readTags, SECTOR, stamps } from "./_guest.ts";
import { discardAnywhere, writeAnywhere, writeTogether, zeroAnywhere } from "./_habits.ts";
import { Journal } from "./_journal.ts";

/** The number of the stamps of backing files, and of what is written after a crash. */
const [BACKING_TAG, LATER_TAG] = [1, 0x7fffffff];
/** What an image says that was not closed. */
const IN_USE_LINE = "ERROR image was not closed correctly";

interface Scenario {
  readonly image: ImageFields;
  /** Runtime options. */
  readonly options?: Readonly<Record<string, string>>;
  /** The image is opened with a backing file of so many sectors, all of them stamped. */
  readonly backing?: number;
  readonly mode?: Partial<OpenMode>;
  /** The file is never flushed, whatever the image asks for. */
  readonly isDeaf?: boolean;
  /** What happens before anything is recorded. */
  readonly prepare?: (guest: Guest, random: Random) => Promise<void>;
  readonly act: (guest: Guest, random: Random) => Promise<void>;
}

async function openIn(
  { backing, options = {} }: Scenario,
  file: MemoryNode,
  mode: Partial<OpenMode> = {},
): Promise<BlockNode> {
  const node = await open(file, { ...mode, using: context(mode), options });
  if (backing !== undefined) {
    const bytes = stamps(BACKING_TAG, 0, backing);
    node.backing!.attach(new MemoryNode({ filename: "base", bytes, readOnly: true }));
  }
  return node;
}

/** An image that was not closed may say so, and have more than it needs; nothing else may be wrong. */
async function assertSound(disk: BlockNode): Promise<void> {
  const lines: string[] = [];
  await disk.checker!.check("none", (line) => void lines.push(line));
  const serious = lines.filter((line) => line !== IN_USE_LINE && !line.includes("leaked"));
  assertEquals(serious, []);
}

/** Plays a scenario and looks at states that a crash may leave. */
async function crashEverywhere(scenario: Scenario): Promise<void> {
  const random = new Random(SEED);
  let file = new MemoryNode({ bytes: parallelsImage(scenario.image) });
  const play = async (act: Scenario["act"], journal: Journal): Promise<Guest> => {
    const reader = await openIn(scenario, file.copy());
    const guest = new Guest(journal, await readTags(reader));
    await reader[Symbol.asyncDispose]();
    const opened = file.copy();
    journal.watch(opened);
    if (scenario.isDeaf) opened.flush = () => Promise.resolve();
    {
      await using node = await openIn(scenario, opened, { writable: true, ...scenario.mode });
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
  await lookAtStates(journal, random, async (state, moment) => {
    const allowed = expectations.at(moment).sectors;
    count++;
    {
      await using disk = await openIn(scenario, state[0]!.copy());
      await assertSound(disk);
      assertEquals(await findForeign(disk, allowed), undefined);
    }
    // Whoever goes on with it finds room, and leaves nothing to complain of.
    const used = state[0]!.copy();
    const sector = random.below(guest.sectors - 8);
    {
      await using disk = await openIn(scenario, used, { writable: true });
      assertEquals(await findForeign(disk, allowed), undefined, "opened for writing");
      await disk.write(sector * SECTOR, stamps(LATER_TAG, sector, 8));
    }
    const now = allowed.map((tags, at) => at >= sector && at < sector + 8 ? [LATER_TAG] : tags);
    await using disk = await openIn(scenario, used.copy());
    assertEquals(await findForeign(disk, now), undefined, "written to");
    await disk.checker!.check("none", (line) => assertEquals(line, "", "a clean image"));
  });
  assert(count > 10, `${count} states`);
  await using disk = await openIn(scenario, file.copy());
  await disk.checker!.check("none", (line) => assertEquals(line, "", "in the end"));
  assertEquals(await findForeign(disk, guest.latest), undefined, "in the end");
}

function crashTest(name: string, scenario: Scenario): void {
  Deno.test(`crash: parallels, ${name}`, () => crashEverywhere(scenario));
}

const EMPTY = { tracks: 8, table: Array<number>(128).fill(0) };
/** An advance that is too small for all that comes. */
const SHORT = { "prealloc-size": "40k" };
const UNMAP = { unmap: true };

crashTest("writes", {
  image: EMPTY,
  options: SHORT,
  act: (guest, random) => writeAnywhere(guest, random, 40),
});
crashTest("writes at the same time, with little space in advance", {
  image: EMPTY,
  options: SHORT,
  act: (guest, random) => writeTogether(guest, random, 16),
});
crashTest("writes to an image of the older kind", {
  image: { ...EMPTY, version: 1, tracks: 3 },
  options: { ...SHORT, "prealloc-mode": "truncate" },
  act: (guest, random) => writeAnywhere(guest, random, 30),
});
crashTest("places that are used again", {
  image: EMPTY,
  options: SHORT,
  mode: UNMAP,
  prepare: (guest, random) => writeAnywhere(guest, random, 20),
  async act(guest, random) {
    for (let n = 0; n < 15; n++) {
      // Whole clusters are given up, and the next write takes their places.
      const cluster = random.below(guest.sectors / 8 - 4);
      const count = random.between(1, 4) * 8;
      if (random.oneIn(2)) await guest.discard(cluster * 8, count);
      else await guest.zero(cluster * 8, count, { unmap: true });
      await writeAnywhere(guest, random, 2);
    }
  },
});
crashTest("everything at once", {
  image: { ...EMPTY, tracks: 1 },
  options: SHORT,
  mode: UNMAP,
  async act(guest, random) {
    for (let n = 0; n < 14; n++) {
      const act = random.pick([writeAnywhere, zeroAnywhere, discardAnywhere, writeTogether]);
      await act(guest, random, 3);
    }
  },
});
crashTest("copy-on-write of a backing file", {
  image: EMPTY,
  options: SHORT,
  backing: 900,
  act: (guest, random) => writeAnywhere(guest, random, 25),
});
crashTest("space given out", {
  image: EMPTY,
  options: SHORT,
  backing: 1024,
  async act(guest, random) {
    for (let n = 0; n < 20; n++) {
      const sector = random.below(guest.sectors - 100);
      const end = random.oneIn(4) ? "abandon" : "publish";
      await guest.allocate(sector, random.between(1, 100), end);
      if (random.oneIn(5)) await guest.flush();
    }
  },
});

Deno.test("crash: parallels, without flushes of the file what was lost is found", async () => {
  await assertRejects(() =>
    crashEverywhere({
      image: EMPTY,
      options: SHORT,
      isDeaf: true,
      act: (guest, random) => writeAnywhere(guest, random, 30),
    })
  );
});
