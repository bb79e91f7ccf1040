/**
 * Sound images of all shapes, damaged at random: `check`, `check -r leaks` and
 * `check -r all` say what the reference says, count what it counts, end as it
 * ends and leave the same bytes; and what they call repaired, it finds clean.
 *
 * There are 300 seeds, of which the first 60 run as they come;
 * `QIMG_DAMAGE_SEEDS=300` runs all, `QIMG_DAMAGE_SEEDS=301-1000` others,
 * `QIMG_DAMAGE_SEEDS=17-17` one.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Random } from "../_random.ts";
import { type Outcome, reference, runQimg, runReference, useReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import {
  checkedImage,
  IMAGE_NAMES,
  imageArguments,
  type ImageFiles,
  place,
} from "../drivers/qcow2/_checked_images.ts";
import { damaged } from "./_damage.ts";

const SEEDS = Deno.env.get("QIMG_DAMAGE_SEEDS") ?? "60";
/** Offset of the lowest byte of the autoclear features, and what is known of it. */
const AUTOCLEAR = 95;
const BITMAPS = 1;
const KNOWN_AUTOCLEAR = 3n;

type Way = "none" | "leaks" | "all";
const WAYS: readonly Way[] = ["none", "leaks", "all"];

/** Of longer files, which are holes for the most part, begin and end are looked at. */
const LOOKED_AT = 32 << 20;

/** What a check did. */
interface Checked extends Outcome {
  /** The bytes of the file afterwards. */
  readonly size: number;
  /** The image afterwards, without the middle of a long one. */
  readonly image: Uint8Array<ArrayBuffer>;
}

/** What is damaged. */
interface Subject {
  readonly files: ImageFiles;
  /** How command lines name it. */
  readonly names: readonly string[];
}

type Tool = (args: readonly string[], options: { readonly cwd: string }) => Promise<Outcome>;

const theirs: Tool = (args, options) => runReference(args, options);
const ours: Tool = (args, options) => runQimg(args, { ...options, program: "qemu-img" });

/** Checks an image with one of the tools. */
async function checkWith(
  tool: Tool,
  way: Way,
  subject: Subject,
  image: Uint8Array,
): Promise<Checked> {
  await using dir = await tempDir();
  await place(dir.path, subject.files, image);
  const repair = way === "none" ? [] : ["-r", way];
  const file = dir.file("a.qcow2");
  const { code, stdout, stderr } = await tool(
    ["check", "--output=json", ...repair, ...subject.names],
    { cwd: dir.path },
  );
  return { code, stdout, stderr: normalized(stderr), ...await read(file) };
}

function normalized(stderr: string): string {
  return stderr
    // The reference forgets to end this line.
    .replace(/(?<=^Some clusters may be leaked, run .*to fix\.)\n?/gm, "\n")
    // What goes wrong while an image is closed that could not be repaired either: the reference
    // names nodes that only it has, and its caches.
    .replace(
      /^qemu-img: (Lost persistent bitmaps during inactivation|Failed to flush the).*\n/gm,
      "",
    );
}

async function read(path: string): Promise<{ size: number; image: Uint8Array<ArrayBuffer> }> {
  const { size } = await Deno.stat(path);
  if (size <= LOOKED_AT) return { size, image: await Deno.readFile(path) };
  const image = new Uint8Array(LOOKED_AT);
  using file = await Deno.open(path);
  for (const [from, at] of [[0, 0], [size - LOOKED_AT / 2, LOOKED_AT / 2]] as const) {
    file.seekSync(from, Deno.SeekMode.Start);
    for (let done = 0; done < LOOKED_AT / 2;) {
      done += file.readSync(image.subarray(at + done, at + LOOKED_AT / 2)) ?? LOOKED_AT;
    }
  }
  return { size, image };
}

/** Both did the same, up to and including the bytes. */
function assertEqual(actual: Checked, expected: Checked): void {
  assertEquals(told(actual), told(expected));
  assertEquals(firstDifference(actual.image, expected.image), undefined, "bytes of the image");
}

function told({ code, stdout, stderr, size }: Checked): Omit<Checked, "image"> {
  return { code, stdout, stderr, size };
}

function firstDifference(actual: Uint8Array, expected: Uint8Array, from = 0): string | undefined {
  for (let at = from; at < actual.length; at++) {
    if (actual[at] === expected[at]) continue;
    const start = at - at % 8;
    const hex = (bytes: Uint8Array) => bytes.subarray(start, start + 8).toHex();
    return `at 0x${start.toString(16)}: ${hex(actual)} instead of ${hex(expected)}`;
  }
  return undefined;
}

