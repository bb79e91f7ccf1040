/**
 * Images damaged at random: `check`, `check -r leaks`, `check -r all`, and whoever opens them for writing,
 * say what the reference says, count what it counts, end as it ends and leave the same bytes; and what they
 * call repaired it finds clean.
 *
 * There are 40 seeds; `QIMG_DAMAGE_SEEDS=41-1000` runs others, `QIMG_DAMAGE_SEEDS=17-17` one.
 */
import { assert, assertEquals } from "@std/assert";
import { IN_USE, parallelsImage } from "../drivers/parallels/_images.ts";
import { Random } from "../_random.ts";
import { type Outcome, reference, runQimg, runReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";

const SECTOR = 512;
/** Offsets of header fields, and of the table. */
const AT = { inUse: 44, dataOffset: 48, table: 64 };
/** How a process ends that calls abort(). */
const ABORTED = 134;

const WAYS: readonly (readonly string[])[] = [
  ["check"],
  ["check", "-r", "leaks"],
  ["check", "-r", "all"],
  // It cannot be done, but the image is opened for it.
  ["resize"],
];

interface Subject {
  readonly image: Uint8Array<ArrayBuffer>;
  /** What was done to it. */
  readonly log: readonly string[];
  /** Bytes of a cluster. */
  readonly clusterSize: number;
  readonly entries: number;
  /** Bytes that an entry counts. */
  readonly unit: number;
}

/** A sound image with a table that is in some disorder, and with something wrong in it. */
function damagedImage(random: Random): Subject {
  const tracks = random.pick([1, 2, 8, 16]);
  const version = random.pick([1, 2, 2] as const);
  const entries = random.between(4, 60);
  const clusterSize = tracks * SECTOR;
  const start = Math.ceil((64 + 4 * entries) / clusterSize);
  const places = Array.from({ length: random.between(2, entries) }, (_, i) => start + i);
  const table = Array<number>(entries).fill(0);
  const toUnit = version === 1 ? tracks : 1;
  const count = places.length;
  for (let i = 0; i < count; i++) {
    const place = random.oneIn(3)
      ? places.splice(random.below(places.length), 1)[0]
      : places.shift();
    const index = random.oneIn(3) ? random.below(entries) : table.indexOf(0);
    if (index >= 0 && table[index] === 0) table[index] = place! * toUnit;
  }
  let image = parallelsImage({ version, tracks, table, dataOffset: start * tracks });
  const view = () => new DataView(image.buffer);
  const unit = version === 1 ? SECTOR : clusterSize;
  const used = table.filter((entry) => entry !== 0);
  const free = table.flatMap((entry, index) => entry === 0 ? [index] : []);
  const end = Math.max(...used) * unit + clusterSize;
  const anyIndex = () => random.below(entries);
  const log: string[] = [`version ${version}, clusters of ${clusterSize}, table ${table}`];
  const setEntry = (index: number, value: number) => {
    log.push(`entry ${index} = ${value}`);
    view().setUint32(AT.table + 4 * index, value, true);
  };
  const setLength = (length: number) => {
    log.push(`length ${length}`);
    const bytes = new Uint8Array(length);
    bytes.set(image.subarray(0, length));
    if (length > image.length && random.oneIn(2)) bytes.fill(0x5a, image.length);
    image = bytes;
  };
  const damages: readonly (() => void)[] = [
    () => {
      log.push("in use");
      view().setUint32(AT.inUse, IN_USE, true);
    },
    () => {
      const value = random.pick([0, start * tracks - 1, 0x7fffffff]);
      log.push(`data offset ${value}`);
      view().setUint32(AT.dataOffset, value, true);
    },
    () => setEntry(anyIndex(), end / unit + random.pick([0, 1, 5, 1000, 0x7fffffff]) * toUnit),
    () => setLength(end + random.between(1, 5 * clusterSize)),
    () => setLength(end - random.between(1, Math.min(2, used.length) * clusterSize)),
    () => setEntry(anyIndex(), random.pick(used)),
    () => {
      if (free.length > 0) setEntry(random.pick(free), random.pick(used));
    },
    () => setEntry(anyIndex(), 0),
  ];
  for (let left = random.pick([1, 1, 1, 2, 2, 3]); left > 0; left--) random.pick(damages)();
  return { image, log, clusterSize, entries, unit };
}

interface Checked extends Outcome {
  readonly image: Uint8Array<ArrayBuffer>;
}

async function checkWith(
  tool: "ours" | "theirs",
  way: readonly string[],
  image: Uint8Array,
): Promise<Checked> {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("a"), image);
  const json = way[0] === "check" ? ["--output=json"] : [];
  const size = way[0] === "resize" ? ["1G"] : [];
  const args = [...way, ...json, "-f", "parallels", "a", ...size];
  const outcome = tool === "theirs"
    ? await runReference(args, { cwd: dir.path })
    : await runQimg(args, { cwd: dir.path, program: "qemu-img" });
  return { ...outcome, image: await Deno.readFile(dir.file("a")) };
}

