/** QED through both tools. */
import {
  type Case,
  disk,
  type Given,
  hole,
  img,
  ioAs,
  patch,
  same,
  sameForEach,
  truncate,
} from "./_cases.ts";

const [K, M, T] = [1024, 1024 * 1024, 2 ** 40];
const io = (image: string, ...commands: readonly string[]) => ioAs("qed", image, ...commands);

const SOURCE: readonly Given[] = [
  disk("src", 9 * M + 3 * K, [
    [0, 100 * K, "mixed"],
    [2 * M, 2 * M, "noise"],
    [5 * M + 512, 700 * K, "gaps"],
    [7 * M, M, "zeros"],
    [9 * M, 3 * K, "flat"],
  ]),
];

const SMALL = "-o cluster_size=4096,table_size=2";

/** An image with data, zeros and gaps in several tables, out of order. */
const written = (options: string): readonly Given[] => [
  img(`create -f qed ${options} a.qed 9M`.replace("  ", " ")),
  io(
    "a.qed",
    "write -P 1 7M 100k",
    "write -P 2 100k 1M",
    "write -P 3 4195328 512",
    "write -z 5M 1M",
    "write -P 4 5600k 3k",
    "write -z 150k 300k",
  ),
];
const overlay = (options: string): readonly Given[] => [
  ...SOURCE,
  img(`create -f qed ${options} -b src -F raw a.qed`.replace("  ", " ")),
  io("a.qed", "write -P 1 1M 100k", "write -P 2 3000k 3k", "write -z 2560k 256k"),
];

const IMAGES: Readonly<Record<string, readonly Given[]>> = {
  "empty": [img("create -f qed a.qed 5M")],
  "of no size": [img("create -f qed a.qed 0")],
  "of an odd size": [img("create -f qed a.qed 5000001")],
  "of the largest size": [img("create -f qed a.qed 64T")],
  "with one byte far away": [
    img("create -f qed -o table_size=2 a.qed 10T"),
    io("a.qed", "write -P 1 9T 512", "write -z 3T 1M"),
  ],
  "with data": written(""),
  "with data in small clusters": written(SMALL),
  "with data in clusters of 1 MiB": written("-o cluster_size=1M,table_size=16"),
  "in front of another": overlay(""),
  "in front of another in small clusters": overlay(SMALL),
  "in front of one that is not there": [
    img("create -u -f qed -b nowhere -F qcow2 a.qed 1M"),
  ],
  "that was not closed": [...written(SMALL), patch("a.qed", [16, 1, 2])],
  "that was not closed, and has a lost cluster": [
    ...written(SMALL),
    patch("a.qed", [16, 1, 2]),
    truncate("a.qed", 1000 * K),
  ],
  "with a table of one cluster": [img("create -f qed -o table_size=1 a.qed 1M")],
  "with features to forget": [...written(SMALL), patch("a.qed", [32, 4, 0xff000100])],
  "with features to ignore": [...written(SMALL), patch("a.qed", [24, 4, 0xff000100])],
  "with a tail": [...written(SMALL), patch("a.qed", [3000 * K, 8, 0xff])],
};

// Holes of the file are not the same where zeros are written to new tables.
const slack = 2 * M;

for (const [kind, given] of Object.entries(IMAGES)) {
  sameForEach(`qed ${kind}`, [
    "info --output=json a.qed",
    "map --output=json a.qed",
    "check --output=json a.qed",
    "check -r all a.qed",
    "rebase -u -b x -F raw a.qed",
  ], { given, files: ["a.qed"], slack });
}

