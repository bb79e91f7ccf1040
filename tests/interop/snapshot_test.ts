/** `snapshot`: names, ids, states of machines, tables of others, and what is refused. */
import { disk, type Given, img, io, patch, same, sameForEach } from "./_cases.ts";
import { type Event, guest, story } from "./_stories.ts";
import { ZOO } from "./_zoo.ts";

const K = 1024;
const M = 1024 * K;

story("snapshot, an empty disk", {
  given: ZOO["qcow2, empty"]!,
  events: ["snapshot -c one a", "snapshot -l a", "snapshot -a one a", "snapshot -d one a"],
});
story("snapshot, a disk whose L1 table has many sectors", {
  given: [
    img("create -f qcow2 -o cluster_size=512 a 8M"),
    io("a", "write -P 1 0 100k", "write -P 2 3M 50k", "write -P 3 7M 1M"),
  ],
  events: [
    "snapshot -c one a",
    ...guest("a", "write -P 4 3M 20k"),
    "snapshot -c two a",
    "snapshot -a one a",
    "snapshot -d one a",
    "snapshot -d two a",
  ],
});
story("snapshot -a, where many sectors of the L1 table change", {
  given: [
    img("create -f qcow2 -o cluster_size=512 a 8M"),
    io("a", "write -P 1 0 100k", "write -P 2 3M 50k", "write -P 3 7M 1M"),
  ],
  events: [
    "snapshot -c one a",
    ...guest("a", "write -P 4 0 8M"),
    "snapshot -c two a",
    "snapshot -a one a",
    "snapshot -a two a",
    "snapshot -d one a",
    "snapshot -a two a",
    "snapshot -d two a",
  ],
  otherBytes: true,
});

// `write -b` goes behind the disk, where the state of a machine is kept.
const MACHINE: readonly Event[] = [
  ...guest("a", "write -b -P 7 0 150k", "write -P 2 0 10k"),
  "snapshot -c one a",
  ...guest("a", "write -b -P 8 64k 150k", "write -P 3 5k 10k"),
  "snapshot -c two a",
  "snapshot -a one a",
  "snapshot -d two a",
  "snapshot -a one a",
  "snapshot -d one a",
];
for (const options of ["cluster_size=64k", "cluster_size=4k", "compat=0.10", "extended_l2=on"]) {
  story(`snapshot, the state of a machine (${options})`, {
    given: [img(`create -f qcow2 -o ${options} a 1M`), io("a", "write -P 1 0 300k")],
    events: MACHINE,
  });
}

/** Offset of the snapshot table of the image that `machineImage` makes, found by its own rules. */
const TABLED: readonly Given[] = [
  img("create -f qcow2 -o cluster_size=4k a 1M"),
  io("a", "write -P 1 0 8k"),
  img("snapshot -c one a"),
];
const TABLE = 0x8000;
/** Dates, clock, VM state and instruction counts that `qemu-img` never writes itself. */
const DATED = patch(
  "a",
  [TABLE + 16, 4, 1700000000],
  [TABLE + 20, 4, 123456789],
  [TABLE + 24, 8, 123_456_789_012_345n],
  [TABLE + 32, 4, 1 << 20],
  [TABLE + 40, 8, 3n << 32n],
  [TABLE + 56, 8, 123456789],
);
sameForEach("snapshot with the state of a machine", ["snapshot -l a", "info a", "snapshot a"], {
  given: [...TABLED, DATED],
});
sameForEach("snapshot without an instruction count", ["snapshot -l a", "info --output=json a"], {
  given: [...TABLED, DATED, patch("a", [TABLE + 56, 8, 2n ** 64n - 1n])],
});
story("snapshot, what others say of theirs is kept", {
  given: [...TABLED, DATED],
  events: [
    "snapshot -c two a",
    ...guest("a", "write -P 2 0 4k"),
    "snapshot -l a",
    "snapshot -a one a",
    "snapshot -d two a",
    "snapshot -l a",
  ],
});

