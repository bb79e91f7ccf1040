/** `convert`: every option, from every kind of image to raw and qcow2. */
import { disk, folder, type Given, img, io, same, sameForEach, text } from "./_cases.ts";
import { MIXED_DISK, ZOO } from "./_zoo.ts";

const K = 1024;
const M = 1024 * K;

/** Converts to `b`, which must be equal byte for byte. */
function converts(
  about: string,
  lines: readonly string[],
  given: readonly Given[],
  files: readonly string[] = ["b"],
): void {
  sameForEach(`convert, ${about}`, lines.map((line) => `convert ${line}`), {
    given,
    files,
    code: 0,
  });
}

/** Converts to `b`, which must hold the same, lie alike and be sound: compressors differ in their output. */
function packs(about: string, lines: readonly string[], given: readonly Given[]): void {
  for (const line of lines) {
    same(`convert, ${about}: convert ${line}`, {
      given,
      run: `convert ${line}`,
      images: [{ name: "b", format: "qcow2", check: true }],
      code: 0,
    });
  }
}

/** Fails, and leaves the folder as it was. */
function refuses(about: string, lines: readonly string[], given: readonly Given[] = []): void {
  sameForEach(`convert refuses ${about}`, lines.map((line) => `convert ${line}`), {
    given,
    code: 1,
  });
}

// What opens without a key, with everything that it refers to.
const READABLE = Object.entries(ZOO).filter(([kind]) => !/encrypted|is missing/.test(kind));
const HUGE = /8 TiB/;

for (const [kind, given] of READABLE) {
  converts(`from ${kind}`, ["a b", "-O qcow2 a b"], given);
  if (HUGE.test(kind)) continue;
  converts(`from ${kind}`, [
    "-S 0 a b",
    "-O qcow2 -S 0 a b",
    "-p a b",
    "-p -O qcow2 a b",
    "-O qcow2 -o cluster_size=512 a b",
    "-O qcow2 -o cluster_size=2M a b",
    "-O qcow2 -o extended_l2=on,cluster_size=16k a b",
  ], given);
  packs(`from ${kind}, compressed`, ["-c -O qcow2 a b"], given);
  // The reference inflates a large cluster anew for each small one.
  if (kind === "qcow2, compressed, clusters of 2 MiB") continue;
  packs(`from ${kind}, compressed`, [
    "-c -O qcow2 -o cluster_size=4k,compression_type=zstd a b",
  ], given);
}

for (const [kind, given] of Object.entries(ZOO)) {
  if (/encrypted/.test(kind)) refuses(kind, ["a b", "-O qcow2 a b", "-n a b"], given);
  else if (/is missing/.test(kind)) refuses(kind, ["a b", "-p -O qcow2 a b"], given);
}

const SOURCE = [MIXED_DISK];

converts("create options", [
  "-f raw -O qcow2 -o compat=0.10 src b",
  "-f raw -O qcow2 -o compat=v3,lazy_refcounts=on src b",
  "-f raw -O qcow2 -o compression_type=zstd src b",
  "-f raw -O qcow2 -o refcount_bits=1 src b",
  "-f raw -O qcow2 -o refcount_bits=64 src b",
  "-f raw -O qcow2 -o preallocation=metadata src b",
  "-f raw -O qcow2 -o preallocation=falloc src b",
  "-f raw -O qcow2 -o preallocation=full src b",
  "-f raw -O qcow2 -o preallocation=metadata -S 0 src b",
  "-f raw -O qcow2 -o preallocation=full,extended_l2=on src b",
  "-f raw -O qcow2 -o cluster_size=4k -o lazy_refcounts=on src b",
  "-f raw -O qcow2 -o nocow=on src b",
  "-f raw -O qcow2 -o size=1G src b",
  "-f raw -O raw -o preallocation=falloc src b",
  "-f raw -O raw -o preallocation=full src b",
  "-f raw -O raw -o preallocation=off src b",
  "-f raw -o size=1G src b",
  "-f raw -O file src b",
  ...["1k", "2k", "4k", "8k", "16k", "32k", "128k", "256k", "512k", "1M"].map((size) =>
    `-f raw -O qcow2 -o cluster_size=${size} src b`
  ),
], SOURCE);
converts(
  "a data file",
  [
    "-f raw -O qcow2 -o data_file=d src b",
    "-f raw -O qcow2 -o data_file=d,data_file_raw=on src b",
    "-f raw -O qcow2 -o data_file=d,preallocation=full src b",
    "-f raw -O qcow2 -o data_file=d -S 0 src b",
  ],
  SOURCE,
  ["b", "d"],
);

