/**
 * `resize` of images with snapshots and bitmaps in them, of encrypted and of
 * unclean ones: larger with every kind of preallocation, smaller, the same
 * bytes afterwards.
 */
import { assertEquals } from "@std/assert";
import { reference, runReference, useQimg, useReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { disk, type Given, img, io, patch, sameForEach } from "./_cases.ts";

const SECRET = "--object secret,id=s,data=x";

const LARGER = ["off", "metadata", "falloc", "full"].flatMap((mode) =>
  ["+512", "+100k", "6M"].map((size) => `resize --preallocation=${mode} a ${size}`)
);
const SMALLER = ["-512", "-100k", "1M", "70000", "512"].map((size) => `resize --shrink a ${size}`);

const WRITTEN = io(
  "a",
  "write -P 1 0 300k",
  "write -z 64k 64k",
  "write -P 2 1M 200k",
  "write -c -P 3 1536k 64k",
  "discard 128k 64k",
  "write -P 4 2096128 1024",
);
const REWRITTEN = io("a", "write -P 5 32k 100k", "write -P 6 2000k 10k", "write -z 1M 64k");

const make = (options: string, size = "2M") => img(`create -f qcow2 -o ${options} a ${size}`);
const snapshot = (name: string) => img(`snapshot -c ${name} a`);
const bitmap = (options: string, name: string) =>
  img(`bitmap --add ${options} a ${name}`.replace("  ", " "));

const IMAGES: Readonly<Record<string, readonly Given[]>> = {
  "snapshots": [make("cluster_size=4k"), WRITTEN, snapshot("one"), REWRITTEN, snapshot("two")],
  "snapshots of other sizes": [
    make("cluster_size=4k"),
    WRITTEN,
    snapshot("one"),
    img("resize a 5M"),
    io("a", "write -P 7 4M 300k"),
    snapshot("two"),
    img("resize --shrink a 2M"),
    REWRITTEN,
  ],
  "bitmaps": [
    make("cluster_size=4k"),
    bitmap("-g 512", "b0"),
    bitmap("-g 64k --disable", "b1"),
    WRITTEN,
    bitmap("-g 2M", "b2"),
  ],
  "bitmaps of many clusters": [
    make("cluster_size=512,refcount_bits=8"),
    bitmap("-g 512", "b0"),
    bitmap("", "b1"),
    io("a", "write -P 1 0 30k", "write -P 2 1M 20k", "write -z 1100k 64k"),
  ],
  "snapshots and bitmaps": [
    make("cluster_size=4k"),
    bitmap("", "b0"),
    WRITTEN,
    snapshot("one"),
    REWRITTEN,
    bitmap("-g 1k", "b1"),
  ],
  "subclusters, snapshots and bitmaps": [
    make("cluster_size=16k,extended_l2=on,refcount_bits=64"),
    bitmap("-g 512", "b0"),
    WRITTEN,
    snapshot("one"),
    REWRITTEN,
    io("a", "write -P 7 1000k 512", "write -z 2095104 2k"),
  ],
  "refcounts of 1 bit and a bitmap": [
    make("cluster_size=1k,refcount_bits=1"),
    bitmap("-g 1k", "b0"),
    WRITTEN,
  ],
  "clusters of 2 MiB, a snapshot and a bitmap": [
    make("cluster_size=2M"),
    bitmap("", "b0"),
    io("a", "write -P 1 0 300k"),
    snapshot("one"),
    io("a", "write -P 2 100k 64k"),
  ],
  "lazy refcounts and a snapshot": [
    make("cluster_size=4k,lazy_refcounts=on"),
    WRITTEN,
    snapshot("one"),
    REWRITTEN,
  ],
  "not closed, with snapshots": [
    make("cluster_size=4k,lazy_refcounts=on"),
    WRITTEN,
    snapshot("one"),
    REWRITTEN,
    // A count that was not written any more, and one that was not taken back.
    patch("a", [79, 1, 1], [0x2000 + 2 * 90, 4, 0x10003]),
  ],
  "on a backing file, with a snapshot and a bitmap": [
    img("create -f qcow2 base 5M"),
    io("base", "write -P 9 0 5M"),
    img("create -f qcow2 -o cluster_size=4k -b base -F qcow2 a 2M"),
    bitmap("", "b0"),
    WRITTEN,
    snapshot("one"),
    REWRITTEN,
  ],
  "preallocated, with a snapshot": [
    make("cluster_size=4k,preallocation=metadata"),
    snapshot("one"),
    REWRITTEN,
  ],
};

/** To empty what never was there, the reference makes tables for it. */
const WITHOUT_TABLES: ReadonlySet<string> = new Set([
  "bitmaps of many clusters",
  "refcounts of 1 bit and a bitmap",
]);

/** Tables of bitmaps were given up, and preallocation takes their clusters. */
const REUSED: ReadonlySet<string> = new Set([
  "bitmaps",
  "snapshots and bitmaps",
  "subclusters, snapshots and bitmaps",
  "refcounts of 1 bit and a bitmap",
  "clusters of 2 MiB, a snapshot and a bitmap",
  "on a backing file, with a snapshot and a bitmap",
]);

const SHRINKING_REFUSED =
  "qemu-img: Failed to resize underlying file: Cannot use preallocation for shrinking files\n";

/** The file is long enough already, which the reference takes for shrinking it and refuses. */
const LONG_ENOUGH: Readonly<Record<string, readonly string[]>> = {
  "snapshots and bitmaps": ["--preallocation=falloc a +512", "--preallocation=full a +512"],
  "subclusters, snapshots and bitmaps": [
    "--preallocation=falloc a +512",
    "--preallocation=full a +512",
  ],
};

for (const [kind, given] of Object.entries(IMAGES)) {
  // Two clusters of the largest size.
  const slack = 4 << 20;
  const zeroed = REUSED.has(kind);
  const apart = LONG_ENOUGH[kind] ?? [];
  const lines = LARGER.filter((line) => !apart.some((end) => line.endsWith(end)));
  sameForEach(`resize, ${kind}`, lines, { given, files: ["a"], slack, zeroed });
  sameForEach(
    `resize, ${kind}`,
    SMALLER,
    WITHOUT_TABLES.has(kind)
      ? { given, images: [{ name: "a", format: "qcow2", check: true }] }
      : { given, files: ["a"], slack },
  );
}

for (const [kind, lines] of Object.entries(LONG_ENOUGH)) {
  for (const line of lines) {
    Deno.test({
      name: `resize, ${kind}: resize ${line}, which the reference cannot`,
      ignore: reference.ignore,
      async fn() {
        await using dir = await tempDir();
        const { path: cwd } = dir;
        for (const step of IMAGES[kind]!) await step.make(cwd);
        await Deno.copyFile(dir.file("a"), dir.file("old"));
        const args = ["resize", ...line.split(" ")];
        const theirs = await runReference(args, { cwd });
        assertEquals([theirs.code, theirs.stderr], [1, SHRINKING_REFUSED]);
        await Deno.copyFile(dir.file("old"), dir.file("a"));
        await useQimg(args, { cwd });
        await useReference(["check", "a"], { cwd });
        // A longer disk is equal if it ends in zeros.
        await useReference(["compare", "a", "old"], { cwd });
        const { "virtual-size": size } = JSON.parse(
          await useReference(["info", "--output=json", "a"], { cwd }),
        );
        assertEquals(size, (2 << 20) + 512);
      },
    });
  }
}

const OPTIONS = "driver=qcow2,encrypt.key-secret=s,file.filename=a";
for (const format of ["luks,encrypt.iter-time=10", "aes"]) {
  const name = format.split(",")[0];
  sameForEach(
    `resize, encrypted with ${name}`,
    [...LARGER, ...SMALLER].map((line) =>
      line.replace("resize", `resize ${SECRET} --image-opts`).replace(" a ", ` ${OPTIONS} `)
    ),
    {
      given: [
        disk("src", 2 << 20, [[0, 2 << 20, "noise"]]),
        img(
          `convert ${SECRET} -f raw -O qcow2 -o cluster_size=4k,encrypt.format=${format},encrypt.key-secret=s src a`,
        ),
        img(`snapshot ${SECRET} --image-opts -c one ${OPTIONS}`),
      ],
      files: ["a"],
    },
  );
}

// Bitmaps of which nobody knows what they miss stand in the way.
sameForEach("resize, an inconsistent bitmap", ["resize a 4M", "resize --shrink a 1M"], {
  given: [
    make("cluster_size=4k"),
    bitmap("", "b0"),
    {
      key: "b0 in use",
      async make(dir) {
        using file = await Deno.open(`${dir}/a`, { read: true, write: true });
        const head = new Uint8Array(256);
        file.readSync(head);
        const directory = Number(new DataView(head.buffer).getBigUint64(0x70 + 24));
        file.seekSync(directory + 15, Deno.SeekMode.Start);
        file.writeSync(new Uint8Array([3]));
      },
    },
  ],
  files: ["a"],
  code: 1,
});
