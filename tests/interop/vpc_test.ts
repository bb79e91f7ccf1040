/** VHD through both tools. */
import { assert, assertEquals } from "@std/assert";
import { openImage } from "../../lib/ops/image.ts";
import { withoutIdentity } from "../drivers/vpc/_mask.ts";
import { patchFooters } from "../drivers/vpc/_images.ts";
import { assertSame, reference, useQimg, useReference, writeWithReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { disk, type Given, img, ioAs, patch, same, sameForEach, truncate } from "./_cases.ts";

const [K, M] = [1024, 1024 * 1024];

const mask = withoutIdentity;
const io = (...commands: readonly string[]) => ioAs("vpc", "a.vhd", ...commands);
const create = (options: string) => img(`create -f vpc ${options}`);

/** Changes fields of all footers: big-endian numbers at their offsets, or four characters. */
function footers(
  ...changes: readonly (readonly [offset: number, size: 1 | 2 | 4 | 8, value: number | bigint])[]
): Given {
  return {
    key: `footers ${JSON.stringify(changes.map((change) => change.map(String)))}`,
    async make(dir) {
      const bytes = await Deno.readFile(`${dir}/a.vhd`);
      patchFooters(bytes, (footer) => {
        for (const [offset, size, value] of changes) {
          const number = new Uint8Array(8);
          new DataView(number.buffer).setBigUint64(0, BigInt(value));
          footer.set(number.subarray(8 - size), offset);
        }
      });
      await Deno.writeFile(`${dir}/a.vhd`, bytes);
    },
  };
}

/** Four characters as a number. */
function code(text: string): number {
  return new DataView(new TextEncoder().encode(text.padEnd(4, "\0")).buffer).getUint32(0);
}

/** Where the footers of the images below end: 6 MiB in whole cylinders, and two blocks. */
const [FIXED_END, DYNAMIC_END] = [6301696 + 512, 2048 + 2 * (2 * M + 512) + 512];

const SOURCE: readonly Given[] = [
  disk("src", 9 * M + 3 * K, [
    [0, 100 * K, "mixed"],
    [2 * M, 2 * M, "noise"],
    [5 * M + 512, 700 * K, "gaps"],
    [7 * M, M, "zeros"],
    [9 * M, 3 * K, "flat"],
  ]),
];

const DYNAMIC: readonly Given[] = [
  create("a.vhd 6M"),
  io("write -P 1 4M 64k", "write -P 2 100k 1M", "write -P 3 5M 1M"),
];
const FIXED: readonly Given[] = [
  create("-o subformat=fixed a.vhd 6M"),
  io("write -P 1 4M 64k", "write -P 2 100k 1M", "write -P 3 5M 1M"),
];
const EXACT: readonly Given[] = [
  create("-o force_size=on a.vhd 7340544"),
  io("write -P 1 4M 64k", "write -P 2 7340032 512"),
];

const IMAGES: Readonly<Record<string, readonly Given[]>> = {
  "empty": [create("a.vhd 5M")],
  "of no size": [create("a.vhd 0")],
  "of 127 GiB": [create("a.vhd 127G")],
  "dynamic": DYNAMIC,
  "dynamic, of an exact size": EXACT,
  "fixed": FIXED,
  "fixed, of an exact size": [
    create("-o subformat=fixed,force_size=on a.vhd 3000001"),
    io("write -P 1 0 64k", "write -P 2 2999808 512"),
  ],
  "fixed, with a footer of 511 bytes": [...FIXED, truncate("a.vhd", FIXED_END - 1)],
  "with a damaged footer at its end": [...DYNAMIC, patch("a.vhd", [DYNAMIC_END - 512, 4, 0])],
  "without the footer at its end": [...DYNAMIC, truncate("a.vhd", DYNAMIC_END - 512)],
  "with a footer of 511 bytes": [...DYNAMIC, truncate("a.vhd", DYNAMIC_END - 1)],
  "with bitmaps that are not full": [...DYNAMIC, patch("a.vhd", [2048, 8, 0x0f00f0f0f0f0f0f0n])],
  "with a block in two places": [...DYNAMIC, patch("a.vhd", [1536 + 4, 4, 4])],
  "with a header that calls it fixed": [...DYNAMIC, footers([60, 4, 2])],
  "of an unknown type": [...DYNAMIC, footers([60, 4, 9])],
  "with a wrong checksum in its header": [...DYNAMIC, patch("a.vhd", [512 + 36, 4, 1])],
  "longer than its table says": [...DYNAMIC, truncate("a.vhd", 9 * M)],
};

/** Of these, what both tools say to all commands. */
const WHOLE = ["of no size", "dynamic", "fixed"];

for (const [kind, given] of Object.entries(IMAGES)) {
  // What a fixed image is taken for does not depend on its footer.
  const format = kind.startsWith("fixed") ? "-f vpc " : "";
  sameForEach(`vpc ${kind}`, [
    `info ${format}--output=json a.vhd`,
    `map ${format}--output=json a.vhd`,
  ], { given });
  if (!kind.endsWith("GiB")) {
    same(`vpc ${kind}: to raw`, {
      given,
      run: `convert -p ${format}-O raw a.vhd b`,
      images: [{ name: "b", format: "raw" }],
    });
    same(`vpc ${kind}: to itself`, {
      given,
      run: `convert ${format}-O vpc a.vhd b.vhd`,
      files: ["b.vhd"],
      mask,
    });
  }
  if (!WHOLE.includes(kind)) continue;
  sameForEach(`vpc ${kind}`, [
    "info a.vhd",
    "info -f vpc a.vhd",
    `map ${format}a.vhd`,
    `check ${format}a.vhd`,
    `check ${format}--output=json a.vhd`,
    `measure ${format}-O qcow2 a.vhd`,
    `snapshot ${format}-l a.vhd`,
    `check ${format}-r all a.vhd`,
    `resize ${format}a.vhd 200G`,
    `resize ${format}--shrink a.vhd 1M`,
    `snapshot ${format}-c s a.vhd`,
    `amend ${format}-o size=1M a.vhd`,
    `rebase ${format}-u -b x -F raw a.vhd`,
    `commit ${format}a.vhd`,
  ], { given, files: ["a.vhd"] });
  same(`vpc ${kind}: to qcow2`, {
    given,
    run: `convert ${format}-O qcow2 a.vhd b`,
    images: ["b"],
  });
}

for (
  const line of [
    "convert -p -f raw -O vpc src b.vhd",
    "convert -f raw -O vpc -S 0 src b.vhd",
    "convert -f raw -O vpc -o force_size=on -S 1M src b.vhd",
    "convert -f raw -O vpc -m 4 src b.vhd",
    "convert -f raw -O vpc -t none src b.vhd",
    "convert -f raw -O vpc src src b.vhd",
    "convert -p -f raw -O vpc -o subformat=fixed src b.vhd",
    "convert -f raw -O vpc -o subformat=fixed -S 0 src b.vhd",
    "convert -f raw -O vpc -o subformat=fixed,force_size=on -S 1M src b.vhd",
    "convert -f raw -O vpc -o subformat=fixed -t none src b.vhd",
    "convert -f raw -O vpc -o subformat=fixed src src b.vhd",
  ]
) same(`vpc: ${line}`, { given: SOURCE, run: line, files: ["b.vhd"], mask, slack: 2.5 * M });
same("vpc: dd", {
  given: SOURCE,
  run: "dd -f raw -O vpc if=src of=b.vhd bs=64k skip=3 count=90",
  files: ["b.vhd"],
  mask,
  slack: 2.5 * M,
});

for (const options of ["", "-o subformat=fixed "]) {
  for (const zeros of ["", "-S 0 "]) {
    same(`vpc: onto an image that exists, ${options}${zeros}`, {
      given: [
        ...SOURCE,
        create(`${options}a.vhd 10M`),
        io("write -P 9 8M 1M", "write -P 8 0 300k"),
      ],
      run: `convert -n ${zeros}-f raw -O vpc src a.vhd`,
      files: ["a.vhd"],
      mask,
      slack: 2.5 * M,
    });
  }
}

for (const [source, line] of [["dynamic", "a.vhd src"], ["fixed", "src a.vhd"]] as const) {
  same(`vpc: compare, ${source}`, {
    given: [...SOURCE, img(`convert -f raw -O vpc -o subformat=${source} src a.vhd`)],
    run: line.startsWith("a") ? `compare -f vpc -F raw ${line}` : `compare -f raw -F vpc ${line}`,
  });
}

sameForEach("vpc: refused", [
  "convert -c -f raw -O vpc src b.vhd",
  "convert -f raw -O vpc -B src -F raw src b.vhd",
  "convert -f raw -O vpc -o force_size=x src b.vhd",
  "convert -f raw -O vpc -o block_size=1M src b.vhd",
  "measure -f raw -O vpc src",
  "create -f vpc -b src -F raw b.vhd 1M",
  "create -f vpc -u -b src -F raw b.vhd 1M",
  "create -f vpc b.vhd",
  "create -f vpc -o force_size=x b.vhd 1M",
  "create -f vpc -o encryption=on b.vhd 1M",
], { given: SOURCE });

for (
  const line of [
    "create -f vpc b.vhd 2041G",
    "create -f vpc b.vhd 2190433320961",
    "create -f vpc b.vhd 9000T",
    "create -f vpc -o force_size=on b.vhd 2041G",
    "create -f vpc -o preallocation=metadata b.vhd 1M",
    "create -f vpc -o subformat=x b.vhd 1M",
    "create -f vpc -o subformat=x b.vhd 3T",
    "create -f vpc -o subformat= b.vhd 3T",
    "create -f vpc -o subformat=Fixed b.vhd 1M",
  ]
) same(`vpc: ${line}`, { run: line, leftByReference: ["b.vhd"] });

// Where the shape of a disk changes, and with it the size.
const SIZES = [
  ...["0", "1", "512", "34815", "34816", "34817", "1M", "16M", "100M", "500M", "533M", "534M"],
  ...["1G", "1014M", "1015M", "8G", "31G", "33822867456", "33822867457", "127G", "136899993600"],
  ...["136899993601", "136910000000", "128G", "1T", "2040G"],
];
for (
  const line of [
    ...SIZES.map((size) => `create -f vpc b.vhd ${size}`),
    "create -f vpc -o force_size=on b.vhd 1",
    "create -f vpc -o force_size=on b.vhd 128G",
    "create -f vpc -o force_size=on b.vhd 2040G",
  ]
) same(`vpc: ${line}`, { run: line, files: ["b.vhd"], mask, slack: 1.5 * M });
for (
  const line of [
    "create -q -f vpc -o subformat=fixed b.vhd 3000001",
    "create -f vpc -o subformat=fixed b.vhd 0",
    "create -f vpc -o subformat=fixed,force_size=on b.vhd 30M",
    "create -f vpc -o subformat=dynamic,force_size=off b.vhd 3M",
    "create -f vpc -o force_size b.vhd 3M",
    "create -f vpc -o size=7M b.vhd",
    "create -f vpc -o preallocation=full,subformat=fixed b.vhd 1M",
    "create -f vpc -o preallocation=falloc b.vhd 1M",
  ]
) same(`vpc: ${line}`, { run: line, files: ["b.vhd"], mask, slack: 1.5 * M });

sameForEach("vpc: options", ["create -f vpc -o help", "create -f vpc -o help b.vhd"], {
  // What options are for is told in other words.
  normalize: (text) => text.replaceAll(/ +- .*/g, ""),
});

// Whose disks are as long as their geometry says, and whose as the current size.
for (
  const creator of [
    "qemu",
    "vpc ",
    "qem2",
    "win ",
    "d2v",
    "d2v ",
    "tap",
    "CTXS",
    "wa",
    "vbox",
    "",
    "VPC ",
  ]
) {
  const given = [create("a.vhd 5M"), footers([28, 4, code(creator)], [48, 8, 3 * M])];
  same(`vpc by '${creator}'`, { given, run: "info a.vhd" });
  same(`vpc by '${creator}', with the largest geometry`, {
    given: [...given, footers([56, 4, 0xffff10ff])],
    run: "info --image-opts driver=vpc,file.filename=a.vhd,force_size_calc=chs",
  });
}
for (const creator of ["vpc ", "win "]) {
  sameForEach(`vpc by '${creator}'`, [
    "info --image-opts driver=vpc,file.filename=a.vhd,force_size_calc=chs",
    "info --image-opts driver=vpc,file.filename=a.vhd,force_size_calc=current_size",
  ], { given: [create("a.vhd 5M"), footers([28, 4, code(creator)], [48, 8, 3 * M])] });
}
sameForEach("vpc: how to find the size", [
  "info --image-opts driver=vpc,file.filename=a.vhd,force_size_calc=x",
  "info --image-opts driver=vpc,file.filename=a.vhd,force_size_calc=CHS",
  "info --image-opts driver=vpc,file.filename=a.vhd,force_size=chs",
  "map --image-opts driver=vpc,file.filename=a.vhd,force_size_calc=chs",
], { given: DYNAMIC });
same("vpc: how to find the size, of nothing", {
  given: DYNAMIC,
  run: ["info", "--image-opts", "driver=vpc,file.filename=a.vhd,force_size_calc="],
});

const BROKEN: Readonly<Record<string, readonly Given[]>> = {
  "cookie": [patch("a.vhd", [0, 1, 1])],
  "checksum": [patch("a.vhd", [64, 1, 1])],
  "data offset": [footers([16, 8, 1 * M])],
  "data offset behind the end": [footers([16, 8, 64 * M])],
  "data offset, far behind": [footers([16, 8, 2n ** 61n])],
  "data offset, at most": [footers([16, 8, 2n ** 64n - 1n])],
  "current size": [footers([28, 4, code("win ")], [48, 8, 2n ** 42n])],
  "current size, at most": [footers([28, 4, code("win ")], [48, 8, 2n ** 64n - 1n])],
  "current size, too large for the table": [footers([28, 4, code("win ")], [48, 8, 10 * M])],
  "header cookie": [patch("a.vhd", [512, 1, 1])],
  "table offset behind the end": [patch("a.vhd", [512 + 16, 8, 64 * M])],
  "table offset, far behind": [patch("a.vhd", [512 + 16, 8, 2n ** 61n])],
  "table offset, at most": [patch("a.vhd", [512 + 16, 8, 2n ** 64n - 1n])],
  "entries, too few": [patch("a.vhd", [512 + 28, 4, 3])],
  "entries, none": [patch("a.vhd", [512 + 28, 4, 0])],
  "entries, many": [patch("a.vhd", [512 + 28, 4, 10000000])],
  "entries, too many": [patch("a.vhd", [512 + 28, 4, 536870912])],
  "entries, 1073741825": [patch("a.vhd", [512 + 28, 4, 1073741825])],
  "entries, at most": [patch("a.vhd", [512 + 28, 4, 0xffffffff])],
  "block size of nothing": [patch("a.vhd", [512 + 32, 4, 0])],
  "block size, odd": [patch("a.vhd", [512 + 32, 4, 2097153])],
  "block size, small": [patch("a.vhd", [512 + 32, 4, 256])],
  "block size, less": [patch("a.vhd", [512 + 32, 4, M])],
  "block size, more": [patch("a.vhd", [512 + 32, 4, 4 * M])],
  "block size, at most": [patch("a.vhd", [512 + 32, 4, 2 ** 31])],
  "block behind the end": [patch("a.vhd", [1536, 4, 0x6000])],
  "block far behind the end": [patch("a.vhd", [1536, 4, 0xfffffffe])],
  "end": [truncate("a.vhd", 3 * M)],
  "table": [truncate("a.vhd", 1500)],
  "header": [truncate("a.vhd", 512)],
  "footer": [truncate("a.vhd", 511)],
  "nothing": [truncate("a.vhd", 0)],
};
for (const [field, damage] of Object.entries(BROKEN)) {
  same(`vpc, broken: ${field}`, { given: [...DYNAMIC, ...damage], run: "info -f vpc a.vhd" });
}
same("vpc, broken: a fixed image that is nothing but a footer", {
  given: [create("-o subformat=fixed,force_size=on a.vhd 0")],
  run: "info a.vhd",
});

const BROKEN_FIXED: Readonly<Record<string, readonly Given[]>> = {
  "cookie": [patch("a.vhd", [FIXED_END - 512, 1, 1])],
  "checksum": [patch("a.vhd", [FIXED_END - 512 + 64, 1, 1])],
  "type": [footers([60, 4, 3])],
  "too short": [truncate("a.vhd", 500)],
  "of one sector": [truncate("a.vhd", 512)],
  "a disk that is longer": [footers([28, 4, code("win ")], [48, 8, 9 * M])],
  "a disk that is too long": [footers([28, 4, code("win ")], [48, 8, 2n ** 42n])],
};
for (const [field, damage] of Object.entries(BROKEN_FIXED)) {
  same(`vpc, broken, fixed: ${field}`, { given: [...FIXED, ...damage], run: "map -f vpc a.vhd" });
}

/** Requests that both make, as `qemu-io` has them. */
type Request =
  | readonly ["write", pattern: number, offset: number, length: number]
  | readonly ["zero", offset: number, length: number];

/** Both write the same to an image that the reference made; afterwards its files are the same. */
function writesAlike(
  about: string,
  given: readonly Given[],
  requests: readonly Request[],
): void {
  Deno.test({
    name: `vpc, written by both: ${about}`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      await Deno.mkdir(dir.file("theirs"));
      for (const step of given) await step.make(dir.file("theirs"));
      await Deno.mkdir(dir.file("ours"));
      await Deno.copyFile(dir.file("theirs/a.vhd"), dir.file("ours/a.vhd"));
      const commands = requests.map((request) =>
        request[0] === "write"
          ? `write -P ${request.slice(1).join(" ")}`
          : `write -z ${request.slice(1).join(" ")}`
      );
      await writeWithReference("a.vhd", commands, { cwd: dir.file("theirs"), format: "vpc" });
      {
        await using image = await openImage(
          { filename: dir.file("ours/a.vhd"), format: "vpc" },
          { writable: true },
        );
        for (const request of requests) {
          if (request[0] === "write") {
            await image.write(request[2], new Uint8Array(request[3]).fill(request[1]));
          } else await image.writeZeroes(request[1], request[2]);
        }
      }
      const [wanted, found] = await Promise.all(
        ["theirs", "ours"].map((side) => Deno.readFile(dir.file(`${side}/a.vhd`))),
      );
      assertEquals(found!.length, wanted!.length);
      assertEquals(found!.findIndex((byte, i) => byte !== wanted![i]), -1);
      await useReference(["compare", "-f", "vpc", "-F", "vpc", "theirs/a.vhd", "ours/a.vhd"], {
        cwd: dir.path,
      });
    },
  });
}

