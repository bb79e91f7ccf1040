/** Lives of images with snapshots: after every step the files of both tools are equal byte for byte. */
import { img, io } from "./_cases.ts";
import { type Event, guest, story } from "./_stories.ts";
import { ZOO } from "./_zoo.ts";

/** Makes three snapshots of different content, goes back and forth, and deletes them in another order. */
const LIFE: readonly Event[] = [
  "snapshot -c one a",
  ...guest("a", "write -P 21 100k 150k", "write -z 1M 64k"),
  "snapshot -c two a",
  ...guest("a", "write -P 22 0 64k", "discard 128k 64k", "write -P 23 2500k 100k"),
  "snapshot -l a",
  "snapshot -c three a",
  "snapshot -a one a",
  ...guest("a", "write -P 24 160k 100k"),
  "snapshot -a 3 a",
  "snapshot -d two a",
  ...guest("a", "write -P 25 1M 10k"),
  "snapshot -c four a",
  "snapshot -a one a",
  "snapshot -d one a",
  "snapshot -d four a",
  "snapshot -d three a",
  ...guest("a", "write -P 26 1M 300k"),
  "snapshot -l a",
];

for (
  const kind of [
    "qcow2, nothing written",
    "qcow2, every kind of cluster",
    "qcow2, version 2",
    "qcow2, clusters of 2 MiB",
    "qcow2, refcounts of 64 bits",
    "qcow2, lazy refcounts",
    "qcow2, extended L2",
    "qcow2, subclusters",
    "qcow2, compressed with zlib",
    "qcow2, compressed with zstd",
    "qcow2, compressed, small clusters",
    "qcow2, compressed, clusters of 2 MiB",
    "qcow2, metadata in advance",
    "qcow2, space in advance",
    "qcow2, snapshots",
    "qcow2, on a raw file",
    "qcow2, on three others",
    "qcow2, compressed on compressed",
    "qcow2, features that nobody knows",
  ]
) story(`snapshot, a life: ${kind}`, { given: ZOO[kind]!, events: LIFE });

// Where the content of several sectors of the L1 table changes, the reference overwrites one after the other.
story("snapshot, a life: qcow2, clusters of 512 bytes", {
  given: ZOO["qcow2, clusters of 512 bytes"]!,
  events: LIFE,
  otherBytes: true,
});

const WRITTEN = io("a", "write -P 1 0 1M", "write -z 256k 64k", "write -P 2 2M 100k");

for (const bits of [4, 8, 32]) {
  for (const cluster of ["512", "4k", "64k"]) {
    story(`snapshot, a life: refcounts of ${bits} bits, clusters of ${cluster}`, {
      given: [
        img(`create -f qcow2 -o refcount_bits=${bits},cluster_size=${cluster} a 3M`),
        WRITTEN,
      ],
      events: LIFE,
      otherBytes: cluster === "512",
    });
  }
}
