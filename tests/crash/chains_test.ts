/**
 * Crashes of `rebase` and `commit`: they move bytes from one image of a chain to another, and the disk that
 * the chain shows never changes.
 */
import { assert, assertEquals } from "@std/assert";
import { commitOpen } from "../../lib/ops/commit.ts";
import { rebaseOpen } from "../../lib/ops/rebase.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { OpenMode } from "../../lib/block/mode.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { context, create, open } from "../drivers/qcow2/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { assertSound, lookAtStates, SEED } from "./_crashes.ts";
import { Guest, readTags, SECTOR, stamps } from "./_guest.ts";
import { HostDisk, HostFile } from "./_host_disk.ts";
import { Journal } from "./_journal.ts";
import { compressAnywhere, discardAnywhere, writeAnywhere, zeroAnywhere } from "./_habits.ts";

type Options = Readonly<Record<string, string>>;

/** An image of a chain, front first. */
interface Layer {
  readonly name: string;
  readonly file: MemoryNode;
}

/** Opens a chain; the layers from `writable` on are opened for reading in copies of their files. */
async function openChain(
  layers: readonly Layer[],
  modes: (index: number) => Partial<OpenMode> = () => ({}),
): Promise<BlockNode[]> {
  const nodes: BlockNode[] = [];
  for (const [index, { file }] of layers.entries()) {
    const mode = modes(index);
    const node = await open(mode.writable ? file : file.copy(), context(mode));
    nodes.at(-1)?.backing?.attach(node);
    nodes.push(node);
  }
  return nodes;
}

/** A layer that `fill` did something to. */
async function makeLayer(
  name: string,
  options: Options,
  behind: readonly Layer[],
  random: Random,
  fill: (guest: Guest, random: Random) => Promise<void>,
): Promise<Layer> {
  const backing = behind[0] === undefined
    ? {}
    : { backing_file: behind[0].name, backing_fmt: "qcow2" };
  const made = await create({ ...options, ...backing });
  const file = new MemoryNode({ filename: name, bytes: made.bytes() });
  const layer = { name, file };
  const nodes = await openChain(
    [layer, ...behind],
    (index) => index === 0 ? { writable: true, unmap: true } : {},
  );
  {
    await using top = nodes[0]!;
    const guest = new Guest(new Journal(), await readTags(top));
    guest.attach(top);
    await fill(guest, random);
  }
  return { name, file: new MemoryNode({ filename: name, bytes: file.bytes() }) };
}

const SIZE = 160 * 1024;

async function scribble(guest: Guest, random: Random): Promise<void> {
  await writeAnywhere(guest, random, 12);
  await zeroAnywhere(guest, random, 4);
  await discardAnywhere(guest, random, 3);
}

/** Is the dirty bit set? */
const isDirty = (file: MemoryNode) =>
  file.slice(7, 1)[0] === 3 && (file.slice(79, 1)[0]! & 1) !== 0;

/** Every image of a chain is sound or will be repaired, and its front shows these tags. */
async function assertShows(layers: readonly Layer[], tags: Uint32Array): Promise<void> {
  {
    const nodes = await openChain(layers);
    await using top = nodes[0]!;
    for (const [index, node] of nodes.entries()) {
      if (!isDirty(layers[index]!.file)) await assertSound(node);
    }
    assertEquals(await readTags(top), tags);
  }
  // Whoever writes next may repair first.
  const [front, ...behind] = layers;
  const used = { name: front!.name, file: front!.file.copy() };
  const nodes = await openChain(
    [used, ...behind],
    (index) => index === 0 ? { writable: true } : {},
  );
  await using top = nodes[0]!;
  await assertSound(top);
  assertEquals(await readTags(top), tags, "after it was opened for writing");
}

/** Layers whose files are watched. */
function watched(layers: readonly Layer[], journal: Journal, disk: HostDisk): Layer[] {
  return layers.map(({ name, file }) => {
    const host = new HostFile(file, disk);
    journal.watch(host, (request) => disk.meet(request));
    return { name, file: host };
  });
}

const replaced = (layers: readonly Layer[], files: readonly MemoryNode[]): Layer[] =>
  layers.map(({ name, file }, index) => ({ name, file: files[index] ?? file }));

/** A commit of the front of a chain into its last image. */
interface CommitScenario {
  readonly top?: Options;
  readonly base?: Options;
  readonly layers?: number;
  readonly prepare?: (guest: Guest, random: Random) => Promise<void>;
  readonly drop?: boolean;
  /** Everything goes to clusters that are there already. */
  readonly fits?: boolean;
}

async function chainOf(
  { top = {}, base = {}, layers = 2, prepare = scribble }: CommitScenario,
  random: Random,
): Promise<Layer[]> {
  const chain: Layer[] = [];
  for (let index = layers - 1; index >= 0; index--) {
    const options = {
      size: `${SIZE}`,
      cluster_size: "4096",
      ...(index === 0 ? top : index === layers - 1 ? base : {}),
    };
    const fill = index === 0 ? prepare : scribble;
    chain.unshift(await makeLayer(`layer${index}`, options, chain, random, fill));
  }
  return chain;
}