/** A table with one entry whose extra data, id and name are given. */
function tableEntry(extra: readonly number[], id: string, name: string): Given {
  return {
    key: `entry ${JSON.stringify([extra, id, name])}`,
    make(dir) {
      using file = Deno.openSync(`${dir}/a`, { read: true, write: true });
      const bytes = new Uint8Array(4096);
      const view = new DataView(bytes.buffer);
      view.setBigUint64(0, 0x7000n);
      view.setUint32(8, 1);
      view.setUint16(12, id.length);
      view.setUint16(14, name.length);
      view.setUint32(36, extra.length);
      bytes.set(extra, 40);
      bytes.set(new TextEncoder().encode(id + name), 40 + extra.length);
      file.seekSync(TABLE, Deno.SeekMode.Start);
      file.writeSync(bytes);
    },
  };
}

const SIZE_1M = [0, 0, 0, 0, 0, 0x10, 0, 0];
const NO_STATE = [0, 0, 0, 0, 0, 0, 0, 0];
const EXTRAS: Readonly<Record<string, readonly number[]>> = {
  "no extra data": [],
  "a part of the extra data": NO_STATE,
  "16 bytes of extra data": [...NO_STATE, ...SIZE_1M],
  "17 bytes of extra data": [...NO_STATE, ...SIZE_1M, 9],
  "unknown extra data": [...NO_STATE, ...SIZE_1M, ...NO_STATE, 1, 2, 3, 4, 5],
  "1024 bytes of extra data": [
    ...NO_STATE,
    ...SIZE_1M,
    ...NO_STATE,
    ...Array.from({ length: 1000 }, (_, i) => i % 251),
  ],
};
for (const [name, extra] of Object.entries(EXTRAS)) {
  story(`snapshot, ${name}`, {
    given: [...TABLED, tableEntry(extra, "1", "one")],
    events: ["snapshot -l a", "snapshot -c two a", "snapshot -a 1 a", "snapshot -d two a"],
    // Checks want the size of the disk there.
    unsound: extra.length < 16,
  });
}
for (
  const id of ["7", "007", "12abc", "abc", "-5", " 9", "+3", "18446744073709551615", "x".repeat(40)]
) {
  story(`snapshot, the next id after '${id}'`, {
    given: [...TABLED, tableEntry(EXTRAS["no extra data"]!, id, "one")],
    events: ["snapshot -c two a", "snapshot -l a", ["snapshot", "-a", id, "a"]],
  });
}

story("snapshot, ids and names", {
  given: [img("create -f qcow2 -o cluster_size=4k a 1M"), io("a", "write -P 1 0 4k")],
  events: [
    "snapshot -c 2 a",
    ...guest("a", "write -P 2 0 4k"),
    "snapshot -c one a",
    ...guest("a", "write -P 3 0 4k"),
    "snapshot -c one a",
    ...guest("a", "write -P 4 0 4k"),
    ["snapshot", "-c", "", "a"],
    "snapshot -c 1 a",
    ["snapshot", "-c", "a name with ünïcode \u{1f600}", "a"],
    ["snapshot", "-c", "x".repeat(300), "a"],
    "snapshot a",
    "snapshot -a 2 a",
    "snapshot -a one a",
    "snapshot -a 1 a",
    ["snapshot", "-a", "", "a"],
    ["snapshot", "-a", "x".repeat(300), "a"],
    ["snapshot", "-a", "x".repeat(255), "a"],
    "snapshot -d 2 a",
    "snapshot -d 2 a",
    "snapshot -d one a",
    "snapshot -l a",
    "snapshot -d one a",
    "snapshot -d one a",
    ["snapshot", "-d", "", "a"],
    ["snapshot", "-d", "", "a"],
    "snapshot -d 5 a",
    "snapshot -c last a",
    "snapshot --list a",
  ],
});

story("snapshot -c, a name that is cut in the middle of a character", {
  given: [img("create -f qcow2 -o cluster_size=4k a 1M")],
  events: [["snapshot", "-c", "é".repeat(200), "a"]],
});

const PLAIN: readonly Given[] = [
  img("create -f qcow2 a 1M"),
  io("a", "write -P 1 0 100k"),
  img("snapshot -c one a"),
  patchedDate(),
  disk("r", M, [[0, 300 * K, "noise"]]),
];

