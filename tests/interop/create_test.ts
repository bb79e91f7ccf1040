/** `create`: what both tools print, and files that are equal byte for byte. */
import { disk, folder, type Given, img, same, sameForEach } from "./_cases.ts";

const K = 1024;
const M = 1024 * K;

/** Makes `a`, which must have the same bytes and take the same space afterwards. */
function creates(
  about: string,
  lines: readonly string[],
  given: readonly Given[] = [],
  files: readonly string[] = ["a"],
): void {
  sameForEach(`create, ${about}`, lines.map((line) => `create ${line}`), { given, files, code: 0 });
}

/** Fails, and leaves nothing new. */
function refuses(about: string, lines: readonly string[], given: readonly Given[] = []): void {
  sameForEach(`create refuses ${about}`, lines.map((line) => `create ${line}`), {
    given,
    code: 1,
  });
}

const SIZES = ["0", "1", "511", "512", "513", "1000", "65535", "65537", "1M", "1G", "1T", "8T"];

creates("raw sizes", SIZES.map((size) => `a ${size}`));
creates("raw sizes in words", [
  "a 1k",
  "a 1K",
  "a 0x200",
  "a 1.5k",
  "a .5M",
  "a +1M",
  "a 08",
  "-o size=1M a",
  "-o size=1M,size=2M a",
  "-o size=1M -o size=3M a",
  "-f raw -q a 1M",
  "a 1b",
]);
creates("raw preallocation", [
  "-o preallocation=off a 3M",
  "-o preallocation=falloc a 3M",
  "-o preallocation=full a 3M",
  "-o preallocation=full a 0",
  "-o preallocation=falloc a 1000",
  "-o preallocation=full a 1000",
  "-o nocow=on a 1M",
  "-o nocow=off a 1M",
  "-o nonocow a 1M",
]);
creates("a name with a protocol", ["file:a 1M"]);
creates("a bare file", [
  "-f file a 1M",
  "-f file file:a 1000",
  "-f file -o preallocation=full,nocow=on a 1M",
]);
for (
  const line of [
    // Below 2^63 - 1 it depends on the file system.
    "a 9223372036854775807",
    "-o size=8E a",
    "-o preallocation=metadata a 1M",
  ]
) {
  same(`create, raw, leaves nothing of what cannot be: create ${line}`, {
    run: `create ${line}`,
    leftByReference: ["a"],
    code: 1,
  });
}
same("create, raw, leaves an empty file where one was", {
  given: [disk("a", M, [[0, M, "noise"]])],
  run: "create a 9223372036854775807",
  files: ["a"],
  code: 1,
});
creates("over what is there", ["a 1M", "-f qcow2 a 1M"], [
  disk("a", 3 * M, [[0, M, "noise"]]),
]);

creates("qcow2 sizes", SIZES.map((size) => `-f qcow2 a ${size}`));
creates("qcow2 sizes near the most for a cluster size", [
  "-f qcow2 -o cluster_size=512 a 128G",
  "-f qcow2 -o cluster_size=1k a 512G",
  "-f qcow2 -o cluster_size=4k a 8T",
  "-f qcow2 -o cluster_size=2M a 1P",
]);
refuses("qcow2 sizes too large for a cluster size", [
  "-f qcow2 -o cluster_size=512 a 128G1",
  "-f qcow2 -o cluster_size=512 a 137438953473",
  "-f qcow2 -o cluster_size=512 a 1T",
  "-f qcow2 -o cluster_size=1k a 549755813889",
  "-f qcow2 -o cluster_size=2M,size=8E a",
  "-f qcow2 a 8191P",
  "-f qcow2 a 9223372036854775807",
  "-f qcow2 a 9223372036854774784",
  "-f qcow2 -o size=9223372035781033984 a",
  "-f qcow2 -o size=9223372035781033985 a",
  "-f qcow2 -o size=18446744073709551615 a",
]);

const CLUSTER_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072, 262144, 524288];
const LARGE_CLUSTERS = ["1M", "2M"];
const ALL_CLUSTERS = [...CLUSTER_SIZES, ...LARGE_CLUSTERS];

creates("every cluster size", ALL_CLUSTERS.map((size) => `-f qcow2 -o cluster_size=${size} a 5M`));
creates(
  "every cluster size, all metadata",
  ALL_CLUSTERS.map((size) => `-f qcow2 -o cluster_size=${size},preallocation=metadata a 5M`),
);
refuses("cluster sizes", [
  ...[0, 1, 256, 511, 513, 65537, 3 * K, 4 * M, "3M", "2049k"].map((size) =>
    `-f qcow2 -o cluster_size=${size} a 1M`
  ),
  "-f qcow2 -o cluster_size=x a 1M",
  "-f qcow2 -o cluster_size=-1 a 1M",
  "-f qcow2 -o cluster_size=16E a 1M",
  "-f qcow2 -o cluster_size= a 1M",
  "-f qcow2 -o cluster_size a 1M",
]);

