/** VirtualBox' format through both tools. */
import { disk, type Given, img, ioAs, patch, same, sameForEach, truncate } from "./_cases.ts";

const [K, M] = [1024, 1024 * 1024];

/** The two UUIDs of an image are drawn by lot. */
function mask(bytes: Uint8Array, name: string): Uint8Array {
  if (name.endsWith("vdi")) bytes.fill(0, 0x188, 0x1a8);
  return bytes;
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
const written = (options: string): readonly Given[] => [
  img(`create -f vdi ${options} a.vdi 6M`.replace("  ", " ")),
  ioAs("vdi", "a.vdi", "write -P 1 4M 64k", "write -P 2 100k 1M", "write -P 3 5M 1M"),
];

/** Its last sector is not whole. */
const UNREADABLE = "of an odd length in its header";

const IMAGES: Readonly<Record<string, readonly Given[]>> = {
  "empty": [img("create -f vdi a.vdi 5M")],
  "of no size": [img("create -f vdi a.vdi 0")],
  "of an odd size": [img("create -f vdi a.vdi 5000001")],
  "dynamic": written(""),
  "static": written("-o static=on"),
  "with discarded blocks": [...written(""), patch("a.vdi", [0x200, 4, 0xfeffffff])],
  "with a block that is used twice": [...written(""), patch("a.vdi", [0x208, 4, 0])],
  "with a block beyond all": [...written(""), patch("a.vdi", [0x208, 4, 0x07000000])],
  "with a block far beyond": [...written(""), patch("a.vdi", [0x208, 4, 0xfdffffff])],
  "that counts too many": [...written(""), patch("a.vdi", [0x184, 4, 0x05000000])],
  "that ends early": [...written(""), truncate("a.vdi", 1024 + 2 * M + 1000)],
  "without its map": [...written(""), truncate("a.vdi", 512)],
  [UNREADABLE]: [...written(""), patch("a.vdi", [0x170, 1, 1])],
  "of type 4": [...written(""), patch("a.vdi", [0x4c, 1, 4])],
};

for (const [kind, given] of Object.entries(IMAGES)) {
  sameForEach(`vdi ${kind}`, [
    "info a.vdi",
    "info --output=json a.vdi",
    "map a.vdi",
    "map --output=json a.vdi",
    "check a.vdi",
    "check --output=json a.vdi",
    "check -r all a.vdi",
    "measure -O qcow2 a.vdi",
    "resize a.vdi 10M",
    "snapshot -l a.vdi",
    "snapshot -c s a.vdi",
    "amend -o size=1M a.vdi",
    "rebase -u -b x -F raw a.vdi",
    "commit a.vdi",
  ], { given, mask });
  if (kind === UNREADABLE) {
    sameForEach(`vdi ${kind}`, ["convert -O raw a.vdi b", "convert -O vdi a.vdi b.vdi"], {
      given,
      code: 1,
    });
    continue;
  }
  same(`vdi ${kind}: to raw`, {
    given,
    run: "convert -p -O raw a.vdi b",
    images: [{ name: "b", format: "raw" }],
  });
  same(`vdi ${kind}: to qcow2`, { given, run: "convert -O qcow2 a.vdi b", images: ["b"] });
  same(`vdi ${kind}: to itself`, {
    given,
    run: "convert -O vdi a.vdi b.vdi",
    files: ["b.vdi"],
    mask,
  });
}

for (
  const line of [
    "convert -f raw -O vdi src b.vdi",
    "convert -p -f raw -O vdi src b.vdi",
    "convert -f raw -O vdi -o static=on src b.vdi",
    "convert -f raw -O vdi -S 0 src b.vdi",
    "convert -f raw -O vdi -S 1M src b.vdi",
    "convert -f raw -O vdi -m 4 src b.vdi",
    "convert -f raw -O vdi -t none src b.vdi",
    "convert -f raw -O vdi src src b.vdi",
    "dd -f raw -O vdi if=src of=b.vdi bs=64k skip=3 count=90",
  ]
) same(`vdi: ${line}`, { given: SOURCE, run: line, files: ["b.vdi"], mask, slack: 1.5 * M });

for (
  const target of ["create -f vdi b.vdi 10M", "create -f vdi -o static=on b.vdi 10M"]
) {
  for (
    const line of ["convert -n -f raw -O vdi src b.vdi", "convert -n -S 0 -f raw -O vdi src b.vdi"]
  ) {
    const given = [
      ...SOURCE,
      img(target),
      ioAs("vdi", "b.vdi", "write -P 9 8M 1M", "write -P 8 0 300k"),
    ];
    same(`vdi: ${line}, onto ${target}`, {
      given,
      run: line,
      files: ["b.vdi"],
      mask,
      slack: 1.5 * M,
    });
  }
}

sameForEach("vdi: refused", [
  "convert -c -f raw -O vdi src b.vdi",
  "convert -f raw -O vdi -B src -F raw src b.vdi",
  "convert -f raw -O vdi -o static=x src b.vdi",
  "convert -f raw -O vdi -o block_size=1M src b.vdi",
  "measure -f raw -O vdi src",
  "create -f vdi -b src -F raw b.vdi 1M",
  "create -f vdi -u -b src -F raw b.vdi 1M",
  "create -f vdi b.vdi",
  "create -f vdi -o encryption=on b.vdi 1M",
], { given: SOURCE });

// The reference leaves an empty file.
sameForEach("vdi: refused late", [
  "create -f vdi b.vdi 512T",
  "create -f vdi b.vdi 9000T",
  "create -f vdi -o preallocation=metadata b.vdi 1M",
], { leftByReference: ["b.vdi"] });

for (
  const line of [
    "create -f vdi b.vdi 0",
    "create -f vdi b.vdi 1",
    "create -f vdi b.vdi 1M",
    "create -f vdi b.vdi 1048577",
    "create -f vdi b.vdi 100G",
    "create -f vdi b.vdi 2T",
    "create -q -f vdi -o static=on b.vdi 3000001",
    "create -f vdi -o static b.vdi 3M",
    "create -f vdi -o size=7M b.vdi",
    "create -f vdi -o preallocation=full,static=on b.vdi 1M",
    "create -f vdi -o preallocation=falloc b.vdi 1M",
  ]
) same(`vdi: ${line}`, { run: line, files: ["b.vdi"], mask, slack: 1.5 * M });

sameForEach("vdi: options", ["create -f vdi -o help", "create -f vdi -o help b.vdi"], {
  // What options are for is told in other words.
  normalize: (text) => text.replaceAll(/ +- .*/g, ""),
});

const BROKEN: Readonly<Record<string, Given>> = {
  "disk size": patch("a.vdi", [0x176, 1, 9]),
  "disk size, at most": patch("a.vdi", [0x170, 8, 0xffffffffffffffffn]),
  "signature": patch("a.vdi", [0x40, 1, 1]),
  "version": patch("a.vdi", [0x44, 1, 9]),
  "map offset": patch("a.vdi", [0x154, 1, 9]),
  "data offset": patch("a.vdi", [0x158, 1, 9]),
  "sector size": patch("a.vdi", [0x168, 1, 9]),
  "block size": patch("a.vdi", [0x178, 1, 9]),
  "blocks": patch("a.vdi", [0x180, 4, 0x05000000]),
  "many blocks": patch("a.vdi", [0x180, 4, 0xffffffff]),
  "link UUID": patch("a.vdi", [0x1a8, 1, 9]),
  "parent UUID": patch("a.vdi", [0x1c7, 1, 9]),
  "end": truncate("a.vdi", 0x100),
  "nothing": truncate("a.vdi", 0),
};

for (const [field, damage] of Object.entries(BROKEN)) {
  sameForEach(`vdi, broken: ${field}`, ["info a.vdi", "info -f vdi a.vdi", "check -f vdi a.vdi"], {
    given: [...written(""), damage],
  });
}
