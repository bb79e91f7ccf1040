/** qcow, version 1, through both tools. */
import { assert, assertEquals } from "@std/assert";
import { QUIET } from "../../lib/graph/environment.ts";
import { openImage } from "../../lib/ops/image.ts";
import { Random } from "../_random.ts";
import { reference, runQimg, runReference, useReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
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
  text,
  truncate,
} from "./_cases.ts";

const [K, M] = [1024, 1024 * 1024];
const io = (image: string, ...commands: readonly string[]) => ioAs("qcow", image, ...commands);

const SECRETS = [
  ...["--object", "secret,id=s,data=123456"],
  ...["--object", "secret,id=long,data=more than sixteen bytes"],
  ...["--object", "secret,id=notext,data=//8=,format=base64"],
];
const KEY = "encrypt.key-secret=s";
const AES = `encrypt.format=aes,${KEY}`;

/** A command line with all secrets: the command, then its operands and options. */
function secretly(line: string): string[] {
  const [command, ...rest] = line.split(" ");
  return [command!, ...SECRETS, ...rest];
}
const opened = (file: string, more = `,${KEY}`) => `driver=qcow,file.filename=${file}${more}`;

/** `qemu-io` on an encrypted image. */
function secretIo(file: string, ...commands: readonly string[]): Given {
  return {
    key: `secret io ${file} ${commands}`,
    make: (cwd) =>
      useReference([
        ...SECRETS.slice(0, 2),
        ...commands.flatMap((command) => ["-c", command]),
        ...["--image-opts", opened(file)],
      ], { cwd, tool: "qemu-io" }),
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
/** For images in front of it, whose clusters of 512 bytes the reference takes its time for. */
const SMALL: readonly Given[] = [
  disk("src", 3 * M + 3 * K, [
    [0, 30 * K, "mixed"],
    [2000 * K, 100 * K, "noise"],
    [2500 * K + 512, 100 * K, "gaps"],
    [3 * M, 3 * K, "flat"],
  ]),
];

/** An image with data in several tables, out of order. */
const WRITTEN: readonly Given[] = [
  img("create -f qcow a.qcow 9M"),
  io("a.qcow", "write -P 1 7M 100k", "write -P 2 100k 1M", "write -P 3 4195328 512"),
  io("a.qcow", "write -z 5M 64k", "write -P 4 5600k 3k", "write -z 150k 300k"),
];
const COMPRESSED: readonly Given[] = [
  img("create -f qcow a.qcow 3M"),
  io(
    "a.qcow",
    "write -c -P 1 0 4k",
    "write -c -P 2 2M 4k",
    "write -c -P 3 4k 4k",
    "write -P 4 64k 64k",
    "write -c -P 5 128k 4k",
    "write -P 6 128k 512",
  ),
];
const OVERLAY: readonly Given[] = [
  ...SMALL,
  img("create -f qcow -b src -F raw a.qcow"),
  io("a.qcow", "write -P 1 2040k 20k", "write -P 2 3000k 3k", "write -z 2560k 32k"),
];
const ENCRYPTED: readonly Given[] = [
  img(secretly(`create -f qcow -o ${AES} a.qcow 5M`)),
  secretIo("a.qcow", "write -P 1 4k 512", "write -P 2 100k 70k", "write -P 3 4M 64k"),
];

const IMAGES: Readonly<Record<string, readonly Given[]>> = {
  "empty": [img("create -f qcow a.qcow 5M")],
  "of one sector": [img("create -f qcow a.qcow 1")],
  "of an odd size": [img("create -f qcow a.qcow 5000001")],
  "with data": WRITTEN,
  "with compressed data": COMPRESSED,
  "in front of another": OVERLAY,
  "in front of one that is not there": [
    img("create -u -f qcow -b nowhere -F qcow2 a.qcow 1M"),
  ],
  "of a size between sectors": [...WRITTEN, patch("a.qcow", [24, 8, 5 * M + 777])],
  "with the smallest disk": [...WRITTEN, patch("a.qcow", [24, 8, 2])],
  "with larger clusters": [...WRITTEN, patch("a.qcow", [32, 1, 16], [33, 1, 13])],
  "with smaller tables": [...WRITTEN, patch("a.qcow", [32, 1, 9], [33, 1, 6])],
  "with data behind its end": [...WRITTEN, truncate("a.qcow", 64 * K)],
};

for (const [kind, given] of Object.entries(IMAGES)) {
  sameForEach(`qcow ${kind}`, [
    "info a.qcow",
    "info --output=json a.qcow",
    "map a.qcow",
    "map --output=json a.qcow",
    "check a.qcow",
    "check -r all --output=json a.qcow",
  ], { given, files: ["a.qcow"] });
  if (kind.includes("not there")) continue;
  sameForEach(`qcow ${kind}`, ["convert -p -O raw a.qcow b"], {
    given,
    images: [{ name: "b", format: "raw" }],
  });
  sameForEach(`qcow ${kind}`, ["convert -O qcow2 a.qcow b"], { given, images: ["b"] });
}

for (const kind of ["empty", "with compressed data", "in front of another"]) {
  sameForEach(`qcow ${kind}`, [
    "info --backing-chain a.qcow",
    "measure -O qcow2 a.qcow",
    "measure -O raw --output=json a.qcow",
    "measure -O qcow a.qcow",
    "resize a.qcow 10M",
    "resize --shrink a.qcow 1M",
    "snapshot -l a.qcow",
    "snapshot -c s a.qcow",
    "snapshot -a s a.qcow",
    "snapshot -d s a.qcow",
    "amend -o size=1M a.qcow",
    "amend -o backing_file=x a.qcow",
    "rebase -u -b x -F raw a.qcow",
    "commit a.qcow",
    "convert -O qcow a.qcow b.qcow",
    "convert -l s -O raw a.qcow b",
    "compare a.qcow a.qcow",
    "dd -f qcow -O qcow if=a.qcow of=b.qcow bs=4k count=20 skip=3",
  ], {
    given: IMAGES[kind]!,
    files: ["a.qcow"],
  });
}

for (
  const line of [
    "convert -f raw -O qcow src b.qcow",
    "convert -p -f raw -O qcow src b.qcow",
    "convert -f raw -O qcow -S 0 src b.qcow",
    "convert -f raw -O qcow -S 64k src b.qcow",
    "convert -f raw -O qcow -m 4 src b.qcow",
    "convert -f raw -O qcow -t none src b.qcow",
    "convert -f raw -O qcow src src b.qcow",
    "dd -f raw -O qcow if=src of=b.qcow bs=64k skip=3 count=90",
  ]
) {
  const one = SOURCE;
  same(`qcow: ${line}`, { given: one, run: line, files: ["b.qcow"], slack: M });
}
for (const line of ["convert -n -f raw -O qcow src b.qcow", "convert -n -S 0 -O qcow src b.qcow"]) {
  same(`qcow: ${line}`, {
    given: [
      ...SOURCE,
      img("create -f qcow b.qcow 10M"),
      io("b.qcow", "write -P 9 8M 1M", "write -P 8 0 300k"),
    ],
    run: line,
    files: ["b.qcow"],
    slack: M,
  });
}

for (const sparse of ["", "-S 0 "]) {
  const line = `convert -f raw -O qcow ${sparse}-B src -F raw src b.qcow`;
  same(`qcow: ${line}`, { given: SMALL, run: line, files: ["b.qcow"], slack: M });
}

const CHAIN: readonly Given[] = [
  ...SMALL,
  img("create -f qcow -b src -F raw mid.qcow"),
  io("mid.qcow", "write -P 1 1M 20k", "write -z 2560k 32k"),
  img("create -f qcow -b mid.qcow -F qcow a.qcow"),
  io("a.qcow", "write -P 3 1030k 30k", "write -P 2 3000k 3k", "write -z 3M 2k"),
  img("create -f qcow other.qcow 2M"),
  hole("empty", 3 * M + 3 * K),
];
for (
  const line of [
    "commit a.qcow",
    "commit -d a.qcow",
    "commit -b src a.qcow",
    "commit -b mid.qcow a.qcow",
    "commit mid.qcow",
    "rebase -b src -F raw a.qcow",
    "rebase -b other.qcow -F qcow a.qcow",
    "rebase -b empty -F raw a.qcow",
    "rebase -u -b other.qcow -F qcow a.qcow",
    ["rebase", "-b", "", "a.qcow"],
    ["rebase", "-u", "-b", "", "a.qcow"],
    "convert -O raw a.qcow b",
    "compare a.qcow mid.qcow",
    "map --output=json a.qcow",
    "info --backing-chain --output=json a.qcow",
  ]
) {
  same(`qcow in a chain: ${typeof line === "string" ? line : line.join(" ")}`, {
    given: CHAIN,
    run: line,
    images: [
      { name: "a.qcow", format: "qcow" },
      { name: "mid.qcow", format: "qcow" },
      { name: "src", format: "raw" },
    ],
    slack: M,
  });
}
sameForEach("qcow that is emptied", ["commit a.qcow"], {
  given: CHAIN,
  files: ["a.qcow"],
  slack: M,
});
sameForEach("qcow that is emptied", ["commit mid.qcow"], {
  given: CHAIN,
  files: ["mid.qcow", "src"],
  slack: M,
});

sameForEach("qcow: make", [
  "create -f qcow b.qcow 1",
  "create -f qcow b.qcow 511",
  "create -f qcow b.qcow 1M",
  "create -f qcow b.qcow 1048577",
  "create -f qcow b.qcow 1T",
  "create -f qcow -o size=7M b.qcow",
  "create -f qcow -o preallocation=full b.qcow 1M",
  "create -f qcow -F raw b.qcow 1M",
  "create -f qcow -o encryption=off b.qcow 1M",
  "create -q -f qcow -b src -F raw b.qcow",
  "create -f qcow -b src -F raw b.qcow 20M",
  "create -u -f qcow -b somewhere -F qcow2 b.qcow 20M",
  "create -u -f qcow -b fat: -F raw b.qcow 20M",
  "create -u -f qcow -b somewhere -F nfs b.qcow 20M",
], { given: SOURCE, files: ["b.qcow"], slack: 16 * M });

for (const length of [1, 7, 8, 500, 1023]) {
  same(`qcow: a backing file's name of ${length} bytes`, {
    run: `create -u -f qcow -b ${"x".repeat(length)} -F raw b.qcow 1M`,
    files: ["b.qcow"],
  });
}

sameForEach("qcow: refused", [
  "create -f qcow b.qcow",
  "create -f qcow -o cluster_size=4k b.qcow 1M",
  "create -f qcow -o encrypt.cipher-alg=aes-128 b.qcow 1M",
  "create -f qcow -o encryption=maybe b.qcow 1M",
  "create -f qcow -b src b.qcow",
  "create -f qcow -b src -F foo b.qcow",
  "create -f qcow -b nowhere -F raw b.qcow",
  "create -u -f qcow -b src -F foo b.qcow 1M",
  "create -u -f qcow -o backing_fmt= b.qcow 1M",
  "create -f qcow -o backing_fmt=foo,encryption=on,encrypt.format=aes b.qcow 1M",
  "create -f qcow -o encryption=on,encrypt.format=aes b.qcow 0",
  "measure -f raw -O qcow src",
  "measure -O qcow --size 1M",
  "convert -c -f raw -O qcow -o encryption=on src b.qcow",
  "convert -c -f raw -O qcow -o preallocation=full src b.qcow",
], { given: SOURCE });

// Where the format has the last word, an empty file stays behind.
for (
  const line of [
    "create -f qcow b.qcow 0",
    "create -f qcow -o encryption=on b.qcow 0",
    "create -f qcow -o encrypt.format=luks b.qcow 0",
    "create -f qcow -o encrypt.format=xx b.qcow 0",
    "create -f qcow -o encrypt.format=aes b.qcow 1M",
    "create -f qcow -o encryption=on b.qcow 1M",
    "create -f qcow -o encrypt.key-secret=s b.qcow 1M",
    "create -f qcow -o encrypt.format=aes,encrypt.key-secret=nobody b.qcow 1M",
    "create -f qcow -o encrypt.format=aes,encrypt.key-secret=notext b.qcow 1M",
    "create -f qcow -o encrypt.format=luks,encrypt.key-secret=s b.qcow 1M",
  ]
) {
  same(`qcow, refused late: ${line}`, { run: secretly(line), leftByReference: ["b.qcow"] });
}

sameForEach("qcow: options", ["create -f qcow -o help", "create -f qcow -o help b.qcow"], {
  // What options are for is told in other words.
  normalize: (text) => text.replaceAll(/ +- .*/g, ""),
});

for (
  const line of [
    `create -f qcow -o ${AES} b.qcow 5M`,
    `create -f qcow -o encryption=on,${KEY} b.qcow 5M`,
    `create -f qcow -o encryption=off,${AES} b.qcow 5M`,
    `convert -f raw -O qcow -o ${AES} src b.qcow`,
    `convert -f raw -O qcow -o encrypt.format=aes,encrypt.key-secret=long src b.qcow`,
    `convert -f raw -O qcow -o ${AES} -B src -F raw src b.qcow`,
  ]
) {
  same(`qcow: ${line}`, {
    given: SMALL,
    run: secretly(line),
    files: ["b.qcow"],
    slack: M,
  });
}

for (
  const line of [
    "info a.qcow",
    "info --output=json a.qcow",
    "map a.qcow",
    "check a.qcow",
    "convert -O raw a.qcow b",
    `convert --image-opts -O raw ${opened("a.qcow")} b`,
    `convert --image-opts -O raw ${opened("a.qcow", ",encrypt.key-secret=long")} b`,
    `map --output=json --image-opts ${opened("a.qcow")}`,
    `info --image-opts ${opened("a.qcow")}`,
    `info --image-opts ${opened("a.qcow", ",encrypt.format=luks")}`,
    `map --image-opts ${opened("a.qcow", ",encrypt.format=luks")}`,
    `map --image-opts ${opened("a.qcow", ",encrypt.format=foo")}`,
    `map --image-opts ${opened("a.qcow", `,encrypt.foo=1,${KEY}`)}`,
    `map --image-opts ${opened("a.qcow", ",encrypt.key-secret=nobody")}`,
    `map --image-opts ${opened("a.qcow", ",encrypt.key-secret=notext")}`,
    `map --image-opts ${opened("a.qcow", ",foo=1")}`,
    `map --image-opts ${opened("plain.qcow", ",encrypt.format=aes")}`,
    `map --image-opts ${opened("plain.qcow")}`,
  ]
) {
  same(`qcow, encrypted: ${line}`, {
    given: [...ENCRYPTED, img("create -f qcow plain.qcow 1M")],
    run: secretly(line),
    files: ["a.qcow"],
    slack: M,
  });
}

/** Numbers are big-endian. */
const BROKEN: Readonly<Record<string, Given>> = {
  "magic": patch("a.qcow", [3, 1, 1]),
  "version 0": patch("a.qcow", [4, 4, 0]),
  "version 2": patch("a.qcow", [4, 4, 2]),
  "version 3": patch("a.qcow", [4, 4, 3]),
  "version 4": patch("a.qcow", [4, 4, 4]),
  "size of nothing": patch("a.qcow", [24, 8, 0]),
  "size of 1": patch("a.qcow", [24, 8, 1]),
  "size, large": patch("a.qcow", [24, 8, 2n ** 50n]),
  "size, largest": patch("a.qcow", [24, 8, 2n ** 64n - 1n]),
  "cluster size, small": patch("a.qcow", [32, 1, 8]),
  "cluster size, large": patch("a.qcow", [32, 1, 17]),
  "table size, small": patch("a.qcow", [33, 1, 5]),
  "table size, large": patch("a.qcow", [33, 1, 14]),
  "encryption": patch("a.qcow", [36, 4, 2]),
  "backing name": patch("a.qcow", [8, 8, 48], [16, 4, 1024]),
  "backing name beyond the file": patch("a.qcow", [8, 8, 2 ** 40], [16, 4, 20]),
  "table beyond the file": patch("a.qcow", [40, 8, 2 ** 40]),
  "L1 entry beyond the file": patch("a.qcow", [48, 8, 2 ** 40]),
  "L1 entry beyond all": patch("a.qcow", [48, 8, 2n ** 63n]),
  "L2 entry": patch("a.qcow", [0x1000 + 25 * 8, 8, 0x2001]),
  "L2 entry beyond the file": patch("a.qcow", [0x1000 + 25 * 8, 8, 2 ** 40]),
  "L2 entry beyond all": patch("a.qcow", [0x1000 + 25 * 8, 8, 2n ** 63n - 512n]),
  "stream": patch("a.qcow", [0x1000, 8, 0x8ff0000000001000n]),
  "stream of nothing": patch("a.qcow", [0x1000, 8, 0x8000000000001000n]),
  "stream beyond the file": patch("a.qcow", [0x1000, 8, 0x8ff0010000000000n]),
  "file of a header": truncate("a.qcow", 48),
  "file of 30 bytes": truncate("a.qcow", 30),
  "file of nothing": truncate("a.qcow", 0),
};
for (const [what, breaking] of Object.entries(BROKEN)) {
  const given = [
    img("create -f qcow a.qcow 3M"),
    io("a.qcow", "write -P 2 100k 70k"),
    breaking,
  ];
  const options: Omit<Case, "run"> = { given, files: ["a.qcow"] };
  sameForEach(`qcow with a bad ${what}`, ["info -f qcow a.qcow", "info a.qcow"], options);
  // An entry that no cluster can have is an error here as soon as it is seen.
  const left = what === "L2 entry" || what.startsWith("stream") || what.includes("beyond all");
  same(`qcow with a bad ${what}: to raw`, {
    ...options,
    run: "convert -f qcow -O raw a.qcow b",
    ...(left ? { leftByReference: ["b"] } : {}),
  });
}

for (const backing of [[], ["-B", "base", "-F", "raw"]]) {
  Deno.test({
    name: `qcow: convert -c ${backing.join(" ")}: both read it alike, and the reference as we do`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      for (const given of [...SMALL, hole("base", 3 * M + 3 * K)]) await given.make(dir.path);
      const line = (name: string) => [
        ...["convert", "-c", "-f", "raw", "-O", "qcow", ...backing],
        ...["src", name],
      ];
      // The reference makes a whole image, and then fails without a word.
      assertEquals((await runReference(line("theirs"), { cwd: dir.path })).code, 1);
      assertEquals(await runQimg(line("ours"), { cwd: dir.path }), {
        code: 0,
        stdout: "",
        stderr: "",
      });
      const maps = [];
      for (const name of ["ours", "theirs"]) {
        for (const run of [runQimg, runReference]) {
          const compare = ["compare", "-f", "raw", "-F", "qcow", "src", name];
          const { code, stdout, stderr } = await run(compare, { cwd: dir.path });
          assertEquals([code, stdout, stderr], [0, "Images are identical.\n", ""]);
          maps.push(await run(["map", "-f", "qcow", "--output=json", name], { cwd: dir.path }));
        }
      }
      const states = maps.map(({ stdout }) =>
        JSON.parse(stdout).map(({ offset: _, ...rest }: Record<string, unknown>) => rest)
      );
      assert(states[0]!.some(({ compressed }: { compressed: boolean }) => compressed));
      for (const other of states) assertEquals(other, states[0]);
    },
  });
}

Deno.test({
  name: "qcow: the same writes lead to the same bytes",
  ignore: reference.ignore,
  async fn() {
    for (
      const options of [[], ["-u", "-b", "base", "-F", "raw"], ["-o", AES]]
    ) {
      const isEncrypted = options[0] === "-o";
      await using dir = await tempDir();
      await hole("base", 6 * M).make(dir.path);
      for (const name of ["a", "b"]) {
        const create = ["create", "-q", ...SECRETS, "-f", "qcow", ...options, name, "6M"];
        await useReference(create, { cwd: dir.path });
      }
      const random = new Random(7);
      const writes = Array.from({ length: 40 }, () => {
        const offset = 512 * random.below(12000);
        const length = 512 * random.between(1, random.oneIn(9) ? 280 : 20);
        return { offset, length, byte: random.below(256) };
      });
      const image = opened("a", isEncrypted ? `,${KEY}` : "");
      await useReference([
        ...SECRETS.slice(0, 2),
        ...writes.flatMap(({ offset, length, byte }) => [
          "-c",
          `write -P ${byte} ${offset} ${length}`,
        ]),
        ...["--image-opts", image],
      ], { cwd: dir.path, tool: "qemu-io" });
      {
        await using disk = await openImage(
          {
            filename: dir.file("b"),
            format: "qcow",
            ...(isEncrypted ? { options: { [KEY.split("=")[0]!]: "s" } } : {}),
          },
          { writable: true },
          { ...QUIET, secrets: { get: () => new TextEncoder().encode("123456") } },
        );
        for (const { offset, length, byte } of writes) {
          await disk.write(offset, new Uint8Array(length).fill(byte));
        }
      }
      const [theirs, ours] = [
        await Deno.readFile(dir.file("a")),
        await Deno.readFile(dir.file("b")),
      ];
      assertEquals(ours.length, theirs.length, String(options));
      assertEquals(theirs.findIndex((byte, at) => byte !== ours[at]), -1, String(options));
    }
  },
});

sameForEach("qcow beside qcow2", ["info a", "info b", "info c"], {
  given: [
    img("create -f qcow a 1M"),
    img("create -f qcow2 -o compat=0.10 b 1M"),
    text("c", "QFI\u00fb"),
  ],
});