converts("smallest runs of zeros", [
  ...["0", "512", "1024", "4k", "5120", "8k", "64k", "100k", "1M", "1049088", "16M"].flatMap(
    (size) => [
      `-f raw -S ${size} src b`,
      `-f raw -O qcow2 -S ${size} src b`,
      `-f raw -O qcow2 -o cluster_size=512 -S ${size} src b`,
    ],
  ),
], SOURCE);
packs("smallest runs of zeros, compressed", [
  "-c -f raw -O qcow2 -S 0 src b",
  "-c -f raw -O qcow2 -S 512 src b",
  "-c -f raw -O qcow2 -S 16M src b",
], SOURCE);

converts("holes in small clusters", [
  "-p -S 0 a b",
  "-p -S 16M a b",
  "-p -S 16M a a b",
  "-p -S 64k -O qcow2 a b",
], [MIXED_DISK, img("convert -f raw -O qcow2 -o cluster_size=512 src a")]);
packs("holes in small clusters, compressed", ["-p -c -O qcow2 a b"], [
  MIXED_DISK,
  img("convert -f raw -O qcow2 -o cluster_size=512 src a"),
]);
for (const size of ["512", "1k", "2k", "4k", "64k", "2M"]) {
  const given = [MIXED_DISK, img(`convert -f raw -O qcow2 -S 0 -o cluster_size=${size} src a`)];
  converts(`no holes in clusters of ${size}`, [
    "-p a b",
    "-p -S 512 a b",
    "-p -S 0 a b",
    "-p -S 64k -O qcow2 a b",
    "-p -O qcow2 -o cluster_size=512 a b",
    "-p -S 8k a b",
  ], given);
  packs(`no holes in clusters of ${size}, compressed`, ["-p -c -O qcow2 a b"], given);
}
converts("requests at a time", [
  ...["1", "2", "3", "8", "16", "0x10", "010"].map((count) => `-f raw -m ${count} src b`),
  "-f raw -O qcow2 -m 1 src b",
  "-f raw -O qcow2 -m 16 src b",
], SOURCE);
for (const line of ["-W", "-W -m 1", "-W -m 16"]) {
  same(`convert, out of order: convert ${line}`, {
    given: SOURCE,
    run: `convert -f raw -O qcow2 ${line} src b`,
    images: [{ name: "b", format: "qcow2", check: true }],
    code: 0,
  });
}
packs("requests at a time, compressed", [
  "-c -m 1 -f raw -O qcow2 src b",
  "-c -m 16 -f raw -O qcow2 src b",
  "-c -W -f raw -O qcow2 src b",
], SOURCE);

// Past the page cache the reference writes whole sectors of the host's disk: this one has no others.
const WHOLE = disk("whole", 5 * M, [[0, 3 * M, "gaps"], [4 * M, 100 * K, "flat"]]);

