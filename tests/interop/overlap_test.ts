/**
 * Writes that would hit metadata of damaged images: refused in the same words,
 * the image marked corrupt, and not a byte of the metadata lost.
 */
import { assertEquals } from "@std/assert";
import { OVERLAP_LEVELS } from "../../drivers/qcow2/overlap_options.ts";
import { reference, runQimg } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { disk, type Given, img, io, patch, same, sameForEach } from "./_cases.ts";

const COPIED = 1n << 63n;

/**
 * Clusters of 4 KiB. Refcount table 0x1000, block 0x2000, active L1 0x3000; L2
 * 0x4000, L1 0x9000 and table 0xa000 of the snapshot, active L2 0xb000 with
 * data at 0xc000 and, the snapshot's, 0x6000 to 0x8000; then the bitmap.
 */
const IMAGE: readonly Given[] = [
  img("create -f qcow2 -o cluster_size=4k a 1M"),
  io("a", "write -P 1 0 16k"),
  img("snapshot -c one a"),
  io("a", "write -P 2 0 4k"),
  img("bitmap --add a b0"),
  disk("src", 1 << 20, [[0, 16384, "noise"]]),
];
const REFCOUNTS = 0x2000;
const ACTIVE_L2 = 0xb000;
const PLACES: Readonly<Record<string, bigint>> = {
  "the refcount table": 0x1000n,
  "a refcount block": 0x2000n,
  "the active L1 table": 0x3000n,
  "a snapshot's L2 table": 0x4000n,
  "a snapshot's L1 table": 0x9000n,
  "the snapshot table": 0xa000n,
  "an active L2 table": 0xb000n,
  "the bitmap directory": 0xen << 12n,
};
const onto = (options: string) =>
  `convert -n -m 1 -f raw --target-image-opts src driver=qcow2,file.filename=a${options}`;

/**
 * Why bitmaps cannot be stored is told in other words, for the reference names
 * nodes that only it has; and it fails to give back what it should not.
 */
const lostBitmaps = (text: string) =>
  text.replace(/^qcow2_free_clusters failed: .*\n/gm, "")
    .replace(/^qemu-img: Lost persistent bitmaps during inactivation .*\n/gm, "")
    .replace(/(?<=^qemu-img: Error while closing the image: ).*/gm, "WHY");

/** Registers a test: a command line fails, and these bytes of `a` are what they were. */
function keeps(
  name: string,
  { given, run, from, length }: {
    given: readonly Given[];
    run: string;
    from: number;
    length: number;
  },
): void {
  Deno.test({
    name,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      for (const step of given) await step.make(dir.path);
      const bytes = async () => (await Deno.readFile(dir.file("a"))).subarray(from, from + length);
      const before = await bytes();
      const { code } = await runQimg(run.split(" "), { cwd: dir.path });
      assertEquals(code, 1);
      assertEquals(await bytes(), before);
    },
  });
}

for (const [place, offset] of Object.entries(PLACES)) {
  const levels = place === "the bitmap directory"
    ? ["constant", "cached"]
    : Object.keys(OVERLAP_LEVELS);
  sameForEach(
    `the disk's first cluster lies in ${place}`,
    [onto(""), ...levels.map((level) => onto(`,overlap-check=${level}`))],
    { given: [...IMAGE, patch("a", [ACTIVE_L2, 8, COPIED | offset])], files: ["a"] },
  );
  const given = [...IMAGE, patch("a", [REFCOUNTS + 2 * Number(offset >> 12n), 2, 0])];
  sameForEach(
    `nothing counts ${place}`,
    [
      onto(""),
      onto(",overlap-check=all"),
      "resize a 4M",
      "convert -n -m 1 -c -f raw -O qcow2 src a",
      // The reference lets the bitmap directory and the disk share a cluster, and exits with 0.
      ...(place === "the bitmap directory" ? [] : ["resize --preallocation=metadata a 2M"]),
    ],
    { given, files: ["a"] },
  );
  for (const line of ["bitmap --add a b1", "amend -o refcount_bits=32 a"]) {
    // The reference gives back what it took, which punches a hole into the structure. Only what
    // its other writers may change is changed by qimg.
    if (place === "a snapshot's L2 table") continue;
    const [from, length] = place === "a refcount block"
      ? [6, 14]
      : place === "the bitmap directory"
      ? [0, 12]
      : [0, 4096];
    same(`nothing counts ${place}: ${line}`, { given, run: line, normalize: lostBitmaps });
    keeps(`nothing counts ${place}: ${line} keeps it`, {
      given,
      run: line,
      from: Number(offset) + from,
      length,
    });
  }
  // qimg counts the new snapshot's references before it looks for room, so that nothing is hit.
  if (place === "an active L2 table") continue;
  // The file would say when.
  same(`nothing counts ${place}: snapshot -c two a`, { given, run: "snapshot -c two a" });
}
sameForEach("nothing counts the header", [onto(""), "resize a 4M"], {
  given: [...IMAGE, patch("a", [REFCOUNTS, 2, 0])],
  files: ["a"],
});

for (
  const [name, place] of [
    ["main-header", undefined],
    ["active-l1", "the active L1 table"],
    ["active-l2", "an active L2 table"],
    ["refcount-table", "the refcount table"],
    ["refcount-block", "a refcount block"],
    ["snapshot-table", "the snapshot table"],
    ["inactive-l1", "a snapshot's L1 table"],
    ["inactive-l2", "a snapshot's L2 table"],
    ["bitmap-directory", "the bitmap directory"],
  ] as const
) {
  for (const value of ["on", "off"]) {
    const level = value === "on" ? "none" : "all";
    same(`only ${name}=${value}, ${level} otherwise`, {
      given: [
        ...IMAGE,
        ...(place === undefined ? [] : [patch("a", [ACTIVE_L2, 8, COPIED | PLACES[place]!])]),
      ],
      run: onto(`,overlap-check.template=${level},overlap-check.${name}=${value}`),
      // What is to become of bitmaps whose directory was written over is nobody's business.
      files: name === "bitmap-directory" ? [] : ["a"],
      normalize: lostBitmaps,
    });
  }
}

sameForEach("levels that there are not", [
  onto(",overlap-check=foo"),
  onto(",overlap-check="),
  onto(",overlap-check=7"),
  onto(",overlap-check.template=bar"),
  onto(",overlap-check=all,overlap-check.template=none"),
  onto(",overlap-check=all,overlap-check.template=all"),
  onto(",overlap-check.inactive-l2=x"),
  onto(",overlap-check.zork=on"),
], { given: IMAGE, files: ["a"] });

// Whoever wrote first marked the image; from then on it is refused until it is repaired.
sameForEach("an image marked corrupt", [
  "convert -n -f raw -O qcow2 src a",
  "resize a 2M",
  "bitmap --add a b1",
  "snapshot -c two a",
  "commit a",
  "check a",
  "check -r all a",
  "info a",
  "convert -O raw a b",
], {
  // With a bitmap, the repair by the reference would lose the snapshots.
  given: [
    ...IMAGE,
    img("bitmap --remove a b0"),
    patch("a", [ACTIVE_L2, 8, COPIED | 0x3000n], [79, 1, 2]),
  ],
  files: ["a"],
});
