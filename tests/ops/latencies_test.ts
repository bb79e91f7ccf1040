import { assert, assertEquals } from "@std/assert";
import { Latencies } from "../../lib/ops/latencies.ts";
import { Random } from "../_random.ts";

Deno.test("without any latency all figures are 0", () => {
  const { count, min, mean, max } = new Latencies();
  assertEquals([count, min, mean, max, new Latencies().percentile(99)], [0, 0, 0, 0, 0]);
});

Deno.test("count, smallest, mean and largest latency are exact", () => {
  const latencies = new Latencies();
  for (const value of [7, 1_000_000, 123_456_789, -5]) latencies.add(value);
  const { count, min, mean, max } = latencies;
  assertEquals([count, min, mean, max], [4, 0, 124_456_796 / 4, 123_456_789]);
});

Deno.test("small latencies have exact percentiles", () => {
  const latencies = new Latencies();
  for (let value = 1; value <= 50; value++) latencies.add(value);
  assertEquals([0, 2, 50, 51, 99, 100].map((p) => latencies.percentile(p)), [1, 1, 25, 26, 50, 50]);
});

Deno.test("percentiles are at most 1.6% above the value in their place, and never below it", () => {
  const seed = 41;
  const random = new Random(seed);
  const values = Array.from({ length: 5000 }, () => random.below(2 ** (1 + random.below(40))));
  // Where one part of the histogram ends and the next begins.
  for (let power = 0; power < 50; power++) values.push(2 ** power - 1, 2 ** power, 2 ** power + 1);
  const latencies = new Latencies();
  for (const value of values) latencies.add(value);
  const sorted = values.toSorted((a, b) => a - b);
  for (let tenths = 1; tenths <= 1000; tenths++) {
    const exact = sorted[Math.ceil(sorted.length * tenths / 1000) - 1]!;
    const told = latencies.percentile(tenths / 10);
    assert(
      told >= exact && told <= exact * 1.016 + 1,
      `seed ${seed}, ${tenths / 10}%: ${told} instead of ${exact}`,
    );
  }
});

Deno.test("a latency beyond all measure is counted", () => {
  const latencies = new Latencies();
  latencies.add(1e30);
  assertEquals([latencies.percentile(50), latencies.count], [1e30, 1]);
});
