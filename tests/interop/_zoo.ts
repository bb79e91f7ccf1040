/**
 * Images of every kind, made by the reference, for tables of commands that
 * read them. The image of each is `a`; what it refers to lies beside it.
 */

import { disk, folder, type Given, img, io, ioAs, patch } from "./_cases.ts";

const K = 1024;
const M = 1024 * K;

/** Bytes that compress and bytes that do not, zeros that were written, short and long, and holes. */
export const MIXED_DISK = disk("src", 6 * M + 512, [
  [0, 300 * K, "noise"],
  [600 * K, 200 * K, "mixed"],
  [M + 3 * 512, 512, "noise"],
  [M + 64 * K - 512, 1024, "mixed"],
  [M + 200 * K, 800 * K, "gaps"],
  [2 * M, 512 * K, "zeros"],
  [2 * M + 512 * K, 4 * K, "noise"],
  [2 * M + 600 * K, 4 * K, "zeros"],
  [2 * M + 604 * K, 256 * K + 512, "flat"],
  [4 * M - 1000, 2000, "noise"],
  [5 * M, 700 * K, "zeros"],
  [6 * M + 12, 500, "noise"],
]);

/** Standard clusters, zeros of both kinds and discarded ones. */
const UNPACKED = [
  "write -P 1 0 200k",
  "write -P 2 1M 1",
  "write -P 3 1114111 2",
  "write -z 256k 64k",
  "write -P 4 320k 128k",
  "write -z 320k 64k",
  "write -P 5 512k 128k",
  "write -z -u 512k 64k",
  "write -P 6 768k 128k",
  "discard 768k 64k",
  "write -P 10 2M 512k",
];

/** The same and compressed ones. */
const VARIED = io(
  "a",
  ...UNPACKED,
  "write -c -P 7 1280k 64k",
  "write -c -P 8 1344k 64k",
  "write -P 9 1344k 4k",
);

const make = (options: string, size = "3M") =>
  img(`create -f qcow2 ${options === "" ? "" : `-o ${options} `}a ${size}`);

const secret = "--object secret,id=s,data=x";

