/** `rebase`: onto every kind of backing file, safely and not, with equal bytes afterwards. */
import {
  disk,
  folder,
  type Given,
  img,
  io,
  ioAs,
  patch,
  same,
  sameForEach,
  text,
} from "./_cases.ts";

const K = 1024;
const M = 1024 * K;

/** An image of this size, with the rest of the command line in front. */
const create = (name: string, options: string, ...rest: readonly string[]) =>
  img([
    ...["create", "-f", "qcow2"],
    ...(options === "" ? [] : ["-o", options]),
    ...rest.slice(0, -1),
    name,
    rest.at(-1)!,
  ]);

/** Two chains that have something in common and something not, and a third file that is raw. */
const BASES: readonly Given[] = [
  img("create -f qcow2 base 5M"),
  io(
    "base",
    "write -P 1 0 3M",
    "write -z 3200k 200k",
    "write -P 9 4M 64k",
    "write -c -P 7 4864k 64k",
    "write -c -P 6 4928k 64k",
  ),
  create("mid", "", "-b", "base", "-F", "qcow2", "4M"),
  io("mid", "write -P 2 1M 300k", "write -z 2M 128k", "write -P 3 3M 4k", "discard 64k 64k"),
  img("create -f qcow2 -o cluster_size=4k other 5M"),
  io(
    "other",
    "write -P 1 0 1500k",
    "write -P 4 1000k 12k",
    "write -P 1 2M 64k",
    "write -P 9 4M 64k",
    "write -P 5 4500k 100k",
  ),
  img("create -f qcow2 short 1M"),
  io("short", "write -P 1 0 700k"),
  disk("raw", 3 * M + 512, [[0, 100 * K, "noise"], [M, 64 * K, "zeros"], [2 * M, 700, "flat"]]),
  ioAs("raw", "raw", "write -P 1 300k 500k"),
];

const WRITES = ["write -P 8 100k 30k", "write -z 1200k 64k", "write -P 2 1280k 128k"];

/** An image in front of `backing` of that format. */
function top(options: string, backing: string, format: string, size = "5M"): Given[] {
  return [
    ...BASES,
    create("top", options, "-b", backing, "-F", format, size),
    io("top", ...(options.includes("0.10") ? WRITES.slice(2) : WRITES)),
  ];
}

/** Rebases `top`, which must be equal byte for byte. */
function rebases(
  about: string,
  lines: readonly string[],
  given: readonly Given[],
  slack = 64 * K,
): void {
  sameForEach(`rebase, ${about}`, lines.map((line) => `rebase ${line}`), {
    given,
    slack,
    files: ["top"],
    code: 0,
  });
}

/** Rebases `top`, which must hold the same, lie alike and be sound: compressors differ in their output. */
function packs(about: string, lines: readonly string[], given: readonly Given[]): void {
  for (const line of lines) {
    same(`rebase, ${about}: rebase ${line}`, {
      given,
      run: `rebase ${line}`,
      images: [{ name: "top", format: "qcow2", check: true }],
      code: 0,
    });
  }
}

function refuses(about: string, lines: readonly string[], given: readonly Given[]): void {
  sameForEach(`rebase refuses ${about}`, lines.map((line) => `rebase ${line}`), {
    given,
    files: ["top"],
    code: 1,
  });
}

const ONTO = ["base", "mid", "other", "short"].map((name) => `-b ${name} -F qcow2 top`);
const NONE: readonly string[] = ["rebase", "-b", "", "top"];

/** Every kind of image, onto everything. */
const KINDS = {
  "clusters of 64 KiB": "",
  "clusters of 512 bytes": "cluster_size=512",
  "clusters of 4 KiB": "cluster_size=4k",
  "clusters of 2 MiB": "cluster_size=2M",
  "subclusters": "extended_l2=on",
  "subclusters of 512 bytes": "extended_l2=on,cluster_size=16k",
  "version 2": "compat=0.10",
  "lazy refcounts": "lazy_refcounts=on",
  "refcounts of 1 bit": "refcount_bits=1",
};

