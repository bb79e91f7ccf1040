import { assertEquals } from "@std/assert";
import {
  ALL_SUBCLUSTERS,
  bitRun,
  subclusterBits,
  trailingZeros,
} from "../../../drivers/qcow2/subclusters.ts";

Deno.test("bits of a range of subclusters", () => {
  assertEquals(subclusterBits(0, 32), ALL_SUBCLUSTERS);
  assertEquals(subclusterBits(0, 1), 1);
  assertEquals(subclusterBits(31, 32), 0x80000000);
  assertEquals(subclusterBits(4, 8), 0xf0);
  assertEquals(subclusterBits(5, 5), 0);
});

Deno.test("runs of set bits from any place, up to the last subcluster", () => {
  for (let first = 0; first < 32; first++) {
    assertEquals(bitRun(ALL_SUBCLUSTERS, first), 32 - first);
    assertEquals(bitRun(0, first), 0);
    for (let end = first + 1; end <= 32; end++) {
      assertEquals(bitRun(subclusterBits(first, end), first), end - first);
    }
  }
  assertEquals(bitRun(0b1011, 0), 2);
  assertEquals(bitRun(0b1011, 2), 0);
});

Deno.test("zero bits below the lowest set one", () => {
  assertEquals(trailingZeros(0), 32);
  assertEquals(trailingZeros(1), 0);
  assertEquals(trailingZeros(0x80000000), 31);
  assertEquals(trailingZeros(0b101000), 3);
});
