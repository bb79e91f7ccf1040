/** Parallels' format through both tools. */
import { assert } from "@std/assert";
import { assertSame, reference } from "../_reference.ts";
import { disk, type Given, img, ioAs, patch, same, sameForEach, truncate } from "./_cases.ts";
import {
  bitmapFeature,
  CLOSED_BY_PARALLELS,
  extensionCluster,
  type Feature,
  imageWithExtension,
  IN_USE,
  parallelsImage,
} from "../drivers/parallels/_images.ts";

const [K, M] = [1024, 1024 * 1024];

const SOURCE: readonly Given[] = [
  disk("src", 9 * M + 3 * K, [
    [0, 100 * K, "mixed"],
    [2 * M, 2 * M, "noise"],
    [5 * M + 512, 700 * K, "gaps"],
    [7 * M, M, "zeros"],
    [9 * M, 3 * K, "flat"],
  ]),
];

/** A file with these bytes, which `about` tells apart from others. */
function binary(about: string, bytes: Uint8Array): Given {
  return { key: `binary ${about}`, make: (dir) => Deno.writeFile(`${dir}/a.hdd`, bytes) };
}

const written = (options = "", ...commands: readonly string[]): readonly Given[] => [
  img(`create -f parallels ${options} a.hdd 6M`.replace("  ", " ")),
  ioAs(
    "parallels",
    "a.hdd",
    "write -P 1 4M 64k",
    "write -P 2 100k 1M",
    "write -P 3 5M 1M",
    ...commands,
  ),
];
const SMALL = "-o cluster_size=64k";
/** Where the table has its entries for this number, little-endian as all is. */
const entry = (index: number, value: number) => patch("a.hdd", [64 + 4 * index, 4, swapped(value)]);

function swapped(value: number): number {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, value);
  return view.getUint32(0, true);
}

const inUse = patch("a.hdd", [44, 4, swapped(IN_USE)]);

/** What is all right, and what only a check finds fault with. */
const IMAGES: Readonly<Record<string, readonly Given[]>> = {
  "empty": [img("create -f parallels a.hdd 5M")],
  "of no size": [img("create -f parallels a.hdd 0")],
  "of an odd size": [img("create -f parallels a.hdd 5000001")],
  "with data": written(),
  "with small clusters": written(SMALL),
  "with holes": written(SMALL, "discard 5M 512k", "write -z 128k 64k"),
  "with reused holes": written(SMALL, "discard 5M 512k", "write -P 7 0 64k", "write -P 8 2M 700k"),
  "of the older kind": [
    binary("v1", parallelsImage({ version: 1, table: [8, 16, 0, 24, 0, 0, 40, 32] })),
  ],
  "closed by Parallels": [...written(), patch("a.hdd", [44, 4, swapped(CLOSED_BY_PARALLELS)])],
  "of a disk that ends within its table": [...written(SMALL), patch("a.hdd", [36, 2, 0x0004])],
  "of a disk that ends behind its table": [...written(SMALL), patch("a.hdd", [36, 2, 0xff7f])],
};

const DAMAGED: Readonly<Record<string, readonly Given[]>> = {
  "in use": [...written(SMALL), inUse],
  "with leaked clusters": [...written(SMALL), truncate("a.hdd", 3 * M)],
  "with an odd end": [...written(SMALL), truncate("a.hdd", 3 * M + 1000)],
  "in use, with leaked clusters": [...written(SMALL), inUse, truncate("a.hdd", 3 * M)],
  "with a cluster outside": [...written(SMALL), entry(50, 1000)],
  "with a cluster far outside": [...written(SMALL), entry(50, 0xffffffff)],
  "that ends early": [...written(SMALL), truncate("a.hdd", 2 * M)],
  "that ends within a cluster": [...written(SMALL), truncate("a.hdd", 2 * M - 512)],
  "with a cluster that is used twice": [...written(SMALL), entry(50, 3)],
  "with clusters that are used twice": [
    ...written(SMALL),
    entry(50, 3),
    entry(51, 4),
    entry(52, 3),
  ],
  "with a wrong data offset": [...written(SMALL), patch("a.hdd", [48, 4, 0])],
  "with a data offset within the table": [...written(SMALL), patch("a.hdd", [48, 4, 0x01000000])],
  "with a data offset too far": [...written(SMALL), patch("a.hdd", [48, 4, 0xffffff7f])],
};

