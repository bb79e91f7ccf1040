/** Images whose data cannot be read: what each command does then, and what `--salvage` saves. */
import { type Given, img, io, patch, sameForEach } from "./_cases.ts";
import { MIXED_DISK } from "./_zoo.ts";

const COPIED = 1n << 63n;
const PACKED = 1n << 62n;
const L2 = 0x40000;

const CONVERTED = [
  "convert -m 1 a b",
  "convert -m 1 -O qcow2 a b",
  "convert -m 1 -c -O qcow2 a b",
  "convert -m 1 -S 0 a b",
];
const LINES = [
  "convert -m 1 -n -f qcow2 -O raw a old",
  "compare a src",
  "compare src a",
  "compare -p a src",
  "compare -s a src",
  "compare -q a src",
  "map a",
  "map --output=json a",
  "measure -O qcow2 a",
  "check a",
  "resize a 8M",
];
const SALVAGED = [
  "convert --salvage -m 1 a b",
  "convert --salvage -m 1 -O qcow2 a b",
  "convert --salvage -m 1 -p a b",
  "convert --salvage -m 1 -q a b",
  "convert --salvage -m 1 -S 0 a b",
];

const PACKED_IMAGE: readonly Given[] = [
  MIXED_DISK,
  img("convert -c -f raw -O qcow2 src a"),
  img("convert -f raw -O raw src old"),
];
const PLAIN_IMAGE: readonly Given[] = [
  MIXED_DISK,
  img("convert -f raw -O qcow2 src a"),
  img("convert -f raw -O raw src old"),
];

const DAMAGES: Readonly<Record<string, readonly Given[]>> = {
  // The third cluster of noise that is stored compressed is the first of "mixed".
  "a compressed cluster that is none": [
    img("create -f qcow2 a 4M"),
    io("a", "write -P 1 0 64k", "write -c -P 2 64k 64k", "write -c -P 3 128k 64k"),
    patch("a", [0x60000, 8, 2n ** 64n - 1n], [0x60008, 8, 2n ** 64n - 1n]),
    MIXED_DISK,
    img("convert -O raw -f raw src old"),
  ],
  "a compressed cluster with zstd that is none": [
    img("create -f qcow2 -o compression_type=zstd a 4M"),
    io("a", "write -P 1 0 64k", "write -c -P 2 64k 64k", "write -c -P 3 128k 64k"),
    patch("a", [0x60000, 8, 2n ** 64n - 1n], [0x60008, 8, 2n ** 64n - 1n]),
    MIXED_DISK,
    img("convert -O raw -f raw src old"),
  ],
  "a compressed cluster that ends early": [...PACKED_IMAGE, {
    key: "cut in half",
    async make(dir) {
      const { size } = await Deno.stat(`${dir}/a`);
      await Deno.truncate(`${dir}/a`, Math.floor(size / 2));
    },
  }],
  "a compressed cluster behind the end": [
    ...PLAIN_IMAGE,
    patch("a", [L2 + 8, 8, PACKED | 0x90000000n]),
  ],
  "a cluster behind the end": [...PLAIN_IMAGE, patch("a", [L2 + 8, 8, COPIED | 0x90000000n])],
  "a cluster inside of another": [...PLAIN_IMAGE, patch("a", [L2 + 8, 8, COPIED | 0x50200n])],
  "zeros inside of a cluster": [...PLAIN_IMAGE, patch("a", [L2 + 8, 8, COPIED | 0x50201n])],
  "an L2 table inside of a cluster": [...PLAIN_IMAGE, patch("a", [0x30000, 8, COPIED | 0x40200n])],
  "a cluster inside of another, behind sound ones": [
    ...PLAIN_IMAGE,
    patch("a", [L2 + 8 * 17, 8, COPIED | 0x50200n]),
  ],
  "a second L2 table inside of a cluster": [
    MIXED_DISK,
    img("convert -f raw -O qcow2 -o cluster_size=4k src a"),
    img("convert -f raw -O raw src old"),
    patch("a", [0x3008, 8, COPIED | 0x3200n]),
  ],
  "an L2 table behind the end": [...PLAIN_IMAGE, patch("a", [0x30000, 8, COPIED | 0x90000000n])],
  "a backing file with a damaged cluster": [
    ...PLAIN_IMAGE.slice(0, 1),
    img("convert -f raw -O qcow2 src base"),
    patch("base", [L2 + 8, 8, COPIED | 0x50200n]),
    img("create -f qcow2 -b base -F qcow2 a"),
    io("a", "write -P 1 1M 4k"),
    img("convert -f raw -O raw src old"),
  ],
};

/** Those that end a copy. Behind the end of a file there are zeros. */
const UNREADABLE = new Set(
  Object.keys(DAMAGES).filter((what) => !/(a cluster|an L2 table) behind/.test(what)),
);
const FAILED = { leftByReference: ["b"], code: 1 };

for (const [what, given] of Object.entries(DAMAGES)) {
  sameForEach(`damaged: ${what}`, LINES, { given });
  sameForEach(`damaged: ${what}`, CONVERTED, { given, ...UNREADABLE.has(what) && FAILED });
  sameForEach(`damaged: ${what}, saved`, SALVAGED, {
    given,
    files: ["b"],
    code: 0,
    // Several sectors may be looked at before the first is read.
    normalize: (text) => text.split("\n").sort().join("\n"),
  });
}

// Messages tell where in its own disk the second one cannot be read.
const SECOND: readonly Given[] = [
  img("create -f qcow2 a 1M"),
  io("a", "write -P 1 0 1M"),
  img("convert -O raw a old"),
  patch("a", [0x30000, 8, COPIED | 0x40200n]),
];
sameForEach("two images, the second damaged", [
  "convert -m 1 --image-opts -O raw driver=raw,file.filename=old driver=qcow2,file.filename=a b",
  "convert -m 1 -O qcow2 a a b",
], { given: SECOND, ...FAILED });
sameForEach("two images, the second damaged, saved", [
  "convert -m 1 --salvage --image-opts -O raw driver=raw,file.filename=old " +
  "driver=qcow2,file.filename=a b",
  "convert -m 1 --salvage -f qcow2 -O raw a a b",
], {
  given: SECOND,
  files: ["b"],
  code: 0,
  normalize: (text) => text.split("\n").sort().join("\n"),
});
