/** `commit`: into every kind of base, over several layers, emptying the image or not. */
import { disk, folder, type Given, img, io, ioAs, patch, same, text } from "./_cases.ts";

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

/** The reference shows 0 and 100 as often as its loop turns, and what lies between as its threads are. */
const ends = (text: string) =>
  text.replace(/( {4}\((\d+\.\d+)\/100%\)\r)+/g, (shown) => {
    const [first, last] = [shown.slice(0, 19), shown.trimEnd().slice(-19)];
    return first.includes("(0.00/") ? `${first.trim()} … ${last.trim()}` : shown;
  });

interface Expected {
  readonly given: readonly Given[];
  /** The image that gets everything. */
  readonly base?: string;
  readonly format?: string;
  /** Which images must be equal byte for byte afterwards. */
  readonly files?: readonly string[];
  readonly images?: readonly string[];
  /** By how many bytes the space on the host may differ. */
  readonly slack?: number;
}

/** Commits: both tools leave the same content, allocated alike. */
function commits(
  about: string,
  lines: readonly string[],
  { given, base = "base", format = "qcow2", files = ["top"], images = [], slack = 64 * K }:
    Expected,
): void {
  for (const line of lines) {
    same(`commit, ${about}: commit ${line}`, {
      given,
      run: `commit ${line}`,
      files,
      images: [
        // The reference has several requests on their way, and space goes to the fastest.
        { name: base, format, check: format !== "raw" },
        ...images.map((name) => ({ name, format: "qcow2", check: true })),
      ],
      normalize: ends,
      slack,
      code: 0,
    });
  }
}

function refuses(
  about: string,
  lines: readonly string[],
  given: readonly Given[],
  prepare?: (dir: string) => void,
): void {
  for (const line of lines) {
    same(`commit refuses ${about}: commit ${line}`, {
      given,
      run: line === "" ? ["commit"] : `commit ${line}`,
      normalize: ends,
      code: 1,
      ...(prepare === undefined ? {} : { prepare }),
    });
  }
}

const BASE_WRITES = [
  "write -P 1 0 3M",
  "write -z 3200k 200k",
  "write -c -P 7 4M 64k",
  "write -c -P 6 4160k 64k",
];
const TOP_WRITES = [
  "write -P 2 1M 1200k",
  "write -z 256k 256k",
  "write -P 3 3300k 4k",
  "write -P 4 4100k 4k",
  "write -z 2500k 20k",
  "discard 2560k 128k",
];
const V2_WRITES = TOP_WRITES.filter((line) => line.startsWith("write -P"));

/** Version 2 has no zero clusters, and compressed ones come whole. */
const takes = (options: string, line: string) =>
  !(options.includes("0.10") && line.includes("-z")) &&
  !(options.includes("2M") && line.includes("-c"));

/** `base` of some kind, and `top` in front of it. */
function pair(
  { base = "", top = "", format = "qcow2", sizes = ["5M", "5M"] }: {
    base?: string;
    top?: string;
    format?: string;
    sizes?: readonly [base: string, top: string];
  } = {},
): Given[] {
  const below = format === "raw"
    ? [
      disk("base", 5 * M, [[0, 300 * K, "noise"], [M, M, "gaps"], [4 * M, 70 * K, "zeros"]]),
    ]
    : [
      create("base", base, sizes[0]),
      io("base", ...BASE_WRITES.filter((line) => takes(base, line))),
    ];
  return [
    ...below,
    create("top", top, "-b", "base", "-F", format, sizes[1]),
    io("top", ...(top.includes("0.10") ? V2_WRITES : TOP_WRITES)),
  ];
}

const KINDS = {
  "clusters of 64 KiB": "",
  "clusters of 512 bytes": "cluster_size=512",
  "clusters of 4 KiB": "cluster_size=4k",
  "clusters of 2 MiB": "cluster_size=2M",
  "subclusters": "extended_l2=on",
  "subclusters of 512 bytes": "extended_l2=on,cluster_size=16k",
  "lazy refcounts": "lazy_refcounts=on",
  "refcounts of 1 bit": "refcount_bits=1",
  "refcounts of 64 bits": "refcount_bits=64",
  "zstd": "compression_type=zstd",
};

for (const [kind, options] of Object.entries(KINDS)) {
  // The reference writes tables by pages, and zeros over what an emptied image keeps.
  const slack = options === "cluster_size=2M" ? 5 * M : 64 * K;
  commits(`from ${kind}`, ["top", "-d top"], { given: pair({ top: options }), slack });
  commits(`to ${kind}`, ["top"], { given: pair({ base: options }), slack });
  commits(`from ${kind} to raw`, ["top"], {
    given: pair({ top: options, format: "raw" }),
    format: "raw",
    files: ["base", "top"],
    slack,
  });
}
// Its clusters are freed one by one, and the reference makes tables where there are none.
commits("from version 2", ["top"], { given: pair({ top: "compat=0.10" }) });
commits("to version 2", ["top"], { given: pair({ base: "compat=0.10" }) });

commits("options", [
  "-q top",
  "-p top",
  "-p -q top",
  "-f qcow2 top",
  "--format qcow2 --drop top",
  "-b base top",
  "--base=./base top",
  "-b base -d top",
  "-r 1G top",
  "--rate 100M top",
  "-t none top",
  "-t writethrough top",
  "-t directsync top",
  "-t unsafe top",
  "--cache=writeback top",
  "top -d",
], { given: pair() });