for (const [kind, given] of Object.entries({ ...IMAGES, ...DAMAGED })) {
  sameForEach(`parallels ${kind}`, [
    "info a.hdd",
    "info --output=json a.hdd",
    "map --output=json a.hdd",
  ], { given });
  for (const line of ["convert -p -O raw a.hdd b", "convert -O parallels a.hdd b"]) {
    same(`parallels ${kind}: ${line}`, { given, run: line, files: ["b"], slack: M });
  }
}

sameForEach("parallels", [
  "map a.hdd",
  "measure -O qcow2 a.hdd",
  "snapshot -l a.hdd",
  "amend -o size=1M a.hdd",
  "bitmap --merge x -b a.hdd -F parallels a.hdd y",
  "resize --preallocation=falloc a.hdd +1M",
  "resize --shrink a.hdd 1M",
  "compare a.hdd a.hdd",
], { given: written(SMALL) });

for (const line of ["convert -O qcow2 a.hdd b", "dd -O parallels bs=64k count=9 if=a.hdd of=b"]) {
  same(`parallels: ${line}`, { given: written(SMALL), run: line, files: ["b"], slack: M });
}

// When these have failed, the reference leaves the image as if it were still in use.
sameForEach("parallels", [
  "rebase -u -b x -F raw a.hdd",
  "rebase -u -b x -F nosuch a.hdd",
  "rebase -u -c -b x -F raw a.hdd",
  "rebase -b x -F raw a.hdd",
  "commit a.hdd",
  "bitmap --add a.hdd x",
  "bitmap --remove a.hdd x",
], {
  given: written(SMALL),
  // The reference names nodes that only it has.
  normalize: (text) => text.replaceAll(/(?<=bitmaps to )\S+(?=:)/g, "a.hdd"),
});

for (const [kind, given] of Object.entries(IMAGES)) {
  for (
    const line of [
      "check a.hdd",
      "check --output=json a.hdd",
      "check -r leaks a.hdd",
      "check -r all a.hdd",
      "resize a.hdd 10M",
    ]
  ) same(`parallels ${kind}: ${line}`, { given, run: line, files: ["a.hdd"], slack: M });
}

for (const [kind, given] of Object.entries(DAMAGED)) {
  // Where clusters outside of the file are left as they are, the reference aborts.
  const isLeft = !/outside|ends early|ends within/.test(kind);
  for (
    const line of [
      ...isLeft ? ["check a.hdd", "check --output=json a.hdd", "check -r leaks a.hdd"] : [],
      "check -r all a.hdd",
      "check -r all --output=json a.hdd",
      // As everybody who opens it for writing, this one repairs it.
      "snapshot -c s a.hdd",
    ]
  ) same(`parallels ${kind}: ${line}`, { given, run: line, files: ["a.hdd"], slack: M });
}

// When all clusters are lost, the reference makes the file as long as it was with them, which its next
// check calls a leak.
sameForEach("parallels without its table", [
  "check a.hdd",
  "check --output=json a.hdd",
  "check -r leaks a.hdd",
  "check -r all a.hdd",
  "check -r all --output=json a.hdd",
  "resize a.hdd 10M",
], { given: [...written(SMALL), truncate("a.hdd", 100)] });

for (
  const line of [
    "convert -f raw -O parallels src b",
    "convert -p -f raw -O parallels src b",
    "convert -f raw -O parallels -o cluster_size=64k src b",
    "convert -f raw -O parallels -o cluster_size=512 src b",
    "convert -f raw -O parallels -o cluster_size=3M src b",
    "convert -f raw -O parallels -S 0 src b",
    "convert -f raw -O parallels -S 1M src b",
    "convert -f raw -O parallels -m 1 src b",
    "convert -f raw -O parallels -t none src b",
    "convert -f raw -O parallels -t writethrough -o cluster_size=64k src b",
    "convert -f raw -O parallels src src b",
    "dd -f raw -O parallels if=src of=b bs=64k skip=3 count=90",
  ]
) same(`parallels: ${line}`, { given: SOURCE, run: line, files: ["b"], slack: 1.5 * M });

