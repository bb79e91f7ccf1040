/** `measure`: every create option that counts, for sizes and for images. */
import { disk, folder, img, same, sameForEach, text } from "./_cases.ts";
import { ZOO } from "./_zoo.ts";

const M = 1024 * 1024;

const SIZES = ["0", "1", "511", "512", "513", "65535", "65536", "65537", "1M", "10G", "1T", "8T"];

sameForEach(
  "measure, a size",
  SIZES.flatMap((size) => [
    `measure --size ${size}`,
    `measure -O qcow2 --size ${size}`,
    `measure -O qcow2 --size ${size} --output=json`,
  ]),
  { code: 0 },
);

sameForEach("measure, sizes near what overflows", [
  "measure --size 9223372036854775807",
  "measure --size 9223372036854775807 --output=json",
  "measure --size 9223372036854774784",
  "measure --size 7E",
  "measure --size 8P --output=json",
  "measure -O qcow2 --size 9223372036854775807",
  "measure -O qcow2 --size 8191P",
  "measure -O qcow2 --size 8P",
  "measure -O qcow2 -o cluster_size=2M --size 4P",
  "measure -O qcow2 -o cluster_size=2M --size 1P",
  "measure -O qcow2 -o cluster_size=512 --size 128G",
  "measure -O qcow2 -o cluster_size=512 --size 137438953473",
  "measure -O qcow2 -o cluster_size=512,extended_l2=on --size 1M",
]);

const CLUSTERS = ["512", "1k", "2k", "4k", "8k", "16k", "32k", "64k", "128k", "512k", "1M", "2M"];

sameForEach("measure, options of the target", [
  ...CLUSTERS.map((size) => `measure -O qcow2 -o cluster_size=${size} --size 5G`),
  ...CLUSTERS.slice(5).map((size) =>
    `measure -O qcow2 -o cluster_size=${size},extended_l2=on --size 5G`
  ),
  ...[1, 2, 4, 8, 16, 32, 64].map((bits) => `measure -O qcow2 -o refcount_bits=${bits} --size 5G`),
  ...["off", "metadata", "falloc", "full"].flatMap((mode) => [
    `measure -O qcow2 -o preallocation=${mode} --size 5G`,
    `measure -o preallocation=${mode} --size 5G`,
  ]),
  "measure -O qcow2 -o compat=0.10 --size 1G",
  "measure -O qcow2 -o compat=1.1 --size 1G",
  "measure -O qcow2 -o lazy_refcounts=on --size 1G",
  "measure -O qcow2 -o compression_type=zstd --size 1G",
  "measure -O qcow2 -o nocow=on --size 1G",
  "measure -O qcow2 -o data_file=d --size 1G",
  "measure -O qcow2 -o data_file=d,data_file_raw=on --size 1G",
  "measure -O qcow2 -o backing_file=b --size 1G",
  "measure -O qcow2 -o backing_file=b,backing_fmt=raw --size 1G",
  "measure -O qcow2 -o size=1M --size 1G",
  "measure -O qcow2 -o cluster_size=4k -o refcount_bits=64 --size 1G",
], { code: 0 });

sameForEach("measure refuses options", [
  "measure -O qcow2 -o compat=v3 --size 1G",
  "measure -O qcow2 -o compat=0.9 --size 1G",
  "measure -O qcow2 -o compat=0.10,refcount_bits=8 --size 1G",
  "measure -O qcow2 -o refcount_bits=3 --size 1G",
  "measure -O qcow2 -o refcount_bits=x --size 1G",
  "measure -O qcow2 -o refcount_bits=-1 --size 1G",
  "measure -O qcow2 -o cluster_size=3 --size 1G",
  "measure -O qcow2 -o cluster_size=4M --size 1G",
  "measure -O qcow2 -o cluster_size=x --size 1G",
  "measure -O qcow2 -o preallocation=x --size 1G",
  "measure -O qcow2 -o extended_l2=on,cluster_size=8k --size 1G",
  "measure -O qcow2 -o extended_l2=x --size 1G",
  "measure -O qcow2 -o zork=1 --size 1G",
  "measure -O qcow2 -o help --size 1G",
  "measure -O qcow2 -o encrypt.format=luks --size 1G",
  "measure -O qcow2 -o size=x --size 1G",
  "measure -o cluster_size=4k --size 1G",
  "measure -O zork --size 1G",
  "measure -O file --size 1G",
  "measure -O host_device --size 1G",
  "measure -O qcow2 -o size=1G",
], { code: 1 });

sameForEach("measure, an encryption that takes no space", [
  "measure -O qcow2 -o encrypt.format=aes --size 1G",
  "measure -O qcow2 -o encryption=on --size 1G",
  "measure -O qcow2 -o encrypt.format=zork --size 1G",
]);

for (
  const kind of [
    "raw",
    "raw, 513 bytes",
    "raw, an odd size and a hole at its end",
    "qcow2, every kind of cluster",
    "qcow2, subclusters",
    "qcow2, compressed with zlib",
    "qcow2, on three others",
    "qcow2, a bitmap",
    "qcow2, a raw data file",
  ]
) {
  sameForEach(`measure, ${kind}`, [
    ...["512", "4k", "2M"].map((size) => `measure -O qcow2 -o cluster_size=${size} a`),
    "measure -O qcow2 -o extended_l2=on a",
    "measure -O qcow2 -o compat=0.10 a",
    "measure -O qcow2 -o compat=0.10 --output=json a",
    "measure -O qcow2 -o preallocation=metadata a",
    "measure -O qcow2 -o preallocation=full a",
    "measure -O qcow2 -o backing_file=x a",
    "measure -O qcow2 -o size=1G a",
    "measure -f raw -O qcow2 a",
    "measure -U a --output=json",
    "measure -O raw -o size=9G a",
  ], { given: ZOO[kind]! });
}

sameForEach("measure refuses images", [
  "measure none",
  "measure .",
  "measure -f zork a",
  "measure -f qcow2 a",
  "measure -O qcow2 over",
  "measure -O zork a",
  "measure -O zork none",
  "measure -O qcow2 -o zork=1 none",
  "measure a a",
  "measure",
], { given: [text("a", "x"), img("create -f qcow2 -u -b none -F raw over 1M")], code: 1 });

same("measure, an image beside a folder of its name", {
  given: [folder("sub"), disk("sub/a", M, [[0, 4096, "noise"]])],
  run: "measure -O qcow2 sub/a",
});