for (
  const kind of ["empty", "with data in small clusters", "in front of another"]
) {
  sameForEach(`qed ${kind}`, [
    "info a.qed",
    "info --backing-chain a.qed",
    "map a.qed",
    "check a.qed",
    "check -r leaks a.qed",
    "measure -O qcow2 a.qed",
    "measure -O raw --output=json a.qed",
    "resize a.qed 10M",
    "resize a.qed +512",
    "resize a.qed +100",
    "resize a.qed 1T",
    "resize a.qed 65T",
    "resize --shrink a.qed 1M",
    "resize --preallocation=full a.qed +1M",
    "resize --preallocation=metadata a.qed +1M",
    "snapshot -l a.qed",
    "snapshot -c s a.qed",
    "amend -o size=1M a.qed",
    "rebase -u -b x -F qcow2 a.qed",
    "commit a.qed",
  ], { given: IMAGES[kind]!, files: ["a.qed"], slack });
}

for (
  const kind of [
    "of no size",
    "of an odd size",
    "with data",
    "with data in small clusters",
    "with data in clusters of 1 MiB",
    "in front of another in small clusters",
    "that was not closed",
    "with a tail",
  ]
) {
  const given = IMAGES[kind]!;
  same(`qed ${kind}: to raw`, {
    given,
    run: "convert -p -O raw a.qed b",
    images: [{ name: "b", format: "raw" }],
  });
  same(`qed ${kind}: to itself`, {
    given,
    run: "convert -O qed a.qed b.qed",
    images: [{ name: "b.qed", format: "qed" }],
  });
}
same("qed to qcow2", { given: written(""), run: "convert -O qcow2 a.qed b", images: ["b"] });

for (
  const line of [
    "convert -f raw -O qed src b.qed",
    "convert -p -f raw -O qed src b.qed",
    `convert -f raw -O qed ${SMALL} src b.qed`,
    "convert -f raw -O qed -o table_size=16,cluster_size=1M src b.qed",
    "convert -f raw -O qed -S 0 src b.qed",
    "convert -f raw -O qed -S 1M src b.qed",
    "convert -f raw -O qed -m 4 src b.qed",
    "convert -f raw -O qed -t none src b.qed",
    "convert -f raw -O qed src src b.qed",
    "dd -f raw -O qed if=src of=b.qed bs=64k skip=3 count=90",
  ]
) {
  same(`qed: ${line}`, {
    given: SOURCE,
    run: line,
    images: [{ name: "b.qed", format: "qed" }],
    slack,
  });
}

for (const target of ["create -f qed b.qed 10M", `create -f qed ${SMALL} b.qed 10M`]) {
  for (
    const line of ["convert -n -f raw -O qed src b.qed", "convert -n -S 0 -f raw -O qed src b.qed"]
  ) {
    const given = [
      ...SOURCE,
      img(target),
      io("b.qed", "write -P 9 8M 1M", "write -P 8 0 300k"),
    ];
    same(`qed: ${line}, onto ${target}`, {
      given,
      run: line,
      images: [{ name: "b.qed", format: "qed" }],
      slack,
    });
  }
}

same("qed: convert -B", {
  given: SOURCE,
  run: "convert -f raw -O qed -B src -F raw src b.qed",
  files: ["b.qed"],
});

sameForEach("qed: refused", [
  "convert -c -f raw -O qed src b.qed",
  "convert -f raw -O qed -o refcount_bits=1 src b.qed",
  "measure -f raw -O qed src",
  "measure -O qed --size 1M",
  "create -f qed b.qed",
  "create -f qed -o cluster_size=-1 b.qed 1M",
  "create -f qed -o table_size=x b.qed 1M",
  "create -f qed -b src b.qed",
  "create -f qed -b src -F foo b.qed",
  "create -f qed -b nowhere -F raw b.qed",
], { given: SOURCE });

// Where the format has the last word, an empty file stays behind.
sameForEach("qed: refused late", [
  "create -f qed b.qed 65T",
  "create -f qed b.qed 7E",
  "create -f qed -o cluster_size=2048 b.qed 1M",
  "create -f qed -o cluster_size=5000 b.qed 1M",
  "create -f qed -o cluster_size=128M b.qed 1M",
  "create -f qed -o cluster_size=0 b.qed 1M",
  "create -f qed -o cluster_size=4M b.qed 1G",
  "create -f qed -o table_size=0 b.qed 1M",
  "create -f qed -o table_size=3 b.qed 1M",
  "create -f qed -o table_size=32 b.qed 1M",
  "create -f qed -o table_size=4k b.qed 1M",
  "create -f qed -o table_size=8G b.qed 1M",
  "create -f qed -o table_size=2.0 b.qed 1M",
  "create -u -f qed -b src -F foo b.qed 1M",
], { given: SOURCE, leftByReference: ["b.qed"] });

