import { assertEquals, assertThrows } from "@std/assert";
import {
  alignDown,
  alignUp,
  divideDown,
  divideUp,
  isAligned,
  isPowerOfTwo,
} from "../../lib/bytes/align.ts";
import { forSeeds } from "../_random.ts";

Deno.test("rounding keeps multiples and moves everything else to a neighbour", () => {
  assertEquals([0, 1, 511, 512, 513].map((n) => alignUp(n, 512)), [0, 512, 512, 512, 1024]);
  assertEquals([0, 1, 511, 512, 513].map((n) => alignDown(n, 512)), [0, 0, 0, 512, 512]);
  assertEquals([0, 1, 512].map((n) => isAligned(n, 512)), [true, false, true]);
});

Deno.test("rounding agrees with exact arithmetic up to 2^53 - 1", () => {
  forSeeds(500, (random) => {
    const value = random.below(2 ** random.between(1, 53));
    const unit = random.between(1, 2 ** random.between(1, 40));
    const [v, u] = [BigInt(value), BigInt(unit)];
    const up = (v + u - 1n) / u;
    assertEquals(BigInt(alignDown(value, unit)), v / u * u);
    assertEquals(BigInt(divideDown(value, unit)), v / u);
    assertEquals(BigInt(divideUp(value, unit)), up);
    if (up * u <= BigInt(Number.MAX_SAFE_INTEGER)) {
      assertEquals(BigInt(alignUp(value, unit)), up * u);
    } else {
      assertThrows(() => alignUp(value, unit), RangeError);
    }
  });
});

Deno.test("division up is exact where floating point is not", () => {
  assertEquals(divideUp(2 ** 53 - 1, 2), 2 ** 52);
  assertEquals(divideUp(2 ** 53 - 1, 2 ** 20), 2 ** 33);
});

Deno.test("powers of two are told from all other numbers", () => {
  for (let n = 0; n <= 52; n++) {
    assertEquals(isPowerOfTwo(2 ** n), true, `2^${n}`);
    if (n > 1) assertEquals(isPowerOfTwo(2 ** n - 1), false, `2^${n} - 1`);
    if (n > 0) assertEquals(isPowerOfTwo(2 ** n + 1), n === 0, `2^${n} + 1`);
  }
  for (const value of [0, -1, -2, 0.5, 1.5, NaN, Infinity, 2 ** 53]) {
    assertEquals(isPowerOfTwo(value), false, `${value}`);
  }
});