for (const [kind, options] of Object.entries(KINDS)) {
  for (const [backing, format] of [["mid", "qcow2"], ["raw", "raw"]] as const) {
    const given = top(options, backing, format);
    // The reference writes tables by pages.
    const slack = options === "cluster_size=2M" ? 3 * M : 64 * K;
    rebases(`${kind}, from ${backing}`, [...ONTO, "-b raw -F raw top"], given, slack);
    same(`rebase, ${kind}, from ${backing}, onto nothing`, {
      given,
      run: NONE,
      files: ["top"],
      slack,
      code: 0,
    });
  }
}

const PLAIN = top("", "mid", "qcow2");
rebases("options", [
  "-p -b other -F qcow2 top",
  "-p -q -b other -F qcow2 top",
  "-q -b other -F qcow2 top",
  "-f qcow2 -b other -F qcow2 top",
  "--format=qcow2 --backing other --backing-format qcow2 top",
  "-t none -T none -b other -F qcow2 top",
  "-t writethrough -T directsync -b other -F qcow2 top",
  "-t unsafe -T unsafe -b other -F qcow2 top",
  "-U -b other -F qcow2 top",
  "-b ./other -F qcow2 top",
  "-b file:other -F qcow2 top",
  "top -b other -F qcow2",
  "-p -b base -F qcow2 top",
  "-p -b mid -F qcow2 top",
  "-p -b ./mid -F qcow2 top",
  "-p -b raw -F raw top",
], PLAIN);
rebases("a longer image", ["-p -b base -F qcow2 top", "-p -b short -F qcow2 top"], [
  ...BASES,
  create("top", "", "-b", "mid", "-F", "qcow2", "9M"),
  io("top", "write -P 3 8M 64k"),
]);
rebases("a shorter image", ["-p -b other -F qcow2 top", "-p -b raw -F raw top"], [
  ...BASES,
  create("top", "", "-b", "mid", "-F", "qcow2", "1000k"),
]);
rebases("an image of an odd size", ["-b other -F qcow2 top", "-b short -F qcow2 top"], [
  ...BASES,
  create("top", "", "-b", "mid", "-F", "qcow2", "1500k"),
]);
rebases("an empty image", ["-p -b other -F qcow2 top"], [
  ...BASES,
  create("top", "", "-b", "mid", "-F", "qcow2", "0"),
]);
rebases("an image without backing file", ["-b other -F qcow2 top", "-p -b raw -F raw top"], [
  ...BASES,
  create("top", "", "5M"),
  io("top", "write -P 1 1M 1M"),
]);
rebases("an image with snapshots", ["-b other -F qcow2 top", "-b base -F qcow2 top"], [
  ...PLAIN,
  img("snapshot -c one top"),
  io("top", "write -P 3 0 64k"),
]);
rebases("an image with a bitmap", ["-b base -F qcow2 top"], [
  ...PLAIN,
  img("bitmap --add -g 64k top b0"),
]);
rebases("an image whose freed clusters are holes between others", ["-b other -F qcow2 top"], [
  ...BASES,
  create("top", "cluster_size=4k", "-b", "mid", "-F", "qcow2", "5M"),
  io(
    "top",
    ...Array.from({ length: 60 }, (_, i) => `write -P 1 ${4 * M + i * 4 * K} 4k`),
    "aio_flush",
    ...Array.from({ length: 20 }, (_, i) => `write -z -u ${4 * M + i * 12 * K} 4k`),
  ),
]);
rebases(
  "in another folder",
  [
    "-b ../other -F qcow2 sub/top",
    "-b ../mid -F qcow2 sub/top",
  ].map((line) => line),
  [
    ...BASES,
    folder("sub"),
    img("create -f qcow2 -b ../mid -F qcow2 sub/top"),
    img("create -f qcow2 top 1M"),
    io("sub/top", "write -P 8 0 64k"),
  ],
);
// The recipe of the manual: what has changed between two images, as an image.
rebases("the difference of two images", ["-b base -F qcow2 top"], [
  ...BASES,
  img("create -f qcow2 -b mid -F qcow2 top"),
]);