function patchedDate(): Given {
  return patch("a", [0x80000 + 16, 8, 0]);
}

sameForEach("snapshot", [
  "snapshot",
  "snapshot -l",
  "snapshot -a",
  "snapshot -a one",
  "snapshot -c",
  "snapshot -d",
  "snapshot a a",
  "snapshot -l a a",
  "snapshot -l -l a",
  "snapshot -l -l --zork a",
  "snapshot -c x -l -a",
  "snapshot -c x -c",
  "snapshot -l -c x a",
  "snapshot -c x -c y a",
  "snapshot -a one -d one a",
  "snapshot -d one a -l",
  "snapshot -a -l a",
  "snapshot -a zork a",
  "snapshot -d zork a",
  "snapshot -d 1 a",
  "snapshot -z a",
  "snapshot --zork a",
  "snapshot --list=x a",
  "snapshot -U -c x a",
  "snapshot -U -a one a",
  "snapshot -U -d one a",
  "snapshot -f raw -c x a",
  "snapshot -f raw -a one a",
  "snapshot -f raw -d one a",
  "snapshot -f raw -l a",
  "snapshot -c x r",
  "snapshot -d x r",
  "snapshot -f zork -l a",
  "snapshot -f qcow2 -l r",
  "snapshot -l none",
  "snapshot -c x none",
  "snapshot -a x none",
  "snapshot -d x none",
  "snapshot -l .",
], { given: PLAIN, files: ["a", "r"] });
sameForEach("snapshot", [
  "snapshot a",
  "snapshot -l a",
  "snapshot --list a",
  "snapshot -q a",
  "snapshot -q -l a",
  "snapshot -U a",
  "snapshot -U -q --list a",
  "snapshot -f qcow2 a",
  "snapshot -fqcow2 -l a",
  "snapshot r",
], { given: PLAIN, code: 0, files: ["a"] });

// The reference leaves what it has counted by then.
for (const bits of [1, 2]) {
  const given = [
    img(`create -f qcow2 -o refcount_bits=${bits},cluster_size=4k a 1M`),
    io("a", "write -P 1 0 100k", "write -c -P 2 200k 4k"),
    ...bits === 1 ? [] : [img("snapshot -c one a"), img("snapshot -c two a")],
  ];
  const images = [{ name: "a", format: "qcow2", check: true }];
  same(`snapshot -c, where ${bits} bits cannot count another reference`, {
    given,
    run: "snapshot -c more a",
    images,
    code: 1,
  });
  if (bits === 1) continue;
  same(`snapshot -a, where ${bits} bits cannot count another reference`, {
    given: [...given, io("a", "write -P 3 0 1M")],
    run: "snapshot -a two a",
    images,
    code: 0,
  });
}

for (const kind of ["qcow2, a data file", "qcow2, a raw data file"]) {
  sameForEach(`snapshot, ${kind}`, [
    "snapshot -l a",
    "snapshot -c one a",
    "snapshot -a one a",
    "snapshot -d one a",
    "convert -l one -O raw a b",
    "convert -l snapshot.id=1 -O raw a b",
  ], { given: ZOO[kind]!, files: ["a", "d"] });
}
sameForEach("snapshot, a bitmap", [
  "snapshot -l a",
  "snapshot -a one a",
  "snapshot -a zork a",
  "snapshot -d zork a",
], { given: [...ZOO["qcow2, a bitmap"]!], files: ["a"] });
story("snapshot, bitmaps", {
  given: ZOO["qcow2, a bitmap"]!,
  events: [
    "snapshot -c one a",
    ...guest("a", "write -P 1 0 100k"),
    "snapshot -c two a",
    ["snapshot", "-d", "one", "a"],
    "snapshot -l a",
  ],
});
sameForEach("snapshot refuses", ["snapshot -c x a", "snapshot -a x a", "snapshot -d x a"], {
  given: ZOO["qcow2, corrupt"]!,
  files: ["a"],
  code: 1,
});
sameForEach("snapshot without a backing file", ["snapshot -l a", "snapshot -c x a"], {
  given: ZOO["qcow2, its backing file is missing"]!,
  files: ["a"],
  code: 1,
});