/** Commits the front of a chain into its back; the files of both are written to. */
async function commitChain(layers: readonly Layer[], drop: boolean): Promise<void> {
  const last = layers.length - 1;
  const nodes = await openChain(
    layers,
    (index) => index === 0 || index === last ? { writable: true, unmap: true } : {},
  );
  let failure: unknown;
  try {
    await commitOpen(nodes[0]!, nodes[last]!, { drop });
  } catch (error) {
    failure = error;
  }
  try {
    await nodes[0]![Symbol.asyncDispose]();
  } catch (error) {
    failure ??= error;
  }
  if (failure !== undefined) throw failure;
}

async function shownBy(layers: readonly Layer[]): Promise<Uint32Array> {
  const nodes = await openChain(layers);
  await using top = nodes[0]!;
  return await readTags(top);
}

function testCommit(name: string, scenario: CommitScenario): void {
  const { drop = false } = scenario;
  Deno.test(`crash: commit, ${name}`, async () => {
    const random = new Random(SEED);
    const layers = await chainOf(scenario, random);
    const tags = await shownBy(layers);
    const journal = new Journal();
    const live = watched(layers, journal, new HostDisk());
    await commitChain(live, drop);
    await lookAtStates(journal, random, async (files) => {
      await assertShows(replaced(layers, files), tags);
    });
    const files = journal.replay().end();
    assertEquals(await shownBy([{ name: "base", file: files.at(-1)! }]), tags, "the base");
    await assertShows(replaced(layers, files), tags);
    if (drop) assertEquals(files[0]!.bytes(), layers[0]!.file.bytes(), "the image stays");
    else assert(await isEmpty(files[0]!), "the image is emptied");
  });
  if (scenario.fits) return;
  Deno.test(`crash: commit on a disk that gets full, ${name}`, async () => {
    const random = new Random(SEED);
    const layers = await chainOf(scenario, random);
    const tags = await shownBy(layers);
    let failures = 0;
    for (let blocks = 0;; blocks += random.between(1, 4)) {
      const disk = new HostDisk(blocks * 4096);
      const live = watched(layers, new Journal(), disk);
      try {
        await commitChain(live, drop);
        assert(!disk.hasFailed || isDirty(live[0]!.file), `${blocks} blocks: a failure was lost`);
        break;
      } catch (error) {
        assert(error instanceof ImageError, `${error}`);
        assertEquals(error.errno, "ENOSPC", error.message);
        failures++;
      }
      const files = live.map(({ file }) => file.copy());
      await assertShows(replaced(layers, files), tags);
    }
    assert(failures > 0, "the disk was never full");
  });
}

async function isEmpty(file: MemoryNode): Promise<boolean> {
  await using node = await open(file.copy());
  for (let at = 0; at < node.length;) {
    const extent = await node.extent(at, node.length - at);
    if (extent.state !== "unallocated") return false;
    at += extent.length;
  }
  return true;
}

testCommit("usual images", {});
testCommit("through a chain", { layers: 4, drop: true });
testCommit("small clusters", { top: { cluster_size: "512" }, base: { cluster_size: "512" } });
testCommit("small clusters into large ones", {
  fits: true,
  top: { cluster_size: "512" },
  base: { cluster_size: "65536" },
});
testCommit("large clusters into small ones", {
  top: { cluster_size: "65536" },
  base: { cluster_size: "512" },
});
testCommit("version 2", {
  top: { compat: "0.10" },
  base: { compat: "0.10" },
  prepare: (guest, random) => writeAnywhere(guest, random, 12),
});
testCommit("subclusters", {
  top: { extended_l2: "on", cluster_size: "16384" },
  base: { extended_l2: "on", cluster_size: "16384" },
});
testCommit("lazy refcounts", { top: { lazy_refcounts: "on" }, base: { lazy_refcounts: "on" } });
testCommit("refcounts of 1 and 64 bits", {
  top: { refcount_bits: "1" },
  base: { refcount_bits: "64" },
});
// The refcount table has moved, so that other things lie where the new one begins.
testCommit("tables that have moved", {
  top: { cluster_size: "512", refcount_bits: "64" },
  prepare: (guest, random) => writeAnywhere(guest, random, 40),
});
testCommit("a base that grows", { base: { size: `${SIZE / 2}` } });
testCommit("compressed clusters", {
  prepare: async (guest, random) => {
    await compressAnywhere(guest, random, 12);
    await writeAnywhere(guest, random, 4);
  },
});
testCommit("snapshots", {
  prepare: async (guest, random) => {
    await scribble(guest, random);
    await guest.node.snapshots!.create!("one", 0);
    await writeAnywhere(guest, random, 6);
  },
});
testCommit("bitmaps", {
  prepare: async (guest, random) => {
    await scribble(guest, random);
    guest.node.bitmaps!.add!({ name: "one", granularity: 4096, enabled: true });
  },
});
testCommit("an image that stays as it is", { drop: true });