packs("compressed", [
  ...ONTO.map((line) => `-c ${line}`),
  "-c -p -b raw -F raw top",
  "--compress -b raw -F raw top",
], PLAIN);
packs(
  "compressed, zstd",
  ["-c -b other -F qcow2 top"],
  top("compression_type=zstd", "mid", "qcow2"),
);
packs(
  "compressed, clusters of 4 KiB",
  ["-c -b other -F qcow2 top"],
  top("cluster_size=4k", "mid", "qcow2"),
);
packs("compressed, an odd size", ["-c -b other -F qcow2 top"], [
  ...BASES,
  create("top", "", "-b", "mid", "-F", "qcow2", "1500k"),
]);
same("rebase, compressed, onto nothing", {
  given: PLAIN,
  run: ["rebase", "-c", ...NONE.slice(1)],
  images: [{ name: "top", format: "qcow2", check: true }],
  code: 0,
});

rebases("unsafe", [
  "-u -b other -F qcow2 top",
  "-u -b none -F qcow2 top",
  "-u -b none -F raw top",
  "-u top",
  "-u -p top",
  "-u -p -b other -F qcow2 top",
  "-u -c -b other -F qcow2 top",
  "-u -F qcow2 top",
  "-u -t none -T none -b other -F qcow2 top",
], PLAIN);
same("rebase, unsafe, onto nothing", {
  given: PLAIN,
  run: ["rebase", "-u", ...NONE.slice(1)],
  files: ["top"],
  code: 0,
});
rebases("unsafe, the old backing file is gone", ["-u -b other -F qcow2 top", "-u top"], [
  ...PLAIN.slice(0, -2),
  img(["create", "-f", "qcow2", "-u", "-b", "gone", "-F", "qcow2", "top", "5M"]),
]);
rebases(
  "unsafe, version 2",
  ["-u -b other -F qcow2 top", "-u top"],
  top("compat=0.10", "mid", "qcow2"),
);
const LONG = "x".repeat(1023);
for (
  const [about, name, options, code] of [
    ["the longest name", LONG, "", 0],
    ["a name that is too long", `${LONG}x`, "", 1],
    ["a name that does not fit into the header", "x".repeat(400), "cluster_size=512", 1],
  ] as const
) {
  same(`rebase, unsafe, ${about}`, {
    given: top(options, "mid", "qcow2"),
    run: ["rebase", "-u", "-b", name, "-F", "qcow2", "top"],
    files: ["top"],
    code,
  });
}

refuses(
  "what is no rebase",
  [
    "",
    "-b other",
    "top",
    "top top2 -b other",
    "-b other -F qcow2 none",
    "-b other -F zork top",
    "-u -b other -F zork top",
    "-b none -F qcow2 top",
    "-b raw -F qcow2 top",
    "-b zork:x -F qcow2 top",
    "-f raw -b other -F qcow2 top -c",
    "-f zork -b other -F qcow2 top",
    "-t zork -b other -F qcow2 top",
    "-T zork -b other -F qcow2 top",
    "-u -b other top",
    "-c -u -b other top",
    "-c -u -b other -F zork top",
    "-p -b none -F qcow2 top",
    "-p -b other -F zork top",
    "-b top -F qcow2 top",
    "-z",
  ].map((line) => line.trim()),
  PLAIN,
);
// By then everything has been copied.
refuses("to store a name without a format", ["-b other top", "-p -b base top"], PLAIN);
refuses("formats without backing files", ["-p -f raw -b other -F qcow2 top"], [
  ...BASES,
  disk("top", M, [[0, 64 * K, "noise"]]),
]);
refuses("compressed data in formats without", [
  "-c -b other -F qcow2 top",
  "-c -b other -F zork top",
  "-c -u -b other -F zork top",
], [...BASES, img("create -f qed top 1M")]);
refuses("a backing file that is gone", ["-b other -F qcow2 top", "-b base -F qcow2 top"], [
  ...BASES,
  img(["create", "-f", "qcow2", "-u", "-b", "gone", "-F", "qcow2", "top", "5M"]),
]);
refuses("an image of no format", ["-b other -F qcow2 top", "-u top"], [
  ...BASES,
  text("top", "nothing at all"),
]);
refuses("corrupt images", ["-b other -F qcow2 top", "-u -b other -F qcow2 top"], [
  ...PLAIN,
  patch("top", [79, 1, 2]),
]);
