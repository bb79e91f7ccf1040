/**
 * Images damaged field by field: `check`, `check -r leaks` and `check -r all`
 * say what the reference says, end as it ends, and leave the same bytes.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { checkImage } from "../../../drivers/qcow2/check.ts";
import { geometryOf, readHeader } from "../../../drivers/qcow2/header_reader.ts";
import { Qcow2Image } from "../../../drivers/qcow2/image.ts";
import { loadL1 } from "../../../drivers/qcow2/l1_table.ts";
import {
  assertSame,
  type Outcome,
  reference,
  runQimg,
  runReference,
  useReference,
} from "../../_reference.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { tempDir } from "../../_temp.ts";
import { bitmapDirectory, checkedImage, type ImageName, place } from "./_checked_images.ts";
import { context, patch } from "./_image.ts";

type Field = readonly [offset: number, width: 1 | 2 | 4 | 8, value: bigint | number];

interface Case {
  readonly name: string;
  readonly image: ImageName;
  readonly damage: readonly Field[] | ((image: Uint8Array) => void);
  /** The exit codes of the three runs: a case that stops damaging anything fails. */
  readonly codes: readonly [none: number, leaks: number, all: number];
}

const COPIED = 1n << 63n;
const COMPRESSED = 1n << 62n;

// The image "snapshot".
const TABLE = 0x1000;
const BLOCK = 0x2000;
const L1 = 0x3000;
const L2 = 0xc000;
const SNAPSHOTS = 0xb000;
/** Its field with the refcount of a cluster. */
const refcount = (cluster: number, value: number): Field => [BLOCK + 2 * cluster, 2, value];

/** The L2 entries of the image "subclusters": descriptor and bitmap. */
const extended = (index: number, descriptor: bigint, bitmap: bigint): readonly Field[] => [
  [0x10000 + 16 * index, 8, descriptor],
  [0x10000 + 16 * index + 8, 8, bitmap],
];

/** Changes the directory entry of the first bitmap, and what it points to. */
const bitmap = (
  change: (image: Uint8Array, entry: number, table: number) => readonly Field[],
) =>
(image: Uint8Array): void => {
  const entry = bitmapDirectory(image);
  const table = Number(new DataView(image.buffer).getBigUint64(entry));
  patch(image, ...change(image, entry, table));
};