/** An image in which nothing is wrong any more is sound in the eyes of the reference. */
async function assertSound(subject: Subject, { image, code, size }: Checked): Promise<void> {
  if (code !== 0 || size > LOOKED_AT) return;
  const verdict = await checkWith(theirs, "none", subject, image);
  if (new Header(image).hasBitmaps) {
    // Closing the image frees where its bitmaps were stored, and stores them elsewhere: damage comes
    // to light that the check could not see, in refcounts behind the end of the file, and clusters
    // that both a bitmap and the disk referred to have one reference less.
    return assertEqual(await checkWith(ours, "none", subject, image), verdict);
  }
  assertEquals(
    [verdict.code, verdict.stderr],
    [0, ""],
    "the repaired image, checked by the reference",
  );
}

/** The fields by which the known differences are told. */
class Header {
  readonly view: DataView;
  readonly version: number;
  readonly clusterSize: number;
  readonly snapshots: number;
  readonly autoclear: bigint;

  constructor(image: Uint8Array) {
    const view = this.view = new DataView(image.buffer, image.byteOffset, image.byteLength);
    this.version = view.getUint32(4);
    this.clusterSize = 2 ** view.getUint32(20);
    this.snapshots = view.getUint32(60);
    this.autoclear = this.version < 3 ? 0n : view.getBigUint64(88);
  }

  get hasBitmaps(): boolean {
    for (let at = this.version < 3 ? 72 : this.view.getUint32(100); at + 8 <= this.clusterSize;) {
      const type = this.view.getUint32(at);
      if (type === 0) return false;
      if (type === 0x23852875) return true;
      at += 8 + Math.ceil(this.view.getUint32(at + 4) / 8) * 8;
    }
    return false;
  }
}

/** The image without these bits of the autoclear features. */
function withoutAutoclear(image: Uint8Array, bits: bigint): Uint8Array {
  const copy = image.slice();
  const view = new DataView(copy.buffer);
  view.setBigUint64(88, view.getBigUint64(88) & ~bits);
  return copy;
}

/** Checks a damaged image in one way with both tools. */
async function assertSameCheck(way: Way, subject: Subject, image: Uint8Array): Promise<void> {
  const header = new Header(image);
  const actual = await checkWith(ours, way, subject, image);
  const expected = await checkWith(theirs, way, subject, image);
  await assertSound(subject, actual);
  const writes = way !== "none";
  const forgot = header.snapshots > 0 && new Header(expected.image).snapshots === 0;
  if (expected.code === 1 && expected.stderr.includes("Could not open")) {
    // Even then the reference may have forgotten the snapshots, see below.
    if (writes && forgot) expected.image.set(image.subarray(60, 72), 60);
    return assertEqual(actual, expected);
  }
  const unknown = header.autoclear & ~KNOWN_AUTOCLEAR;
  const phantom = (header.autoclear & BigInt(BITMAPS)) !== 0n && !header.hasBitmaps;

  if (writes && header.hasBitmaps && forgot) {
    return await assertKeepsSnapshots(way, subject, image, actual);
  }
  if (writes && header.snapshots > 0 && unknown !== 0n) {
    // Opening the image, the reference clears the bits by a header that says that there are no
    // snapshots, for in a check it has not read them yet; then it repairs what that made of the
    // image. qimg does what the reference does where the bits were cleared before.
    const clean = withoutAutoclear(image, unknown | (phantom ? BigInt(BITMAPS) : 0n));
    const instead = await checkWith(theirs, way, subject, clean);
    assertEquals(told(actual), told(instead));
    assertEquals(
      firstDifference(actual.image, instead.image, header.clusterSize),
      undefined,
      "bytes behind the header",
    );
    assertNotEquals(new Header(actual.image).snapshots, 0);
    assertEquals(new Header(expected.image).snapshots, 0);
    return;
  }
  if (writes && phantom) {
    // Bitmaps are said to be there but are not. The reference takes every write for one to their
    // directory, of 0 bytes at 0, and marks the image corrupt. qimg does what the reference does
    // where the bit is clear.
    const instead = await checkWith(theirs, way, subject, withoutAutoclear(image, BigInt(BITMAPS)));
    instead.image[AUTOCLEAR]! |= BITMAPS;
    return assertEqual(actual, instead);
  }
  if (writes && header.hasBitmaps && expected.code === 1) {
    return await assertNoWorse(subject, image, actual, expected);
  }
  const needless =
    /(?<=^qcow2_free_clusters failed: )(Resource temporarily unavailable|File too large)$/m;
  if (needless.test(expected.stderr)) {
    // To find out that a table that was somewhere else was not counted there, the
    // reference makes the refcount block that would have counted it, which it says instead of the
    // error, and which leaks.
    const { stderr, code } = expected;
    assertEquals(
      [actual.code, actual.stderr],
      [code, stderr.replace(needless, "Invalid argument")],
    );
    assert(actual.size <= expected.size);
    return;
  }
  if (writes && header.snapshots === 0 && header.hasBitmaps) {
    // In the header that says so, the reference forgets where no snapshots are.
    expected.image.set(actual.image.subarray(64, 72), 64);
  }
  if (
    writes && header.hasBitmaps && firstDifference(actual.image, expected.image) !== undefined
  ) {
    // Where its bitmaps were stored is free once they are stored anew. If a table of the image lies
    // there as well, the reference punches a hole into it; qimg lets it be.
    assertEquals(told(actual), told(expected));
    const [kept, holed] = [actual.image, expected.image];
    assert(await corruptions(subject, kept) <= await corruptions(subject, holed));
    return;
  }
  assertEqual(actual, expected);
}