const REQUESTS: readonly Request[] = [
  ["write", 0x5a, 3 * M + 66 * K, 4 * K],
  ["write", 0x11, 0, 64 * K],
  ["write", 7, 2 * M - 512, 1024],
  ["write", 8, 1 * M, 3 * M + 1],
  ["zero", 5 * M, 1 * M],
  ["zero", 100, 1000],
  ["write", 9, 6 * M - 1, 1],
];
writesAlike("dynamic", [create("a.vhd 8M")], REQUESTS);
writesAlike("with blocks", DYNAMIC, REQUESTS);
writesAlike("of an exact size", EXACT, [...REQUESTS, ["write", 4, 7340543, 1]]);
writesAlike("fixed", FIXED, REQUESTS);
writesAlike(
  "fixed, with a footer of 511 bytes",
  IMAGES["fixed, with a footer of 511 bytes"]!,
  REQUESTS,
);
writesAlike("without a footer at its end", IMAGES["without the footer at its end"]!, REQUESTS);
writesAlike("bitmaps that are not full", IMAGES["with bitmaps that are not full"]!, REQUESTS);

const SAMPLE = new URL("../../../shared/samples/virtualpc-dynamic.vhd.bz2", import.meta.url);
const hasSample = await Deno.stat(SAMPLE).then(() => true, () => false);

Deno.test({
  name: "vpc: an image that Virtual PC made is described, mapped and copied alike",
  ignore: reference.ignore || !hasSample,
  async fn() {
    const { success, stdout } = await new Deno.Command("bzcat", { args: [SAMPLE.pathname] })
      .output();
    assert(success);
    for (
      const run of ["info a.vhd", "map --output=json a.vhd", "convert -O qcow2 a.vhd b"]
    ) {
      await assertSame(run.split(" "), {
        setup: (dir) => Deno.writeFile(`${dir}/a.vhd`, stdout),
        images: run.startsWith("convert") ? ["b"] : [],
      });
    }
    await using dir = await tempDir();
    const cwd = dir.path;
    await Deno.writeFile(dir.file("a.vhd"), stdout);
    await useReference(["convert", "-O", "raw", "a.vhd", "theirs"], { cwd });
    await useQimg(["convert", "-O", "raw", "a.vhd", "ours"], { cwd });
    const args = ["compare", "-s", "-f", "raw", "-F", "raw", "ours", "theirs"];
    assertEquals(await useReference(args, { cwd }), "Images are identical.\n");
  },
});
