/** `check`: what is found, what is repaired, and the bytes of what was repaired. */
import { disk, type Given, img, io, patch, sameForEach, text, truncate } from "./_cases.ts";
import { ZOO } from "./_zoo.ts";

const M = 1024 * 1024;

const WAYS = [
  "check a",
  "check -q a",
  "check --output=json a",
  "check -r leaks a",
  "check -r all a",
  "check -q -r all a",
  "check --output=json -r all a",
];

/** A cluster of metadata each, then eight of data from 0x50000 on; a compressed one behind them. */
const IMAGE: readonly Given[] = [
  img("create -f qcow2 a 4M"),
  io("a", "write -P 1 0 512k", "write -c -P 2 1M 64k"),
];
const REFCOUNT_TABLE = 0x10000;
const REFCOUNTS = 0x20000;
const L1 = 0x30000;
const L2 = 0x40000;
const COPIED = 1n << 63n;
const PACKED = 1n << 62n;

type Change = readonly [offset: number, size: 1 | 2 | 4 | 8, value: number | bigint];

const DAMAGES: Readonly<Record<string, readonly Change[]>> = {
  "a leaked cluster": [[REFCOUNTS + 2 * 20, 2, 1]],
  "many leaked clusters": [[REFCOUNTS + 2 * 20, 8, 0x0001000200030004n]],
  "a count that is too high": [[REFCOUNTS + 2 * 6, 2, 3]],
  "a count that is too low": [[REFCOUNTS + 2 * 6, 2, 0]],
  "no count of the header": [[REFCOUNTS, 2, 0]],
  "no count of the L1 table": [[REFCOUNTS + 2 * 3, 2, 0]],
  "no count of the L2 table": [[REFCOUNTS + 2 * 4, 2, 0]],
  "no counts at all": [[REFCOUNTS, 8, 0], [REFCOUNTS + 8, 8, 0], [REFCOUNTS + 16, 8, 0]],
  "two clusters in one place": [[L2 + 8, 8, COPIED | 0x50000n]],
  "a cluster in the place of a table": [[L2 + 8, 8, COPIED | 0x30000n]],
  "a cluster in the place of the header": [[L2 + 8, 8, COPIED | 0n]],
  "a cluster inside of another": [[L2 + 8, 8, COPIED | 0x50200n]],
  "a cluster behind the end": [[L2 + 8, 8, COPIED | 0x900000n]],
  "a cluster at the end": [[L2 + 8, 8, COPIED | 0xe0000n]],
  "a cluster far behind the end": [[L2 + 8, 8, COPIED | 1n << 50n]],
  "a cluster without its flag": [[L2 + 8, 8, 0x60000n]],
  "a flag on nothing": [[L2 + 8 * 30, 8, COPIED]],
  "zeros with a cluster": [[L2 + 8, 8, COPIED | 0x60001n]],
  "zeros with a cluster inside of another": [[L2 + 8, 8, COPIED | 0x60201n]],
  "reserved bits of an entry": [[L2 + 8, 8, COPIED | 0x60000n | 2n]],
  "a flag on a compressed cluster": [[L2 + 8 * 16, 8, COPIED | PACKED | 0xd0000n]],
  "a compressed cluster behind the end": [[L2 + 8 * 16, 8, PACKED | 0x900000n]],
  "a compressed cluster in a table": [[L2 + 8 * 16, 8, PACKED | 0x30000n]],
  "two compressed clusters in one place": [[L2 + 8 * 17, 8, PACKED | 0xd0000n]],
  "an L2 table behind the end": [[L1, 8, COPIED | 0x900000n]],
  "an L2 table inside of a cluster": [[L1, 8, COPIED | 0x40200n]],
  "an L2 table without its flag": [[L1, 8, 0x40000n]],
  "an L2 table in the place of data": [[L1, 8, COPIED | 0x50000n]],
  "an L2 table in the place of the L1 table": [[L1, 8, COPIED | 0x30000n]],
  "no L2 table": [[L1, 8, 0]],
  "reserved bits of an L1 entry": [[L1, 8, COPIED | 0x40001n]],
  "no refcount block": [[REFCOUNT_TABLE, 8, 0]],
  "a refcount block behind the end": [[REFCOUNT_TABLE, 8, 0x900000n]],
  "a refcount block inside of a cluster": [[REFCOUNT_TABLE, 8, 0x20200n]],
  "a refcount block in the place of data": [[REFCOUNT_TABLE, 8, 0x50000n]],
  "a refcount block twice": [[REFCOUNT_TABLE + 8, 8, 0x20000n]],
  "a second refcount block in the place of data": [[REFCOUNT_TABLE + 8, 8, 0x60000n]],
  "a second refcount block behind the end": [[REFCOUNT_TABLE + 8, 8, 0x900000n]],
  "a refcount table in the place of data": [[48, 8, 0x50000]],
  "an L1 table in the place of data": [[40, 8, 0x50000]],
  "no refcount table": [[56, 4, 0]],
  "a snapshot table that is not there": [[60, 4, 1], [64, 8, 0x50000]],
  "a snapshot table behind the end": [[60, 4, 1], [64, 8, 0x900000]],
  "a snapshot table inside of a cluster": [[60, 4, 1], [64, 8, 0x200]],
  "the dirty bit": [[79, 1, 1]],
  "the dirty bit and a count that is too low": [[79, 1, 1], [REFCOUNTS + 2 * 6, 2, 0]],
  "the corrupt bit": [[79, 1, 2]],
  "the corrupt bit and two clusters in one place": [[79, 1, 2], [L2 + 8, 8, COPIED | 0x50000n]],
  "an autoclear bit that nobody knows": [[88, 1, 0x80]],
};