const REFCOUNT_BITS = [1, 2, 4, 8, 16, 32, 64];

creates(
  "every refcount width",
  REFCOUNT_BITS.flatMap((bits) => [
    `-f qcow2 -o refcount_bits=${bits} a 1M`,
    `-f qcow2 -o refcount_bits=${bits},cluster_size=512,preallocation=metadata a 1M`,
    `-f qcow2 -o refcount_bits=${bits},preallocation=metadata a 1G`,
  ]).concat(["+16", "0x10", "020"].map((bits) => `-f qcow2 -o refcount_bits=${bits} a 1M`)),
);
refuses("refcount widths", [
  ...[0, 3, 12, 65, 128, -1, "x", "1k", ""].map((bits) => `-f qcow2 -o refcount_bits=${bits} a 1M`),
  "-f qcow2 -o refcount_bits=8,compat=0.10 a 1M",
  "-f qcow2 -o refcount_bits=-18446744073709551600 a 1M",
  "-f qcow2 -o refcount_bits=4294967312 a 1M",
  "-f qcow2 -o refcount_bits=99999999999999999999 a 1M",
]);

creates("compat", [
  "-f qcow2 -o compat=0.10 a 1M",
  "-f qcow2 -o compat=v2 a 1M",
  "-f qcow2 -o compat=1.1 a 1M",
  "-f qcow2 -o compat=v3 a 1M",
  "-f qcow2 -o compat=0.10,refcount_bits=16 a 1M",
  "-f qcow2 -o compat=0.10,preallocation=metadata a 1M",
  "-f qcow2 -o compat=0.10,lazy_refcounts=off,extended_l2=off,compression_type=zlib a 1M",
]);
refuses("what version 2 does not have, and other versions", [
  "-f qcow2 -o compat=0.10,lazy_refcounts=on a 1M",
  "-f qcow2 -o compat=0.10,extended_l2=on a 1M",
  "-f qcow2 -o compat=0.10,compression_type=zstd a 1M",
  "-f qcow2 -o compat=0.10,data_file=d a 1M",
  "-f qcow2 -o compat=1.0 a 1M",
  "-f qcow2 -o compat=v4 a 1M",
  "-f qcow2 -o compat= a 1M",
]);

creates("lazy refcounts, in every spelling of a switch", [
  ...["on", "yes", "true", "y", "off", "no", "false", "n"].map((value) =>
    `-f qcow2 -o lazy_refcounts=${value} a 1M`
  ),
  "-f qcow2 -o lazy_refcounts a 1M",
  "-f qcow2 -o nolazy_refcounts a 1M",
]);
refuses("what is no switch", [
  "-f qcow2 -o lazy_refcounts=1 a 1M",
  "-f qcow2 -o lazy_refcounts=ON a 1M",
  "-f qcow2 -o lazy_refcounts= a 1M",
  "-f qcow2 -o extended_l2=maybe a 1M",
  "-f qcow2 -o nocow=x a 1M",
  "-f qcow2 -o data_file_raw=x,data_file=d a 1M",
]);

creates("extended L2 entries", [
  "-f qcow2 -o extended_l2=on a 1M",
  "-f qcow2 -o extended_l2=on a 1G",
  "-f qcow2 -o extended_l2=on,cluster_size=16k a 1M",
  "-f qcow2 -o extended_l2=on,cluster_size=16k,preallocation=metadata a 100M",
  "-f qcow2 -o extended_l2=on,cluster_size=2M,preallocation=metadata a 100M",
  "-f qcow2 -o extended_l2=on,preallocation=falloc a 1000",
]);
refuses("extended L2 entries in small clusters", [
  "-f qcow2 -o extended_l2=on,cluster_size=8k a 1M",
  "-f qcow2 -o extended_l2=on,cluster_size=512 a 1M",
]);

creates("compression types", [
  "-f qcow2 -o compression_type=zlib a 1M",
  "-f qcow2 -o compression_type=zstd a 1M",
]);
refuses("compression types", [
  "-f qcow2 -o compression_type=lz4 a 1M",
  "-f qcow2 -o compression_type= a 1M",
]);

