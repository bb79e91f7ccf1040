/** Hyper-V's format through both tools. */
import { assertEquals } from "@std/assert";
import { setSum } from "../../drivers/vhdx/_layout.ts";
import { READ_ONLY } from "../../lib/block/mode.ts";
import { openImage } from "../../lib/graph/open.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import { guid, handMade, inLog, logEntry, sector } from "../drivers/vhdx/_image.ts";
import { withoutDrawn, withoutDrawnInLog } from "../drivers/vhdx/_mask.ts";
import { reference, useQimg, useReference, writeWithReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { disk, type Given, img, ioAs, same, sameForEach, truncate } from "./_cases.ts";

const [K, M] = [1024, 1024 * 1024];

const io = (image: string, ...commands: readonly string[]) => ioAs("vhdx", image, ...commands);
const create = (options: string) => img(`create -f vhdx ${options}`);
const mask = (bytes: Uint8Array, name: string) =>
  name.endsWith("vhdx") ? withoutDrawnInLog(bytes) : bytes;

/** Where the table of blocks is in images with a log of 1 MiB. */
const TABLE = 2 * M;
const METADATA = 3 * M;

/** Changes little-endian numbers, and makes the checksums right. */
function change(
  name: string,
  ...changes: readonly (readonly [offset: number, size: 1 | 2 | 4 | 8, value: number | bigint])[]
): Given {
  return {
    key: `change ${name} ${JSON.stringify(changes.map((change) => change.map(String)))}`,
    async make(dir) {
      const bytes = await Deno.readFile(`${dir}/${name}`);
      for (const [offset, size, value] of changes) {
        const number = new DataView(new ArrayBuffer(8));
        number.setBigUint64(0, BigInt(value), true);
        bytes.set(new Uint8Array(number.buffer, 0, size), offset);
      }
      for (const at of [0x10000, 0x20000]) setSum(bytes.subarray(at, at + 4096));
      for (const at of [0x30000, 0x40000]) setSum(bytes.subarray(at, at + 65536));
      await Deno.writeFile(`${dir}/${name}`, bytes);
    },
  };
}

/** Makes the first entry of the log one that has to be replayed, as if the table had not been written yet. */
function dirtyLog(
  name: string,
  changes: readonly (readonly [number, 1 | 2 | 4 | 8, bigint])[],
): Given {
  return {
    key: `dirty log ${name} ${JSON.stringify(changes.map((change) => change.map(String)))}`,
    async make(dir) {
      const bytes = await Deno.readFile(`${dir}/${name}`);
      const view = new DataView(bytes.buffer);
      for (const at of [0x10030, 0x20030]) {
        for (let i = 0; i < 16; i += 8) {
          view.setBigUint64(at + i, view.getBigUint64(0x100020 + i));
        }
      }
      await Deno.writeFile(`${dir}/${name}`, bytes);
      await change(name, ...changes).make(dir);
    },
  };
}

const SOURCE: readonly Given[] = [
  disk("src", 9 * M + 3 * K, [
    [0, 100 * K, "mixed"],
    [2 * M, 2 * M, "noise"],
    [5 * M + 512, 700 * K, "gaps"],
    [7 * M, M, "zeros"],
    [9 * M, 3 * K, "flat"],
  ]),
];

for (
  const line of [
    "create -f vhdx a.vhdx 1",
    "create -f vhdx a.vhdx 1G",
    "create -f vhdx a.vhdx 1073742336",
    "create -f vhdx a.vhdx 200G",
    "create -f vhdx -o size=5M a.vhdx",
    "create -f vhdx -o block_size=1M a.vhdx 5G",
    "create -f vhdx -o block_size=100 a.vhdx 100M",
    "create -f vhdx -o block_size=256M a.vhdx 1T",
    "create -f vhdx -o block_size=1G a.vhdx 1T",
    "create -f vhdx -o subformat=fixed a.vhdx 17M",
    "create -f vhdx -o subformat=fixed,block_size=1M a.vhdx 3000001",
    "create -f vhdx -o subformat=fixed,block_state_zero=off,block_size=1M a.vhdx 4M",
    "create -f vhdx -o subformat=fixed,block_state_zero=off a.vhdx 10000001",
    "create -f vhdx -o block_state_zero=off a.vhdx 30M",
    "create -f vhdx -o block_state_zero=on,log_size=1 a.vhdx 30M",
    "create -q -f vhdx a.vhdx 3M",
  ]
) same(`vhdx: ${line}`, { run: line, files: ["a.vhdx"], mask, slack: 2 * M, code: 0 });

// An empty disk has the largest table.
sameForEach("vhdx", [
  "create -f vhdx a.vhdx 0",
  "create -f vhdx -o subformat=fixed,block_state_zero=off,block_size=4M a.vhdx 1G",
], { images: [{ name: "a.vhdx", format: "vhdx", check: true }], slack: 80 * M, code: 0 });
for (
  const [line, metadata] of [
    ["create -f vhdx -o log_size=5000001 a.vhdx 3M", 7 * M],
    ["create -f vhdx -o block_size=1M a.vhdx 1T", 11 * M],
    ["create -f vhdx a.vhdx 64T", 11 * M],
  ] as const
) {
  same(`vhdx: ${line}`, {
    run: line,
    files: ["a.vhdx"],
    slack: 12 * M,
    mask: (bytes) => withoutDrawn(bytes, metadata + 0x10010),
    code: 0,
  });
}

sameForEach("vhdx: refused, and nothing is left", [
  "create -f vhdx a.vhdx 65T",
  "create -f vhdx -o log_size=0 a.vhdx 1M",
  "create -f vhdx -o log_size=4G a.vhdx 1M",
  "create -f vhdx -o log_size=5G a.vhdx 1M",
  "create -f vhdx -o block_size=3M a.vhdx 1M",
  "create -f vhdx -o block_size=2049k a.vhdx 1M",
  "create -f vhdx -o subformat=Fixed a.vhdx 1M",
  "create -f vhdx -o subformat= a.vhdx 1M",
], { leftByReference: ["a.vhdx"], code: 1 });
sameForEach("vhdx: refused", [
  "create -f vhdx -o block_state_zero=x a.vhdx 1M",
  "create -f vhdx -o log_size=x a.vhdx 1M",
  "create -f vhdx -o cluster_size=1M a.vhdx 1M",
  "create -f vhdx -b src -F raw a.vhdx 1M",
  "create -f vhdx -u -b src -F raw a.vhdx 1M",
  "create -f vhdx a.vhdx",
  "create -f vhdx none/a.vhdx 1M",
  "convert -f raw -O vhdx -B src -F raw src b.vhdx",
  "measure -f raw -O vhdx src",
  "measure -O vhdx --size 1M",
], { given: SOURCE, code: 1 });
same("vhdx: refused to compress", {
  given: SOURCE,
  run: "convert -c -f raw -O vhdx src b.vhdx",
  code: 1,
});

sameForEach("vhdx: options", ["create -f vhdx -o help", "create -f vhdx -o help a.vhdx"], {
  // What options are for is told in other words.
  normalize: (text) => text.replaceAll(/ +- .*/g, ""),
  code: 0,
});

const written = (options: string): readonly Given[] => [
  create(`${options} a.vhdx 6M`),
  io(
    "a.vhdx",
    "write -P 1 4M 64k",
    "write -P 2 100k 1M",
    "write -P 3 5M 1M",
    "write -z 2M 4k",
    "discard 4M 64k",
  ),
];
const DYNAMIC = written("-o block_size=1M");
const IMAGES: Readonly<Record<string, readonly Given[]>> = {
  "empty": [create("a.vhdx 5M")],
  "of no size": [create("a.vhdx 0")],
  "of an odd size": [create("a.vhdx 5000001")],
  "dynamic": DYNAMIC,
  "with large blocks": written("-o block_size=8M"),
  "with blocks that are not there": written("-o block_size=1M,block_state_zero=off"),
  "fixed": written("-o subformat=fixed,block_size=1M"),
  "fixed, with all blocks": written("-o subformat=fixed,block_state_zero=off,block_size=1M"),
  "with states of other programs": [
    ...DYNAMIC,
    change("a.vhdx", [TABLE, 8, 0n], [TABLE + 8, 8, 1n], [TABLE + 16, 8, 3n], [TABLE + 24, 8, 5n]),
  ],
  "with a header that is broken": [
    ...DYNAMIC,
    { key: "break", make: (dir) => breakHeader(`${dir}/a.vhdx`, 0x20000) },
  ],
  "with equal headers": [
    ...DYNAMIC,
    { key: "equal", make: (dir) => copyHeader(`${dir}/a.vhdx`) },
  ],
};

async function breakHeader(path: string, at: number): Promise<void> {
  const bytes = await Deno.readFile(path);
  bytes[at + 8]! ^= 1;
  await Deno.writeFile(path, bytes);
}

async function copyHeader(path: string): Promise<void> {
  const bytes = await Deno.readFile(path);
  bytes.copyWithin(0x20000, 0x10000, 0x11000);
  await Deno.writeFile(path, bytes);
}

const LOOKING = [
  "info a.vhdx",
  "info --output=json a.vhdx",
  "map a.vhdx",
  "map --output=json a.vhdx",
  "check a.vhdx",
  "check --output=json a.vhdx",
  "check -r all a.vhdx",
  "measure -O qcow2 a.vhdx",
  "measure -O raw a.vhdx",
  "resize a.vhdx 10M",
  "resize --shrink a.vhdx 1M",
  "snapshot -l a.vhdx",
  "snapshot -c s a.vhdx",
  "amend -o size=1M a.vhdx",
  "rebase -u -b x -F raw a.vhdx",
  "commit a.vhdx",
];

/** Those of which all is looked at. */
const COMMON = ["dynamic", "fixed, with all blocks"];

for (const [kind, given] of Object.entries(IMAGES)) {
  const lines = COMMON.includes(kind)
    ? LOOKING
    : ["info --output=json a.vhdx", "map --output=json a.vhdx", "check a.vhdx"];
  sameForEach(`vhdx ${kind}`, lines, { given });
  same(`vhdx ${kind}: to raw`, {
    given,
    run: "convert -O raw a.vhdx b",
    images: [{ name: "b", format: "raw" }],
    code: 0,
  });
  if (!COMMON.includes(kind)) continue;
  sameForEach(`vhdx ${kind}: to raw`, [
    "convert -O raw -S 0 a.vhdx b",
    "convert -O raw -S 1M a.vhdx b",
  ], { given, images: [{ name: "b", format: "raw" }], code: 0 });
  sameForEach(`vhdx ${kind}: to qcow2`, [
    "convert -O qcow2 a.vhdx b",
    "convert -c -O qcow2 a.vhdx b",
    "dd -O qcow2 if=a.vhdx of=b bs=64k skip=3 count=70",
  ], { given, images: ["b"], code: 0 });
  same(`vhdx ${kind}: to itself`, {
    given,
    run: "convert -O vhdx a.vhdx b.vhdx",
    files: ["b.vhdx"],
    mask,
    slack: 2 * M,
  });
}

sameForEach("vhdx: compared", [
  "compare a.vhdx b.vhdx",
  "compare -s a.vhdx b.vhdx",
  "compare a.vhdx src",
  "compare -s a.vhdx src",
  "compare -f vhdx -F raw a.vhdx a.vhdx",
], { given: [...SOURCE, ...DYNAMIC, img("convert -O vhdx a.vhdx b.vhdx")] });

sameForEach("vhdx behind others", [
  "info --backing-chain top",
  "map --output=json top",
  "convert -O qcow2 top b",
  "measure -O qcow2 top",
  "commit top",
  "rebase -b other.vhdx -F vhdx top",
], {
  given: [
    ...DYNAMIC,
    create("-o block_size=1M other.vhdx 4M"),
    io("other.vhdx", "write -P 2 100k 1M"),
    img("create -f qcow2 -b a.vhdx -F vhdx top 7M"),
    ioAs("qcow2", "top", "write -P 9 1M 300k", "write -P 9 3M 64k"),
  ],
  images: [{ name: "top", format: "qcow2" }, { name: "a.vhdx", format: "vhdx", check: true }],
  mask,
  slack: 8 * M,
});

for (
  const line of [
    "convert -f raw -O vhdx src b.vhdx",
    "convert -f raw -O vhdx -o block_size=1M src b.vhdx",
    "convert -f raw -O vhdx -o block_size=2M src b.vhdx",
    "convert -f raw -O vhdx -o subformat=fixed,block_size=1M src b.vhdx",
    "convert -f raw -O vhdx -o subformat=fixed,block_state_zero=off,block_size=1M src b.vhdx",
    "convert -f raw -O vhdx -S 0 -o block_size=1M src b.vhdx",
    "convert -f raw -O vhdx -S 1M -o block_size=1M src b.vhdx",
    "convert -f raw -O vhdx -m 4 -o block_size=1M src b.vhdx",
    "convert -f raw -O vhdx -t none -o block_size=1M src b.vhdx",
    "convert -f raw -O vhdx -t writethrough -o block_size=4M src b.vhdx",
    "convert -f raw -O vhdx src src b.vhdx",
    "convert -p -f raw -O vhdx src b.vhdx",
    "dd -f raw -O vhdx if=src of=b.vhdx bs=64k skip=3 count=90",
  ]
) {
  same(`vhdx: ${line}`, {
    given: SOURCE,
    run: line,
    files: ["b.vhdx"],
    mask,
    slack: 2 * M,
    code: 0,
  });
}

for (
  const target of [
    "-o block_size=1M b.vhdx 10M",
    "-o subformat=fixed,block_state_zero=off b.vhdx 10M",
  ]
) {
  sameForEach(`vhdx onto ${target}`, [
    "convert -n -f raw -O vhdx src b.vhdx",
    "convert -n -S 0 -f raw -O vhdx src b.vhdx",
    "convert -n --target-is-zero -f raw -O vhdx src b.vhdx",
  ], {
    given: [...SOURCE, create(target), io("b.vhdx", "write -P 9 8M 1M", "write -P 8 0 300k")],
    files: ["b.vhdx"],
    mask,
    slack: 2 * M,
    code: 0,
  });
}

const entry = (index: number, value: bigint) => change("a.vhdx", [TABLE + index * 8, 8, value]);
const DAMAGED: Readonly<Record<string, Given>> = {
  "a block far beyond": entry(0, 0x7ffffffffff00006n),
  "a block as far as can be": entry(0, 0xfffffffffff00006n),
  "a block behind the end": entry(2, 0x60000006n),
  "a cut block": truncate("a.vhdx", 11 * M - 512),
  "a block in the log": entry(3, 0x100006n),
  "a block in the headers": entry(3, 0x6n),
  "a block in the table": entry(3, 0x200006n),
  "blocks in metadata and log": change("a.vhdx", [TABLE, 8, 0x300006n], [TABLE + 8, 8, 0x100006n]),
  "a block in two places": entry(3, 0x800006n),
  "a partial block": entry(0, 0x800007n),
  "a state that there is not": entry(0, 0x800004n),
};
for (const [what, damage] of Object.entries(DAMAGED)) {
  const given = [...DYNAMIC, damage];
  sameForEach(`vhdx with ${what}`, ["check a.vhdx"], { given });
  const isUnreadable = /partial|state/.test(what);
  // Others cannot even be opened.
  sameForEach(`vhdx with ${what}`, ["info a.vhdx"], { given });
  sameForEach(`vhdx with ${what}`, ["convert -m 1 -O raw a.vhdx b"], {
    given,
    ...(isUnreadable ? { leftByReference: ["b"] } : {}),
  });
}

const BROKEN: Readonly<Record<string, Given>> = {
  "signature": change("a.vhdx", [0, 1, 1]),
  "signatures of the headers": change("a.vhdx", [0x10000, 1, 1], [0x20000, 1, 1]),
  "version": change("a.vhdx", [0x10042, 2, 2], [0x20042, 2, 2]),
  "sequence numbers, equal for different headers": change(
    "a.vhdx",
    [0x10008, 8, 7],
    [0x20008, 8, 7],
  ),
  "log version": change("a.vhdx", [0x10040, 2, 1], [0x20040, 2, 1]),
  "log offset": change("a.vhdx", [0x10048, 8, 0x100200], [0x20048, 8, 0x100200]),
  "log offset, 0": change("a.vhdx", [0x10048, 8, 0], [0x20048, 8, 0]),
  "log length": change("a.vhdx", [0x10044, 4, 0x100200], [0x20044, 4, 0x100200]),
  "log over the table": change("a.vhdx", [0x10044, 4, 0x200000], [0x20044, 4, 0x200000]),
  "region signature": change("a.vhdx", [0x30000, 1, 1]),
  "region count": change("a.vhdx", [0x30008, 4, 2048]),
  "no metadata region": change("a.vhdx", [0x30008, 4, 1]),
  "table twice": change(
    "a.vhdx",
    [0x30008, 4, 3],
    [0x30050, 8, 0x4200f6232dc27766n],
    [0x30058, 8, 0x084afd9b5e11649dn],
    [0x30060, 8, 20 * M],
    [0x30068, 4, M],
  ),
  "unknown region": change("a.vhdx", [0x30008, 4, 3], [0x30050, 1, 1], [0x30060, 8, 20 * M]),
  "unknown region that is required": change(
    "a.vhdx",
    [0x30008, 4, 3],
    [0x30050, 1, 1],
    [0x30060, 8, 20 * M],
    [0x3006c, 4, 1],
  ),
  "table in the log": change("a.vhdx", [0x30020, 8, 0x100000]),
  "metadata in the table": change("a.vhdx", [0x30040, 8, 0x200000]),
  "table, too short": change("a.vhdx", [0x30028, 4, 40]),
  "metadata signature": change("a.vhdx", [METADATA, 1, 1]),
  "metadata count": change("a.vhdx", [METADATA + 10, 2, 2048]),
  "metadata, an item less": change("a.vhdx", [METADATA + 10, 2, 4]),
  "metadata, an item twice": change(
    "a.vhdx",
    [METADATA + 0x40, 8, 0x4d43fa36caa16737n],
    [METADATA + 0x48, 8, 0x6be744aaf033b6b3n],
  ),
  "metadata, an unknown item": change(
    "a.vhdx",
    [METADATA + 10, 2, 6],
    [METADATA + 0xc0, 1, 1],
    [METADATA + 0xd0, 4, 0x10100],
  ),
  "metadata, an unknown item that is required": change(
    "a.vhdx",
    [METADATA + 10, 2, 6],
    [METADATA + 0xc0, 1, 1],
    [METADATA + 0xd8, 4, 4],
  ),
  "block size, 0": change("a.vhdx", [METADATA + 0x10000, 4, 0]),
  "block size, odd": change("a.vhdx", [METADATA + 0x10000, 4, 3 * M]),
  "block size, 512 MiB": change("a.vhdx", [METADATA + 0x10000, 4, 512 * M]),
  "parent without locator": change("a.vhdx", [METADATA + 0x10004, 4, 2]),
  "sector size": change("a.vhdx", [METADATA + 0x10020, 4, 1024]),
  "physical sector size": change("a.vhdx", [METADATA + 0x10024, 4, 77]),
  "size, odd": change("a.vhdx", [METADATA + 0x10008, 8, 5 * M + 77]),
  "size, too large for the table": change("a.vhdx", [METADATA + 0x10008, 8, 2 ** 40]),
  "end": truncate("a.vhdx", 0x30000),
  "end in the metadata": truncate("a.vhdx", METADATA + 100),
  "nothing": truncate("a.vhdx", 0),
};
for (const [field, damage] of Object.entries(BROKEN)) {
  sameForEach(`vhdx, broken: ${field}`, ["info -f vhdx a.vhdx"], {
    given: [...DYNAMIC, damage],
  });
}

const DIRTY: readonly Given[] = [
  create("-o block_size=1M a.vhdx 4M"),
  io("a.vhdx", "write -P 0x5a 1536k 4k"),
  dirtyLog("a.vhdx", [[TABLE + 8, 8, 2n]]),
];
sameForEach("vhdx with a log to replay", [
  "info a.vhdx",
  "check a.vhdx",
  "map a.vhdx",
  "convert -O raw a.vhdx b",
  "check -r all a.vhdx",
  "check -r leaks a.vhdx",
  "check -r all --output=json a.vhdx",
  "check -q -r all a.vhdx",
  "resize a.vhdx 8M",
], { given: DIRTY, mask });
sameForEach("vhdx with a log to replay: afterwards", [
  "check -r all a.vhdx",
  "check -r leaks a.vhdx",
  "resize a.vhdx 8M",
], { given: DIRTY, files: ["a.vhdx"], mask });
sameForEach("vhdx with a log of entries that do not count", ["check -r all a.vhdx"], {
  given: [
    create("-o block_size=1M a.vhdx 4M"),
    io("a.vhdx", "write -P 0x5a 1536k 4k"),
    // Nothing is whole any more.
    dirtyLog("a.vhdx", [[0x101800, 1, 1n]]),
  ],
  files: ["a.vhdx"],
  mask,
});

/** Sequences of requests that both write alike. */
const LIVES: Readonly<Record<string, readonly string[]>> = {
  "block by block": ["write -P 1 0 1M", "write -P 2 3M 1M", "write -P 3 1M 1M"],
  "over blocks": ["write -P 1 512k 3M", "write -P 2 0 6M"],
  "in sectors": ["write -P 1 4608 512", "write -P 2 5242368 1k", "write -P 3 0 512"],
  "zeros": ["write -z 1M 1M", "write -P 1 0 4k", "write -z 0 1k"],
  "discards": ["write -P 1 0 3M", "discard 1M 1M", "write -P 2 1M 4k"],
  "flushes": ["write -P 1 0 4k", "flush", "write -P 2 2M 4k", "flush"],
};
for (const [how, requests] of Object.entries(LIVES)) {
  for (
    const options of how === "over blocks"
      ? ["", ",block_state_zero=off", ",subformat=fixed"]
      : [""]
  ) {
    Deno.test({
      name: `vhdx written alike: ${how}${options}`,
      ignore: reference.ignore,
      async fn() {
        await using dir = await tempDir();
        for (const name of ["theirs.vhdx", "ours.vhdx"]) {
          await useReference(
            ["create", "-q", "-f", "vhdx", "-o", `block_size=1M${options}`, name, "6M"],
            { cwd: dir.path },
          );
        }
        const cwd = dir.path;
        await writeWithReference("theirs.vhdx", requests, { cwd, format: "vhdx" });
        await writeWithQimg(dir.file("ours.vhdx"), requests);
        const [theirs, ours] = await Promise.all(
          ["theirs.vhdx", "ours.vhdx"].map((name) => Deno.readFile(dir.file(name))),
        );
        assertEquals(sequenceOf(ours!), sequenceOf(theirs!), "header that counts");
        const [expected, actual] = [withoutDrawnInLog(theirs!), withoutDrawnInLog(ours!)];
        assertEquals(actual.length, expected.length);
        assertEquals(actual.findIndex((byte, at) => byte !== expected[at]), -1);
      },
    });
  }
}

/** By how much the sequence number of the second header is above that of the first. */
function sequenceOf(bytes: Uint8Array): bigint {
  const view = new DataView(bytes.buffer);
  return view.getBigUint64(0x20008, true) - view.getBigUint64(0x10008, true);
}

/** Does what `qemu-io` would. */
async function writeWithQimg(filename: string, requests: readonly string[]): Promise<void> {
  const number = (text: string) => {
    const unit = { k: K, M }[text.at(-1)!];
    return parseInt(text) * (unit ?? 1);
  };
  const mode = { ...READ_ONLY, writable: true, unmap: true };
  await using node = await openImage({ filename, format: "vhdx" }, mode, QUIET);
  for (const request of requests) {
    const words = request.split(" ");
    const [offset, length] = words.slice(-2).map(number) as [number, number];
    if (words[0] === "flush") await node.flush();
    else if (words[0] === "discard") await node.discard(offset, length);
    else if (words[1] === "-z") await node.writeZeroes(offset, length, { unmap: false });
    else await node.write(offset, new Uint8Array(length).fill(Number(words[2])));
  }
}

const SAMPLE = new URL("../../../shared/samples/iotest-dynamic-1G.vhdx.bz2", import.meta.url);
const hasSample = await Deno.stat(SAMPLE).then(() => true, () => false);
Deno.test({
  name: "vhdx: an image that Hyper-V made is converted to the same bytes",
  ignore: reference.ignore || !hasSample,
  async fn() {
    await using dir = await tempDir();
    const { stdout } = await new Deno.Command("bzcat", { args: [SAMPLE.pathname] }).output();
    await Deno.writeFile(dir.file("a.vhdx"), stdout);
    const cwd = dir.path;
    await useReference(["convert", "-O", "raw", "a.vhdx", "theirs"], { cwd });
    await useQimg(["convert", "-O", "raw", "a.vhdx", "ours"], { cwd });
    const args = ["compare", "-s", "-f", "raw", "-F", "raw", "ours", "theirs"];
    assertEquals(await useReference(args, { cwd }), "Images are identical.\n");
  },
});

const sectorAt = (number: number) => ({ at: 8 * M + number * 4096, bytes: sector(number) });
const torn = logEntry({ sequence: 9, tail: 0, steps: [sectorAt(9)] });
torn[6000]! ^= 1;
const LOGS: Readonly<Record<string, readonly (readonly [number, Uint8Array])[]>> = {
  "several entries, the last one torn": [
    [0, logEntry({ sequence: 7, tail: 0, steps: [sectorAt(7), { at: 8 * M, zeros: 8192 }] })],
    [8192, logEntry({ sequence: 8, tail: 0, steps: [sectorAt(8), sectorAt(3)] })],
    [20480, torn],
  ],
  "entries of another time": [
    [0, logEntry({ sequence: 17, tail: 0, guid: guid(4), steps: [sectorAt(7)] })],
    [40960, logEntry({ sequence: 8, tail: 40960, steps: [sectorAt(8)] })],
  ],
  "many descriptors": [
    [
      0,
      logEntry({ sequence: 7, tail: 0, steps: Array.from({ length: 126 }, (_, i) => sectorAt(i)) }),
    ],
  ],
  "a file that has to be longer": [
    [0, logEntry({ sequence: 7, tail: 0, last: 9 * M + 4096, steps: [sectorAt(7)] })],
  ],
  "a file that is too short": [
    [0, logEntry({ sequence: 7, tail: 0, flushed: 10 * M, steps: [sectorAt(7)] })],
  ],
};
for (const [what, entries] of Object.entries(LOGS)) {
  sameForEach(`vhdx with a log by hand: ${what}`, ["check -r all a.vhdx", "info a.vhdx"], {
    given: [{
      key: `log by hand ${what}`,
      async make(dir) {
        const file = await handMade({
          length: M,
          logGuid: guid(5),
          fileLength: 9 * M,
          data: [[8 * M, sector(99)], ...inLog(entries)],
        });
        await Deno.writeFile(`${dir}/a.vhdx`, file.bytes());
      },
    }],
    files: ["a.vhdx"],
    mask,
  });
}