for (const [what, changes] of Object.entries(DAMAGES)) {
  sameForEach(`check, ${what}`, WAYS, { given: [...IMAGE, patch("a", ...changes)], files: ["a"] });
}

for (const length of [0x41000, 0x50000, 0x88000, 0xd0000]) {
  sameForEach(`check, a file that ends at ${length}`, WAYS, {
    given: [...IMAGE, truncate("a", length)],
    files: ["a"],
  });
}
sameForEach("check, a file with a tail", WAYS, {
  given: [...IMAGE, truncate("a", 2 * M + 77)],
  files: ["a"],
});

for (
  const [kind, changes] of [
    ["qcow2, snapshots", [[REFCOUNTS + 2 * 5, 2, 1], [REFCOUNTS + 2 * 6, 2, 0]]],
    ["qcow2, refcounts of 1 bit", [[REFCOUNTS, 2, 0x0f]]],
    ["qcow2, refcounts of 64 bits", [[REFCOUNTS + 8 * 5, 8, 2n ** 63n]]],
    ["qcow2, version 2", [[REFCOUNTS + 2 * 6, 2, 0]]],
    ["qcow2, extended L2", [[L2 + 8, 8, 2n ** 64n - 1n], [L2 + 16 * 4 + 8, 8, 2n ** 64n - 1n]]],
    ["qcow2, clusters of 512 bytes", [[1024 + 2 * 30, 4, 0]]],
    ["qcow2, a bitmap", [[REFCOUNTS + 2 * 5, 8, 0]]],
    ["qcow2, compressed with zlib", [[REFCOUNTS + 2 * 5, 4, 0]]],
    ["qcow2, a data file", [[REFCOUNTS + 2 * 4, 4, 0], [L2 + 8, 8, COPIED | 0x20000n]]],
  ] as readonly (readonly [string, readonly Change[]])[]
) {
  sameForEach(`check, damaged: ${kind}`, WAYS, {
    given: [...ZOO[kind]!, patch("a", ...changes)],
    files: ["a"],
  });
}

for (const [kind, given] of Object.entries(ZOO)) {
  if (!kind.startsWith("qcow2")) continue;
  sameForEach(`check, ${kind}`, ["check -r leaks a", "check -r all a", "check -U a"], {
    given,
    files: ["a"],
  });
}

sameForEach(
  "check, cache modes",
  ["writeback", "none", "writethrough", "directsync", "unsafe"].flatMap((mode) => [
    `check -T ${mode} a`,
    `check -T ${mode} -r all a`,
  ]),
  { given: [...IMAGE, patch("a", [REFCOUNTS + 2 * 20, 2, 1])], files: ["a"] },
);

sameForEach("check refuses", [
  "check none",
  "check -r all none",
  "check .",
  "check -f zork a",
  "check -f qcow2 a",
  "check -r all -f qcow2 a",
  "check a",
  "check -q a",
  "check -r all -f raw a",
  "check -r all a",
  "check --output=json -f raw a",
  "check zork:a",
  "check over",
  "check -r all over",
  "check -U -r all q",
  "check -r x q",
  "check --output=xml q",
], {
  given: [
    text("a", "x"),
    img("create -f qcow2 -u -b none -F raw over 1M"),
    img("create -f qcow2 q 1M"),
    disk("base", M, []),
  ],
});
