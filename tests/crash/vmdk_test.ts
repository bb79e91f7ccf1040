/** Crashes while a guest writes to a VMDK. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { CACHE_MODES, type OpenMode } from "../../lib/block/mode.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import {
  copyOf,
  create,
  descriptor,
  fileOf,
  type Files,
  hostedHeader,
  NAME,
  open,
} from "../drivers/vmdk/_images.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { assertSound, lookAtStates, SEED } from "./_crashes.ts";
import { findForeign, Guest, readTags, SECTOR, stamps } from "./_guest.ts";
import { compressAnywhere, writeAnywhere, writeTogether, zeroAnywhere } from "./_habits.ts";
import { Journal } from "./_journal.ts";

/** The number of the stamps of parents. */
const PARENT_TAG = 1;

interface Scenario {
  readonly options?: Readonly<Record<string, string>>;
  /** The image, if it is none that can be made with options. */
  readonly image?: () => Files;
  /** The image has a parent of so many sectors, all of them stamped. */
  readonly parent?: number;
  /** How the image is opened. */
  readonly mode?: Partial<OpenMode>;
  /** What happens before anything is recorded. */
  readonly prepare?: (guest: Guest, random: Random) => Promise<void>;
  readonly act: (guest: Guest, random: Random) => Promise<void>;
  /** Such images need not be ones as long as nothing was ever flushed: they say so when they are opened. */
  readonly beginsUnreadable?: boolean;
}

/** A parent with the content id that the overlay names. */
function parentOf(sectors: number): BlockNode {
  const node = new MemoryNode({
    filename: "parent.vmdk",
    bytes: stamps(PARENT_TAG, 0, sectors),
    readOnly: true,
  });
  return Object.assign(node, {
    details: () => Promise.resolve({ specific: { type: "vmdk", data: { cid: 0xffffffff } } }),
  });
}

/** Plays a scenario and looks at states that a crash may leave. */
async function crashEverywhere(scenario: Scenario): Promise<void> {
  const random = new Random(SEED);
  const parent = () => scenario.parent === undefined ? undefined : parentOf(scenario.parent);
  let files = scenario.image?.() ?? await create(scenario.options!);

  const play = async (act: Scenario["act"], journal: Journal): Promise<Guest> => {
    const reader = await open(copyOf(files), {}, parent());
    const guest = new Guest(journal, await readTags(reader));
    await reader[Symbol.asyncDispose]();
    const opened = copyOf(files);
    for (const file of opened.values()) journal.watch(file);
    {
      await using node = await open(opened, { writable: true, ...scenario.mode }, parent());
      guest.attach(node);
      await act(guest, random);
    }
    files = copyOf(opened);
    return guest;
  };
  if (scenario.prepare !== undefined) await play(scenario.prepare, new Journal());
  const journal = new Journal();
  const guest = await play(scenario.act, journal);

  const names = [...files.keys()];
  const named = (state: readonly MemoryNode[]): Files =>
    new Map(state.map((file, i) => [names[i]!, file]));
  const expectations = guest.expectations();
  let readable = 0;
  await lookAtStates(journal, random, async (state, moment) => {
    const allowed = expectations.at(moment).sectors;
    let node: BlockNode;
    try {
      node = await open(copyOf(named(state)), {}, parent());
    } catch (error) {
      const isNone = scenario.beginsUnreadable && error instanceof ImageError &&
        error.message === "Invalid footer" && allowed.every((tags) => tags.includes(0));
      if (isNone) return;
      throw error;
    }
    await using disk = node;
    readable++;
    await assertSound(disk);
    assertEquals(await findForeign(disk, allowed), undefined);
    // Whoever goes on with it finds room.
    await using again = await open(copyOf(named(state)), { writable: true }, parent());
    if (again.packer !== undefined) return;
    const sector = random.below(again.length / SECTOR - 8);
    await again.write(sector * SECTOR, stamps(0x7fffffff, sector, 8));
    const now = allowed.map((tags, at) => at >= sector && at < sector + 8 ? [0x7fffffff] : tags);
    await again.flush();
    assertEquals(await findForeign(again, now), undefined, "written to");
  });
  assert(readable > 10, `${readable} states could be read`);
  await using disk = await open(copyOf(files), {}, parent());
  await assertSound(disk);
  assertEquals(await findForeign(disk, guest.latest), undefined, "in the end");
}

function crashTest(name: string, scenario: Scenario): void {
  Deno.test(`crash: vmdk, ${name}`, () => crashEverywhere(scenario));
}

/** Grains of 4 KiB, tables of 16 entries, a redundant directory: and in neither of the two a table. */
function withoutTables(): Files {
  const bytes = fileOf(24 * SECTOR, [
    [0, hostedHeader({ flags: 3, capacity: 1024, grain: 8, tableEntries: 16, redundantAt: 22 })],
    [SECTOR, descriptor("monolithicSparse", 'RW 1024 SPARSE "test.vmdk"')],
  ]);
  return new Map([[NAME, new MemoryNode({ filename: NAME, bytes })]]);
}

crashTest("writes", {
  options: { size: "2M" },
  act: (guest, random) => writeAnywhere(guest, random, 30),
});
crashTest("writes at the same time", {
  options: { size: "1M" },
  act: (guest, random) => writeTogether(guest, random, 12),
});
crashTest("writes to an extent beside its descriptor", {
  options: { size: "1M", subformat: "twoGbMaxExtentSparse" },
  act: (guest, random) => writeAnywhere(guest, random, 20),
});
crashTest("writes to a flat disk", {
  options: { size: "1M", subformat: "monolithicFlat" },
  act: (guest, random) => writeAnywhere(guest, random, 20),
});
crashTest("copy-on-write", {
  options: { size: "1M" },
  parent: 1500,
  act: (guest, random) => writeAnywhere(guest, random, 20),
});
crashTest("zeros in grains that say so", {
  options: { size: "2M", zeroed_grain: "on" },
  parent: 3000,
  prepare: (guest, random) => writeAnywhere(guest, random, 10),
  act: (guest, random) => zeroAnywhere(guest, random, 30),
});
crashTest("tables where there were none", {
  image: withoutTables,
  act: (guest, random) => writeTogether(guest, random, 16),
});
crashTest("space given out", {
  options: { size: "1M" },
  parent: 2048,
  async act(guest, random) {
    for (let n = 0; n < 20; n++) {
      const sector = random.below(guest.sectors - 300);
      await guest.allocate(
        sector,
        random.between(1, 300),
        random.oneIn(4) ? "abandon" : "publish",
      );
      if (random.oneIn(5)) await guest.flush();
    }
  },
});
crashTest("a stream", {
  options: { size: "2M", subformat: "streamOptimized" },
  act: (guest, random) => compressAnywhere(guest, random, 30),
  beginsUnreadable: true,
});
crashTest("a stream that goes on", {
  options: { size: "4M", subformat: "streamOptimized" },
  prepare: (guest, random) => compressAnywhere(guest, random, 20),
  act: (guest, random) => compressAnywhere(guest, random, 40),
});

Deno.test("crash: vmdk, without flushes of the files what was lost is found", async () => {
  await assertRejects(() =>
    crashEverywhere({
      options: { size: "1M" },
      mode: { cache: CACHE_MODES["unsafe"]! },
      act: (guest, random) => writeAnywhere(guest, random, 30),
    })
  );
});
