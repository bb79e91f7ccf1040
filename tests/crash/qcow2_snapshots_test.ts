/** Crashes while internal snapshots are made, applied and deleted; full disks and failing ones. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { SnapshotStore } from "../../lib/block/capabilities.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { context, open } from "../drivers/qcow2/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { assertSound, lookAtStates, preparedImage, SEED } from "./_crashes.ts";
import { findForeign, type Guest, readTags, stamps } from "./_guest.ts";
import { compressAnywhere, writeAnywhere, zeroAnywhere } from "./_habits.ts";
import { HostDisk, HostFile, isHostFailure } from "./_host_disk.ts";
import { Journal } from "./_journal.ts";

/** The number of what is written after a crash, to every so manieth sector. */
const LATER_TAG = 0x7fffffff;
const STEP = 13;

/** What is done to the snapshots of a node. */
type Deed = (store: SnapshotStore) => Promise<void>;

const named = (store: SnapshotStore, name: string) =>
  store.list().find((snapshot) => snapshot.name === name)!;
const create = (name: string): Deed => (store) => store.create!(name, 0);
const apply = (name: string): Deed => (store) => store.apply!(named(store, name));
const remove = (name: string): Deed => (store) => store.remove!(named(store, name));

/** What an image holds. */
interface Content {
  readonly disk: Uint32Array;
  /** By name, in the order of the table. */
  readonly snapshots: ReadonlyMap<string, Uint32Array>;
}

async function contentOf(file: MemoryNode): Promise<Content> {
  const snapshots = new Map<string, Uint32Array>();
  await using node = await open(file.copy());
  const disk = await readTags(node);
  for (const { name } of node.snapshots!.list()) {
    await using other = await open(file.copy());
    await other.snapshots!.select!(named(other.snapshots!, name));
    snapshots.set(name, await readTags(other));
  }
  return { disk, snapshots };
}

/** Lets a deed be done to the image in a file. */
async function perform(file: MemoryNode, deed: Deed): Promise<void> {
  await using node = await open(file, context({ writable: true, resizing: true }));
  await deed(node.snapshots!);
}

function same(one: Uint32Array, other: Uint32Array): boolean {
  const length = Math.min(one.length, other.length);
  return one.subarray(0, length).every((tag, i) => tag === other[i]);
}

/** The disk is the one or the other as a whole, and so is the list; every snapshot is what it was. */
function assertEither(content: Content, before: Content, after: Content, repeated = ""): void {
  const is = (state: Content) =>
    content.disk.length === state.disk.length && same(content.disk, state.disk);
  assert(is(before) || is(after), `the disk is neither the old one nor the new one${repeated}`);
  const names = [...content.snapshots.keys()].join();
  const lists = [before, after].map(({ snapshots }) => [...snapshots.keys()].join());
  assert(lists.includes(names), `snapshots ${names}${repeated}`);
  for (const [name, tags] of content.snapshots) {
    const known = before.snapshots.get(name) ?? after.snapshots.get(name)!;
    assert(same(tags, known), `snapshot ${name}${repeated}`);
  }
}

const isDirty = (file: MemoryNode) =>
  file.slice(7, 1)[0] === 3 && (file.slice(79, 1)[0]! & 1) !== 0;

/** Complaints of a check. */
async function complaints(file: MemoryNode): Promise<string[]> {
  await using node = await open(file.copy());
  const lines: string[] = [];
  await node.checker!.check("none", (line) => void lines.push(line));
  return lines.filter((line) => !line.startsWith("Leaked cluster"));
}