/**
 * A check that failed closes an image that is still damaged, and stores its
 * bitmaps. The reference takes clusters for them that are in use though
 * nothing counts them, notices that when it is about to write, and gives the
 * clusters back by punching holes: into the refcount table, for example. qimg
 * says the same (of the two failures, the other first) and makes nothing worse.
 */
async function assertNoWorse(
  subject: Subject,
  before: Uint8Array,
  actual: Checked,
  expected: Checked,
): Promise<void> {
  // In an image that was marked corrupt qimg frees nothing, so that cannot fail either.
  const lines = ({ stderr }: Checked) =>
    stderr.replaceAll(/^qcow2_free_clusters failed: .*\n/gm, "").split("\n").sort();
  assertEquals([actual.code, lines(actual)], [expected.code, lines(expected)]);
  if (firstDifference(actual.image, expected.image) === undefined) return;
  assert(await corruptions(subject, actual.image) <= await corruptions(subject, before));
}

/** How many corruptions the reference counts in an image; no end of them if it cannot even look. */
async function corruptions(subject: Subject, image: Uint8Array): Promise<number> {
  const { stdout } = await checkWith(theirs, "none", subject, image);
  return stdout === "" ? Infinity : JSON.parse(stdout).corruptions ?? 0;
}

/**
 * Opening an image with bitmaps for writing changes its header. In a check the
 * reference has not read the snapshots by then, writes that there are none,
 * and repairs what that made of the image. qimg keeps them, and repairs what
 * there is to repair.
 */
async function assertKeepsSnapshots(
  way: Way,
  subject: Subject,
  before: Uint8Array,
  actual: Checked,
): Promise<void> {
  const { snapshots } = new Header(before);
  const kept = way === "all" ? Math.min(snapshots, 65536) : snapshots;
  assertEquals(new Header(actual.image).snapshots, kept);
  if (actual.size > LOOKED_AT) return;
  // Of the result both say the same.
  const again = await checkWith(theirs, "none", subject, actual.image);
  assertEqual(await checkWith(ours, "none", subject, actual.image), again);
  if (actual.code !== 0) return;
  await using dir = await tempDir();
  await place(dir.path, subject.files, actual.image);
  const list = await useReference(["snapshot", "-l", ...subject.names], { cwd: dir.path });
  assert(list.split("\n").length > kept, list);
}

function seeds(): number[] {
  const range = /^(?:(\d+)-)?(\d+)$/.exec(SEEDS);
  assert(range !== null, `QIMG_DAMAGE_SEEDS=${SEEDS}`);
  const [first, last] = [Number(range[1] ?? 1), Number(range[2])];
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

for (const seed of seeds()) {
  Deno.test({
    name: `check of random damage: seed ${seed}`,
    ignore: reference.ignore,
    async fn() {
      const name = IMAGE_NAMES[seed % IMAGE_NAMES.length]!;
      const subject = { files: await checkedImage(name), names: imageArguments(name) };
      const { image, log } = damaged(subject.files.get("a.qcow2")!, new Random(seed));
      for (const way of WAYS) {
        try {
          await assertSameCheck(way, subject, image);
        } catch (error) {
          throw new Error(`${name}, ${way}: ${log.join("; ")}`, { cause: error });
        }
      }
    },
  });
}