const L1_OFFSET = TABLE;
const L1_SIZE = TABLE + 8;
const DISK_SIZE = TABLE + 48;
/** What a table may say that no snapshot has. */
const DAMAGES: Readonly<Record<string, Given>> = {
  "an L1 table that is not aligned": patch("a", [L1_OFFSET, 8, 0x7200]),
  "an L1 table beyond all files": patch("a", [L1_OFFSET, 8, (1n << 63n) - 4096n]),
  "an L1 table that is too large": patch("a", [L1_SIZE, 4, 4194305]),
  "an L1 table behind the end of the file": patch("a", [L1_OFFSET, 8, 0x100000]),
  "a disk of an odd size": patch("a", [DISK_SIZE, 8, 1000]),
  "an L2 table that is not aligned": patch("a", [0x7000, 8, 0x8000000000004200n]),
};
for (const [name, damage] of Object.entries(DAMAGES)) {
  sameForEach(
    `snapshot, ${name}`,
    [
      "snapshot -l a",
      "snapshot -a one a",
      "snapshot -d one a",
      "convert -l one -O raw a b",
      "measure -l one -O qcow2 a",
    ].filter((line) => !(name.includes("L2") && line.startsWith("convert"))),
    { given: [...TABLED, patch("a", [TABLE + 16, 8, 0]), damage] },
  );
}
same("convert -l, an L2 table that is not aligned", {
  given: [...TABLED, DAMAGES["an L2 table that is not aligned"]!],
  run: "convert -l one -O raw a b",
  code: 1,
  leftByReference: ["b"],
});
sameForEach("snapshot, a version 2 disk of another size", ["snapshot -a one a"], {
  given: [
    img("create -f qcow2 -o compat=0.10,cluster_size=4k a 1M"),
    io("a", "write -P 1 0 8k"),
    img("snapshot -c one a"),
    patch("a", [DISK_SIZE, 8, 2 * M]),
  ],
  files: ["a"],
  code: 1,
});

const SELECTED: readonly Given[] = [
  img("create -f qcow2 -o cluster_size=4k a 1M"),
  io("a", "write -P 1 0 300k", "write -c -P 5 400k 4k"),
  img("snapshot -c one a"),
  io("a", "write -P 2 100k 300k", "write -z 0 8k"),
  img("snapshot -c 1 a"),
  img("resize -q a 2M"),
  io("a", "write -P 3 1M 300k"),
  img("snapshot -c three a"),
  img("resize -q --shrink a 512k"),
  io("a", "write -P 4 0 512k"),
  disk("r", M, [[0, 300 * K, "noise"]]),
];
sameForEach(
  "convert -l",
  [
    "one",
    "1",
    "2",
    "three",
    "snapshot.id=1",
    "snapshot.name=1",
    "snapshot.name=three",
    "snapshot.id=2,snapshot.name=1",
    "snapshot.name=one,snapshot.name=three",
    "snapshot.name=one,id=x",
  ].flatMap((which) => [
    `convert -l ${which} -O raw a b`,
    `convert -l ${which} -O qcow2 -S 64k a b`,
    `convert --snapshot ${which} -c -O qcow2 a b`,
  ]),
  { given: SELECTED, images: ["b"], code: 0 },
);
sameForEach("convert -l", [
  "convert -l snapshot.id=1 a a b",
  "convert -l snapshot.id=1 -l zork a b",
  "convert -l zork -l snapshot.id=1 a b",
  "convert -l zork -l one a b",
  "convert -U -l one a b",
], { given: SELECTED, files: ["b"], code: 0 });
sameForEach("convert -l refuses", [
  "convert -l zork a b",
  "convert -l 9 a b",
  "convert -l snapshot.id=2,snapshot.name=one a b",
  "convert -l snapshot.id=one a b",
  "convert -l snapshot.id=,snapshot.name=one a b",
  "convert -l snapshot a b",
  "convert -l snapshot. a b",
  "convert -l snapshot.id a b",
  "convert -l snapshot.noid a b",
  "convert -l snapshot.foo=1 a b",
  "convert -l snapshot.id=1,foo=2 a b",
  "convert -l snapshot.id=1,nofoo a b",
  "convert -l snapshot.id=1,help a b",
  "convert -l snapshot.id=1,? a b",
  "convert -l one a a b",
  "convert -l one a",
  "convert -l",
  "convert -l one -f raw a b",
  "convert -l one r b",
  "convert -l zork -f raw -O zork a b",
  "convert -l zork -O zork a b",
  "convert -l one -O zork a b",
], { given: SELECTED, code: 1 });
sameForEach("measure -l", [
  ...["one", "1", "2", "three", "snapshot.name=1", "snapshot.id=3,snapshot.name=three"].flatMap(
    (which) => [
      `measure -l ${which} -O raw a`,
      `measure --snapshot ${which} -O qcow2 -o cluster_size=4k a`,
    ],
  ),
  "measure -l snapshot.id=1 -l zork a",
], { given: SELECTED, code: 0 });
sameForEach("measure -l refuses", [
  "measure -l zork -O qcow2 a",
  "measure -l zork -O zork a",
  "measure -l one -O zork a",
  "measure -l one -f raw a",
  "measure -l snapshot.foo=1 a",
  "measure -l one --size 1M",
  "measure -l one",
], { given: SELECTED, code: 1 });

