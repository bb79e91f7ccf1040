/** Apple's disk images, which both tools can only read. */
import { assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { deflateSync } from "node:zlib";
import { entropyBlock, lzfseStream, packAdc } from "../codec/_apple.ts";
import { fromHex } from "../codec/_samples.ts";
import { ChunkType, type DmgChunk, dmgImage, type DmgOptions, trailerOf } from "../_dmg.ts";
import { Random } from "../_random.ts";
import { reference, runQimg, runReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { type Given, patch, same, sameForEach, truncate } from "./_cases.ts";

const NAME = "a.dmg";
const MiB = 1 << 20;

/** 1024 times the same letter, as bzip2 packs them. */
const BZIP2 = fromHex(
  "425a683931415926535965515b950000044200c00000100008200030cc05536a62283c5dc914e1424195456e54",
);

/** An image, which `about` tells apart from others. */
function image(about: string, options: () => DmgOptions): Given {
  return {
    key: `dmg ${about}`,
    make: (dir) => Deno.writeFile(`${dir}/${NAME}`, dmgImage(options())),
  };
}

/** Bytes of a chunk: noise, or words that pack. */
function content(sectors: number, seed: number): Uint8Array {
  return new Random(seed).bytes(sectors * 512, seed % 2 === 0 ? 256 : 4);
}

function zlib(sectors: number, seed: number): DmgChunk {
  return { type: ChunkType.zlib, sectors, bytes: deflateSync(content(sectors, seed)) };
}

function raw(sectors: number, seed: number): DmgChunk {
  return { type: ChunkType.raw, sectors, bytes: content(sectors, seed) };
}

const zero = (sectors: number): DmgChunk => ({ type: ChunkType.zero, sectors });
const ignore = (sectors: number): DmgChunk => ({ type: ChunkType.ignore, sectors });
const comment: DmgChunk = { type: ChunkType.comment, sectors: 0 };
const last: DmgChunk = { type: ChunkType.last, sectors: 0 };

/** The tables of section 5 of the format's reference. */
const VECTOR: DmgOptions["tables"] = [[
  { type: ChunkType.zlib, sectors: 2, bytes: deflateSync(new Uint8Array(1024).fill(0x5a)) },
  { type: ChunkType.raw, sectors: 2, bytes: new Uint8Array(1024).fill(0x52) },
  zero(3),
  ignore(1),
  comment,
  last,
]];

/** Small tables of borders that nothing is aligned to, as partitioned disks have them. */
const PARTITIONS: DmgOptions["tables"] = [
  [zlib(1, 1), last],
  [raw(33, 2), last],
  [ignore(6), last],
  [zlib(512, 3), comment, zlib(512, 4), zero(512), raw(512, 5), zlib(13, 6), last],
  [zlib(32, 7), zlib(1, 8), last],
];

const IMAGES: Readonly<Record<string, DmgOptions>> = {
  "vector": { tables: VECTOR },
  "vector, resource fork": { tables: VECTOR, layout: "resources" },
  "vector, odd length": { tables: VECTOR, padding: 3 },
  "vector, odd length, resource fork": { tables: VECTOR, padding: 511, layout: "resources" },
  "data further behind": { tables: PARTITIONS, dataOffset: 1000 },
  "partitions": { tables: PARTITIONS },
  "partitions, resource fork": { tables: PARTITIONS, layout: "resources" },
  "other things in the list": { tables: VECTOR, extra: content(1, 9) },
  "other things among resources": { tables: VECTOR, extra: content(1, 9), layout: "resources" },
  "chunks that cross what is copied at a time": {
    tables: [[
      zero(40),
      ...Array.from({ length: 12 }, (_, index) => zlib(1000 + index, index)),
      zero(3 * MiB / 512),
      raw(4 * MiB / 512, 1),
      zlib(5 * MiB / 512, 3),
      last,
    ]],
  },
  "raw bytes that are more than their sectors": {
    tables: [[
      { type: ChunkType.raw, sectors: 2, bytes: content(5, 2) },
      { type: ChunkType.raw, sectors: 2, bytes: content(3, 4) },
    ]],
  },
  "a disk that ends within a chunk": { tables: [[zlib(40, 1)]], sectors: 21 },
  "a resource that is longer than all": { tables: VECTOR, layout: "resources", shorten: 4 },
  "no disk": { tables: VECTOR, sectors: 0 },
};

/** What depends on nothing but the size of a disk. */
const MORE = [
  `info --output=json ${NAME}`,
  `map ${NAME}`,
  `check ${NAME}`,
  `check --output=json ${NAME}`,
  `measure -O qcow2 ${NAME}`,
];

for (const [kind, options] of Object.entries(IMAGES)) {
  const given = [image(kind, () => options)];
  const isPlain = !/^(partitions|chunks|a disk|no disk)/.test(kind);
  sameForEach(kind, [
    ...[`info ${NAME}`, `map --output=json ${NAME}`, `compare ${NAME} ${NAME}`],
    ...(isPlain ? [] : MORE),
  ], { given });
  for (const more of kind.includes("cross") ? ["", "-S 64k ", "-S 0 "] : [""]) {
    same(`${kind}: convert -p ${more}to raw`, {
      given,
      run: `convert -p ${more}-O raw ${NAME} b`,
      images: [{ name: "b", format: "raw" }],
    });
  }
  if (isPlain) continue;
  same(`${kind}: convert to qcow2`, { given, run: `convert -O qcow2 ${NAME} b`, images: ["b"] });
  same(`${kind}: convert -c to qcow2`, {
    given,
    run: `convert -c -O qcow2 ${NAME} b`,
    images: ["b"],
  });
  // Behind the end of a disk the reference says so and ends well; see 'Differences' in the README.
  if (kind === "no disk") continue;
  same(`${kind}: part of it`, {
    given,
    run: `dd -O raw if=${NAME} of=b bs=512 skip=1 count=70`,
    images: [{ name: "b", format: "raw" }],
  });
}

const VECTOR_IMAGE = image("vector", () => ({ tables: VECTOR }));
const TRAILER = trailerOf(dmgImage({ tables: VECTOR }));

sameForEach("none can be made or changed", [
  "create -f dmg b 1M",
  "create -f dmg -o help",
  `convert -O dmg ${NAME} b`,
  "measure -O dmg --size 1M",
  `resize ${NAME} 1M`,
  `amend -o size=1M ${NAME}`,
  `rebase -u -b x -F raw ${NAME}`,
  `commit ${NAME}`,
  `bitmap --add ${NAME} b`,
  `snapshot -l ${NAME}`,
  `snapshot -c b ${NAME}`,
], { given: [VECTOR_IMAGE] });

for (const name of [".dmg", "A.DMG", "a.dmg.img", "admg", "dmg"]) {
  same(`a name that says nothing: ${name}`, {
    given: [{
      key: `dmg named ${name}`,
      make: (dir) => Deno.writeFile(`${dir}/${name}`, dmgImage({ tables: VECTOR })),
    }],
    run: `info ${name}`,
  });
}

same("a name that lies", {
  given: [{
    key: "zeros named a.dmg",
    make: (dir) => Deno.writeFile(`${dir}/${NAME}`, new Uint8Array(4096)),
  }],
  run: `info ${NAME}`,
});

/** What cannot be opened. Numbers are offsets in the trailer. */
const BROKEN: Readonly<Record<string, readonly Given[]>> = {
  "no trailer": [VECTOR_IMAGE, patch(NAME, [TRAILER, 1, 0])],
  "nothing at all": [VECTOR_IMAGE, truncate(NAME, 0)],
  "three bytes": [VECTOR_IMAGE, truncate(NAME, 3)],
  "a trailer that is cut": [VECTOR_IMAGE, truncate(NAME, TRAILER + 300)],
  "a trailer far in front of the end": [VECTOR_IMAGE, truncate(NAME, TRAILER + 1024)],
  "another trailer in front": [
    VECTOR_IMAGE,
    patch(NAME, [TRAILER - 100, 4, 0x6b6f6c79]),
  ],
  "data behind the trailer": [VECTOR_IMAGE, patch(NAME, [TRAILER + 0x18, 8, TRAILER + 1])],
  "data at the trailer": [VECTOR_IMAGE, patch(NAME, [TRAILER + 0x18, 8, TRAILER])],
  "data nowhere": [VECTOR_IMAGE, patch(NAME, [TRAILER + 0x18, 8, 2n ** 64n - 1n])],
  "a resource fork at the trailer": [VECTOR_IMAGE, patch(NAME, [TRAILER + 0x28, 8, TRAILER])],
  "a resource fork that reaches the trailer": [
    VECTOR_IMAGE,
    patch(NAME, [TRAILER + 0x28, 8, TRAILER - 20], [TRAILER + 0x30, 8, 21]),
  ],
  "a resource fork of zeros": [
    VECTOR_IMAGE,
    patch(NAME, [TRAILER + 0x28, 8, 1100], [TRAILER + 0x30, 8, 12], [1100, 8, 0], [1108, 4, 0]),
  ],
  "resources that are longer than their fork": [
    VECTOR_IMAGE,
    patch(NAME, [TRAILER + 0x28, 8, 1100], [TRAILER + 0x30, 8, 40], [1100, 4, 16], [1108, 4, 25]),
  ],
  "an empty resource": [
    VECTOR_IMAGE,
    patch(
      NAME,
      ...[[TRAILER + 0x28, 8, 1100], [TRAILER + 0x30, 8, 40]] as const,
      ...[[1100, 4, 16], [1108, 4, 8], [1116, 8, 0]] as const,
    ),
  ],
  "a resource that is too long": [
    VECTOR_IMAGE,
    patch(
      NAME,
      ...[[TRAILER + 0x28, 8, 1100], [TRAILER + 0x30, 8, 40]] as const,
      ...[[1100, 4, 16], [1108, 4, 8], [1116, 4, 9]] as const,
    ),
  ],
  "a list at the trailer": [VECTOR_IMAGE, patch(NAME, [TRAILER + 0xd8, 8, TRAILER])],
  "a list that reaches the trailer": [VECTOR_IMAGE, patch(NAME, [TRAILER + 0xe0, 8, TRAILER])],
  "no list": [VECTOR_IMAGE, patch(NAME, [TRAILER + 0xe0, 8, 0])],
  "a list that ends within an element": [
    VECTOR_IMAGE,
    patch(NAME, [TRAILER + 0xe0, 8, 300]),
  ],
  "a negative disk": [VECTOR_IMAGE, patch(NAME, [TRAILER + 0x1ec, 8, 2n ** 63n])],
  "the largest disk": [VECTOR_IMAGE, patch(NAME, [TRAILER + 0x1ec, 8, 2n ** 63n - 1n])],
  "a disk that is too large": [VECTOR_IMAGE, patch(NAME, [TRAILER + 0x1ec, 8, 2n ** 54n])],
  "a chunk of very many sectors": [
    image("many sectors", () => ({
      tables: [[
        zero(5),
        { type: ChunkType.lzma, sectors: 1 },
        comment,
        zlib(2, 1),
        { type: ChunkType.raw, sectors: 131073 },
      ]],
      sectors: 8,
    })),
  ],
  "a chunk of very many bytes": [
    image("many bytes", () => ({
      tables: [[zlib(2, 1), { type: ChunkType.zero, sectors: 2n ** 40n, length: 67108865 }]],
      sectors: 8,
    })),
  ],
  "counts of 64 bits": [
    image("64 bits", () => ({
      tables: [[{ type: ChunkType.zlib, sectors: 2n ** 64n - 1n, length: 2n ** 64n - 1n }]],
      sectors: 8,
    })),
  ],
};

for (const [damage, given] of Object.entries(BROKEN)) {
  sameForEach(damage, [`info ${NAME}`, `compare -f dmg ${NAME} ${NAME}`], { given });
}

/** What opens, and cannot be read everywhere. */
const UNREADABLE: Readonly<Record<string, () => DmgOptions>> = {
  "a stream that is damaged": () => ({
    tables: [[zlib(8, 1), { type: ChunkType.zlib, sectors: 8, bytes: content(8, 2) }, zlib(8, 3)]],
  }),
  "a stream that is too short": () => ({
    tables: [[zlib(8, 1), { ...zlib(7, 3), sectors: 8 }, zlib(8, 5)]],
  }),
  "a stream that is too long": () => ({
    tables: [[zlib(8, 1), { ...zlib(9, 3), sectors: 8 }, zlib(8, 5)]],
  }),
  "a stream that is cut": () => ({ tables: [[zlib(8, 1), { ...zlib(8, 3), length: 20 }]] }),
  "a chunk behind the end of the file": () => ({
    tables: [[zlib(8, 1), { ...zlib(8, 3), offset: 2n ** 33n }]],
  }),
  "a chunk behind all files": () => ({
    tables: [[zlib(8, 1), { ...zlib(8, 3), offset: 2n ** 63n - 5n }]],
  }),
  "raw bytes behind all files": () => ({
    tables: [[raw(8, 1), { ...raw(8, 3), offset: 2n ** 63n - 5n }]],
  }),
  "raw bytes behind the end of the file": () => ({
    tables: [[raw(8, 1), { ...raw(8, 3), offset: 2n ** 33n }]],
  }),
  "a gap between chunks": () => ({
    tables: [[zlib(8, 1), { ...zlib(8, 3), first: 16 }]],
    sectors: 24,
  }),
  "a gap in front": () => ({ tables: [[{ ...zlib(8, 3), first: 16 }]], sectors: 24 }),
  "a disk that is longer than its chunks": () => ({ tables: [[zlib(8, 1)]], sectors: 24 }),
  "a gap behind what is copied at a time": () => ({
    tables: [[zlib(3000, 1), raw(3000, 2)]],
    sectors: 7000,
  }),
  "chunks of an unknown type": () => ({
    tables: [[
      zlib(8, 1),
      { type: ChunkType.lzma, sectors: 8 },
      { type: 0x12345678, sectors: 8 },
      zlib(8, 3),
    ]],
  }),
};

for (const [kind, options] of Object.entries(UNREADABLE)) {
  const given = [image(kind, options)];
  sameForEach(kind, [`map --output=json ${NAME}`, `compare ${NAME} ${NAME}`], { given });
  same(`${kind}: convert`, {
    given,
    run: `convert -O raw ${NAME} b`,
    leftByReference: kind.startsWith("raw bytes behind the end") ? [] : ["b"],
  });
  same(`${kind}: convert -c`, {
    given,
    run: `convert -c -O qcow2 ${NAME} b`,
    leftByReference: kind.startsWith("raw bytes behind the end") ? [] : ["b"],
  });
  same(`${kind}: salvage`, { given, run: `convert --salvage -O raw ${NAME} b` });
  same(`${kind}: the first sectors`, {
    given,
    run: `dd -O raw if=${NAME} of=b bs=512 count=8`,
    leftByReference: kind === "a gap in front" ? ["b"] : [],
  });
}

Deno.test({
  name: "chunks that the reference only warns of are read",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    const cwd = dir.path;
    const bytes = content(8, 1);
    const stream = lzfseStream(entropyBlock(bytes));
    for (
      const [chunk, warning] of [
        [{ type: ChunkType.lzfse, sectors: 8, bytes: stream }, "dmg-lzfse module is missing"],
        [{ type: ChunkType.adc, sectors: 8, bytes: packAdc(bytes) }, "unknown type 80000004"],
        [{ type: ChunkType.bzip2, sectors: 2, bytes: BZIP2 }, "dmg-bzip2 module is missing"],
      ] as const
    ) {
      await Deno.writeFile(dir.file(NAME), dmgImage({ tables: [[chunk]] }));
      const args = ["convert", "-O", "raw", NAME, "b"];
      const theirs = await runReference(args, { cwd });
      assertEquals(theirs.code, 1);
      assertStringIncludes(theirs.stderr, warning);
      const ours = await runQimg(args, { cwd });
      assertEquals(ours, { code: 0, stdout: "", stderr: "" });
      const expected = chunk.sectors === 8 ? bytes : new Uint8Array(1024).fill(0x5a);
      assertEquals(await Deno.readFile(dir.file("b")), expected);
    }
  },
});

Deno.test({
  name: "an image without any chunk cannot be read, and crashes nobody",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    const cwd = dir.path;
    await Deno.writeFile(dir.file(NAME), dmgImage({ tables: [[last]], sectors: 8 }));
    const args = ["convert", "-O", "raw", NAME, "b"];
    assertNotEquals((await runReference(args, { cwd })).code, 0);
    assertEquals(await runQimg(args, { cwd }), {
      code: 1,
      stdout: "",
      stderr: "qimg: error while reading at byte 0: Input/output error\n",
    });
  },
});