/** From what it is to how it is made. */
export const ZOO: Readonly<Record<string, readonly Given[]>> = {
  "raw": [MIXED_DISK, img("convert -f raw -O raw src a")],
  "raw, empty": [disk("a", 0, [])],
  "raw, a hole": [disk("a", 3 * M, [])],
  "raw, 511 bytes": [disk("a", 511, [[0, 511, "noise"]])],
  "raw, 513 bytes": [disk("a", 513, [[0, 513, "noise"]])],
  "raw, an odd size and a hole at its end": [disk("a", 70001, [[0, 4096, "noise"]])],
  "raw, 8 TiB": [disk("a", 8 * 2 ** 40, [[4 * 2 ** 40, 4096, "noise"]])],
  "qcow2, empty": [make("", "0")],
  "qcow2, nothing written": [make("")],
  "qcow2, 8 TiB": [make("", "8T"), io("a", "write -P 7 4T 4k")],
  "qcow2, an odd size": [make("", "1000"), io("a", "write -P 7 0 1024")],
  "qcow2, every kind of cluster": [make(""), VARIED],
  "qcow2, version 2": [make("compat=0.10"), VARIED],
  "qcow2, clusters of 512 bytes": [
    make("cluster_size=512"),
    ioAs(
      "qcow2",
      "a",
      "write -P 1 0 3k",
      "write -P 2 1M 1",
      "write -z 4k 2k",
      "write -P 4 8k 4k",
      "write -z 8k 1k",
      "discard 10k 512",
      "write -c -P 5 16k 512",
      "write -c -P 5 16896 512",
      "write -P 10 2M 200k",
    ),
  ],
  "qcow2, clusters of 2 MiB": [
    make("cluster_size=2M", "9M"),
    io(
      "a",
      "write -P 1 0 3M",
      "write -c -P 2 4M 2M",
      "write -z 6M 2M",
      "write -P 3 8M 1M",
    ),
  ],
  "qcow2, refcounts of 1 bit": [make("refcount_bits=1"), VARIED],
  "qcow2, refcounts of 64 bits": [make("refcount_bits=64"), VARIED],
  "qcow2, lazy refcounts": [make("lazy_refcounts=on"), VARIED],
  "qcow2, extended L2": [make("extended_l2=on"), VARIED],
  "qcow2, subclusters": [
    make("extended_l2=on,cluster_size=16k"),
    io(
      "a",
      "write -P 1 0 512",
      "write -P 2 1k 2k",
      "write -z 8k 1k",
      "write -P 3 40k 3k",
      "discard 41k 1k",
      "write -z 64k 16k",
      "write -P 4 70k 1k",
      "write -c -P 5 96k 16k",
      "write -P 6 100k 600",
      "write -P 7 1M 100k",
    ),
  ],
  "qcow2, compressed with zlib": [
    MIXED_DISK,
    img("convert -c -f raw -O qcow2 src a"),
  ],
  "qcow2, compressed with zstd": [
    MIXED_DISK,
    img("convert -c -f raw -O qcow2 -o compression_type=zstd src a"),
  ],
  "qcow2, compressed, small clusters": [
    MIXED_DISK,
    img("convert -c -f raw -O qcow2 -o cluster_size=4k src a"),
  ],
  "qcow2, compressed, clusters of 2 MiB": [
    MIXED_DISK,
    img("convert -c -f raw -O qcow2 -o cluster_size=2M src a"),
  ],
  "qcow2, metadata in advance": [make("preallocation=metadata"), io("a", ...UNPACKED)],
  "qcow2, space in advance": [make("preallocation=falloc"), io("a", ...UNPACKED)],
  "qcow2, a data file": [
    make("data_file=d"),
    io(
      "a",
      "write -P 1 0 200k",
      "write -z 256k 64k",
      "write -P 10 2M 512k",
      "write -z 2M 64k",
      "discard 2176k 64k",
    ),
  ],
  "qcow2, a raw data file": [
    make("data_file=d,data_file_raw=on"),
    io(
      "a",
      "write -P 1 0 200k",
      "write -z 256k 64k",
      "write -P 10 2M 512k",
      "write -z 2M 64k",
      "discard 2176k 64k",
    ),
  ],
  "qcow2, snapshots": [
    make(""),
    VARIED,
    img("snapshot -c one a"),
    io("a", "write -P 11 64k 64k", "write -z 2M 128k", "discard 2304k 64k"),
    img("snapshot -c two a"),
    io("a", "write -P 12 0 64k"),
  ],
  "qcow2, a bitmap": [
    make(""),
    img("bitmap --add a b0"),
    img("bitmap --add -g 64k --disable a b1"),
    VARIED,
  ],
  "qcow2, on a raw file": [
    MIXED_DISK,
    img("create -f qcow2 -b src -F raw a"),
    io("a", "write -P 1 64k 64k", "write -z 128k 64k", "write -P 2 3M 100", "discard 256k 64k"),
  ],
  "qcow2, on a shorter file": [
    disk("base", M + 512, [[0, M + 512, "mixed"]]),
    img("create -f qcow2 -b base -F raw a 3M"),
    io("a", "write -P 1 64k 64k", "write -P 2 2M 100"),
  ],
  "qcow2, on a longer file": [
    disk("base", 3 * M, [[0, 3 * M, "mixed"]]),
    img("create -f qcow2 -b base -F raw a 1M"),
    io("a", "write -P 1 64k 64k"),
  ],
  "qcow2, on three others": [
    disk("base", 2 * M, [[0, 2 * M, "mixed"]]),
    img("create -f qcow2 -b base -F raw one 4M"),
    io("one", "write -P 1 1M 64k", "write -z 192k 128k", "write -P 3 3M 64k"),
    img("create -f qcow2 -o cluster_size=4k -b one -F qcow2 two 3M"),
    io("two", "write -P 2 1028k 4k", "write -z 3068k 4k", "discard 200k 4k"),
    img("create -f qcow2 -o extended_l2=on -b two -F qcow2 a 5M"),
    io("a", "write -P 4 1036k 2k", "write -z 100k 2k", "write -P 5 4M 1k"),
  ],
  "qcow2, version 2 on another": [
    MIXED_DISK,
    img("create -f qcow2 -o compat=0.10 -b src -F raw a"),
    io("a", "write -P 1 64k 64k", "write -z 128k 64k", "discard 256k 64k"),
  ],
  "qcow2, on a file whose format is not stored": [
    img("create -f qcow2 base 2M"),
    io("base", "write -P 1 0 64k"),
    img("create -f qcow2 -u -b base -F qcow2 a 2M"),
    io("a", "write -P 1 64k 64k"),
    img("rebase -u -b base -F qcow2 a"),
  ],
  "qcow2, compressed on compressed": [
    MIXED_DISK,
    img("convert -c -f raw -O qcow2 src base"),
    img("create -f qcow2 -b base -F qcow2 a"),
    io("a", "write -c -P 1 64k 64k", "write -P 2 128k 4k"),
  ],
  "qcow2, corrupt": [make(""), VARIED, patch("a", [79, 1, 2])],
  "qcow2, not closed": [make("lazy_refcounts=on"), VARIED, patch("a", [79, 1, 1])],
  "qcow2, features that nobody knows": [make(""), VARIED, patch("a", [80, 1, 0x80], [88, 1, 0x80])],
  "qcow2, encrypted with AES": [
    img(`create ${secret} -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s a 1M`),
  ],
  "qcow2, encrypted with LUKS": [
    img(
      `create ${secret} -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 a 1M`,
    ),
  ],
  "qcow2, its backing file is missing": [img("create -f qcow2 -u -b nowhere -F raw a 1M")],
  "qcow2, its data file is missing": [
    make("data_file=d"),
    { key: "without d", make: (dir) => Deno.remove(`${dir}/d`) },
  ],
  "qcow2, in a folder with its backing file above": [
    folder("sub"),
    disk("base", M, [[0, M, "mixed"]]),
    img("create -f qcow2 -b ../base -F raw sub/a"),
    io("sub/a", "write -P 1 64k 64k"),
    img("create -f qcow2 -b sub/a -F qcow2 a"),
  ],
};