const CASES: readonly Case[] = [
  // Refcounts.
  {
    name: "a refcount that is too high",
    image: "snapshot",
    damage: [refcount(5, 3)],
    codes: [3, 0, 0],
  },
  {
    name: "a refcount of a cluster that nobody uses",
    image: "snapshot",
    damage: [refcount(2, 2), [0x2000 + 2 * 4, 2, 9]],
    codes: [3, 0, 0],
  },
  {
    name: "a refcount behind the end of the file is nobody's business",
    image: "snapshot",
    damage: [refcount(100, 1)],
    codes: [0, 0, 0],
  },
  {
    name: "a refcount that is too low",
    image: "snapshot",
    damage: [refcount(5, 1)],
    codes: [2, 2, 0],
  },
  {
    name: "refcounts too low and too high",
    image: "snapshot",
    damage: [refcount(5, 1), refcount(1, 3)],
    codes: [2, 2, 0],
  },
  {
    name: "a refcount of 0 of a cluster in use",
    image: "snapshot",
    damage: [refcount(5, 0)],
    codes: [2, 1, 0],
  },
  {
    name: "all refcounts of 0",
    image: "snapshot",
    damage: (image) => void image.fill(0, BLOCK, BLOCK + 0x1000),
    codes: [2, 1, 0],
  },
  {
    name: "all refcounts of 255",
    image: "8-bit refcounts",
    damage: (image) => void image.fill(255, 0x400, 0x600),
    codes: [3, 0, 0],
  },
  {
    name: "a 1-bit refcount that is too low",
    image: "1-bit refcounts",
    damage: [[0x2000, 1, 0xfe]],
    codes: [2, 1, 0],
  },
  {
    name: "a 1-bit refcount of a cluster that nobody uses",
    image: "1-bit refcounts",
    damage: [[0x4018, 8, 0]],
    codes: [3, 0, 0],
  },
  {
    name: "more references than a 1-bit refcount can count",
    image: "1-bit refcounts",
    damage: [[0x4008, 8, COPIED | 0x5000n]],
    codes: [2, 2, 2],
  },
  {
    name: "2-bit refcounts in both directions",
    image: "2-bit refcounts",
    damage: [[0x800, 2, 0xffd5]],
    codes: [2, 2, 0],
  },
  {
    name: "4-bit refcounts in both directions, one of them 0",
    image: "4-bit refcounts",
    damage: [[0x800, 2, 0x1041]],
    codes: [2, 1, 0],
  },
  {
    name: "32-bit refcounts in both directions",
    image: "32-bit refcounts",
    damage: [[0x400 + 4 * 4, 4, 0xffffffff], [0x400 + 4 * 6, 4, 1]],
    codes: [2, 2, 0],
  },
  {
    name: "a 64-bit refcount that no number holds",
    image: "64-bit refcounts",
    damage: [[0x400 + 8 * 3, 8, 0x7fff_ffff_ffff_ffffn], [0x400 + 8 * 5, 8, 2n ** 60n + 1n]],
    codes: [2, 0, 0],
  },
  // The refcount table.
  {
    name: "a refcount table entry of 0",
    image: "snapshot",
    damage: [[TABLE, 8, 0]],
    codes: [2, 1, 0],
  },
  {
    name: "a refcount table entry with reserved bits, its block in the first free cluster",
    image: "snapshot",
    damage: [[TABLE, 8, 0x2001]],
    codes: [2, 1, 1],
  },
  {
    name: "a refcount table entry with reserved bits, a free cluster before its block",
    image: "64-bit refcounts",
    damage: [[0x208, 8, 0x8a01], [0x400 + 8 * 3, 8, 1], [0x600, 8, 0]],
    codes: [2, 1, 0],
  },
  {
    name: "a refcount block that is not aligned",
    image: "snapshot",
    damage: [[TABLE, 8, 0x2200]],
    codes: [1, 1, 1],
  },
  {
    name: "a refcount block behind the end of the file",
    image: "snapshot",
    damage: [[TABLE + 8, 8, 0x200000]],
    codes: [2, 2, 0],
  },
  {
    name: "the only refcount block behind the end of the file",
    image: "snapshot",
    damage: [[TABLE, 8, 0x40000]],
    codes: [2, 1, 0],
  },
  {
    name: "a refcount block that no file can have",
    image: "snapshot",
    damage: [[TABLE + 8, 8, 1n << 63n]],
    codes: [2, 2, 0],
  },
  {
    name: "one refcount block in two entries",
    image: "snapshot",
    damage: [[TABLE + 8, 8, 0x2000]],
    codes: [2, 1, 0],
  },
  {
    name: "a refcount block in a data cluster",
    image: "64-bit refcounts",
    damage: [[0x208, 8, 0x10400]],
    codes: [2, 1, 0],
  },
  {
    name: "a refcount block in the L1 table",
    image: "snapshot",
    damage: [[TABLE + 8, 8, L1]],
    codes: [2, 1, 0],
  },
  {
    name: "refcount tables that overlap with everything",
    image: "snapshot",
    damage: [[48, 8, 0x3000]],
    codes: [1, 1, 0],
  },
  {
    name: "no refcount table",
    image: "snapshot",
    damage: [[56, 4, 0]],
    codes: [2, 1, 0],
  },
  {
    name: "a refcount table behind the end of the file",
    image: "snapshot",
    damage: [[48, 8, 0x100000]],
    codes: [2, 1, 0],
  },
  {
    name: "refcount blocks with gaps between them",
    image: "64-bit refcounts",
    damage: [[0x200, 8, 0], [0x210, 8, 0]],
    codes: [2, 1, 0],
  },
  // The L1 table.
  {
    name: "an L1 entry with reserved bits",
    image: "snapshot",
    damage: [[L1, 8, COPIED | 1n << 56n | 0xc001n]],
    codes: [2, 2, 2],
  },
  {
    name: "an L2 table that is not aligned",
    image: "snapshot",
    damage: [[L1, 8, COPIED | 0xc200n]],
    codes: [2, 2, 2],
  },
  {
    name: "an L2 table behind the end of the file",
    image: "snapshot",
    damage: [[L1, 8, COPIED | 0x1_0000_0000n]],
    codes: [2, 2, 2],
  },
  {
    name: "an L1 entry that lacks COPIED",
    image: "snapshot",
    damage: [[L1, 8, 0xc000]],
    codes: [2, 0, 0],
  },
  {
    name: "an L1 entry that is COPIED though it is shared",
    image: "snapshot",
    damage: [[L1, 8, COPIED | 0x4000n]],
    codes: [2, 2, 0],
  },
  {
    name: "an L1 entry of 0",
    image: "snapshot",
    damage: [[L1, 8, 0]],
    codes: [3, 0, 0],
  },
  {
    name: "the L1 table as its own L2 table",
    image: "snapshot",
    damage: [[L1, 8, COPIED | BigInt(L1)]],
    codes: [2, 2, 1],
  },
  {
    name: "an L1 table behind the end of the file",
    image: "snapshot",
    damage: [[40, 8, 0x40000]],
    codes: [2, 2, 2],
  },
  // L2 tables.
  {
    name: "an L2 entry with reserved bits above its offset",
    image: "snapshot",
    damage: [[L2 + 8, 8, COPIED | 1n << 56n | 0xd000n]],
    codes: [2, 2, 2],
  },
  {
    name: "an L2 entry with reserved bits below its offset",
    image: "snapshot",
    damage: [[L2 + 8, 8, COPIED | 0xd002n]],
    codes: [2, 2, 2],
  },
  {
    name: "a data cluster that is not aligned",
    image: "snapshot",
    damage: [[L2 + 8, 8, COPIED | 0xd200n]],
    codes: [2, 2, 2],
  },
  {
    name: "a preallocated cluster that is not aligned",
    image: "snapshot",
    damage: [[L2 + 8, 8, COPIED | 0xd201n]],
    codes: [2, 2, 0],
  },
  {
    name: "a preallocated cluster that is not aligned, of a snapshot",
    image: "snapshot",
    damage: [[0x4000 + 8, 8, 0x6201]],
    codes: [2, 2, 0],
  },
  {
    name: "a data cluster behind the end of the file",
    image: "snapshot",
    damage: [[L2 + 8, 8, COPIED | 0xf000n]],
    codes: [2, 2, 2],
  },
  {
    name: "a data cluster behind the end of the file, and refcounts of 0",
    image: "snapshot",
    damage: [[L2 + 8, 8, COPIED | 0x10000n], refcount(14, 0)],
    codes: [2, 1, 2],
  },
  {
    name: "a data cluster at the highest offset",
    image: "snapshot",
    damage: [[L2 + 8, 8, COPIED | 0xff_ffff_ffff_f000n]],
    codes: [2, 2, 2],
  },
  {
    name: "a data cluster in its own L2 table",
    image: "snapshot",
    damage: [[L2 + 8, 8, COPIED | BigInt(L2)], [L2 + 16, 8, 0xd000]],
    codes: [2, 2, 0],
  },
  {
    name: "a data cluster in the refcount table",
    image: "snapshot",
    damage: [[L2 + 8, 8, COPIED | BigInt(TABLE)]],
    codes: [2, 2, 0],
  },
  {
    name: "an L2 entry with COPIED and nothing else",
    image: "snapshot",
    damage: [[L2 + 8, 8, COPIED]],
    codes: [3, 0, 0],
  },
  {
    name: "an L2 entry that lacks COPIED",
    image: "snapshot",
    damage: [[L2 + 8, 8, 0xd000]],
    codes: [2, 0, 0],
  },
  {
    name: "an L2 entry that is COPIED though it is shared",
    image: "snapshot",
    damage: [[L2, 8, COPIED | 0x5000n]],
    codes: [2, 0, 0],
  },
  {
    name: "a compressed cluster with COPIED",
    image: "snapshot",
    damage: [[L2 + 0x40, 8, COPIED | COMPRESSED | 0x9000n]],
    codes: [2, 2, 2],
  },
  {
    name: "a compressed cluster behind the end of the file",
    image: "snapshot",
    damage: [[L2 + 0x40, 8, COMPRESSED | 0x1_0000_9123n]],
    codes: [2, 2, 2],
  },
  {
    name: "a compressed cluster at the highest offset",
    image: "512 byte clusters",
    damage: [[0x800, 8, COMPRESSED | (1n << 61n) - 1n]],
    codes: [2, 2, 2],
  },
  {
    name: "a compressed cluster that claims to be long",
    image: "snapshot",
    damage: [[L2 + 0x40, 8, COMPRESSED | 0xfn << 58n | 0x9000n]],
    codes: [2, 2, 0],
  },
  {
    name: "a version 2 image with an entry of zeros",
    image: "version 2",
    damage: [[0x1000 + 8, 8, 1]],
    codes: [3, 0, 0],
  },
  // Extended L2 entries.
  {
    name: "a subcluster with data and zeros",
    image: "subclusters",
    damage: extended(0, COPIED | 0x14000n, (1n << 64n) - 1n),
    codes: [2, 2, 2],
  },
  {
    name: "a subcluster with data in no cluster",
    image: "subclusters",
    damage: extended(4, 0n, 1n),
    codes: [2, 2, 2],
  },
  {
    name: "a compressed cluster with subclusters",
    image: "subclusters",
    damage: [[0x10000 + 16 * 8 + 8, 8, 1]],
    codes: [2, 2, 2],
  },
  {
    name: "a cluster with subclusters that is not aligned",
    image: "subclusters",
    damage: extended(1, COPIED | 0x18200n, 0xffff_ffffn),
    codes: [2, 2, 2],
  },
  {
    name: "a cluster without data subclusters that is not aligned",
    image: "subclusters",
    damage: extended(1, COPIED | 0x18200n, 3n << 32n),
    codes: [2, 2, 0],
  },
  {
    name: "a cluster with impossible subclusters that is not aligned",
    image: "subclusters",
    damage: extended(1, COPIED | 0x18200n, 3n << 32n | 1n),
    codes: [2, 2, 2],
  },
  {
    name: "an extended entry with the zero flag of a standard one",
    image: "subclusters",
    damage: extended(1, COPIED | 0x18001n, 0xffff_ffffn),
    codes: [0, 0, 0],
  },
  // Data files.
  {
    name: "a cluster of a data file that lacks COPIED",
    image: "data file",
    damage: [[0x4008, 8, 0x1000]],
    codes: [2, 0, 0],
  },
  {
    name: "a compressed cluster in a data file",
    image: "data file",
    damage: [[0x4008, 8, COPIED | COMPRESSED | 0x1000n]],
    codes: [2, 2, 2],
  },
  {
    name: "a cluster of a data file that is not aligned",
    image: "data file",
    damage: [[0x4008, 8, COPIED | 0x1200n]],
    codes: [2, 2, 2],
  },
  {
    name: "a cluster of a data file in a wrong place is not noticed",
    image: "data file",
    damage: [[0x4008, 8, COPIED | 0x3000n]],
    codes: [0, 0, 0],
  },
  {
    name: "a snapshot of an image with a data file",
    image: "data file",
    damage: [[60, 4, 1], [64, 8, 0x5000]],
    codes: [2, 1, 2],
  },
  // Snapshots.
  {
    name: "65537 snapshots",
    image: "snapshot",
    damage: [[60, 4, 65537], [64, 8, 0x20000]],
    codes: [1, 1, 1],
  },
  {
    name: "one snapshot too many",
    image: "snapshot",
    damage: [[60, 4, 2]],
    codes: [2, 2, 0],
  },
  { name: "one snapshot too few", image: "snapshot", damage: [[60, 4, 0]], codes: [3, 0, 0] },
  {
    name: "a snapshot table that is not aligned",
    image: "snapshot",
    damage: [[64, 8, 0xb200]],
    codes: [1, 1, 1],
  },
  {
    name: "a snapshot table that no file can have",
    image: "snapshot",
    damage: [[64, 8, 1n << 63n]],
    codes: [1, 1, 1],
  },
  {
    name: "a snapshot with 8 bytes of extra data",
    image: "snapshot",
    damage: [[SNAPSHOTS + 36, 4, 8]],
    codes: [2, 2, 0],
  },
  {
    name: "a snapshot without extra data",
    image: "snapshot",
    damage: [[SNAPSHOTS + 36, 4, 0]],
    codes: [2, 2, 0],
  },
  {
    name: "a snapshot with 1024 bytes of extra data",
    image: "snapshot",
    damage: [[SNAPSHOTS + 36, 4, 1024]],
    codes: [0, 0, 0],
  },
  {
    name: "a snapshot with 1025 bytes of extra data",
    image: "snapshot",
    damage: [[SNAPSHOTS + 36, 4, 1025]],
    codes: [1, 1, 0],
  },
  {
    name: "a snapshot with 64 MiB of extra data",
    image: "snapshot",
    damage: [[SNAPSHOTS + 36, 4, 0x4000018]],
    codes: [1, 1, 1],
  },
  {
    name: "a snapshot with 4 GiB of extra data",
    image: "snapshot",
    damage: [[SNAPSHOTS + 36, 4, 0xffffffff]],
    codes: [1, 1, 0],
  },
  {
    name: "a snapshot's L1 table that is not aligned",
    image: "snapshot",
    damage: [[SNAPSHOTS, 8, 0xa200]],
    codes: [2, 2, 2],
  },
  {
    name: "a snapshot's L1 table that is not aligned, at an offset that no number holds",
    image: "snapshot",
    damage: [[SNAPSHOTS, 8, 0x4000_0000_0000_a001n]],
    codes: [2, 2, 2],
  },
  {
    name: "a snapshot's L1 table that no file can have",
    image: "snapshot",
    damage: [[SNAPSHOTS, 8, 1n << 63n]],
    codes: [1, 1, 1],
  },
  {
    name: "a snapshot's L1 table behind the end of the file",
    image: "snapshot",
    damage: [[SNAPSHOTS, 8, 1n << 40n]],
    codes: [2, 2, 2],
  },
  {
    name: "a snapshot's L1 table that is too large",
    image: "snapshot",
    damage: [[SNAPSHOTS + 8, 4, 0x500000]],
    codes: [2, 2, 1],
  },
  {
    name: "a snapshot's L1 table that reaches into other tables",
    image: "snapshot",
    damage: [[SNAPSHOTS + 8, 4, 1000]],
    codes: [2, 2, 2],
  },
  {
    name: "a snapshot's name with control characters and a NUL",
    image: "snapshot",
    damage: [[SNAPSHOTS, 8, 0xa200], [SNAPSHOTS + 65, 1, 7], [SNAPSHOTS + 66, 1, 0]],
    codes: [2, 2, 2],
  },
  // Bitmaps.
  {
    name: "a leaked cluster in an image with bitmaps",
    image: "bitmaps",
    damage: [refcount(2, 2)],
    codes: [3, 0, 0],
  },
  {
    name: "a bitmap's cluster behind the end of the file",
    image: "bitmaps",
    damage: bitmap((_image, entry, table) => [[entry + 12, 4, 3], [table, 8, 1n << 32n]]),
    codes: [2, 2, 2],
  },
  {
    name: "a bitmap in use whose table has reserved bits",
    image: "bitmaps",
    damage: bitmap((_image, entry, table) => [[entry + 12, 4, 3], [table + 6, 2, 2]]),
    codes: [1, 1, 1],
  },
  {
    name: "a bitmap in use whose table lies behind the end of the file",
    image: "bitmaps",
    damage: bitmap((_image, entry) => [[entry + 12, 4, 3], [entry, 8, 1n << 33n]]),
    codes: [2, 2, 2],
  },
  {
    name: "a bitmap's table of ones",
    image: "bitmaps",
    damage: bitmap((_image, _entry, table) => [[table, 8, 1]]),
    codes: [3, 0, 0],
  },
  {
    name: "bitmaps that a program without them forgot",
    image: "bitmaps",
    damage: [[88, 8, 0]],
    codes: [3, 0, 0],
  },
  {
    name: "a bitmap directory in the refcount table",
    image: "bitmaps",
    damage: [[56, 4, 0x100]],
    codes: [2, 1, 1],
  },
  // Feature bits.
  {
    name: "a dirty image without damage",
    image: "lazy refcounts",
    damage: [[72, 8, 1]],
    codes: [0, 0, 0],
  },
  {
    name: "a dirty image with refcounts of 0",
    image: "lazy refcounts",
    damage: (image) => void patch(image, [72, 8, 1]).fill(0, 0x200a, 0x2012),
    codes: [2, 1, 0],
  },
  {
    name: "a corrupt image without damage",
    image: "plain",
    damage: [[72, 8, 2]],
    codes: [0, 0, 0],
  },
  {
    name: "a corrupt image whose damage stays",
    image: "snapshot",
    damage: [[72, 8, 3], [L2 + 8, 8, COPIED | 0xd200n]],
    codes: [2, 2, 2],
  },
];

