/** Bochs' and cloop's formats, which both tools can only read. */
import { deflateSync } from "node:zlib";
import { assert } from "@std/assert";
import { assertSame, reference } from "../_reference.ts";
import { bochsImage, cloopImage } from "../_foreign_images.ts";
import { type Given, patch, same, sameForEach, truncate } from "./_cases.ts";

/** A file with these bytes, which `about` tells apart from others. */
function binary(name: string, about: string, bytes: () => Uint8Array): Given {
  return {
    key: `binary ${name} ${about}`,
    make: (dir) => Deno.writeFile(`${dir}/${name}`, bytes()),
  };
}

const BOCHS = binary("a", "bochs 2", () => bochsImage(2));
const CLOOP = binary("a", "cloop", () => cloopImage());

const IMAGES: Readonly<Record<string, readonly Given[]>> = {
  "bochs, version 1": [binary("a", "bochs 1", () => bochsImage(1))],
  "bochs, version 2": [BOCHS],
  "bochs, a catalog behind the end": [BOCHS, truncate("a", 520)],
  "bochs, no disk": [BOCHS, patch("a", [88, 8, 0])],
  "bochs, bitmaps of no bytes": [BOCHS, patch("a", [76, 4, 0])],
  "cloop": [CLOOP],
  "cloop, large blocks": [
    binary("a", "cloop 3M", () => cloopImage({ blockSize: 3 << 20, blocks: 3 })),
  ],
  "cloop, no blocks": [CLOOP, patch("a", [132, 4, 0])],
};

for (const [kind, given] of Object.entries(IMAGES)) {
  sameForEach(kind, [
    "info a",
    "info --output=json a",
    "map a",
    "map --output=json a",
    "check a",
    "check --output=json a",
    "snapshot -l a",
    "measure -O raw a",
    "measure -O qcow2 a",
    "compare a a",
    "resize a 1M",
    "amend -o size=1M a",
    "rebase -u -b x -F raw a",
    "commit a",
    "bitmap --add a b",
  ], { given });
  same(`${kind}: convert to raw`, {
    given,
    run: "convert -p -O raw a b",
    images: [{ name: "b", format: "raw" }],
  });
  same(`${kind}: convert to qcow2`, {
    given,
    run: "convert -c -O qcow2 a b",
    images: ["b"],
  });
  // Behind the end of a disk the reference says so and ends well; see 'Differences' in the README.
  if (/no disk|no blocks/.test(kind)) continue;
  same(`${kind}: part of it`, {
    given,
    run: "dd -O raw if=a of=b bs=512 skip=7 count=30",
    images: [{ name: "b", format: "raw" }],
  });
}

sameForEach("neither can be made", [
  "create -f bochs b 1M",
  "create -f cloop b 1M",
  "create -f bochs -o help",
  "convert -O bochs a b",
  "convert -O cloop a b",
  "measure -O cloop --size 1M",
], { given: [CLOOP] });

const BROKEN: Readonly<Record<string, readonly Given[]>> = {
  "bochs, another magic": [BOCHS, patch("a", [0, 1, 0x62])],
  "bochs, another type": [BOCHS, patch("a", [32, 1, 0x62])],
  "bochs, undoable": [BOCHS, patch("a", [48, 8, 0x556e646f61626c65n], [56, 1, 0])],
  "bochs, version 3": [BOCHS, patch("a", [66, 1, 3])],
  "bochs, a large catalog": [BOCHS, patch("a", [72, 4, 0x01001000])],
  "bochs, small extents": [BOCHS, patch("a", [80, 4, 0x00010000])],
  "bochs, no extents": [BOCHS, patch("a", [80, 4, 0])],
  "bochs, odd extents": [BOCHS, patch("a", [80, 4, 0xb80b0000])],
  "bochs, large extents": [BOCHS, patch("a", [80, 4, 1])],
  "bochs, a large disk": [BOCHS, patch("a", [88, 8, 0x0002010000000000n])],
  "bochs, the largest disk": [BOCHS, patch("a", [88, 8, 0xffffffffffffffffn])],
  "cloop, blocks of 513 bytes": [CLOOP, patch("a", [128, 4, 513])],
  "cloop, blocks of nothing": [CLOOP, patch("a", [128, 4, 0])],
  "cloop, blocks of 64 MiB and more": [CLOOP, patch("a", [128, 4, 67109376])],
  "cloop, the largest blocks": [CLOOP, patch("a", [128, 4, 4294966784])],
  "cloop, very many blocks": [CLOOP, patch("a", [132, 4, 0xffffffff])],
  "cloop, too many blocks": [CLOOP, patch("a", [132, 4, 0x4000000])],
  "cloop, as many blocks as wrap": [CLOOP, patch("a", [132, 4, 0x1fffffff])],
  "cloop, offsets behind the end": [CLOOP, patch("a", [132, 4, 100000])],
  "cloop, offsets that fall": [CLOOP, patch("a", [144, 8, 5])],
  "cloop, a long block": [CLOOP, patch("a", [144, 8, 2 ** 40], [152, 8, 2 ** 41])],
  "cloop, all behind the end": [CLOOP, truncate("a", 100)],
  "cloop, cut": [CLOOP, truncate("a", 70000)],
  "cloop, a damaged stream": [CLOOP, patch("a", [300, 4, 0xffffffff])],
  "cloop, a wrong checksum": [
    binary("a", "cloop, checksum", () =>
      cloopImage({
        deflate(block, index) {
          const stream = deflateSync(block);
          if (index === 2) stream[stream.length - 1]! ^= 1;
          return stream;
        },
      })),
  ],
  "cloop, a block that is too long": [
    binary("a", "cloop, long", () =>
      cloopImage({
        deflate: (block, index) => deflateSync(index === 2 ? new Uint8Array([...block, 1]) : block),
      })),
  ],
  "cloop, a block that is too short": [
    binary("a", "cloop, short", () =>
      cloopImage({
        deflate: (block, index) => deflateSync(index === 2 ? block.subarray(1) : block),
      })),
  ],
};

for (const [damage, given] of Object.entries(BROKEN)) {
  const format = damage.slice(0, 5);
  sameForEach(damage, [`info a`, `info -f ${format} a`, `compare -f ${format} a a`], { given });
  same(`${damage}: convert`, {
    given,
    run: `convert -f ${format} -O raw a b`,
    leftByReference: damage.match(/cut|stream|checksum|too (long|short)/) ? ["b"] : [],
  });
}

for (const [sample, format] of [["empty.bochs", "bochs"], ["simple-pattern.cloop", "cloop"]]) {
  const packed = new URL(`../../../shared/samples/${sample}.bz2`, import.meta.url);
  const isThere = await Deno.stat(packed).then(() => true, () => false);
  for (
    const line of ["info a", "map --output=json a", "convert -O raw a b", "convert -O qcow2 a b"]
  ) {
    Deno.test({
      name: `${format}, an image that its own program made: ${line}`,
      ignore: reference.ignore || !isThere,
      async fn() {
        const { success, stdout } = await new Deno.Command("bzcat", { args: [packed.pathname] })
          .output();
        assert(success);
        await assertSame(line.split(" "), {
          setup: (dir) => Deno.writeFile(`${dir}/a`, stdout),
          images: line.startsWith("convert") ? [{ name: "b", format: line.split(" ")[2]! }] : [],
          code: 0,
        });
      },
    });
  }
}