/** Looks at a state that a crash left, and takes it into use. */
async function examine(file: MemoryNode, before: Content, after: Content): Promise<void> {
  const found = await contentOf(file);
  assertEither(found, before, after);
  if (!isDirty(file)) {
    const lines = await complaints(file);
    // Version 2 cannot say that its flags are on their way. They harm nobody: see below.
    const isOld = file.slice(7, 1)[0] === 2;
    assertEquals(lines.filter((line) => !(isOld && line.includes("OFLAG_COPIED"))), []);
  }
  const used = file.copy();
  const disk = Array.from(found.disk, (tag) => [tag]);
  {
    // Opening repairs a dirty image.
    await using node = await open(used.copy(), context({ writable: true }));
    if (file.slice(7, 1)[0] === 3) await assertSound(node);
  }
  {
    await using node = await open(used, context({ writable: true }));
    const sectors = node.length / 512;
    for (let at = 0; at < sectors; at += STEP) {
      await node.write(at * 512, stamps(LATER_TAG, at, 1));
      disk[at] = [LATER_TAG];
    }
    await node.writeZeroes((sectors - 8) * 512, 4096, { unmap: true });
    disk.fill([0], sectors - 8);
  }
  // Whoever writes now writes to the disk alone.
  const later = await contentOf(used);
  assertEither({ ...found, snapshots: later.snapshots }, before, after, " after a write");
  {
    await using node = await open(used.copy(), context({ writable: true, checking: true }));
    assertEquals(await findForeign(node, disk), undefined);
    const repaired = await node.checker!.check("all", () => {});
    assertEquals([repaired.corruptions, repaired.checkErrors], [0, 0]);
    await assertSound(node, false);
    assertEquals(await findForeign(node, disk), undefined);
  }
}

/** Two snapshots, and a disk that has moved on since. */
async function history(guest: Guest, random: Random): Promise<void> {
  const { snapshots } = guest.node;
  await compressAnywhere(guest, random, 8);
  await writeAnywhere(guest, random, 10);
  await zeroAnywhere(guest, random, 5);
  await snapshots!.create!("one", 0);
  await writeAnywhere(guest, random, 8);
  await snapshots!.create!("two", 0);
  await zeroAnywhere(guest, random, 6);
}

/** The same, with disks that grow. */
async function growth(guest: Guest, random: Random): Promise<void> {
  const { snapshots } = guest.node;
  await writeAnywhere(guest, random, 10);
  await snapshots!.create!("one", 0);
  await guest.resize(guest.node.length * 2, "off");
  await writeAnywhere(guest, random, 10);
  await snapshots!.create!("two", 0);
  await guest.resize(guest.node.length * 3 / 4, "off");
  await writeAnywhere(guest, random, 3);
}

const IMAGES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "clusters of 4 KiB": { size: "512k", cluster_size: "4096" },
  "clusters of 512 bytes": { size: "128k", cluster_size: "512", refcount_bits: "64" },
  "many L2 tables": { size: "2560k", cluster_size: "512", refcount_bits: "8" },
  "extended L2": { size: "512k", cluster_size: "16k", extended_l2: "on" },
  "version 2": { size: "512k", cluster_size: "4096", compat: "0.10" },
  "lazy refcounts": { size: "512k", cluster_size: "4096", lazy_refcounts: "on" },
};

const DEEDS: Readonly<Record<string, Deed>> = {
  "-c": create("three"),
  "-a of the first": apply("one"),
  "-a of the last": apply("two"),
  "-d of the first": remove("one"),
  "-d of the last": remove("two"),
};

async function crash(image: Uint8Array, deed: Deed): Promise<void> {
  const file = new MemoryNode({ filename: "test.qcow2", bytes: image });
  const before = await contentOf(file);
  const journal = new Journal();
  journal.watch(file);
  const whole = file.copy();
  await perform(whole, deed);
  const after = await contentOf(whole);
  await perform(file, deed);
  await lookAtStates(journal, new Random(SEED), ([state]) => examine(state!, before, after));
  const [end] = journal.replay().end();
  assertEither(await contentOf(end!), after, after);
  await using node = await open(end!.copy());
  await assertSound(node, false);
}

const prepared = new Map<string, Promise<Uint8Array>>();

/** An image with snapshots; made once. */
function imageOf(kind: string, act = history): Promise<Uint8Array> {
  const key = `${kind} ${act.name}`;
  let image = prepared.get(key);
  if (image === undefined) prepared.set(key, image = preparedImage(IMAGES[kind]!, act));
  return image;
}