commits("a longer image", ["top", "-d top"], { given: pair({ sizes: ["5M", "9M"] }) });
commits("a shorter image", ["top"], {
  given: [
    ...pair().slice(0, 2),
    create("top", "", "-b", "base", "-F", "qcow2", "4128k"),
    io("top", "write -P 2 0 100k", "write -z 4M 32k", "write -P 3 4000k 96k"),
  ],
});
commits("an image of an odd size", ["top"], { given: pair({ sizes: ["5243392", "5244928"] }) });
commits("a longer image to raw", ["top"], {
  given: [
    disk("base", M + 512, [[0, 64 * K, "noise"]]),
    create("top", "", "-b", "base", "-F", "raw", "3M"),
    io("top", "write -P 3 1M 4k", "write -P 4 2M 100k"),
  ],
  format: "raw",
  files: ["base", "top"],
});
commits("a longer image over a base whose own is longer still", ["top"], {
  given: [
    img("create -f raw deep 4M"),
    ioAs("raw", "deep", "write -P 9 0 4M"),
    create("base", "", "-b", "deep", "-F", "raw", "1M"),
    create("top", "", "-b", "base", "-F", "qcow2", "3M"),
    io("top", "write -P 3 64k 4k"),
  ],
});
commits("nothing", ["top", "-p top"], {
  given: [...pair().slice(0, 2), create("top", "", "-b", "base", "-F", "qcow2", "5M")],
  files: ["top", "base"],
});
commits("an empty disk", ["top"], {
  given: [img("create -f qcow2 base 0"), create("top", "", "-b", "base", "-F", "qcow2", "0")],
  files: ["top", "base"],
});
commits("compressed clusters", ["top", "-d top"], {
  given: [
    ...pair().slice(0, 2),
    create("top", "", "-b", "base", "-F", "qcow2", "5M"),
    io("top", ...Array.from({ length: 40 }, (_, i) => `write -c -P ${i} ${i * 128}k 64k`)),
  ],
});

const CHAIN: readonly Given[] = [
  ...pair().slice(0, 2),
  create("mid", "", "-b", "base", "-F", "qcow2", "3M"),
  io("mid", "write -P 5 0 100k", "write -z 512k 128k", "write -P 6 2M 64k"),
  create("top", "", "-b", "mid", "-F", "qcow2", "4M"),
  io("top", ...TOP_WRITES.slice(0, 2)),
];
commits("through a chain", ["-b base top", "-p -b ./base top"], {
  given: CHAIN,
  files: ["top", "mid"],
});
commits("into the middle of a chain", ["top", "-b mid top", "-d top"], {
  given: CHAIN,
  base: "mid",
  files: ["top", "base"],
});
commits("the middle of a chain", ["mid"], {
  given: CHAIN,
  files: ["mid", "top"],
});
commits("in another folder", ["-b ../base sub/top", "sub/top"], {
  given: [
    ...pair().slice(0, 2),
    folder("sub"),
    img("create -f qcow2 -b ../base -F qcow2 sub/top"),
    io("sub/top", ...TOP_WRITES),
  ],
  files: ["sub/top"],
});

commits("a base with snapshots", ["top"], {
  given: [...pair().slice(0, 2), img("snapshot -c one base"), ...pair().slice(2)],
});
commits("a base with bitmaps, which follow", ["top"], {
  given: [...pair().slice(0, 2), img("bitmap --add -g 64k base b0"), ...pair().slice(2)],
});
// Where tables are missing the reference makes them to empty them.
commits("an image with snapshots", ["top", "-d top"], {
  given: [...pair(), img("snapshot -c one top"), io("top", "write -P 9 0 64k")],
});
commits("an image with bitmaps", ["top"], {
  given: [...pair(), img("bitmap --add -g 64k top b0"), io("top", "write -P 9 0 64k")],
});
commits("an image with a data file", ["top", "-d top"], {
  given: [
    ...pair().slice(0, 2),
    create("top", "data_file=data", "-b", "base", "-F", "qcow2", "5M"),
    io("top", ...TOP_WRITES),
  ],
});
commits("to a base with a data file", ["top"], {
  given: pair({ base: "data_file=data" }).map((step) => step).with(
    1,
    io("base", "write -P 1 0 3M"),
  ),
});
commits("an image that was not closed", ["top"], {
  given: [...pair({ top: "lazy_refcounts=on" }), patch("top", [79, 1, 1])],
});
// A format that nobody named is found out, and the guest must not change it.
const PROBED: readonly Given[] = [
  disk("base", M, [[0, 64 * K, "noise"]]),
  create("top", "", "-b", "base", "-F", "raw", "1M"),
  patch("top", [0x70, 4, 0x12345678]),
];
commits("to a base of a format that nobody named", ["top"], {
  given: [...PROBED, io("top", "write -P 3 64k 64k")],
  format: "raw",
  files: ["base", "top"],
});
refuses("to make a raw base look like another format", ["top", "-d top"], [
  ...PROBED,
  disk("head", 512, []),
  patch("head", [0, 4, 0x514649fb], [4, 4, 3]),
  io("top", "write -s head 0 512"),
]);

refuses("what is no commit", [
  "",
  "top base",
  "none",
  "base",
  "-b zork top",
  "-b top top",
  "-b none top",
  "-b ../base top",
  "-t zork top",
  "-r x top",
  "-r -1 top",
  "-r 16E top",
  "-f raw top",
  "-f zork top",
  "-p -b zork top",
  "-p base",
  "-p -f vdi top",
  "-q base",
  "-U top",
  "-z",
], pair());
refuses("a missing backing file", ["top", "-b base top"], [
  img(["create", "-f", "qcow2", "-u", "-b", "base", "-F", "qcow2", "top", "5M"]),
]);
refuses("corrupt images", ["top"], [...pair(), patch("top", [79, 1, 2])]);
refuses("what is no image", ["top", "-f qcow2 top"], [text("top", "nothing at all")]);