/** The positions in a table, with their number. */
function* positionsIn({ entries, unit }: Subject, image: Uint8Array): Generator<number> {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  for (let index = 0; index < entries && AT.table + 4 * index + 4 <= image.length; index++) {
    const position = view.getUint32(AT.table + 4 * index, true) * unit;
    if (position !== 0) yield position;
  }
}

function told({ code, stdout, stderr }: Outcome): Outcome {
  return { code, stdout, stderr };
}

async function assertSameCheck(way: readonly string[], subject: Subject): Promise<void> {
  const { image, clusterSize } = subject;
  const length = Math.ceil(image.length / SECTOR) * SECTOR;
  const positions = [...positionsIn(subject, image)];
  const isInside = (position: number) => position + clusterSize <= length;
  const inside = positions.filter(isInside);
  const actual = await checkWith("ours", way, image);
  const expected = await checkWith("theirs", way, image);
  await assertSound(subject, way, actual);
  if (expected.code === ABORTED) {
    // The reference stumbles over what it found outside of the file, and left there.
    assert(inside.length < positions.length, "the reference aborted");
    assertEquals(actual.code, 2);
    assert(actual.stderr.startsWith(expected.stderr.split("qemu-img: block/")[0]!), actual.stderr);
    return;
  }
  if (expected.code === 1 && expected.stderr.includes("Device or resource busy")) {
    // Here over the last entry, which is a duplicate that it was not told to repair. Nor, opened for
    // writing, over places that it took for used, as they were before the repair.
    const lines = expected.stderr.split("\n").filter((line) => !line.startsWith("qemu-img: "));
    assert(actual.stderr.startsWith(lines.join("\n").trimEnd()), actual.stderr);
    return;
  }
  if (inside.length === 0 && positions.length > 0) {
    // All is lost. The reference makes the file as long as it was with its clusters.
    return assertEquals(told(actual), told(expected));
  }
  const view = new DataView(image.buffer, image.byteOffset);
  const duplicates = inside.length - new Set(inside).size;
  // Places that it did not look at yet, and such as were cut off, are free to the reference, or used, when
  // it takes one for a copy; and places between the older images' clusters, if it has just found out
  // where their data begin.
  const isBlind = duplicates > 0 && inside.length < positions.length ||
    duplicates > 1 && view.getUint32(AT.inUse, true) === IN_USE ||
    duplicates > 0 && subject.unit < clusterSize && expected.stderr.includes("data_off");
  if (isBlind && way.join(" ") !== "check") {
    assertEquals(actual.stderr, expected.stderr);
    return;
  }
  assertEquals(told(actual), told(expected));
  assertEquals(actual.image.length, expected.image.length, "length of the image");
  const difference = actual.image.findIndex((byte, at) => byte !== expected.image[at]);
  assertEquals(difference, -1, "first difference of the image");
}

/** What was repaired is sound in the eyes of the reference. */
async function assertSound(
  subject: Subject,
  way: readonly string[],
  { code, image }: Checked,
): Promise<void> {
  const isRepaired = way[0] === "resize" || (way.includes("all") && code === 0);
  if (!isRepaired) return;
  const verdict = await checkWith("theirs", ["check"], image);
  assertEquals([verdict.code, verdict.stderr], [0, ""], "the repaired image");
  const positions = [...positionsIn(subject, image)];
  assertEquals(new Set(positions).size, positions.length);
}

function seeds(): number[] {
  const [first, last] = (Deno.env.get("QIMG_DAMAGE_SEEDS") ?? "1-40").split("-").map(Number);
  return Array.from({ length: last! - first! + 1 }, (_, i) => first! + i);
}

for (const seed of seeds()) {
  Deno.test({
    name: `parallels, random damage: seed ${seed}`,
    ignore: reference.ignore,
    async fn() {
      const subject = damagedImage(new Random(seed));
      for (const way of WAYS) {
        try {
          await assertSameCheck(way, subject);
        } catch (error) {
          throw new Error(`${way.join(" ")}: ${subject.log.join("; ")}`, { cause: error });
        }
      }
    },
  });
}
