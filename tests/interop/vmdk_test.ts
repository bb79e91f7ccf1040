/** VMDK through both tools. */
import { assertEquals } from "@std/assert";
import { openImage } from "../../lib/ops/image.ts";
import { withoutContentId } from "../drivers/vmdk/_mask.ts";
import { reference, runQimg, useReference, writeWithReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { disk, folder, type Given, img, ioAs, sameForEach, text, truncate } from "./_cases.ts";

const K = 1024;
const M = 1024 * K;

const mask = withoutContentId;
const io = (image: string, ...commands: readonly string[]) => ioAs("vmdk", image, ...commands);
const create = (options: string) => img(`create -f vmdk ${options}`);

const SUBFORMATS = [
  "monolithicSparse",
  "monolithicFlat",
  "twoGbMaxExtentSparse",
  "twoGbMaxExtentFlat",
  "streamOptimized",
] as const;

/** The files of an image `a.vmdk` of so many bytes. */
function filesOf(subformat: string, size = M): string[] {
  switch (subformat) {
    case "monolithicFlat":
      return ["a.vmdk", "a-flat.vmdk"];
    case "twoGbMaxExtentSparse":
    case "twoGbMaxExtentFlat": {
      const kind = subformat.endsWith("Flat") ? "f" : "s";
      const count = Math.ceil(size / 2 ** 31);
      return ["a.vmdk", ...Array.from({ length: count }, (_, i) => `a-${kind}00${i + 1}.vmdk`)];
    }
    default:
      return ["a.vmdk"];
  }
}

for (const subformat of SUBFORMATS) {
  for (
    const [size, bytes] of [
      ["512", 512],
      ["1000", 1000],
      ["1M", M],
      ["100000k", 100000 * K],
      ["2G", 2 ** 31],
      ["2147484160", 2 ** 31 + 512],
      ["5G", 5 * 2 ** 30],
    ] as const
  ) {
    sameForEach("create, vmdk", [`create -f vmdk -o subformat=${subformat} a.vmdk ${size}`], {
      files: filesOf(subformat, bytes),
      mask,
      code: 0,
    });
  }
}

sameForEach("create, vmdk, options", [
  "create -f vmdk a.vmdk 0",
  "create -f vmdk -o subformat=streamOptimized a.vmdk 0",
  "create -f vmdk -o subformat=monolithicFlat a.vmdk 0",
  "create -f vmdk -o subformat=twoGbMaxExtentSparse a.vmdk 0",
  "create -f vmdk -o adapter_type=ide a.vmdk 10G",
  "create -f vmdk -o adapter_type=lsilogic a.vmdk 10G",
  "create -f vmdk -o adapter_type=buslogic a.vmdk 10G",
  "create -f vmdk -o adapter_type=legacyESX a.vmdk 10G",
  "create -f vmdk -o hwversion=13,toolsversion=10346 a.vmdk 1M",
  "create -f vmdk -o hwversion=undefined,compat6=on a.vmdk 1M",
  "create -f vmdk -o compat6=on a.vmdk 1M",
  "create -f vmdk -o zeroed_grain=on a.vmdk 1M",
  "create -f vmdk -o zeroed_grain=on,subformat=streamOptimized a.vmdk 1M",
  "create -f vmdk -o size=1M a.vmdk",
  "create -f vmdk ./a.vmdk 1M",
  "create -f vmdk file:a.vmdk 1M",
  "create -f vmdk a.vmdk 200G",
], { files: ["a.vmdk"], mask, code: 0 });

sameForEach("create, vmdk, names of extents", [
  "create -f vmdk -o subformat=monolithicFlat a 1M",
  "create -f vmdk -o subformat=monolithicFlat a.b.c 1M",
  "create -f vmdk -o subformat=monolithicFlat sub.d/a 1M",
  "create -f vmdk -o subformat=twoGbMaxExtentFlat .a 1M",
  "create -f vmdk -o subformat=twoGbMaxExtentSparse ./sub.d/a.x 3G",
], { given: [folder("sub.d")], code: 0 });

sameForEach("create refuses, vmdk", [
  "create -f vmdk -o adapter_type=scsi a.vmdk 1M",
  "create -f vmdk -o adapter_type= a.vmdk 1M",
  "create -f vmdk -o subformat=vmfs a.vmdk 1M",
  "create -f vmdk -o subformat=MonolithicSparse a.vmdk 1M",
  "create -f vmdk -o compat6=on,hwversion=4 a.vmdk 1M",
  "create -f vmdk -o zeroed_grain=on,subformat=monolithicFlat a.vmdk 1M",
  "create -f vmdk -o zeroed_grain=x a.vmdk 1M",
  "create -f vmdk -o cluster_size=64k a.vmdk 1M",
  "create -f vmdk -b base.vmdk -F raw a.vmdk 1M",
  "create -f vmdk -b base.vmdk -F vmdk -o subformat=monolithicFlat a.vmdk",
  "create -f vmdk -b base.vmdk -F vmdk -o subformat=twoGbMaxExtentFlat a.vmdk",
  "create -f vmdk -b base.vmdk a.vmdk",
  "create -f vmdk -b none.vmdk -F vmdk a.vmdk",
  "create -f vmdk a.vmdk",
  "create -f vmdk none/a.vmdk 1M",
  "create -f vmdk a.vmdk -1",
  "create -f vmdk a.vmdk 8E",
], { given: [create("base.vmdk 1M"), disk("raw", M, [])], code: 1 });

sameForEach("create refuses, vmdk, and leaves nothing of it", [
  "create -f vmdk -u -b none.vmdk -F vmdk a.vmdk 1M",
  "create -f vmdk -u -b raw -F vmdk a.vmdk 1M",
], { given: [disk("raw", M, [])], leftByReference: ["a.vmdk"], code: 1 });

sameForEach("create, vmdk, in front of others", [
  "create -f vmdk -b base.vmdk -F vmdk a.vmdk",
  "create -f vmdk -b base.vmdk -F vmdk a.vmdk 5M",
  "create -f vmdk -u -b base.vmdk -F vmdk a.vmdk 5M",
  "create -f vmdk -o backing_file=base.vmdk,backing_fmt=vmdk,zeroed_grain=on a.vmdk",
  "create -f vmdk -b base.vmdk -F vmdk -o subformat=streamOptimized a.vmdk",
  "create -f vmdk -b flat.vmdk -F vmdk a.vmdk",
], {
  given: [create("base.vmdk 1M"), create("-o subformat=monolithicFlat flat.vmdk 1M")],
  files: ["a.vmdk"],
  mask,
  code: 0,
});

const SPARSE: readonly Given[] = [
  create("a.vmdk 5M"),
  io(
    "a.vmdk",
    "write -P 1 66k 4k",
    "write -P 2 0 64k",
    "write -P 3 1M 300k",
    "write -P 4 4999k 121k",
  ),
];
const ZEROED: readonly Given[] = [
  create("-o zeroed_grain=on a.vmdk 5M"),
  io("a.vmdk", "write -P 1 64k 64k", "write -z 128k 128k", "write -z 64k 64k", "write -z 196k 32k"),
];
const DATA = disk("a", 5 * M + 512, [
  [0, 100 * K, "mixed"],
  [M, 300 * K, "noise"],
  [2 * M, 200 * K, "gaps"],
  [5 * M, 512, "noise"],
]);
const FLAT: readonly Given[] = [
  create("-o subformat=monolithicFlat a.vmdk 5M"),
  io("a.vmdk", "write -P 1 66k 4k", "write -P 2 1M 64k"),
];
const SPLIT: readonly Given[] = [
  create("-o subformat=twoGbMaxExtentSparse a.vmdk 5G"),
  io("a.vmdk", "write -P 1 66k 4k", "write -P 2 2097120k 64k", "write -P 3 4G 64k"),
];
const STREAM: readonly Given[] = [
  DATA,
  img("convert -O vmdk -o subformat=streamOptimized a a.vmdk"),
];
const CHAIN: readonly Given[] = [
  create("base.vmdk 5M"),
  io("base.vmdk", "write -P 1 0 1M", "write -P 2 3M 1M"),
  create("-b base.vmdk -F vmdk mid.vmdk"),
  io("mid.vmdk", "write -P 3 500k 100k"),
  create("-b mid.vmdk -F vmdk a.vmdk 6M"),
  io("a.vmdk", "write -P 4 3500k 10k"),
];
const WRONG_PARENT: readonly Given[] = [...CHAIN, io("base.vmdk", "write -P 9 0 512")];

const LOOKING = [
  "info a.vmdk",
  "info --output=json a.vmdk",
  "info --backing-chain a.vmdk",
  "info -f vmdk file:a.vmdk",
  "map a.vmdk",
  "map --output=json a.vmdk",
  "check a.vmdk",
  "check --output=json a.vmdk",
  "check -r all a.vmdk",
  "check -r leaks -f vmdk a.vmdk",
  "measure -O qcow2 a.vmdk",
  "measure -O vmdk a.vmdk",
  "measure -O raw a.vmdk",
  "resize a.vmdk 10G",
  "resize --shrink a.vmdk 1M",
  "amend -o hwversion=4 a.vmdk",
  "snapshot -l a.vmdk",
  "rebase -u -b x -F vmdk a.vmdk",
];
for (
  const [what, given] of [
    ["sparse", SPARSE],
    ["zeroed grains", ZEROED],
    ["flat", FLAT],
    ["split", SPLIT],
    ["stream", STREAM],
    ["a chain", CHAIN],
    ["a chain whose base has changed", WRONG_PARENT],
  ] as const
) {
  sameForEach(`vmdk, ${what}`, LOOKING, { given });
  sameForEach(`vmdk, ${what}: content`, [
    // One at a time: each request that fails has its own words.
    "convert -m 1 -O raw a.vmdk out",
    // Of two extents it would be gigabytes of zeros.
    ...(what === "split" ? [] : ["convert -m 1 -O raw -S 0 a.vmdk out"]),
    "convert -m 1 -O qcow2 a.vmdk out",
    "dd if=a.vmdk of=out bs=1M count=5",
  ], {
    given,
    ...(what.includes("changed") ? { leftByReference: ["out"] } : { files: ["out"] }),
    slack: 6 * 2 ** 30,
  });
}

for (const subformat of SUBFORMATS) {
  sameForEach(
    `convert to vmdk, ${subformat}`,
    [
      "",
      "-S 0",
      "-c",
      "-o hwversion=8,adapter_type=lsilogic",
    ].map((options) =>
      `convert -O vmdk -o subformat=${subformat} ${options} a a.vmdk`.split(/ +/).join(" ")
    )
      .filter((line) => !(line.includes("-c ") && subformat.includes("Flat"))),
    {
      given: [DATA],
      ...(subformat === "streamOptimized"
        ? { images: [{ name: "a.vmdk", format: "vmdk", check: true }], slack: 512 * K }
        : { files: filesOf(subformat), mask, slack: 512 * K }),
      code: 0,
    },
  );
}
sameForEach(
  "convert to vmdk in any order",
  SUBFORMATS.map((subformat) => `convert -W -m 4 -O vmdk -o subformat=${subformat} a a.vmdk`),
  {
    given: [DATA],
    images: [{ name: "a.vmdk", format: "vmdk", check: true, map: false }],
    slack: 512 * K,
    code: 0,
  },
);
for (const subformat of ["monolithicFlat", "twoGbMaxExtentFlat"]) {
  sameForEach("convert to vmdk refuses to compress", [
    `convert -c -O vmdk -o subformat=${subformat} a a.vmdk`,
  ], { given: [DATA], leftByReference: filesOf(subformat).toSorted(), code: 1 });
}
sameForEach("convert to vmdk that is there", [
  "convert -n -O vmdk a a.vmdk",
  "convert -n -O vmdk -S 0 a a.vmdk",
  "convert -n -O vmdk --target-is-zero a a.vmdk",
], { given: [DATA, create("a.vmdk 6M")], files: ["a.vmdk"], mask, slack: 6 * M, code: 0 });
sameForEach("convert to vmdk with zeroed grains that is there", [
  "convert -n -O vmdk a a.vmdk",
], {
  given: [DATA, create("-o zeroed_grain=on a.vmdk 6M"), io("a.vmdk", "write -P 7 2M 2M")],
  images: [{ name: "a.vmdk", format: "vmdk", check: true }],
  slack: 6 * M,
  code: 0,
});
sameForEach("convert to vmdk, over a backing file", [
  "convert -O vmdk -B base.vmdk -F vmdk c.vmdk a.vmdk",
], {
  given: [
    create("base.vmdk 5M"),
    io("base.vmdk", "write -P 1 0 1M"),
    create("-b base.vmdk -F vmdk c.vmdk"),
    io("c.vmdk", "write -P 2 300k 1k", "write -P 3 4M 64k"),
  ],
  files: ["a.vmdk"],
  mask,
  code: 0,
});
sameForEach("convert to a vmdk stream that has data", ["convert -n -O vmdk a a.vmdk"], {
  given: STREAM,
  code: 1,
});

/** A stand-alone descriptor. */
function described(createType: string, extents: readonly string[], more = ""): string {
  return `# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n` +
    `createType="${createType}"\n${more}# Extent description\n${extents.join("\n")}\n`;
}

const describes = (about: string, content: string, given: readonly Given[] = []) =>
  sameForEach(`vmdk, a descriptor with ${about}`, [
    "info a.vmdk",
    "map --output=json a.vmdk",
    "convert -O raw a.vmdk out",
    "check a.vmdk",
  ], { given: [disk("f", M, [[0, 100 * K, "noise"]]), ...given, text("a.vmdk", content)] });

describes("one flat extent", described("monolithicFlat", ['RW 2048 FLAT "f" 0']));
describes("VMFS", described("vmfs", ['RW 2048 VMFS "f"']));
describes(
  "offsets in flat extents",
  described("monolithicFlat", [
    'RW 100 FLAT "f" 8',
    'RW 100 FLAT "f" 0',
  ]),
);
describes("an extent longer than its file", described("vmfs", ['RW 4096 VMFS "f"']));
describes("an extent behind its file's end", described("monolithicFlat", ['RW 8 FLAT "f" 9999']));
describes("Windows line ends", described("vmfs", ['RW 2048 VMFS "f"']).replaceAll("\n", "\r\n"));
describes(
  "lines that nobody may write",
  described("vmfs", [
    'RDONLY 100 VMFS "f"',
    'RW 2048 VMFS "f"',
    "NOACCESS 100 ZERO",
    'RW 0 VMFS "f"',
    'RW 10 ZERO "f"',
    'RW 10 VMFSRAW "f"',
  ]),
);
describes("a file that is not there", described("vmfs", ['RW 2048 VMFS "none"']));
describes("a flat extent without offset", described("vmfs", ['RW 2048 FLAT "f"']));
describes("a VMFS extent with offset", described("vmfs", ['RW 2048 VMFS "f" 0']));
describes("an unknown extent with offset", described("vmfs", ['RW 2048 ODD "f" 0']));
describes("a negative offset", described("vmfs", ['RW 2048 FLAT "f" -1']));
describes("a sparse extent that is none", described("vmfsSparse", ['RW 2048 SPARSE "f"']));
describes("a kind that there is not", described("fullDevice", ['RW 2048 VMFS "f"']));
describes("a kind that is not stand-alone", described("monolithicSparse", ['RW 2048 SPARSE "f"']));
describes("no kind", described("vmfs", ['RW 2048 VMFS "f"']).replace("createType", "x"));
describes("a kind without end", 'version=1\nCID=1\nparentCID=1\ncreateType="vmfs\n');
describes("no content id", described("vmfs", ['RW 2048 VMFS "f"']).replaceAll("CID", "X"));
describes(
  "no parent's content id",
  described("vmfs", ['RW 2048 VMFS "f"']).replace("parentCID", "x"),
);
describes("odd content ids", described("vmfs", ['RW 2048 VMFS "f"']).replace("12345678", "0xFFg"));
describes(
  "a hint without end",
  described("vmfs", ['RW 2048 VMFS "f"'], 'parentFileNameHint="abc\n'),
);
describes(
  "a parent that is not there",
  described("vmfs", ['RW 2048 VMFS "f"'], 'parentFileNameHint="p"\n'),
);
describes(
  "a parent that is no vmdk",
  described("vmfs", ['RW 2048 VMFS "f"'], 'parentFileNameHint="f"\n'),
);
describes("spaces and comments first", `# x\n   \n#\n${described("vmfs", ['RW 2048 VMFS "f"'])}`);
describes(
  "sparse extents of others",
  described("twoGbMaxExtentSparse", [
    'RW 2048 SPARSE "s.vmdk"',
    'RW 2048 FLAT "f" 0',
  ]),
  [create("s.vmdk 1M"), io("s.vmdk", "write -P 1 10k 100k")],
);

sameForEach("vmdk, files that are none", [
  "info -f vmdk a",
  "info a",
  "info -f vmdk empty",
  "info -f vmdk short",
  "info -f vmdk half.vmdk",
  "info half.vmdk",
], {
  given: [
    text("a", "version=4\n"),
    text("empty", ""),
    text("short", "KD"),
    create("half.vmdk 1M"),
    truncate("half.vmdk", 40000),
  ],
});

/** Requests that both make, as `qemu-io` has them. */
type Request =
  | readonly ["write", pattern: number, offset: number, length: number]
  | readonly [
    "zero",
    offset: number,
    length: number,
  ];

/** Both write the same to an image that the reference made; afterwards its files are the same. */
function writesAlike(
  about: string,
  options: string,
  files: readonly string[],
  requests: readonly Request[],
): void {
  Deno.test({
    name: `vmdk, written by both: ${about}`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      for (const side of ["theirs", "ours"]) {
        await Deno.mkdir(dir.file(side));
        const args = ["create", "-q", "-f", "vmdk", ...options.split(" ")];
        if (side === "theirs") await useReference(args, { cwd: dir.file(side) });
        else {
          for (const file of files) {
            await Deno.copyFile(dir.file(`theirs/${file}`), dir.file(`ours/${file}`));
          }
        }
      }
      const commands = requests.map((request) =>
        request[0] === "write"
          ? `write -P ${request.slice(1).join(" ")}`
          : `write -z ${request.slice(1).join(" ")}`
      );
      await writeWithReference("a.vmdk", commands, { cwd: dir.file("theirs"), format: "vmdk" });
      {
        await using image = await openImage(
          { filename: dir.file("ours/a.vmdk"), format: "vmdk" },
          { writable: true },
        );
        for (const request of requests) {
          if (request[0] === "write") {
            await image.write(request[2], new Uint8Array(request[3]).fill(request[1]));
          } else await image.writeZeroes(request[1], request[2]);
        }
      }
      for (const file of files) {
        const [wanted, found] = await Promise.all(
          ["theirs", "ours"].map(async (side) =>
            withoutContentId(await Deno.readFile(dir.file(`${side}/${file}`)))
          ),
        );
        assertEquals(found!.length, wanted!.length, `length of ${file}`);
        assertEquals(found!.findIndex((byte, i) => byte !== wanted![i]), -1, `bytes of ${file}`);
      }
      const { code } = await runQimg(["check", "ours/a.vmdk"], { cwd: dir.path });
      assertEquals(code, 0);
    },
  });
}