// What an option list opens: the snapshots of the disk below are those of the raw one above it.
const ABOVE = "driver=raw,file.driver=qcow2,file.file.filename=a";
story("snapshot, of a disk below another", {
  given: [img("create -f qcow2 -o cluster_size=4k a 1M"), io("a", "write -P 1 0 300k")],
  events: [
    `snapshot --image-opts -c one ${ABOVE}`,
    ...guest("a", "write -P 2 0 100k"),
    `snapshot --image-opts -c two ${ABOVE}`,
    `snapshot --image-opts -l ${ABOVE}`,
    `snapshot --image-opts ${ABOVE}`,
    `snapshot --image-opts -a one ${ABOVE}`,
    `snapshot --image-opts -d one ${ABOVE}`,
    `snapshot --image-opts -d zork ${ABOVE}`,
    `convert --image-opts -l two -O raw ${ABOVE} b`,
    "snapshot --image-opts -f qcow2 -l file.filename=a",
    "snapshot --image-opts -l a",
    'snapshot -l json:{"driver":"qcow2","file":{"filename":"a"}}',
  ],
});
for (const format of ["luks,encrypt.iter-time=10", "aes"]) {
  const OPENED = "driver=qcow2,encrypt.key-secret=s,file.filename=a";
  const encrypted = [
    img([
      ...["create", "-q", "--object", "secret,id=s,data=x", "-f", "qcow2"],
      ...["-o", `cluster_size=4k,encrypt.format=${format},encrypt.key-secret=s`, "a", "1M"],
    ]),
    img("convert -n --object secret,id=s,data=x --target-image-opts src " + OPENED),
  ];
  const secret = "--object secret,id=s,data=x --image-opts";
  story(`snapshot, an encrypted disk (${format})`, {
    given: [disk("src", M, [[0, 300 * K, "noise"]]), ...encrypted],
    checked: `${secret} ${OPENED}`,
    events: [
      `snapshot ${secret} -c one ${OPENED}`,
      `snapshot ${secret} -c two ${OPENED}`,
      `snapshot ${secret} -l ${OPENED}`,
      `snapshot ${secret} -a one ${OPENED}`,
      `snapshot ${secret} -d one ${OPENED}`,
      "snapshot -l a",
      "snapshot -c x a",
    ],
  });
}
sameForEach("info of a data file's image that says that it has snapshots", [
  "info a",
  "info --output=json a",
  "snapshot -l a",
], {
  given: [
    ...TABLED,
    patch("a", [79, 1, 4]),
    { key: "a data file", make: (dir) => Deno.truncate(`${dir}/a`, 0x9000) },
  ],
});