const MODES = [
  ["none", ["--output=json"]],
  ["leaks", ["-r", "leaks"]],
  ["all", ["-r", "all"]],
] as const;

/**
 * What the two tools say in different order, or not alike: a failed check is
 * reported before the image is closed by the one and after it by the other, and
 * the one names an internal node when the bitmaps could not be stored then.
 */
function inAnyOrder(text: string): string {
  return text.split("\n")
    .filter((line) => !/Lost persistent bitmaps|^qemu-img: Input\/output error$/.test(line))
    // The reference ends one warning without a newline.
    .map((line) => line.replace(/(?<=^Some clusters may be leaked, run .*to fix\.)./, "\n$&"))
    .join("\n").split("\n").sort().join("\n");
}

for (const { name, image, damage, codes } of CASES) {
  Deno.test({
    name: `check: ${name}`,
    ignore: reference.ignore,
    async fn() {
      const files = await checkedImage(image);
      const damaged = files.get("a.qcow2")!.slice();
      if (typeof damage === "function") damage(damaged);
      else patch(damaged, ...damage);
      const actual: number[] = [];
      for (const [, options] of MODES) {
        const { code } = await assertSame(["check", "-f", "qcow2", ...options, "a.qcow2"], {
          setup: (dir) => place(dir, files, damaged),
          files: ["a.qcow2"],
          ...(image === "bitmaps" ? { normalize: inAnyOrder } : {}),
        });
        actual.push(code);
      }
      assertEquals(actual, [...codes]);
    },
  });
}