for (
  const line of [
    "create -f qed b.qed 0",
    "create -f qed -F raw b.qed 1M",
    "create -f qed b.qed 1",
    "create -f qed b.qed 1M",
    "create -f qed b.qed 1048577",
    "create -f qed b.qed 64T",
    "create -f qed -o cluster_size=4k,table_size=16 b.qed 1G",
    "create -f qed -o cluster_size=64M,table_size=2 b.qed 0",
    "create -f qed -o cluster_size=2M,table_size=2 b.qed 1T",
    "create -f qed -o table_size=0x8 b.qed 1M",
    "create -f qed -o table_size=010 b.qed 1M",
    "create -f qed -o preallocation=full b.qed 1M",
    "create -f qed -o size=7M b.qed",
    "create -q -f qed -b src -F raw b.qed",
    "create -f qed -b src -F raw b.qed 20M",
    "create -u -f qed -b somewhere -F qcow2 b.qed 20M",
    `create -u -f qed -b ${"x".repeat(448)} -F raw b.qed 20M`,
    `create -u -f qed -b ${"x".repeat(1023)} -F raw b.qed 20M`,
    `create -u -f qed -b ${"x".repeat(4032)} -F raw ${SMALL} b.qed 20M`,
  ]
) {
  same(`qed: ${line.replaceAll(/x{9,}/g, (name) => `${name.length} characters`)}`, {
    given: SOURCE,
    run: line,
    files: ["b.qed"],
    slack,
  });
}

sameForEach("qed: options", ["create -f qed -o help", "create -f qed -o help b.qed"], {
  // What options are for is told in other words.
  normalize: (text) => text.replaceAll(/ +- .*/g, ""),
});

/** Numbers are little-endian: a patch of one byte is one of the lowest, unless told otherwise. */
const BROKEN: Readonly<Record<string, Given>> = {
  "magic": patch("a.qed", [3, 1, 1]),
  "feature": patch("a.qed", [16, 1, 8]),
  "features": patch("a.qed", [16, 8, 0xfe00000000ff0080n]),
  "cluster size": patch("a.qed", [5, 1, 0x11]),
  "cluster size of nothing": patch("a.qed", [4, 4, 0]),
  "table size": patch("a.qed", [8, 1, 3]),
  "table size of 32": patch("a.qed", [8, 1, 32]),
  "header size": patch("a.qed", [12, 1, 2]),
  "header size of all": patch("a.qed", [12, 4, 0xffffffff]),
  "header size of nothing": patch("a.qed", [12, 4, 0]),
  "L1 offset": patch("a.qed", [40, 1, 1]),
  "L1 offset of nothing": patch("a.qed", [41, 1, 0]),
  "L1 offset beyond the file": patch("a.qed", [44, 1, 1]),
  "L1 offset beyond all": patch("a.qed", [40, 8, 0x00f0ffffffffffffn]),
  "disk size": patch("a.qed", [48, 1, 1]),
  "disk size, large": patch("a.qed", [53, 1, 1]),
  "disk size, negative": patch("a.qed", [55, 1, 0x80]),
  "backing name": patch("a.qed", [16, 1, 1], [56, 4, 0xf00f0000], [60, 1, 20]),
  "backing name's length": patch("a.qed", [16, 1, 1], [56, 1, 64], [60, 4, 0xc1ff0000]),
  "backing name of nothing": patch("a.qed", [16, 1, 1]),
  "L1 entry": patch("a.qed", [4096, 1, 1]),
  "L1 entry beyond the file": patch("a.qed", [4099, 1, 0x7f]),
  "L1 entry beyond all": patch("a.qed", [4096, 8, 0x00f0ffffffffffffn]),
  "file of a cluster": truncate("a.qed", 4096),
  "file of 100 bytes": truncate("a.qed", 100),
  "file of 30 bytes": truncate("a.qed", 30),
  "file without data": truncate("a.qed", 3 * 4096),
};
for (const [what, breaking] of Object.entries(BROKEN)) {
  const given = [...written(SMALL), breaking];
  const options: Omit<Case, "run"> = { given, files: ["a.qed"] };
  sameForEach(
    `qed with a bad ${what}`,
    ["info -f qed a.qed", "check -r all -f qed a.qed"],
    options,
  );
  if (!/L1 entry|without/.test(what)) continue;
  same(`qed with a bad ${what}: map`, { ...options, run: "map a.qed" });
  same(`qed with a bad ${what}: to raw`, {
    ...options,
    run: "convert -O raw a.qed b",
    leftByReference: ["b"],
  });
}