for (const options of ["", " -o cluster_size=64k"]) {
  const target = `create -f parallels${options} b 10M`;
  for (
    const line of [
      "convert -n -f raw -O parallels src b",
      "convert -n -S 0 -f raw -O parallels src b",
    ]
  ) {
    const given = [
      ...SOURCE,
      img(target),
      ioAs("parallels", "b", "write -P 9 8M 1M", "write -P 8 0 300k", "discard 8M 256k"),
    ];
    same(`parallels: ${line}, onto ${target}`, { given, run: line, files: ["b"], slack: 1.5 * M });
  }
}

for (
  const mode of [
    "prealloc-mode=falloc",
    "prealloc-mode=truncate",
    "prealloc-size=0",
    "prealloc-size=1M,prealloc-mode=truncate",
    "prealloc-mode=x",
    "prealloc-size=x",
    "prealloc-mod=falloc",
  ]
) {
  same(`parallels: written with ${mode}`, {
    given: [...SOURCE, img("create -f parallels -o cluster_size=64k b 10M")],
    run: [
      "convert",
      "-n",
      "-f",
      "raw",
      "--target-image-opts",
      "src",
      `driver=parallels,file.filename=b,${mode}`,
    ],
    files: ["b"],
    slack: 1.5 * M,
  });
}

same("parallels: a backing file by option", {
  given: [...written(SMALL), disk("base", 6 * M, [[0, 6 * M, "noise"]])],
  run: [
    "convert",
    "--image-opts",
    "-O",
    "raw",
    "driver=parallels,file.filename=a.hdd,backing.driver=raw,backing.file.filename=base",
    "b",
  ],
  files: ["b"],
});

sameForEach("parallels: refused", [
  "convert -c -f raw -O parallels src b",
  "convert -f raw -O parallels -B src -F raw src b",
  "convert -f raw -O parallels -o cluster_size=x src b",
  "convert -f raw -O parallels -o block_size=1M src b",
  "measure -f raw -O parallels src",
  "create -f parallels -b src -F raw b 1M",
  "create -f parallels -u -b src -F raw b 1M",
  "create -f parallels b",
  "create -f parallels -o encryption=on b 1M",
], { given: SOURCE });

sameForEach("parallels: refused", [
  "create -f parallels b 8192T",
  "create -f parallels -o cluster_size=0 b 1M",
  "create -f parallels -o cluster_size=0 b 0",
  "create -f parallels -o cluster_size=2G b 1M",
  "create -f parallels -o cluster_size=2147483137 b 1M",
  "create -f parallels -o cluster_size=512 b 2T",
  "create -f parallels -o cluster_size=8E b 2T",
  "create -f parallels -o cluster_size=16383P b 2T",
  "create -f parallels -o preallocation=metadata b 1M",
], { leftByReference: ["b"] });

for (
  const line of [
    "create -f parallels b 0",
    "create -f parallels b 1",
    "create -f parallels b 1M",
    "create -f parallels b 1048577",
    "create -f parallels b 100G",
    "create -f parallels b 4T",
    "create -q -f parallels -o cluster_size=512 b 10M",
    "create -f parallels -o cluster_size=1000 b 10M",
    "create -f parallels -o cluster_size=3M b 10M",
    "create -f parallels -o cluster_size=1 b 30k",
    "create -f parallels -o size=7M b",
    "create -f parallels -o preallocation=full,cluster_size=64k b 1M",
    "create -f parallels -o preallocation=falloc b 1M",
  ]
) same(`parallels: ${line}`, { run: line, files: ["b"], slack: 1.5 * M });

sameForEach("parallels: options", [
  "create -f parallels -o help",
  "create -f parallels -o help b",
], {
  // What options are for is told in other words.
  normalize: (text) => text.replaceAll(/ +- .*/g, ""),
});

const BROKEN: Readonly<Record<string, Given>> = {
  "magic": patch("a.hdd", [0, 1, 1]),
  "version": patch("a.hdd", [16, 1, 3]),
  "no tracks": patch("a.hdd", [28, 4, 0]),
  "many tracks": patch("a.hdd", [28, 4, swapped(4186128)]),
  "most tracks": patch("a.hdd", [28, 4, swapped(4186127)]),
  "many entries": patch("a.hdd", [32, 4, swapped(536870912)]),
  "many sectors": patch("a.hdd", [36, 8, 0xffffffffffff7f00n]),
  "all sectors": patch("a.hdd", [36, 8, 0xffffffffffffffffn]),
  "extension": patch("a.hdd", [56, 8, 0xffffffffffff3f00n]),
  "no extension there": patch("a.hdd", [56, 8, 0xfeffffffffff3f00n]),
  "end": truncate("a.hdd", 30),
  "nothing": truncate("a.hdd", 0),
};

