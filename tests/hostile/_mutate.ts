/**
 * Damages images of every format and does everything there is to do with them,
 * in one process: `deno run -A tests/hostile/_mutate.ts FOLDER COUNT [FIRST SEED] [NAME]`.
 *
 * Prints a line of JSON when a seed begins, when something is wrong, and at the
 * end of each image.
 */
import { READ_ONLY } from "../../lib/block/mode.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import { openImage } from "../../lib/graph/open.ts";
import { checkImage, ImageError, resizeImage } from "../../lib/mod.ts";
import { referenceTo, WITH_SECRET } from "../_formats.ts";
import { Random } from "../_random.ts";
import { DATA_BYTE, type Subject, subjects } from "./_subjects.ts";

/** What is printed. */
export type Line =
  | { readonly begins: string; readonly seed: number }
  | { readonly wrong: string; readonly image: string; readonly seed: number }
  | {
    readonly done: string;
    /** Mutations that were refused, and those that could be read. */
    readonly refused: number;
    readonly read: number;
    /** The one that took longest, milliseconds. */
    readonly slowest: readonly [seed: number, milliseconds: number];
    /** The {@linkcode BATCH} from this one on took most memory, beyond what the process took before, bytes. */
    readonly largest: readonly [seed: number, bytes: number];
  };

const SECTOR = 512;
const MIB = 1 << 20;
/** Of huge disks only so much is read in one place. */
const STRETCH = 256 * 1024;
const MOST_EXTENTS = 300;

/** Mutations between two looks at the memory, each of which takes as long as some of them. */
const BATCH = 16;

const print = (line: Line) => console.log(JSON.stringify(line));

/** Offsets of sectors that hold neither zeros alone nor the guest's data alone, and of some beside them. */
function metadataOf(bytes: Uint8Array): number[] {
  const found: number[] = [];
  let last = -Infinity;
  for (let at = 0; at < bytes.length; at += SECTOR) {
    const sector = bytes.subarray(at, at + SECTOR);
    if (sector.every((byte) => byte === DATA_BYTE)) continue;
    const isEmpty = sector.every((byte) => byte === 0);
    if (!isEmpty) last = at;
    if (!isEmpty || at - last <= SECTOR) found.push(at);
  }
  return found;
}

/** Where stretches of metadata begin and end. */
function bordersOf(metadata: readonly number[], length: number): number[] {
  const borders = new Set<number>([0, length]);
  metadata.forEach((at, i) => {
    if (metadata[i - 1] !== at - SECTOR) borders.add(at);
    if (metadata[i + 1] !== at + SECTOR) borders.add(Math.min(at + SECTOR, length));
  });
  return [...borders];
}

function mutate(
  bytes: Uint8Array<ArrayBuffer>,
  metadata: readonly number[],
  random: Random,
): Uint8Array<ArrayBuffer> {
  if (random.oneIn(8)) {
    const at = random.pick(bordersOf(metadata, bytes.length)) + random.pick([0, 0, -1, 1, 7, 512]);
    return bytes.slice(0, Math.max(at, 0));
  }
  const view = new DataView(bytes.buffer);
  for (let left = random.between(1, 4); left > 0; left--) {
    // The first sectors are the likeliest to matter.
    const sector = random.oneIn(2)
      ? metadata[random.below(Math.min(metadata.length, 4))]!
      : random.pick(metadata);
    const at = Math.min(sector + random.below(SECTOR), bytes.length - 1);
    const place = Math.min(at - at % 8, bytes.length - 8);
    const isLittle = random.oneIn(2);
    switch (random.below(5)) {
      case 0:
        bytes[at]! ^= 1 << random.below(8);
        break;
      case 1:
        bytes[at] = random.pick([0, 1, 0x7f, 0x80, 0xff]);
        break;
      case 2: {
        const value = random.pick([
          0,
          1,
          0x7fffffff,
          0x80000000,
          0xffffffff,
          bytes.length,
          3,
          random.u32(),
        ]);
        view.setUint32(place + random.pick([0, 4]), value, isLittle);
        break;
      }
      case 3: {
        const value = random.pick([
          ...[0n, 1n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 53n + 1n, 2n ** 40n],
          ...[BigInt(bytes.length), BigInt(bytes.length - SECTOR), BigInt(random.u32())],
        ]);
        view.setBigUint64(place, value, isLittle);
        break;
      }
      default: {
        const from = random.pick(metadata);
        bytes.copyWithin(place, from, Math.min(from + random.pick([8, 16, 64, 512]), bytes.length));
      }
    }
  }
  return bytes;
}

/** What may fail, but in one way only. */
async function attempt(what: () => Promise<unknown>): Promise<boolean> {
  try {
    await what();
    return true;
  } catch (error) {
    if (error instanceof ImageError && error.message !== "") return false;
    throw error;
  }
}