converts("cache modes", [
  ...["writeback", "none", "off", "writethrough", "directsync", "unsafe"].flatMap((mode) => [
    `-f raw -t ${mode} whole b`,
    `-f raw -O qcow2 -t ${mode} src b`,
    `-f raw -T ${mode} src b`,
    `-f raw -O qcow2 -T ${mode} src b`,
  ]),
  "-f raw -O qcow2 -t none -T none src b",
], [MIXED_DISK, WHOLE]);
refuses("cache modes", ["-T x src b", "-t x none b"], SOURCE);
for (const mode of ["x", "none,writeback", "Writeback"]) {
  same(`convert leaves nothing of what cannot be: convert -t ${mode} src b`, {
    given: SOURCE,
    run: `convert -t ${mode} src b`,
    leftByReference: ["b"],
    code: 1,
  });
}

converts("a rate", [
  "-f raw -r 1G src b",
  "-f raw -O qcow2 -r 100M src b",
  "-f raw -r 0 src b",
  "-f raw -r 7E src b",
], SOURCE);

converts("how much is said", [
  "-q -f raw src b",
  "-p -q -f raw src b",
  "-p -f raw src b",
  "-p -f raw -O qcow2 src b",
  "-p -f raw -O qcow2 -S 0 src b",
  "-p -m 1 -f raw -O qcow2 -o cluster_size=2M src b",
], SOURCE);
packs("how much is said, compressed", ["-p -c -f raw -O qcow2 src b"], SOURCE);

converts("copy offloading", [
  "-C -f raw src b",
  "-C -f raw -O qcow2 src b",
  "-C -m 1 -f raw -O qcow2 -o cluster_size=4k src b",
  "-C -p -f raw src b",
], SOURCE);

converts("sources shared or not", ["-U -f raw src b", "-U -O qcow2 -f raw src b"], SOURCE);
converts("a name with a protocol", ["-f raw src file:b", "-f raw file:src b"], SOURCE);
converts("over what is there", ["-f raw src b", "-f raw -O qcow2 src b"], [
  MIXED_DISK,
  disk("b", 9 * M, [[0, 9 * M, "noise"]]),
]);
converts("into a folder", ["-f raw src sub/b"], [MIXED_DISK, folder("sub")], ["sub/b"]);

const PARTS: readonly Given[] = [
  disk("one", 300 * K, [[0, 100 * K, "noise"]]),
  disk("two", 1000, [[0, 1000, "noise"]]),
  disk("three", 100 * K + 512, [[50 * K, 512, "noise"], [100 * K, 512, "flat"]]),
  disk("empty", 0, []),
  img("convert -f raw -O qcow2 one four"),
  img("convert -c -f raw -O qcow2 three five"),
];
converts("several sources", [
  "one two three b",
  "-O qcow2 one two three b",
  "-O qcow2 -S 0 one two three b",
  "two two two b",
  "four five b",
  "-O qcow2 five four b",
  "-p one four b",
  "empty one b",
  "one empty b",
  "empty empty b",
  "-f raw four five b",
  "-O qcow2 -o cluster_size=2M one three two b",
  "-p -O qcow2 one two three four five b",
], PARTS);
packs("several sources, compressed", [
  "-c -O qcow2 one two three b",
  "-c -O qcow2 -o cluster_size=4k five four three two one b",
], PARTS);

converts("sizes", ["-O raw a b", "-O qcow2 a b", "-c -O qcow2 a b"], [disk("a", 0, [])]);
for (const size of [1, 511, 512, 513, 4095, 4097, 65535, 65537]) {
  converts(`${size} bytes`, [
    "-f raw a b",
    "-f raw -S 0 a b",
    "-f raw -O qcow2 a b",
    "-f raw -O qcow2 -o cluster_size=512 a b",
    "-f raw -O qcow2 -o cluster_size=2M a b",
    "-f raw -O qcow2 -t none -T none a b",
    "-f raw -T none a b",
  ], [disk("a", size, [[0, size, "noise"]])]);
  packs(`${size} bytes, compressed`, ["-c -f raw -O qcow2 a b"], [
    disk("a", size, [[0, size, "mixed"]]),
  ]);
}

