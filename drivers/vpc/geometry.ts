/**
 * Cylinders, heads and sectors (section 4 of the format's reference).
 *
 * @module
 */

/** A disk as cylinders of tracks of sectors. */
export interface Geometry {
  /** At most 65535. */
  readonly cylinders: number;
  /** At most 16, in images of others 255. */
  readonly heads: number;
  /** Sectors of a track, at most 255. */
  readonly sectors: number;
}

/** The largest one. An image that has it says elsewhere how large its disk is. */
export const LARGEST: Geometry = { cylinders: 65535, heads: 16, sectors: 255 };

/** How many sectors a disk has. */
export function sectorsOf({ cylinders, heads, sectors }: Geometry): number {
  return cylinders * heads * sectors;
}

/** As the specification calculates it: often a bit less than `total` sectors. */
export function geometryBelow(total: number): Geometry {
  const capped = Math.min(total, sectorsOf(LARGEST));
  const cylindersOf = (heads: number, sectors: number): Geometry => ({
    cylinders: Math.floor(Math.floor(capped / sectors) / heads),
    heads,
    sectors,
  });
  if (capped >= 65535 * 16 * 63) return cylindersOf(16, 255);
  const tracks = Math.floor(capped / 17);
  const heads = Math.max(4, Math.ceil(tracks / 1024));
  if (heads <= 16 && tracks < heads * 1024) return cylindersOf(heads, 17);
  return Math.floor(capped / 31) < 16 * 1024 ? cylindersOf(16, 31) : cylindersOf(16, 63);
}

/** The smallest one that has at least `total` sectors, or the largest of all. */
export function geometryFor(total: number): Geometry {
  const wanted = Math.min(total, sectorsOf(LARGEST));
  let geometry: Geometry = { cylinders: 0, heads: 0, sectors: 0 };
  // A track more or two: it does not take many steps.
  for (let more = 0; sectorsOf(geometry) < wanted; more++) geometry = geometryBelow(wanted + more);
  return geometry;
}