async function look(node: BlockNode): Promise<void> {
  await attempt(async () => void await node.details?.());
  await attempt(() => node.allocatedSize());
  const { length } = node;
  const places = [0, Math.floor(length / 2 / SECTOR) * SECTOR, Math.max(length - STRETCH, 0)];
  for (const start of new Set(places)) {
    let at = start;
    await attempt(async () => {
      for (let i = 0; i < MOST_EXTENTS && at < length; i++) {
        const extent = await node.extent(at, length - at);
        if (!(extent.length >= 1 && extent.length <= length - at)) {
          throw new Error(`extent of ${extent.length} bytes at ${at} of ${length}`);
        }
        at += extent.length;
      }
    });
    const into = new Uint8Array(Math.min(STRETCH, length - start));
    if (into.length > 0) await attempt(() => node.read(start, into));
  }
}

async function change(node: BlockNode, random: Random): Promise<void> {
  for (let left = 3; left > 0 && node.length >= SECTOR; left--) {
    const most = Math.min(node.length, 4 * MIB);
    const at = random.below(most - SECTOR + 1);
    const bytes = new Uint8Array(Math.min(random.between(1, 70_000), most - at)).fill(left);
    await attempt(() =>
      random.oneIn(3) ? node.writeZeroes(at, bytes.length, { unmap: true }) : node.write(at, bytes)
    );
  }
  await attempt(() => node.flush());
}

/** Whether it could be opened. */
async function attack({ kind, image: name }: Subject, random: Random): Promise<boolean> {
  const image = referenceTo(kind, name);
  const environment = { ...WITH_SECRET, untrusted: random.oneIn(4) };
  const opens = await attempt(async () => {
    await using node = await openImage(image, READ_ONLY, environment);
    await look(node);
  });
  await attempt(() => openAndClose({ metadataOnly: true }));
  await attempt(() => checkImage(image, {}, environment));
  if (random.oneIn(2)) await attempt(() => checkImage(image, { repair: "all" }, environment));
  if (random.oneIn(2)) await attempt(() => resizeImage(image, { size: 4 * MIB }, environment));
  await attempt(async () => {
    const mode = { ...READ_ONLY, writable: true, unmap: true };
    const node = await openImage(image, mode, environment);
    await change(node, random);
    await attempt(async () => await node[Symbol.asyncDispose]());
  });
  return opens;

  async function openAndClose(mode: { metadataOnly: boolean }) {
    const node = await openImage(image, { ...READ_ONLY, ...mode }, environment);
    await attempt(async () => void await node.details?.());
    await node[Symbol.asyncDispose]();
  }
}

/** A line of the process' status, bytes; 0 where there is none. */
function memory(field: "VmHWM" | "VmRSS"): number {
  try {
    const status = Deno.readTextFileSync("/proc/self/status");
    return Number(new RegExp(`${field}:\\s*(\\d+) kB`).exec(status)![1]) * 1024;
  } catch {
    return 0;
  }
}

/** Forgets the peak so far; what the process takes now, bytes. */
function beginPeak(): number {
  (globalThis as { gc?: () => void }).gc?.();
  try {
    Deno.writeTextFileSync("/proc/self/clear_refs", "5");
  } catch {
    // Then the peak of everything counts.
  }
  return memory("VmRSS");
}

/** Writes all but the zeros. */
async function writeSparse(path: string, bytes: Uint8Array): Promise<void> {
  using file = await Deno.open(path, { write: true, truncate: true });
  const unit = 65536;
  for (let at = 0; at < bytes.length; at += unit) {
    const part = bytes.subarray(at, at + unit);
    if (part.every((byte) => byte === 0)) continue;
    await file.seek(at, Deno.SeekMode.Start);
    for (let done = 0; done < part.length;) done += await file.write(part.subarray(done));
  }
  await file.truncate(bytes.length);
}

if (import.meta.main) {
  const [dir = ".", count = "1", first = "1", only] = Deno.args;
  for await (const subject of subjects(dir)) {
    if (only !== undefined && subject.name !== only) continue;
    const original = await Deno.readFile(subject.file);
    const metadata = metadataOf(original);
    let [refused, read] = [0, 0];
    let slowest: [number, number] = [0, 0];
    let largest: [number, number] = [0, 0];
    let before = 0;
    for (let seed = Number(first); seed < Number(first) + Number(count); seed++) {
      // Known before it begins: what hangs is the last line that was printed.
      print({ begins: subject.name, seed });
      const random = new Random(seed);
      const bytes = mutate(original.slice(), metadata, random);
      if (random.oneIn(2)) subject.seal?.(bytes);
      subject.bound?.(bytes);
      await writeSparse(subject.file, bytes);
      if ((seed - Number(first)) % BATCH === 0) before = beginPeak();
      const begin = performance.now();
      try {
        if (await attack(subject, random)) read++;
        else refused++;
      } catch (error) {
        const wrong = error instanceof Error ? error.stack ?? error.message : String(error);
        print({ wrong, image: subject.name, seed });
      }
      const time = Math.round(performance.now() - begin);
      if (time > slowest[1]) slowest = [seed, time];
      const taken = memory("VmHWM") - before;
      if (taken > largest[1]) largest = [seed, taken];
    }
    print({ done: subject.name, refused, read, slowest, largest });
  }
}
