/** `info`: names, chains, damaged headers. */
import { disk, folder, img, patch, same, sameForEach, text, truncate } from "./_cases.ts";
import { ZOO } from "./_zoo.ts";

const M = 1024 * 1024;

sameForEach("info, ways to name the image", [
  "info -f qcow2 a",
  "info -f file a",
  "info -f file --output=json a",
  "info --output=human a",
  "info -U a",
  "info -b -U a",
  "info file:a",
  "info --output=json file:a",
  "info ./a",
  "info -b --output=json ./a",
], { given: ZOO["qcow2, on three others"]! });

sameForEach("info, chains", [
  "info -b a",
  "info -b ./sub/b",
  "info -b --output=json sub/b",
  "info -b c",
  "info --output=json -b c",
  "info c",
  "info -b d",
  "info d",
  "info --output=json d",
], {
  given: [
    disk("base", M, []),
    folder("sub"),
    img("create -f qcow2 -b base -F raw a"),
    img("create -f qcow2 -b ../a -F qcow2 sub/b"),
    img("create -f qcow2 -b sub/b -F qcow2 c"),
    // A format that is not the file's.
    img("create -f qcow2 -u -b base -F qcow2 d 1M"),
  ],
});

for (
  const [what, lines] of [
    ["itself", ["create -f qcow2 a 1M", "rebase -u -b a -F qcow2 a"]],
    ["each other", [
      "create -f qcow2 -u -b b -F qcow2 a 1M",
      "create -f qcow2 -u -b a -F qcow2 b 1M",
    ]],
  ] as const
) {
  // Without --backing-chain nothing behind the image is opened.
  sameForEach(`info, a chain that comes back to ${what}`, [
    "info a",
    "info --output=json a",
    "info -b a",
    "info --output=json -b a",
  ], { given: lines.map(img) });
}

same("info, a version that there is not", {
  given: [img("create -f qcow2 a 1M"), patch("a", [4, 4, 4])],
  run: "info a",
});
same("info, a version of 1 is another format", {
  given: [img("create -f qcow2 a 1M"), patch("a", [4, 4, 1])],
  run: "info -f qcow2 a",
});
same("info, a wrong magic number", {
  given: [img("create -f qcow2 a 1M"), patch("a", [0, 1, 0])],
  run: "info -f qcow2 a",
});
same("info, a wrong magic number is probed as raw", {
  given: [img("create -f qcow2 a 1M"), patch("a", [0, 1, 0])],
  run: "info a",
  // The file's size is that of a qcow2 image without its format.
});

/** Header fields with values that cannot be: offset, bytes, value. */
const DAMAGES: Readonly<Record<string, readonly [number, 1 | 2 | 4 | 8, number | bigint]>> = {
  "cluster bits of 8": [20, 4, 8],
  "cluster bits of 22": [20, 4, 22],
  "cluster bits of 2^32 - 1": [20, 4, 0xffffffff],
  "a size of 2^64 - 1": [24, 8, 2n ** 64n - 1n],
  "a size of 2^63": [24, 8, 2n ** 63n],
  "a size that the L1 table does not cover": [24, 8, 2n ** 40n],
  "an unknown encryption": [32, 4, 3],
  "encryption with LUKS without its header": [32, 4, 2],
  "an L1 table of no entries": [36, 4, 0],
  "an L1 table that is too large": [36, 4, 0x7fffffff],
  "an L1 table beyond the file": [40, 8, 2n ** 40n],
  "an L1 table beyond everything": [40, 8, 2n ** 63n],
  "an L1 table inside of a cluster": [40, 8, 0x30010],
  "a refcount table beyond the file": [48, 8, 2n ** 40n],
  "a refcount table inside of a cluster": [48, 8, 0x10200],
  "no refcount table": [56, 4, 0],
  "a refcount table that is too large": [56, 4, 0xffffffff],
  "snapshots that are not there": [60, 4, 1],
  "too many snapshots": [60, 4, 0xffffffff],
  "a snapshot table inside of a cluster": [64, 8, 0x100],
  "an unknown incompatible bit": [72, 8, 1n << 40n],
  "all incompatible bits": [72, 8, 2n ** 64n - 1n],
  "refcounts of 2^7 bits": [96, 4, 7],
  "refcounts of 2^32 bits": [96, 4, 32],
  "a header of 103 bytes": [100, 4, 103],
  "a header of 105 bytes": [100, 4, 105],
  "a header longer than a cluster": [100, 4, 0x10008],
  "a header of 2^32 - 1 bytes": [100, 4, 0xffffffff],
  "a backing file name outside of the header": [8, 8, 0x10000],
  "a backing file name of 1024 bytes": [16, 4, 1024],
  "a backing file name below the header": [8, 8, 4],
  "an extension that is too long": [116, 4, 0xffff],
  "a compression type that there is not": [104, 1, 2],
  "extended L2 entries and tables of standard ones": [79, 1, 0x10],
  "a data file without a name": [79, 1, 4],
};

for (const [what, change] of Object.entries(DAMAGES)) {
  const given = [
    img("create -f qcow2 -u -b base -F raw a 1M"),
    disk("base", M, []),
    patch("a", change),
  ];
  sameForEach(`an image with ${what}`, ["info a", "check a", "map a", "convert a b"], { given });
}

for (const length of [0, 1, 4, 20, 71, 72, 80, 103, 104, 512, 65536, 131072, 196608]) {
  const given = [img("create -f qcow2 a 1M"), truncate("a", length)];
  sameForEach(`an image cut to ${length} bytes`, [
    "info a",
    "info -f qcow2 a",
    "check -f qcow2 a",
    "map -f qcow2 a",
    "convert -f qcow2 a b",
  ], { given });
}

sameForEach("info refuses", [
  "info none",
  "info .",
  "info -f zork a",
  "info -f qcow2 a",
  "info zork:a",
  "info --output=xml a",
  "info a a",
  "info",
  "info none/a",
  "info a/b",
  "info -f host_device a",
  "info host_device:a",
], { given: [text("a", "x")], code: 1 });