creates("qcow2 preallocation", [
  ...["off", "metadata", "falloc", "full"].flatMap((mode) => [
    `-f qcow2 -o preallocation=${mode} a 0`,
    `-f qcow2 -o preallocation=${mode} a 1000`,
    `-f qcow2 -o preallocation=${mode} a 3M`,
    `-f qcow2 -o preallocation=${mode},cluster_size=512 a 300k`,
    `-f qcow2 -o preallocation=${mode},cluster_size=2M a 5M`,
    `-f qcow2 -o preallocation=${mode},lazy_refcounts=on a 1M`,
  ]),
  "-f qcow2 -o preallocation=metadata a 100G",
  "-f qcow2 -o preallocation=metadata,refcount_bits=64,cluster_size=4k a 1G",
]);
refuses("preallocation modes", [
  "-f qcow2 -o preallocation=x a 1M",
  "-f qcow2 -o preallocation= a 1M",
  "-o preallocation=x a 1M",
]);

creates(
  "an external data file",
  [
    "-f qcow2 -o data_file=d a 1M",
    "-f qcow2 -o data_file=d,data_file_raw=on a 1M",
    "-f qcow2 -o data_file=d,data_file_raw=off a 1M",
    "-f qcow2 -o data_file=d,preallocation=metadata a 1M",
    "-f qcow2 -o data_file=d,preallocation=falloc a 1M",
    "-f qcow2 -o data_file=d,preallocation=full a 1M",
    "-f qcow2 -o data_file=d,data_file_raw=on,preallocation=metadata a 1M",
    "-f qcow2 -o data_file=d,extended_l2=on a 1M",
    "-f qcow2 -o data_file=d a 1000",
  ],
  [],
  ["a", "d"],
);
creates("a data file that is there", ["-f qcow2 -o data_file=d,data_file_raw=on a 1M"], [
  disk("d", 2 * M, [[0, M, "noise"]]),
], ["a", "d"]);
creates("a data file elsewhere", ["-f qcow2 -o data_file=sub/d a 1M"], [folder("sub")], [
  "a",
  "sub/d",
]);
refuses("data files", [
  "-f qcow2 -o data_file_raw=on a 1M",
  "-f qcow2 -o data_file=none/d a 1M",
  "-f qcow2 -o data_file=sub a 1M",
  "-f qcow2 -o data_file=d,data_file_raw=on -b base -F raw a 1M",
  "-f qcow2 -o data_file=zork:d a 1M",
], [folder("sub"), disk("base", M, [])]);

const BASES = [
  disk("base.raw", 3 * M + 512, [[0, 64 * K, "noise"]]),
  img("create -f qcow2 base.qcow2 5M"),
  img("create -f qcow2 -b base.qcow2 -F qcow2 middle.qcow2 1M"),
  folder("sub"),
  img("create -f raw sub/base.raw 1M"),
];
creates("a backing file", [
  "-f qcow2 -b base.raw -F raw a",
  "-f qcow2 -b base.qcow2 -F qcow2 a",
  "-f qcow2 -b base.qcow2 -F raw a",
  "-f qcow2 -b middle.qcow2 -F qcow2 a",
  "-f qcow2 -b base.raw -F raw a 1M",
  "-f qcow2 -b base.raw -F raw a 9M",
  "-f qcow2 -b base.raw -F raw a 0",
  "-f qcow2 -b ./base.raw -F raw a",
  "-f qcow2 -b sub/../base.raw -F raw a",
  "-f qcow2 -b file:base.raw -F raw a",
  "-f qcow2 -o backing_file=base.raw,backing_fmt=raw a",
  "-f qcow2 -o backing_file=base.raw -F raw a",
  "-f qcow2 -o backing_file=base.qcow2 -b base.raw -F raw a",
  "-f qcow2 -o compat=0.10 -b base.raw -F raw a",
  "-f qcow2 -o cluster_size=512 -b base.raw -F raw a",
  "-f qcow2 -o cluster_size=2M -b base.raw -F raw a",
  "-f qcow2 -o extended_l2=on -b base.raw -F raw a",
  "-f qcow2 -o extended_l2=on,preallocation=metadata -b base.raw -F raw a",
  "-f qcow2 -o data_file=d -b base.raw -F raw a",
  "-f qcow2 -u -b nowhere -F raw a 1M",
  "-f qcow2 -u -b base.raw -F qcow2 a 1M",
  "-f qcow2 -u a 1M",
  "-u a 1M",
], BASES);
creates(
  "a backing file in the folder of the image",
  [
    "-f qcow2 -b base.raw -F raw sub/a",
    "-f qcow2 -b ../base.raw -F raw sub/a",
  ],
  BASES,
  ["sub/a"],
);
refuses("backing files", [
  "-f qcow2 -b base.raw a",
  "-f qcow2 -b base.qcow2 a 1M",
  "-f qcow2 -b nowhere a",
  "-f qcow2 -b nowhere -F raw a",
  "-f qcow2 -b nowhere -F raw a 1M",
  "-f qcow2 -b nowhere -F zork a 1M",
  "-f qcow2 -b base.raw -F zork a",
  "-f qcow2 -b base.raw -F zork -u a 1M",
  "-f qcow2 -b base.raw -F qcow2 a",
  "-f qcow2 -b base.raw -u a 1M",
  "-f qcow2 -b base.raw -F raw -u a",
  "-f qcow2 -F raw a 1M",
  "-f qcow2 -b sub -F raw a",
  "-f qcow2 -b zork:x -F raw a",
  "-f qcow2 -b base.raw -F raw base.raw",
  "-f qcow2 -o backing_file= a 1M",
  "-f qcow2 -o backing_fmt=raw a 1M",
  "-f qcow2 -o preallocation=metadata -b base.raw -F raw a",
  "-f qcow2 -b base.raw -F raw -o size=1M a 1M",
  "-b base.raw -F raw a",
  "-b base.raw a",
  "-F raw a 1M",
  "-o backing_file=base.raw a 1M",
], BASES);