const TARGETS: readonly Given[] = [
  MIXED_DISK,
  disk("raw", 6 * M + 512, [[0, 3 * M, "noise"]]),
  disk("longer", 9 * M, [[0, 9 * M, "noise"]]),
  disk("zeros", 6 * M + 512, []),
  disk("smaller", 6 * M, []),
  WHOLE,
  img("create -f qcow2 new 9M"),
  img("create -f qcow2 used 9M"),
  io("used", "write -P 1 0 4M", "write -z 4M 1M", "write -P 2 8M 1M"),
  img("create -f qcow2 -o extended_l2=on subs 9M"),
  img("create -f qcow2 -b used -F qcow2 over"),
  img("create -f qcow2 -o preallocation=metadata ready 9M"),
  img("create -f qcow2 small 1M"),
  img("create -f qcow2 -u -b none -F raw orphan 9M"),
];
for (
  const [target, format] of [
    ["raw", "raw"],
    ["longer", "raw"],
    ["zeros", "raw"],
    ["new", "qcow2"],
    ["used", "qcow2"],
    ["subs", "qcow2"],
    ["over", "qcow2"],
    ["ready", "qcow2"],
  ]
) {
  converts(
    `into an image that is there: ${target}`,
    [
      `-n -f raw -O ${format} src ${target}`,
      `-n -S 0 -f raw -O ${format} src ${target}`,
      `-n -p -f raw -O ${format} src ${target}`,
      `-n -t none -f raw -O ${format} ${format === "raw" ? "whole" : "src"} ${target}`,
      `-n -C -f raw -O ${format} src ${target}`,
    ],
    TARGETS,
    [target!],
  );
}
converts(
  "into an image that reads as zeros",
  [
    "-n --target-is-zero -f raw -O qcow2 src new",
    "-n --target-is-zero -S 0 -f raw -O qcow2 src new",
  ],
  TARGETS,
  ["new"],
);
converts("into a file that reads as zeros", ["-n --target-is-zero -f raw src zeros"], TARGETS, [
  "zeros",
]);
same("convert, compressed into clusters that hold data", {
  given: TARGETS,
  run: "convert -n -c -f raw -O qcow2 whole used",
  images: [{ name: "used", format: "qcow2", check: true }],
  code: 1,
});
for (const target of ["new", "over"]) {
  same(`convert, compressed into an image that is there: ${target}`, {
    given: TARGETS,
    run: `convert -n -c -f raw -O qcow2 whole ${target}`,
    images: [{ name: target, format: "qcow2", check: true }],
    code: 0,
  });
  same(`convert, a part of a cluster into the middle of a compressed image: ${target}`, {
    given: TARGETS,
    run: `convert -n -c -f raw -O qcow2 src ${target}`,
    images: [{ name: target, format: "qcow2", check: true }],
    code: 1,
  });
}
refuses("targets that are there", [
  "-n -f raw src smaller",
  "-n -f raw -O qcow2 src small",
  "-n -f raw src none",
  "-n -f raw -O qcow2 src none",
  "-n -f raw -O qcow2 src raw",
  "-n -f raw -O zork src raw",
  "-n -f raw src .",
  "-n -c -f raw src raw",
  "-n -f raw -O qcow2 src orphan",
  "-n -f raw src src",
  "-n -p -f raw src smaller",
], TARGETS);