const CHAIN: readonly Given[] = [
  ...SOURCE,
  img(`create -f qed -b src -F raw mid.qed`),
  io("mid.qed", "write -P 1 1M 100k", "write -z 2560k 256k"),
  img(`create -f qed ${SMALL} -b mid.qed -F qed a.qed`),
  io("a.qed", "write -P 3 1100k 1M", "write -P 2 3000k 3k", "write -z 8M 64k"),
  img("create -f qed other.qed 5M"),
  io("other.qed", "write -P 7 3M 1M"),
  hole("empty", 9 * M + 3 * K),
];
const ALL = ["a.qed", "mid.qed", "src"].map((name) => ({
  name,
  format: name === "src" ? "raw" : "qed",
}));
for (
  const line of [
    "rebase -b src -F raw a.qed",
    "rebase -p -b other.qed -F qed a.qed",
    "rebase -b empty -F raw a.qed",
    "rebase -b empty -F raw mid.qed",
    "rebase -u -b other.qed -F qed a.qed",
    "rebase -c -b src -F raw a.qed",
    "rebase -b src a.qed",
    ["rebase", "-b", "", "a.qed"],
    ["rebase", "-u", "-b", "", "a.qed"],
    ["rebase", "-b", "", "mid.qed"],
    "commit a.qed",
    "commit -d a.qed",
    "commit -b src a.qed",
    "commit -b mid.qed a.qed",
    "commit mid.qed",
    "convert -O raw a.qed b",
    "compare a.qed mid.qed",
    "compare -p a.qed a.qed",
    "map --output=json a.qed",
    "info --backing-chain --output=json a.qed",
    "resize a.qed +1M",
  ]
) {
  same(`qed in a chain: ${typeof line === "string" ? line : line.join(" ")}`, {
    given: CHAIN,
    run: line,
    images: ALL,
    slack: 4 * M,
  });
}

for (const [name, image] of [[448, "a"], [4000, "a"], [4033, "a"], [4095, "mid"]] as const) {
  same(`qed: rebase of ${image}.qed to a name of ${name} characters`, {
    given: CHAIN,
    run: ["rebase", "-u", "-b", "x".repeat(name), "-F", "raw", `${image}.qed`],
    files: [`${image}.qed`],
  });
}

same("qed: a base grows when a longer disk is committed", {
  given: [
    img("create -f qed base.qed 1M"),
    img(`create -f qed ${SMALL} -b base.qed -F qed a.qed ${3 * M}`),
    io("a.qed", "write -P 5 2M 100k"),
  ],
  run: "commit a.qed",
  images: [{ name: "base.qed", format: "qed" }, { name: "a.qed", format: "qed" }],
});

same("qed: a long disk is compared with nothing", {
  given: [img("create -f qed a.qed 1T"), hole("b", T)],
  run: "compare a.qed b",
});