refuses("command lines", [
  "-f zork a 1M",
  "a",
  "-f qcow2 a",
  "-f qcow2 -o size=1M a 1M",
  "-o zork=1 a 1M",
  "-o zork a 1M",
  "-o nozork a 1M",
  "-o cluster_size=64k a 1M",
  "-o size=x a",
  "-o size=1.5 a",
  "-o size=-1 a",
  "-o size=16E a",
  "-o size=18446744073709551615 a",
  "-o size= a",
  "-o size a",
  "-o id=x,zork=1 a 1M",
  "-o extent_size_hint=x a 1M",
  "zork:a 1M",
  "none/a 1M",
  "-f qcow2 none/a 1M",
  "sub 1M",
  "-f qcow2 sub 1M",
  "sub/ 1M",
  "json:{} 1M",
  "-o preallocation=full a 8E",
  "-o nocow a 1M",
  "-f file -b x a 1M",
  "-f host_device a 1M",
  "-f qcow2 -o encrypt.format=zork a 1M",
  "-f qcow2 -o encrypt.format=luks a 1M",
  "-f qcow2 -o encrypt.format=aes a 1M",
  "-f qcow2 -o encryption=on a 1M",
  "-f qcow2 -o encrypt.format=luks,encrypt.key-secret=s a 1M",
  "-f qcow2 -o encrypt.key-secret=s a 1M",
  "-f qcow2 -o encrypt.format=luks,encrypt.iter-time=x a 1M",
  "-f qcow2 -o encrypt.format=luks,encrypt.iter-time=-1 a 1M",
  "-f qcow2 -o encrypt.format=luks,encrypt.iter-time=-18446744073709551600 a 1M",
], [folder("sub")]);
creates("an option named id, which counts for nothing", ["-o id=x a 1M", "-f qcow2 -o id=x a 1M"]);

same("create, a name with a comma is printed with two", {
  run: ["create", "-f", "qcow2", "-b", "x,y", "-F", "raw", "-u", "a", "1M"],
  files: ["a"],
  code: 0,
});
same("create, a comma inside an option's value", {
  run: ["create", "-f", "qcow2", "-o", "backing_file=x,,y,backing_fmt=raw", "-u", "a", "1M"],
  files: ["a"],
  code: 0,
});
same("create, an empty file name", { run: ["create", "", "1M"], code: 1 });
same("create, an empty protocol name", { run: ["create", "file:", "1M"], code: 1 });
same("create, an empty backing file name", {
  run: ["create", "-f", "qcow2", "-b", "", "a", "1M"],
  code: 1,
});
same("create, a backing file name as long as it may be", {
  run: ["create", "-f", "qcow2", "-u", "-b", "x".repeat(1023), "-F", "raw", "a", "1M"],
  files: ["a"],
});
same("create, a backing file name that is too long", {
  run: ["create", "-f", "qcow2", "-u", "-b", "x".repeat(1024), "-F", "raw", "a", "1M"],
  code: 1,
});
same("create, no room in the header for a backing file name", {
  run: ["create", "-f", "qcow2", "-o", "cluster_size=512", "-u", "-b", "x".repeat(400)]
    .concat(["-F", "raw", "a", "1M"]),
  code: 1,
});