for (const image of ["plain", "subclusters", "data file", "64 KiB clusters"] as const) {
  Deno.test({
    name: `check: nothing wrong, ${image}`,
    ignore: reference.ignore,
    async fn() {
      const files = await checkedImage(image);
      for (const [, options] of MODES) {
        await assertSame(["check", "-f", "qcow2", ...options, "a.qcow2"], {
          setup: (dir) => place(dir, files),
          files: ["a.qcow2"],
          code: 0,
        });
      }
    },
  });
}

/** Damages an image, repairs it with qimg, and lets the reference judge what came out. */
async function repairedByQimg(
  image: ImageName,
  fields: readonly Field[],
  judge: (dir: string, outcome: Outcome) => void | Promise<void>,
): Promise<void> {
  await using dir = await tempDir();
  const files = await checkedImage(image);
  await place(dir.path, files, patch(files.get("a.qcow2")!.slice(), ...fields));
  const outcome = await runQimg(["check", "-r", "all", "a.qcow2"], { cwd: dir.path });
  await judge(dir.path, outcome);
}

// What follows is where the reference does harm.

Deno.test({
  name: "check: a repair keeps the snapshots of an image with an unknown autoclear bit",
  ignore: reference.ignore,
  async fn() {
    // The reference drops them: it clears the bit in the header before it has read the snapshots.
    await repairedByQimg("snapshot", [[88, 8, 0x2000]], async (cwd, { code, stderr }) => {
      assertEquals([code, stderr], [0, ""]);
      assertStringIncludes(await useReference(["snapshot", "-l", "a.qcow2"], { cwd }), "one");
      assertEquals((await runReference(["check", "a.qcow2"], { cwd })).code, 0);
    });
  },
});