const REQUESTS: readonly Request[] = [
  ["write", 0x5a, 66 * K, 4 * K],
  ["write", 0x11, 0, 64 * K],
  ["write", 7, 100 * K, 300 * K],
  ["write", 8, 5 * M - 1024, 512],
  ["write", 9, 3 * M + 512, 128 * K],
  ["write", 10, 70 * K, 1 * K],
];
writesAlike("sparse", "a.vmdk 5M", ["a.vmdk"], REQUESTS);
writesAlike("a disk that ends within a grain", "a.vmdk 5241344", ["a.vmdk"], [
  ...REQUESTS.slice(0, 3),
  ["write", 1, 5241344 - 512, 512],
]);
writesAlike("zeros without entries for them", "a.vmdk 5M", ["a.vmdk"], [
  ...REQUESTS,
  ["zero", 128 * K, 256 * K],
  ["zero", 4 * M + 512, 1024],
]);
writesAlike("zeroed grains", "-o zeroed_grain=on a.vmdk 5M", ["a.vmdk"], [
  ...REQUESTS,
  ["zero", 64 * K, 128 * K],
  ["zero", 3 * M + 100 * K, 256 * K],
  ["write", 3, 100 * K, 1 * K],
]);
writesAlike("flat", "-o subformat=monolithicFlat a.vmdk 5M", ["a.vmdk", "a-flat.vmdk"], [
  ...REQUESTS,
  ["zero", 64 * K, 128 * K],
]);
writesAlike(
  "split",
  "-o subformat=twoGbMaxExtentSparse a.vmdk 3G",
  ["a.vmdk", "a-s001.vmdk", "a-s002.vmdk"],
  [...REQUESTS, ["write", 1, 2 ** 31 - 3 * K, 8 * K]],
);
