import { assert, assertEquals, assertThrows } from "@std/assert";
import { MAX_COUNTED_CLUSTERS, ReferenceCounts } from "../../../drivers/qcow2/reference_counts.ts";
import { forSeeds } from "../../_random.ts";

const ANY = 2 ** 64;

Deno.test("ReferenceCounts: nothing is referenced at first", () => {
  const counts = new ReferenceCounts(1000, ANY);
  assertEquals(counts.length, 1000);
  assertEquals(counts.get(0), 0);
  assertEquals(counts.get(999), 0);
  assertEquals(counts.nextUsed(0, 1000), 1000);
  assertEquals(counts.nextFree(0), 0);
});

Deno.test("ReferenceCounts: counts do not pass the maximum", () => {
  for (const maximum of [1, 3, 255, 65535]) {
    const counts = new ReferenceCounts(1, maximum);
    for (let i = 0; i < maximum; i++) assert(counts.increment(0));
    assert(!counts.increment(0));
    assertEquals(counts.get(0), maximum);
  }
});

Deno.test("ReferenceCounts: counts above 16 bits are exact", () => {
  const counts = new ReferenceCounts(3, ANY);
  for (let i = 0; i < 70_000; i++) counts.increment(1);
  counts.increment(2);
  assertEquals([counts.get(0), counts.get(1), counts.get(2)], [0, 70_000, 1]);
});

Deno.test("ReferenceCounts: a count that is set is kept up to 65534", () => {
  const counts = new ReferenceCounts(4, ANY);
  for (const value of [1, 0, 2, 65534, 65535, 1e12, 7, 0]) {
    counts.set(3, value);
    assertEquals(counts.get(3), Math.min(value, 65535));
  }
});

Deno.test("ReferenceCounts: a cluster behind the end makes it longer", () => {
  const counts = new ReferenceCounts(10, ANY);
  counts.increment(70_000);
  assertEquals(counts.length, 70_001);
  counts.set(80_000, 1);
  assertEquals(counts.length, 80_001);
});

Deno.test("ReferenceCounts: a huge sparse file costs what is referenced in it", () => {
  const counts = new ReferenceCounts(MAX_COUNTED_CLUSTERS, ANY);
  counts.increment(MAX_COUNTED_CLUSTERS - 1);
  counts.increment(5);
  assertEquals(counts.nextUsed(6, MAX_COUNTED_CLUSTERS), MAX_COUNTED_CLUSTERS - 1);
  assertEquals(counts.get(MAX_COUNTED_CLUSTERS - 1), 1);
  assertThrows(() => counts.grow(MAX_COUNTED_CLUSTERS + 1), RangeError);
});

Deno.test("ReferenceCounts: clear() forgets all counts, and keeps the length", () => {
  const counts = new ReferenceCounts(10, ANY);
  for (let i = 0; i < 70_000; i++) counts.increment(1);
  counts.increment(200_000);
  counts.clear();
  assertEquals([counts.get(1), counts.get(200_000), counts.length], [0, 0, 200_001]);
});

Deno.test("ReferenceCounts: allocate() takes the first gap that is large enough", () => {
  const counts = new ReferenceCounts(10, ANY);
  for (const used of [0, 1, 3, 4, 7, 8]) counts.increment(used);
  assertEquals(counts.allocate(2, 0), { start: 5, firstFree: 2 });
  assertEquals(counts.allocate(1, 0), { start: 2, firstFree: 2 });
  assertEquals(counts.allocate(1, 3), { start: 9, firstFree: 9 });
  assertEquals(counts.length, 10);
});

Deno.test("ReferenceCounts: allocate() goes on behind the end", () => {
  const counts = new ReferenceCounts(10, ANY);
  counts.increment(7);
  assertEquals(counts.allocate(5, 5), { start: 8, firstFree: 5 });
  assertEquals(counts.length, 13);
  assertEquals(counts.allocate(1, 100), { start: 100, firstFree: 100 });
  assertEquals(counts.length, 101);
});

Deno.test("ReferenceCounts: the same as a plain array", () => {
  forSeeds(6, (random) => {
    // Around the borders of words and pages.
    const clusters = () =>
      random.pick([0, 31, 65_500, 65_536, 131_072]) + random.below(random.pick([4, 64, 70_000]));
    const maximum = random.pick([1, 3, 15, 255, ANY]);
    const counts = new ReferenceCounts(1, maximum);
    const model: number[] = [0];
    const at = (cluster: number) => model[cluster] ?? 0;
    const grow = (cluster: number) => {
      while (model.length <= cluster) model.push(0);
    };
    for (let i = 0; i < 100; i++) {
      const cluster = clusters();
      switch (random.below(5)) {
        case 0:
        case 1: {
          const times = random.pick([1, 1, 2, 40]);
          for (let n = 0; n < times; n++) {
            const room = at(cluster) < maximum;
            assertEquals(counts.increment(cluster), room);
            grow(cluster);
            if (room) model[cluster]!++;
          }
          break;
        }
        case 2: {
          const value = random.below(Math.min(maximum + 1, 1000));
          counts.set(cluster, value);
          grow(cluster);
          model[cluster] = value;
          break;
        }
        case 3: {
          const to = cluster + random.below(100_000);
          const used = model.findIndex((value, i) => i >= cluster && i < to && value > 0);
          assertEquals(counts.nextUsed(cluster, to), used < 0 ? to : used);
          break;
        }
        default: {
          let free = cluster;
          while (at(free) > 0) free++;
          assertEquals(counts.nextFree(cluster), free);
        }
      }
      assertEquals([counts.get(Math.min(cluster, model.length - 1)), counts.length], [
        at(Math.min(cluster, model.length - 1)),
        model.length,
      ]);
    }
  });
});