Deno.test({
  name: "check: a repair does not make the file longer than can be checked",
  ignore: reference.ignore,
  async fn() {
    // The reference does, as far as the host lets it.
    const damage: Field[] = [[TABLE + 8, 8, 1n << 60n]];
    await repairedByQimg("snapshot", damage, async (cwd, { code, stderr }) => {
      assertEquals(
        stderr.split("\n").slice(0, 4),
        [
          "Repairing refcount block 1 is outside image",
          "qimg: Could not resize file: File too large",
          "ERROR could not resize image: File too large",
          "Rebuilding refcount structure",
        ],
      );
      assertEquals(code, 0);
      assert((await Deno.stat(`${cwd}/a.qcow2`)).size < 2 ** 20);
      assertEquals((await runReference(["check", "a.qcow2"], { cwd })).code, 0);
    });
  },
});

Deno.test({
  name: "check: a snapshot table that was somewhere else frees no cluster in use",
  ignore: reference.ignore,
  async fn() {
    // The reference takes the old table's cluster modulo 2^32 blocks, and frees the header.
    const damage: Field[] = [[64, 8, 1n << 62n]];
    await repairedByQimg("snapshot", damage, async (cwd, { stderr }) => {
      assertStringIncludes(stderr, "qcow2_free_clusters failed: Invalid argument");
      assertEquals((await runReference(["check", "a.qcow2"], { cwd })).code, 0);
    });
  },
});