for (const [field, damage] of Object.entries(BROKEN)) {
  sameForEach(`parallels, broken: ${field}`, ["info a.hdd", "map -f parallels a.hdd"], {
    given: [...written(SMALL), damage],
  });
}

const CLUSTER = 8 * 512;
const BITMAP = { sectors: 64, granularity: 1, table: [16] };
const FEATURES: Readonly<Record<string, readonly Feature[]>> = {
  "a bitmap": [bitmapFeature(BITMAP)],
  "a bitmap that is clear": [bitmapFeature({ ...BITMAP, table: [0] })],
  "a bitmap that is set": [bitmapFeature({ ...BITMAP, table: [1] })],
  "a bitmap that is nowhere": [bitmapFeature({ ...BITMAP, table: [1000] })],
  "two bitmaps": [
    bitmapFeature(BITMAP),
    bitmapFeature({ ...BITMAP, granularity: 4, id: "00112233445566778899aabbccddeeff" }),
  ],
  "nothing": [],
  "flags": [{ ...bitmapFeature(BITMAP), flags: 1n }],
  "a feature of another kind": [{ ...bitmapFeature(BITMAP), magic: 0x1234n }],
  "a feature that is too long": [{ ...bitmapFeature(BITMAP), size: 5000 }],
  "a bitmap that is too short": [{ data: new Uint8Array(24) }],
  "a bitmap of another disk": [bitmapFeature({ ...BITMAP, sectors: 65 })],
  "a bitmap with too long a table": [bitmapFeature({ ...BITMAP, entries: 2 })],
  "a bitmap with a table of another size": [bitmapFeature({ ...BITMAP, table: [16, 0] })],
  "a bitmap twice": [bitmapFeature(BITMAP), bitmapFeature(BITMAP)],
};
const ID = "e4f2eed0-37fe-4539-b50b-85d2e7fd235f";

const EXTENSIONS: Readonly<Record<string, Uint8Array>> = {
  ...Object.fromEntries(
    Object.entries(FEATURES).map(([what, features]) => [what, extensionCluster(CLUSTER, features)]),
  ),
  "another magic": extensionCluster(CLUSTER, [], { magic: 0xab234cef23dcea88n }),
  "another checksum": extensionCluster(CLUSTER, [], { checksum: new Uint8Array(16) }),
};

for (const [what, extension] of Object.entries(EXTENSIONS)) {
  const given = [
    binary(
      `extension ${what}`,
      imageWithExtension(extension, { bits: new Uint8Array([0x61, 0x1c, 0, 0x40]) }),
    ),
    img("create -f qcow2 b 32k"),
  ];
  sameForEach(`parallels, an extension with ${what}`, ["info a.hdd", "check a.hdd"], { given });
  same(`parallels, an extension with ${what}: merged into another bitmap`, {
    given,
    run: `bitmap --add -g 512 -F parallels -b a.hdd --merge ${ID} b x`,
    files: ["b"],
  });
}

const SAMPLE = new URL("../../../shared/samples/parallels-v1.bz2", import.meta.url);
const hasSample = await Deno.stat(SAMPLE).then(() => true, () => false);

Deno.test({
  name: "parallels: an image that Parallels made is described, mapped, checked and copied alike",
  ignore: reference.ignore || !hasSample,
  async fn() {
    const { success, stdout } = await new Deno.Command("bzcat", { args: [SAMPLE.pathname] })
      .output();
    assert(success);
    for (
      const run of [
        "info a.hdd",
        "map --output=json a.hdd",
        "check a.hdd",
        "convert -O raw a.hdd b",
        "convert -O parallels a.hdd b",
      ]
    ) {
      await assertSame(run.split(" "), {
        setup: (dir) => Deno.writeFile(`${dir}/a.hdd`, stdout),
        files: run.startsWith("convert") ? ["a.hdd", "b"] : [],
      });
    }
  },
});
