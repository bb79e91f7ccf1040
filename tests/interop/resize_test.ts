/** `resize`: growing, shrinking and preallocating, with equal bytes afterwards. */
import { disk, type Given, img, io, sameForEach, text } from "./_cases.ts";
import { ZOO } from "./_zoo.ts";

const K = 1024;
const M = 1024 * K;

function resizes(
  about: string,
  lines: readonly string[],
  given: readonly Given[],
  files: readonly string[] = ["a"],
): void {
  sameForEach(`resize, ${about}`, lines.map((line) => `resize ${line}`), { given, files, code: 0 });
}

/** Fails and changes nothing. */
function refuses(about: string, lines: readonly string[], given: readonly Given[]): void {
  sameForEach(`resize refuses ${about}`, lines.map((line) => `resize ${line}`), {
    given,
    files: ["a"],
    code: 1,
  });
}

const RAW: readonly Given[] = [disk("a", M, [[0, 300 * K, "noise"], [900 * K, K, "noise"]])];

resizes("raw", [
  "-f raw a 2M",
  "-f raw a +1M",
  "-f raw a +0",
  "-f raw a 1M",
  "-f raw a +1",
  "-f raw a 1048577",
  "-f raw a +511",
  "-f raw a 0x200000",
  "-f raw a +1.5k",
  "-f raw a 1T",
  "-f raw -q a 2M",
  "-f raw --shrink a 512k",
  "-f raw --shrink a -512k",
  "-f raw a -512k --shrink",
  "-f raw --shrink a 1",
  "-f raw --shrink a -1",
  "-f raw --shrink a 2M",
  "-f raw --preallocation=off a 2M",
  "-f raw --preallocation=falloc a 2M",
  "-f raw --preallocation=full a 2M",
  "-f raw --preallocation=full a +1000",
  "a 2M",
  "--shrink a 512k",
  "file:a -f raw 2M",
], RAW);
resizes("raw of an odd size", ["-f raw a 2M", "-f raw a +1", "-f raw --shrink a -1"], [
  disk("a", 70001, [[0, 70001, "noise"]]),
]);
resizes("an empty raw file", ["-f raw a 1M", "-f raw a +1"], [disk("a", 0, [])]);

refuses("raw", [
  "-f raw a 512k",
  "-f raw a -512k",
  "-f raw a 0",
  "-f raw --shrink a 0",
  "-f raw a -1M",
  "-f raw --shrink a -1M",
  "-f raw --shrink a -2M",
  "-f raw --preallocation=metadata a 2M",
  "-f raw --preallocation=full a 1M",
  "-f raw --preallocation=full --shrink a 512k",
  "-f raw --preallocation=x a 2M",
  "-f qcow2 a 2M",
  "-f zork a 2M",
  "-f raw a 8E",
  "-f raw a 8191P",
  "-f raw a +8191P",
  "-f raw a -8E",
  "-f raw a 9223372036854774784",
  "-f raw a 16E",
  "-f raw a x",
  "-f raw none 2M",
  "-f raw . 2M",
  "zork:a 2M",
  "none/a 2M",
], RAW);

const KINDS = [
  "qcow2, nothing written",
  "qcow2, every kind of cluster",
  "qcow2, version 2",
  "qcow2, clusters of 512 bytes",
  "qcow2, clusters of 2 MiB",
  "qcow2, refcounts of 1 bit",
  "qcow2, refcounts of 64 bits",
  "qcow2, lazy refcounts",
  "qcow2, extended L2",
  "qcow2, subclusters",
  "qcow2, compressed with zlib",
  "qcow2, metadata in advance",
  "qcow2, space in advance",
  "qcow2, snapshots",
  "qcow2, on a raw file",
  "qcow2, on a shorter file",
  "qcow2, on a longer file",
  "qcow2, on three others",
  "qcow2, an odd size",
  "qcow2, not closed",
] as const;

const SHRINKING = ["--shrink a 512", "--shrink a -512", "--shrink a 100k"];
/** The reference writes the clusters of header and refcount table whole, which fills the holes in them. */
const WHOLE_CLUSTERS = 128 << 10;
/** The reference makes tables for what never was there, to empty them. */
const WITHOUT_TABLES: ReadonlySet<string> = new Set([
  "qcow2, nothing written",
  "qcow2, clusters of 512 bytes",
  "qcow2, clusters of 2 MiB",
]);

for (const kind of KINDS) {
  resizes(kind, ["a 16M", "a +512", "a +64k", "a +0", "a 10G"], ZOO[kind]!);
  if (WITHOUT_TABLES.has(kind)) {
    sameForEach(`resize, ${kind}`, SHRINKING.map((line) => `resize ${line}`), {
      given: ZOO[kind]!,
      images: [{ name: "a", format: "qcow2", check: true }],
      slack: 2 * M,
      code: 0,
    });
  } else {
    sameForEach(`resize, ${kind}`, SHRINKING.map((line) => `resize ${line}`), {
      given: ZOO[kind]!,
      files: ["a"],
      slack: WHOLE_CLUSTERS,
    });
  }
  sameForEach(
    `resize, ${kind}, preallocation`,
    ["metadata", "falloc", "full", "off"].flatMap((mode) => [
      `resize --preallocation=${mode} a 16M`,
      `resize --preallocation=${mode} a +1024`,
    ]),
    { given: ZOO[kind]!, files: ["a"] },
  );
}
for (const kind of ["qcow2, a data file", "qcow2, a raw data file"] as const) {
  resizes(
    kind,
    [
      "a 16M",
      "a +512",
      "--shrink a 512k",
      "--preallocation=metadata a 5M",
      "--preallocation=falloc a 5M",
      "--preallocation=full a 5M",
    ],
    ZOO[kind]!,
    ["a", "d"],
  );
}

refuses("qcow2", [
  "a 512k",
  "a -1M",
  "a 0",
  "a 1000",
  "a +1",
  "--shrink a 1000",
  "--shrink a -3M",
  "--shrink a -4M",
  "a 8191P",
  "a 8E",
  "a +9223372036854774784",
  "a 9223372036854774784",
  "--preallocation=full a 3M",
  "--preallocation=full --shrink a 1M",
  "--preallocation=zork a 4M",
], ZOO["qcow2, every kind of cluster"]!);
refuses("more than a cluster size allows", ["a 256G", "a +1T"], [
  img("create -f qcow2 -o cluster_size=512 a 1M"),
]);
refuses("version 2 with snapshots", ["a 4M", "--shrink a 1M"], [
  img("create -f qcow2 -o compat=0.10 a 2M"),
  img("snapshot -c one a"),
]);
refuses("what cannot be opened", ["a 4M"], ZOO["qcow2, corrupt"]!);
refuses("an image without its backing file", ["a 4M"], ZOO["qcow2, its backing file is missing"]!);
refuses("an encrypted image", ["a 4M"], ZOO["qcow2, encrypted with LUKS"]!);
sameForEach("resize, an image with bitmaps", ["resize a 4M", "resize --shrink a 1M"], {
  given: ZOO["qcow2, a bitmap"]!,
  files: ["a"],
  slack: WHOLE_CLUSTERS,
});
sameForEach("resize, features that nobody knows", ["resize a 4M"], {
  given: ZOO["qcow2, features that nobody knows"]!,
  files: ["a"],
});
refuses("what is no image", ["-f qcow2 a 4M"], [text("a", "x")]);
resizes("twice", ["a 4M"], [
  img("create -f qcow2 a 1M"),
  io("a", "write -P 1 0 1M"),
  img("resize a 2M"),
  io("a", "write -P 2 1M 1M"),
  img("resize --shrink a 1M"),
]);
