import { assertEquals, assertThrows } from "@std/assert";
import { best, figuresOf, slower } from "../../bench/compare.ts";

const bench = (name: string, min: number, group: string | null = null) => ({
  group,
  name,
  results: [{ ok: { min } }],
});

Deno.test("figures are multiples of the calibration loop", () => {
  const report = {
    benches: [bench("calibration", 50), bench("scan", 100, "zeros"), bench("print", 25)],
  };
  assertEquals(figuresOf(report), { "zeros: scan": 2, "print": 0.5 });
});

Deno.test("a report without calibration, or with a failed benchmark, is refused", () => {
  assertThrows(() => figuresOf({ benches: [bench("scan", 1)] }), Error, "calibration");
  assertThrows(
    () => figuresOf({ benches: [{ group: null, name: "scan", results: [{}] }] }),
    Error,
    `"scan" failed`,
  );
});

Deno.test("what is slower by a quarter is named, what is new or faster is not", () => {
  const baseline = { a: 4, b: 4, c: 4 };
  assertEquals(slower({ a: 5, b: 4.99, c: 1, d: 100 }, baseline), ["a"]);
});

Deno.test("of two runs the better figure counts", () => {
  assertEquals(best({ a: 1, b: 4 }, { a: 2, b: 3, c: 5 }), { a: 1, b: 3, c: 5 });
});
