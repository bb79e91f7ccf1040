import { assert, assertEquals } from "@std/assert";
import { geometryFor, LARGEST, sectorsOf } from "../../../drivers/vpc/geometry.ts";
import { forSeeds } from "../../_random.ts";

const [K, M, G] = [1024, 1024 ** 2, 1024 ** 3];

Deno.test("disks have the geometries of the format's reference", () => {
  for (
    const [size, cylinders, heads, sectors] of [
      [0, 0, 0, 0],
      [512, 1, 4, 17],
      [M, 31, 4, 17],
      [16 * M, 482, 4, 17],
      [100 * M, 1004, 12, 17],
      [500 * M, 1016, 16, 63],
      [G, 2081, 16, 63],
      [8 * G, 16645, 16, 63],
      [31 * G, 64496, 16, 63],
      [127 * G, 65279, 16, 255],
      [136910000128, 65535, 16, 255],
      [128 * G, 65535, 16, 255],
      [2040 * G, 65535, 16, 255],
    ] as const
  ) assertEquals(geometryFor(size / 512), { cylinders, heads, sectors }, `${size} bytes`);
});

Deno.test("a disk in whole cylinders has all that was asked for, and at most a cylinder more", () => {
  forSeeds(500, (random) => {
    const total = random.below(random.pick([K, M, G / 8, sectorsOf(LARGEST)]));
    const geometry = geometryFor(total);
    const more = sectorsOf(geometry) - total;
    assert(more >= 0, `${total} sectors: ${-more} are missing`);
    assert(more <= geometry.heads * geometry.sectors, `${total} sectors: ${more} too many`);
    assert(geometry.cylinders <= 65535 && geometry.heads <= 16 && geometry.sectors <= 255);
    // Whoever makes an image of that size gets it.
    assertEquals(sectorsOf(geometryFor(sectorsOf(geometry))), sectorsOf(geometry));
  });
});