for (const kind of Object.keys(IMAGES)) {
  for (const [name, deed] of Object.entries(DEEDS)) {
    Deno.test(`crash: snapshot ${name}, ${kind}`, async () => {
      await crash(await imageOf(kind), deed);
    });
  }
}
for (const kind of ["clusters of 4 KiB", "clusters of 512 bytes", "extended L2"]) {
  for (const name of ["one", "two"]) {
    Deno.test(`crash: snapshot -a ${name}, disks of other sizes, ${kind}`, async () => {
      await crash(await imageOf(kind, growth), apply(name));
    });
  }
}

Deno.test("snapshot -a leaves the disk that the snapshot has", async () => {
  const file = new MemoryNode({ bytes: await imageOf("clusters of 4 KiB", growth) });
  const before = await contentOf(file);
  await perform(file, apply("two"));
  const { disk, snapshots } = await contentOf(file);
  assertEquals(snapshots.get("two"), disk);
  assert(same(before.snapshots.get("two")!, disk));
  assert(disk.length > before.disk.length);
});

/** Does a deed while requests fail; afterwards all is as it was, or as it should be, and works. */
async function failing(
  image: Uint8Array,
  deed: Deed,
  disk: HostDisk,
): Promise<"done" | "failed"> {
  const start = new MemoryNode({ bytes: image });
  const before = await contentOf(start);
  const done = start.copy();
  await perform(done, deed);
  const after = await contentOf(done);

  const file = new HostFile(start, disk);
  const watched = new Journal();
  watched.watch(file, (request) => disk.meet(request));
  let node: BlockNode | undefined;
  let outcome: "done" | "failed" = "done";
  try {
    node = await open(file, context({ writable: true, resizing: true }));
    await deed(node.snapshots!);
  } catch (error) {
    if (!isHostFailure(error) && !(error instanceof ImageError && disk.hasFailed)) throw error;
    outcome = "failed";
  }
  disk.space = Infinity;
  disk.fault = undefined;
  await node?.[Symbol.asyncDispose]();
  const left = new MemoryNode({ bytes: file.copy().bytes() });
  if (outcome === "done") assertEither(await contentOf(left), after, after);
  await examine(left, before, after);
  return outcome;
}

for (const kind of ["clusters of 4 KiB", "clusters of 512 bytes", "extended L2"]) {
  for (const [name, deed] of Object.entries(DEEDS)) {
    Deno.test(`snapshot ${name} on a full disk, ${kind}`, async () => {
      const image = await imageOf(kind);
      let outcome: "done" | "failed" = "failed";
      for (let blocks = 0; blocks < 40; blocks++) {
        outcome = await failing(image, deed, new HostDisk(blocks * 4096));
        if (outcome === "done") break;
      }
      assertEquals(outcome, "done", "space for 40 blocks is enough");
    });
  }
}

for (const [name, deed] of Object.entries(DEEDS)) {
  Deno.test(`snapshot ${name}, where one write after the other fails`, async () => {
    const image = await imageOf("clusters of 4 KiB");
    let failed = 0;
    for (let number = 0;; number++) {
      const disk = new HostDisk();
      let writes = 0;
      disk.fault = (request) => {
        if (request.kind !== "write" || writes++ !== number) return;
        throw ImageError.fromErrno("EIO");
      };
      if (await failing(image, deed, disk) === "failed") failed++;
      // As many as there are were tried.
      if (writes <= number) break;
    }
    assert(failed > 2);
  });
}

Deno.test("snapshot -c changes nothing where a refcount has no room", async () => {
  for (const bits of ["1", "2"]) {
    const image = await preparedImage(
      { size: "512k", cluster_size: "4096", refcount_bits: bits },
      async (guest, random) => {
        await writeAnywhere(guest, random, 10);
        for (let n = 0; n < (bits === "1" ? 0 : 2); n++) {
          await guest.node.snapshots!.create!(`snapshot ${n}`, 0);
          await writeAnywhere(guest, random, 2);
        }
      },
    );
    const file = new MemoryNode({ bytes: image });
    const before = file.bytes();
    const error = await assertRejects(() => perform(file, create("more")), ImageError);
    assertEquals(error.errno, "EINVAL");
    assertEquals(file.bytes(), before);
  }
});