const BASES: readonly Given[] = [
  disk("base", 4 * M, [[0, 4 * M, "mixed"]]),
  img("create -f qcow2 -b base -F raw top 5M"),
  io("top", "write -P 1 64k 100k", "write -z 1M 64k", "write -P 2 4500k 1k", "write -z 4700k 4k"),
  disk("other", 2 * M, [[0, 2 * M, "flat"]]),
  img("convert -f raw -O qcow2 base qbase"),
  img("convert -O qcow2 top flat"),
];
converts("onto a backing file", [
  "-B base -F raw -O qcow2 top b",
  "-B other -F raw -O qcow2 top b",
  "-B qbase -F qcow2 -O qcow2 top b",
  "-B base -F raw -O qcow2 flat b",
  "-B base -F raw -O qcow2 -S 0 top b",
  "-B base -F raw -O qcow2 -p top b",
  "-B base -F raw -O qcow2 -o extended_l2=on top b",
  "-B base -F raw -O qcow2 -o compat=0.10 top b",
  "-B base -F raw -O qcow2 -o cluster_size=4k top b",
  "-O qcow2 -o backing_file=base,backing_fmt=raw top b",
  "-O qcow2 -o backing_file=base -F raw top b",
  "-B ./base -F raw -O qcow2 top b",
  "-B base -F raw -O qcow2 -f raw base b",
  "-B other -F raw -O qcow2 -f raw base b",
  "-B base -F raw -O qcow2 -f raw other b",
], BASES);
packs("onto a backing file, compressed", [
  "-c -B base -F raw -O qcow2 top b",
  "-c -B other -F raw -O qcow2 -o cluster_size=4k top b",
], BASES);
converts("onto a backing file, into an image that is there", [
  "-n -B base -F raw -O qcow2 top b",
  "-n -O qcow2 top b",
], [...BASES, img("create -f qcow2 -b base -F raw b 5M")]);
converts("onto a backing file that is longer than the disk", [
  "-B base -F raw -f raw -O qcow2 short b",
  "-B base -F raw -f raw -O qcow2 -o cluster_size=4k short b",
  "-B base -F raw -f raw -O qcow2 -o extended_l2=on short b",
], [...BASES, disk("short", 100 * K + 1000, [[99 * K, 2000, "noise"]])]);
refuses("backing files", [
  "-B base -O qcow2 top b",
  "-B base -F raw top b",
  "-F raw top b",
  "-B none -F raw -O qcow2 none b",
  "-B base -F raw -O qcow2 top top b",
  "-B base -F zork -O qcow2 none b",
  "-o backing_file=base -O qcow2 top b",
  "-o backing_file= -O raw top b",
  "-F raw -O qcow2 top b",
  "-B base -F raw -o preallocation=full -O qcow2 top b",
], BASES);

refuses("command lines", [
  "-O zork src b",
  "-O host_device src b",
  "-f zork src b",
  "-f qcow2 src b",
  "src zork:b",
  "zork:src b",
  "none b",
  "-p none b",
  ". b",
  "src .",
  "src none/b",
  "-O qcow2 src none/b",
  "src none b",
  "-o zork=1 src b",
  "-o size=x src b",
  "-o preallocation=x -f raw src b",
  "-o preallocation=x -O qcow2 src b",
  "-o cluster_size=3 -O qcow2 src b",
  "-o cluster_size=512,extended_l2=on -O qcow2 src b",
  "-o compat=0.10,refcount_bits=8 -O qcow2 src b",
  "-o encrypt.format=luks -O qcow2 src b",
  "-c src b",
  "-c -O raw src b",
  "-c -o preallocation=metadata -O qcow2 src b",
  "-c -o encryption=on -O qcow2 src b",
  "-c -o compression_type=x -O qcow2 src b",
  "-f raw src src",
  "-f raw -O qcow2 src src",
  "-f raw src ./src",
  "-f raw src link",
  "-o data_file_raw=on -O qcow2 src b",
  "-o data_file=none/d -O qcow2 src b",
], [MIXED_DISK, { key: "link", make: (dir) => Deno.symlink("src", `${dir}/link`) }]);

for (const line of ["--salvage -f raw src b", "--salvage -p -O qcow2 -f raw src b"]) {
  converts("salvage without errors", [line], SOURCE);
}
same("convert, a source that probes as raw is read without a warning", {
  given: [text("a", "x".repeat(600))],
  run: "convert a b",
  files: ["b"],
  code: 0,
});