Deno.test({
  name: "check: the LUKS header's clusters are referenced",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    await useReference([
      ..."create -q -f qcow2 --object secret,id=s,data=1".split(" "),
      ..."-o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10,cluster_size=4k".split(
        " ",
      ),
      ...["a.qcow2", "1M"],
    ], { cwd: dir.path });
    // Past the opening, which refuses encrypted images.
    const file = new MemoryNode({ bytes: await Deno.readFile(dir.file("a.qcow2")) });
    const using = context({ checking: true });
    const header = await readHeader(file, using);
    const image = new Qcow2Image(file, header, geometryOf(header), using);
    await loadL1(image);
    await image.refcounts.load();
    const lines: string[] = [];
    const { leaks } = await checkImage(image, "none", (line) => void lines.push(line));
    assertEquals([lines, leaks], [[], 0]);
  },
});

// A dirty image is repaired when it is opened for writing.

const DIRTY: readonly { name: string; image: ImageName; fields: readonly Field[]; code: number }[] =
  [
    {
      name: "refcounts of 0",
      image: "lazy refcounts",
      fields: [[72, 8, 1], [0x200a, 8, 0]],
      code: 0,
    },
    {
      name: "refcounts that are wrong",
      image: "lazy refcounts",
      fields: [[72, 8, 1], [0x200a, 2, 7], [0x4000, 8, 0x5000]],
      code: 0,
    },
    {
      name: "damage that stays",
      image: "lazy refcounts",
      fields: [[72, 8, 1], [0x4000, 8, COPIED | 0x5200n]],
      code: 0,
    },
    {
      name: "a refcount structure that cannot be rebuilt",
      image: "lazy refcounts",
      fields: [[72, 8, 1], [TABLE, 8, 0x2200]],
      code: 1,
    },
  ];

for (const { name, image, fields, code } of DIRTY) {
  Deno.test({
    name: `opening a dirty image for writing: ${name}`,
    ignore: reference.ignore,
    async fn() {
      const files = await checkedImage(image);
      const damaged = patch(files.get("a.qcow2")!.slice(), ...fields);
      await assertSame(["resize", "-f", "qcow2", "a.qcow2", "2M"], {
        setup: (dir) => place(dir, files, damaged),
        files: ["a.qcow2"],
        code,
      });
    },
  });
}
