/** `compare`: equal and different content, sizes and allocation. */
import { disk, type Given, img, io, sameForEach, text } from "./_cases.ts";
import { MIXED_DISK, ZOO } from "./_zoo.ts";

const K = 1024;
const M = 1024 * K;

/** The same content in many ways. */
const EQUALS: Readonly<Record<string, string>> = {
  "raw": "-f raw -O raw",
  "raw without holes": "-f raw -O raw -S 0",
  "qcow2": "-f raw -O qcow2",
  "qcow2 without holes": "-f raw -O qcow2 -S 0",
  "version 2": "-f raw -O qcow2 -o compat=0.10",
  "extended L2": "-f raw -O qcow2 -o extended_l2=on,cluster_size=16k",
  "clusters of 512 bytes": "-f raw -O qcow2 -o cluster_size=512",
  "compressed": "-c -f raw -O qcow2",
  "compressed with zstd": "-c -f raw -O qcow2 -o compression_type=zstd",
  "metadata in advance": "-f raw -O qcow2 -o preallocation=metadata",
};

for (const [kind, options] of Object.entries(EQUALS)) {
  const given: readonly Given[] = [MIXED_DISK, img(`convert ${options} src a`)];
  sameForEach(`compare, equal content: ${kind}`, [
    "compare src a",
    "compare a src",
    "compare -f raw src a",
    "compare -p src a",
    "compare -s src a",
    "compare -s a src",
    "compare -q src a",
    "compare -U src a",
  ], { given });
}

for (
  const [where, change] of [
    ["the first byte", [0, 1, "flat"]],
    ["the last byte", [6 * M + 511, 1, "flat"]],
    ["a sector", [3 * M + 512, 512, "noise"]],
    ["the middle of zeros", [5 * M + 300 * K, 1, "flat"]],
    ["the middle of data", [700 * K + 77, 1, "noise"]],
    ["two places", [5 * M - 1, M, "noise"]],
  ] as const
) {
  const given: readonly Given[] = [MIXED_DISK, img("convert -f raw -O raw src a"), {
    key: `change ${where}`,
    make: (dir) => disk("patch", 0, []).make(dir),
  }, ...changed("a", change)];
  sameForEach(`compare, a difference in ${where}`, [
    "compare src a",
    "compare -s src a",
    "compare -q src a",
    "compare -p src a",
    "compare src q",
    "compare c src",
    "compare -p c a",
  ], {
    given: [
      ...given,
      img("convert -f raw -O qcow2 a q"),
      img("convert -c -f raw -O qcow2 src c"),
    ],
  });
}

/** Turns a range of bytes around. */
function changed(
  name: string,
  [offset, length]: readonly [number, number, string],
): readonly Given[] {
  return [{
    key: `invert ${name} ${offset} ${length}`,
    make(dir) {
      using file = Deno.openSync(`${dir}/${name}`, { read: true, write: true });
      const bytes = new Uint8Array(length);
      file.seekSync(offset, Deno.SeekMode.Start);
      file.readSync(bytes);
      file.seekSync(offset, Deno.SeekMode.Start);
      file.writeSync(bytes.map((byte) => byte ^ 0xff));
    },
  }];
}

sameForEach("compare, sizes", [
  "compare one two",
  "compare two one",
  "compare -s one two",
  "compare -q one two",
  "compare -q -s one two",
  "compare -p one two",
  "compare -p -s one two",
  "compare one tail",
  "compare tail one",
  "compare -p tail one",
  "compare -q tail one",
  "compare one qtail",
  "compare qtail one",
  "compare one qzero",
  "compare qzero one",
  "compare one ztail",
  "compare empty one",
  "compare one empty",
  "compare -s empty one",
  "compare empty two",
  "compare empty empty",
  "compare -p empty empty",
  "compare odd one",
  "compare one odd",
  "compare odd odder",
  "compare -s odd odder",
  "compare -s odder odd",
  "compare odd oddest",
  "compare -s odd oddest",
  "compare -s odder oddest",
  "compare huge qhuge",
  "compare -p huge qhuge",
], {
  given: [
    disk("one", M, [[0, 100 * K, "noise"]]),
    img("convert -f raw -O raw one two"),
    { key: "longer two", make: (dir) => Deno.truncate(`${dir}/two`, 2 * M) },
    img("convert -f raw -O raw one tail"),
    { key: "longer tail", make: (dir) => Deno.truncate(`${dir}/tail`, 2 * M) },
    ...changed("tail", [2 * M - 700, 1, ""]),
    img("convert -f raw -O qcow2 tail qtail"),
    img("convert -f raw -O qcow2 two qzero"),
    io("qzero", "write -z 1M 1M"),
    img("convert -f raw -O raw -S 0 two ztail"),
    disk("empty", 0, []),
    disk("odd", 700, [[0, 700, "noise"]]),
    disk("odder", 1000, [[0, 700, "noise"]]),
    disk("oddest", 1000, [[0, 1000, "flat"]]),
    disk("huge", 2 ** 40, [[0, 4096, "noise"]]),
    img("convert -f raw -O qcow2 huge qhuge"),
  ],
});

const CHAIN = ZOO["qcow2, on three others"]!;
sameForEach("compare, chains", [
  "compare a flat",
  "compare -s a flat",
  "compare -s one two",
  "compare one two",
  "compare two a",
  "compare base one",
  "compare -s base one",
], { given: [...CHAIN, img("convert -O qcow2 a flat")] });

const VARIED = ZOO["qcow2, every kind of cluster"]!;
sameForEach("compare, strict, kinds of zeros", [
  "compare -s a same",
  "compare -s a zeros",
  "compare -s zeros a",
  "compare -s a empty",
  "compare -s empty zeros",
  "compare -s empty raw",
  "compare -s raw empty",
  "compare -s empty full",
  "compare -s raw full",
  "compare empty full",
], {
  given: [
    ...VARIED,
    img("convert -O qcow2 a same"),
    img("create -f qcow2 zeros 3M"),
    io("zeros", "write -z 0 3M"),
    img("create -f qcow2 empty 3M"),
    disk("raw", 3 * M, []),
    disk("full", 3 * M, [[0, 3 * M, "zeros"]]),
  ],
});

for (const mode of ["writeback", "none", "off", "writethrough", "directsync", "unsafe"]) {
  sameForEach("compare, cache modes", [`compare -T ${mode} a b`], {
    given: [disk("a", M, [[0, M, "noise"]]), img("convert -f raw -O qcow2 a b")],
    code: 0,
  });
}

sameForEach("compare refuses", [
  "compare none a",
  "compare a none",
  "compare none none",
  "compare . a",
  "compare -f zork a a",
  "compare -F zork a a",
  "compare -f qcow2 a a",
  "compare -F qcow2 a a",
  "compare -p a over",
  "compare a zork:b",
  "compare -T zork a a",
  "compare --a-format=qcow2 a a",
  "compare --b-format qcow2 a a",
  "compare --left-format qcow2 --right-format raw a a",
  "compare a",
  "compare a a a",
], { given: [text("a", "x"), img("create -f qcow2 -u -b none -F raw over 1M")] });
