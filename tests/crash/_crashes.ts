/**
 * Crashing an image at every moment of its life: a scenario is played once and
 * recorded, then states that a crash may have left are opened and looked at.
 */
import { assert, assertArrayIncludes, assertEquals } from "@std/assert";
import type { CheckResult } from "../../lib/block/capabilities.ts";
import type { OpenMode } from "../../lib/block/mode.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { context, create, open, patch } from "../drivers/qcow2/_image.ts";
import { MemoryNode } from "../_memory_node.ts";
import { Random } from "../_random.ts";
import { reference, runReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { type Allowed, findForeign, Guest, readTags, SECTOR, stamps } from "./_guest.ts";
import { HostDisk, HostFile, isHostFailure, isHostFailureText } from "./_host_disk.ts";
import { Journal } from "./_journal.ts";

/** Multiplies the number of states; for a long run. */
const THOROUGHNESS = Number(Deno.env.get("QIMG_CRASH_STATES") ?? 1);
/** Another one for other states. */
export const SEED = Number(Deno.env.get("QIMG_CRASH_SEED") ?? 1);
/** States of one recording that are looked at, about. */
const STATES = 100;
/** One state in so many is also opened for writing, written to and repaired. */
const DEEP = 4;
/** States of one recording that the reference looks at. */
const SAMPLE = 2;
/** Where images say that their backing file and their data file are. */
const BACKING = "base.raw";
const DATA_FILE = "data.raw";
/** The number of the stamps of backing files, and of what is written after a crash. */
const BACKING_TAG = 1;
const LATER_TAG = 0x7fffffff;

/** What happens to an image. */
export interface CrashScenario {
  /** Options of the image; `backing` and `dataFile` add theirs. */
  readonly options?: Readonly<Record<string, string>>;
  /** The image if somebody else made it: its bytes. */
  readonly image?: () => Promise<Uint8Array>;
  /** That somebody is the reference. */
  readonly needsReference?: boolean;
  /** The image has a backing file of so many sectors, all of them stamped. */
  readonly backing?: number;
  /** The image has a data file. */
  readonly dataFile?: boolean;
  /** How the image is opened. */
  readonly mode?: Partial<OpenMode>;
  /** What the guest does before anything is recorded. */
  readonly prepare?: (guest: Guest, random: Random) => Promise<void>;
  /** What the guest does. Opening and closing the image is recorded with it. */
  readonly act: (guest: Guest, random: Random, disk: HostDisk) => Promise<void>;
  /** Looks at a state in a way of its own; `allowed` is what each sector may hold. */
  readonly inspect?: (files: readonly MemoryNode[], allowed: Allowed) => Promise<void>;
  /**
   * The host's disk when the recording begins. After a request to it has failed,
   * clusters may be leaked and the image need not be closed properly.
   */
  readonly disk?: () => HostDisk;
}

/** A scenario that was played. */
interface Recording {
  readonly scenario: CrashScenario;
  readonly journal: Journal;
  readonly guest: Guest;
  readonly backing: Uint8Array | undefined;
  /** What the internal snapshots hold. */
  readonly snapshots: readonly Uint32Array[];
}

/**
 * Two tests of a scenario: with our own check, and with the reference's on a
 * sample of the states.
 */
export function crashTest(name: string, scenario: CrashScenario): void {
  Deno.test({
    name: `crash: ${name}`,
    ignore: scenario.needsReference === true && reference.ignore,
    fn: () => crashEverywhere(scenario),
  });
  Deno.test({
    name: `crash: ${name}: a sample through the reference's check`,
    ignore: reference.ignore,
    fn: () => crashForReference(scenario),
  });
}

/** Plays a scenario and looks at the states that a crash may leave; throws for the first bad one. */
export async function crashEverywhere(scenario: CrashScenario): Promise<void> {
  const random = new Random(SEED);
  const recording = await record(scenario, random);
  const { journal, guest } = recording;
  const expectations = guest.expectations();
  let count = 0;
  await lookAtStates(journal, random, async (files, moment) => {
    const deep = count++ % DEEP === 0 ? random : undefined;
    await examine(recording, files, expectations.at(moment), deep);
  });
  await examineEnd(recording, journal.replay().end());
}

/** Shows `look` states that crashes may leave; what it throws is told with the moment. */
export async function lookAtStates(
  journal: Journal,
  random: Random,
  look: (files: readonly MemoryNode[], moment: number) => Promise<void>,
): Promise<void> {
  assert(journal.now > 0, "the scenario did nothing");
  const replay = journal.replay();
  const perMoment = STATES * THOROUGHNESS / (journal.now + 1);
  do {
    const states = [
      ...Array.from({ length: wanted(perMoment / 3, random) > 0 ? 1 : 0 }, () => "killed" as const),
      ...Array.from(
        { length: replay.volatile ? wanted(perMoment * 2 / 3, random) : 0 },
        () => "lost" as const,
      ),
    ];
    for (const kind of states) {
      const files = kind === "killed" ? replay.killed() : replay.lost(random);
      try {
        await look(files, replay.time);
      } catch (error) {
        throw new Error(
          `QIMG_CRASH_SEED=${SEED}: ${kind} at ${describe(journal, replay.time)}`,
          { cause: error },
        );
      }
    }
  } while (replay.step());
}

/** How many states to look at where `average` of them would be right. */
function wanted(average: number, random: Random): number {
  return Math.floor(average) + (random.below(1000) < average % 1 * 1000 ? 1 : 0);
}

function describe(journal: Journal, time: number): string {
  const events = journal.events.slice(Math.max(time - 12, 0), time).map(({ file, request }) =>
    `${file}:${request.kind}@${request.offset}+${request.length}`
  );
  return `moment ${time} of ${journal.now}: … ${events.join(" ")}`;
}

/** Makes the image, lets the guest act, and keeps what reached the files. */
async function record(scenario: CrashScenario, random: Random): Promise<Recording> {
  const { backing: backingSectors, dataFile } = scenario;
  const backing = backingSectors === undefined ? undefined : stamps(BACKING_TAG, 0, backingSectors);
  const files = new Map<string, MemoryNode>();
  const image = scenario.image === undefined
    ? await create({
      ...scenario.options,
      ...(backing === undefined ? {} : { backing_file: BACKING, backing_fmt: "raw" }),
      ...(dataFile ? { data_file: DATA_FILE } : {}),
    }, files)
    : new MemoryNode({ filename: "test.qcow2", bytes: await scenario.image() });
  let state = [image, ...files.values()];

  const readAll = async () => {
    const { node } = await openState({ backing }, state, {});
    await using disk = node;
    return await readTags(disk);
  };
  const play = async (
    journal: Journal,
    act: CrashScenario["act"],
    disk: HostDisk = new HostDisk(),
  ) => {
    const guest = new Guest(journal, await readAll());
    const opened = state.map((node) => new HostFile(node, disk));
    for (const node of opened) journal.watch(node, (request) => disk.meet(request));
    const { node, reports } = await openState({ backing }, opened, {
      writable: true,
      ...scenario.mode,
    });
    guest.attach(node);
    try {
      await act(guest, random, disk);
    } catch (error) {
      await Promise.resolve(node[Symbol.asyncDispose]()).catch(() => {});
      throw error;
    }
    try {
      await node[Symbol.asyncDispose]();
    } catch (error) {
      if (!(disk.isFull && isHostFailure(error))) throw error;
    }
    const unexpected = reports.filter((line) => !(disk.hasFailed && isHostFailureText(line)));
    assertEquals(unexpected, [], "nothing to report");
    state = opened.map((node) => node.copy());
    return guest;
  };
  if (scenario.prepare !== undefined) await play(new Journal(), scenario.prepare);
  const snapshots = [];
  for (const patched of snapshotViews(state[0]!.bytes())) {
    const { node } = await openState({ backing }, [patched, ...state.slice(1)], {});
    await using disk = node;
    snapshots.push(await readTags(disk));
  }
  const journal = new Journal();
  const guest = await play(journal, scenario.act, scenario.disk?.() ?? new HostDisk());
  return { scenario, journal, guest, backing, snapshots };
}

/** The bytes of an image that `guest` was let loose on. */
export async function preparedImage(
  options: Readonly<Record<string, string>>,
  act: CrashScenario["act"],
): Promise<Uint8Array> {
  const random = new Random(SEED);
  const { journal } = await record({ options, act }, random);
  return journal.replay().end()[0]!.bytes();
}

/** Opens the image in `files`; for reading, in a copy of them. */
export async function openState(
  { backing }: Pick<Recording, "backing">,
  files: readonly MemoryNode[],
  mode: Partial<OpenMode>,
): Promise<{ node: BlockNode; reports: string[] }> {
  const [image, dataFile] = mode.writable ? files : files.map((node) => node.copy());
  const named = new Map(dataFile === undefined ? [] : [[DATA_FILE, dataFile]]);
  const using = context(mode, { files: named });
  const node = await open(image!, using);
  // A backing file that anything is written to throws.
  node.backing!.attach(
    backing === undefined
      ? null
      : new MemoryNode({ filename: BACKING, bytes: backing, readOnly: true }),
  );
  return { node, reports: using.reports };
}

/** Looks at a state; with `random` it is also taken into use again. */
async function examine(
  recording: Recording,
  files: readonly MemoryNode[],
  allowed: Allowed,
  random: Random | undefined,
): Promise<void> {
  const features = files[0]!.slice(72, 8)[7]!;
  const isVersion3 = files[0]!.slice(4, 4)[3]! >= 3;
  const dirty = isVersion3 && (features & 1) !== 0;
  assert(!isVersion3 || (features & 2) === 0, "marked corrupt");
  {
    const { node } = await openState(recording, files, {});
    await using disk = node;
    if (!dirty) await assertSound(disk);
    assertEquals(await findForeign(disk, allowed.sectors), undefined);
    assertArrayIncludes(allowed.lengths, [disk.length], "the disk's length");
  }
  await examineSnapshots(recording, files);
  await recording.scenario.inspect?.(files, allowed);
  if (random !== undefined || dirty) {
    await takeIntoUse(recording, files, allowed, random ?? new Random(SEED));
  }
}

/** What a check finds is no corruption; leaks are all right if `leaks` says so. */
export async function assertSound(disk: BlockNode, leaks = true): Promise<CheckResult> {
  const lines: string[] = [];
  const result = await disk.checker!.check("none", (line) => void lines.push(line));
  const { corruptions, checkErrors } = result;
  assertEquals({ corruptions, checkErrors }, { corruptions: 0, checkErrors: 0 }, lines.join("\n"));
  if (!leaks) assertEquals(result.leaks, 0, lines.join("\n"));
  return result;
}

/** Writes to a crashed image, and frees what leaked. */
async function takeIntoUse(
  recording: Recording,
  files: readonly MemoryNode[],
  allowed: Allowed,
  random: Random,
): Promise<void> {
  const written = [...allowed.sectors];
  const used = files.map((node) => node.copy());
  {
    const { node } = await openState(recording, used, { writable: true });
    await using disk = node;
    assertEquals(await findForeign(disk, allowed.sectors), undefined, "opened for writing");
    for (let n = 0; n < 3; n++) {
      const sector = random.below(disk.length / SECTOR);
      const count = random.between(1, Math.min(disk.length / SECTOR - sector, 24));
      await disk.write(sector * SECTOR, stamps(LATER_TAG, sector, count));
      for (let at = sector; at < sector + count; at++) written[at] = [LATER_TAG];
    }
    await disk.flush();
  }
  const { node } = await openState(recording, used.map((node) => node.copy()), { writable: true });
  await using disk = node;
  await assertSound(disk);
  await disk.checker!.check("leaks", () => {});
  await assertSound(disk, false);
  assertEquals(await findForeign(disk, written), undefined, "after writing");
  await examineSnapshots(recording, used);
}

async function examineSnapshots(
  recording: Recording,
  files: readonly MemoryNode[],
): Promise<void> {
  if (recording.snapshots.length === 0) return;
  for (const [number, image] of snapshotViews(files[0]!.bytes()).entries()) {
    const { node } = await openState(recording, [image, ...files.slice(1)], {});
    await using disk = node;
    const expected = Array.from(recording.snapshots[number]!, (tag) => [tag]);
    assertEquals(await findForeign(disk, expected), undefined, `snapshot ${number}`);
  }
}

/** The image as if each internal snapshot in turn were the disk: with its L1 table in the header. */
function snapshotViews(image: Uint8Array): MemoryNode[] {
  const view = new DataView(image.buffer, image.byteOffset);
  const views: MemoryNode[] = [];
  let entry = Number(view.getBigUint64(64));
  for (let left = view.getUint32(60); left > 0; left--) {
    const bytes = patch(image.slice(), [36, 4, view.getUint32(entry + 8)], [
      40,
      8,
      view.getBigUint64(entry),
    ]);
    views.push(new MemoryNode({ bytes }));
    const variable = view.getUint32(entry + 36) + view.getUint16(entry + 12) +
      view.getUint16(entry + 14);
    entry += Math.ceil((40 + variable) / 8) * 8;
  }
  return views;
}

/** Nothing crashed: all is there, and nothing leaked. */
async function examineEnd(recording: Recording, files: readonly MemoryNode[]): Promise<void> {
  const { node } = await openState(recording, files, {});
  await using disk = node;
  await assertSound(disk, recording.scenario.disk !== undefined);
  assertEquals(await findForeign(disk, recording.guest.latest), undefined, "in the end");
  await examineSnapshots(recording, files);
}

/** The reference's check finds leaks at worst in a few states. */
async function crashForReference(scenario: CrashScenario): Promise<void> {
  const random = new Random(SEED);
  const recording = await record(scenario, random);
  const moments = new Set(
    Array.from({ length: SAMPLE * THOROUGHNESS }, () => random.between(1, recording.journal.now)),
  );
  const replay = recording.journal.replay();
  while (replay.step()) {
    if (!moments.has(replay.time)) continue;
    const states = [replay.killed(), ...(replay.volatile ? [replay.lost(random)] : [])];
    for (const files of states) {
      await assertReferenceAccepts(
        recording,
        files,
        `QIMG_CRASH_SEED=${SEED} at ${describe(recording.journal, replay.time)}`,
      );
    }
  }
}

async function assertReferenceAccepts(
  { backing }: Recording,
  files: readonly MemoryNode[],
  message: string,
): Promise<void> {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("test.qcow2"), files[0]!.bytes());
  if (files[1] !== undefined) await Deno.writeFile(dir.file(DATA_FILE), files[1].bytes());
  if (backing !== undefined) await Deno.writeFile(dir.file(BACKING), backing);
  const dirty = (files[0]!.slice(79, 1)[0]! & 1) !== 0 && files[0]!.slice(7, 1)[0] === 3;
  // A dirty image is repaired by whoever writes to it first; until then its refcounts say nothing.
  const repair = dirty ? ["-r", "all"] : [];
  const args = ["check", "-f", "qcow2", ...repair, "test.qcow2"];
  const { code, stdout, stderr } = await runReference(args, { cwd: dir.path });
  assert(code === 0 || code === 3, `${message}: exit code ${code}\n${stdout}${stderr}`);
}