/** A rebase of an image from one chain onto another. */
interface RebaseScenario {
  readonly image?: Options;
  readonly prepare?: (guest: Guest, random: Random) => Promise<void>;
  /** Onto nothing. */
  readonly flatten?: boolean;
  /** The size of the new backing file. */
  readonly size?: number;
  readonly compress?: boolean;
}

function testRebase(name: string, scenario: RebaseScenario): void {
  const { image = {}, prepare = scribble, flatten = false, size = SIZE, compress = false } =
    scenario;
  const prepared = async (random: Random) => {
    const options = { size: `${SIZE}`, cluster_size: "4096" };
    const old = await makeLayer("old", options, [], random, scribble);
    const fresh = await makeLayer("new", { ...options, size: `${size}` }, [], random, async (
      guest,
      random,
    ) => {
      await scribble(guest, random);
      // Some of it is the same.
      const bytes = stamps(1, 0, 40);
      await guest.node.write(0, bytes);
    });
    const front = await makeLayer("front", { ...options, ...image }, [old], random, prepare);
    return { old, fresh, front };
  };
  type Prepared = Awaited<ReturnType<typeof prepared>>;

  const run = async ({ old, fresh }: Prepared, front: Layer) => {
    const nodes = await openChain(
      [front, old],
      (index) => index === 0 ? { writable: true } : {},
    );
    const behind = flatten ? null : (await openChain([fresh]))[0]!;
    let failure: unknown;
    try {
      await rebaseOpen(nodes[0]!, { node: behind, isReused: false }, {
        backing: flatten ? "" : "new",
        backingFormat: "qcow2",
        compress,
      });
    } catch (error) {
      failure = error;
    }
    try {
      await nodes[0]![Symbol.asyncDispose]();
    } catch (error) {
      failure ??= error;
    }
    await behind?.[Symbol.asyncDispose]();
    if (failure !== undefined) throw failure;
  };
  /** Behind a state of the image lies what its header says. */
  const assertIntact = async ({ old, fresh }: Prepared, file: MemoryNode, tags: Uint32Array) => {
    const name = await backingName(file);
    assert(["old", "new", ""].includes(name), `a backing file of the name '${name}'`);
    const behind = name === "old" ? [old] : name === "new" ? [fresh] : [];
    await assertShows([{ name: "front", file }, ...behind], tags);
    return name;
  };

  Deno.test(`crash: rebase, ${name}`, async () => {
    const random = new Random(SEED);
    const all = await prepared(random);
    const tags = await shownBy([all.front, all.old]);
    const journal = new Journal();
    const [live] = watched([all.front], journal, new HostDisk());
    await run(all, live!);
    const names = new Set<string>();
    await lookAtStates(journal, random, async ([file]) => {
      names.add(await assertIntact(all, file!, tags));
    });
    const end = journal.replay().end()[0]!;
    names.add(await assertIntact(all, end, tags));
    assertEquals(await backingName(end), flatten ? "" : "new");
    assertEquals(names.size, 2, "states before and after");
  });
  Deno.test(`crash: rebase on a disk that gets full, ${name}`, async () => {
    const random = new Random(SEED);
    const all = await prepared(random);
    const tags = await shownBy([all.front, all.old]);
    let failures = 0;
    for (let blocks = 0;; blocks += random.between(1, 4)) {
      const [live] = watched([all.front], new Journal(), new HostDisk(blocks * 4096));
      try {
        await run(all, live!);
        break;
      } catch (error) {
        assert(error instanceof ImageError, `${error}`);
        assertEquals(error.errno, "ENOSPC", error.message);
        failures++;
      }
      await assertIntact(all, live!.file.copy(), tags);
    }
    assert(failures > 0, "the disk was never full");
  });
}

async function backingName(file: MemoryNode): Promise<string> {
  await using node = await open(file.copy());
  return node.backing!.name;
}

testRebase("usual images", {});
testRebase("onto nothing", { flatten: true });
testRebase("onto a shorter file", { size: SIZE / 4 });
testRebase("onto a longer file", { size: SIZE * 2 });
testRebase("small clusters", { image: { cluster_size: "512" } });
testRebase("large clusters", {
  image: { cluster_size: "65536" },
  prepare: (guest) => guest.write(0, 3),
});
testRebase("subclusters", { image: { extended_l2: "on", cluster_size: "16384" } });
testRebase("lazy refcounts", { image: { lazy_refcounts: "on" } });
testRebase("version 2", {
  image: { compat: "0.10" },
  prepare: (guest, random) => writeAnywhere(guest, random, 12),
});
testRebase("compressed", { compress: true });
testRebase("a longer image", { image: { size: `${SIZE * 2}` } });

Deno.test("crash: a disk's sectors are what the tests count", () => assertEquals(SIZE % SECTOR, 0));
