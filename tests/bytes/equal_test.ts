import { assertEquals, assertThrows } from "@std/assert";
import { equalBytes, firstDifference } from "../../lib/bytes/equal.ts";
import { Random } from "../_random.ts";

Deno.test("a single differing byte is found at every place and pair of alignments", () => {
  const content = new Random(1).bytes(150);
  for (let start = 0; start < 9; start++) {
    for (const length of [1, 8, 31, 32, 33, 150]) {
      const a = content.slice(0, length);
      const b = new Uint8Array(200).subarray(start, start + length);
      b.set(a);
      assertEquals(equalBytes(a, b), true);
      assertEquals(firstDifference(a, b), -1);
      for (let at = 0; at < length; at++) {
        b[at]! ^= 0x10;
        assertEquals(equalBytes(a, b), false, `byte ${at} of ${length} at ${start}`);
        assertEquals(firstDifference(a, b), at);
        b[at]! ^= 0x10;
      }
    }
  }
});

Deno.test("the first of several differences counts", () => {
  const [a, b] = [new Uint8Array(5000), new Uint8Array(5000)];
  b[4000] = 1;
  b[3333] = 1;
  assertEquals(firstDifference(a, b), 3333);
});

Deno.test("a difference is told as its sector", () => {
  const [a, b] = [new Uint8Array(2000), new Uint8Array(2000)];
  b[1999] = 1;
  assertEquals(firstDifference(a, b, 512), 1536);
  assertEquals(firstDifference(a, b, 1000), 1000);
  b[511] = 1;
  assertEquals(firstDifference(a, b, 512), 0);
});

Deno.test("lengths count for equality and not for the first difference", () => {
  const [a, b] = [new Uint8Array(100), new Uint8Array(101)];
  assertEquals(equalBytes(a, b), false);
  assertEquals(firstDifference(a, b), -1);
  assertEquals(equalBytes(new Uint8Array(0), new Uint8Array(0)), true);
});

Deno.test("a shared and a plain buffer compare", () => {
  const shared = new Uint8Array(new SharedArrayBuffer(64));
  const plain = new Uint8Array(64);
  assertEquals(equalBytes(shared, plain), true);
  shared[40] = 1;
  assertEquals(firstDifference(shared, plain), 40);
});

Deno.test("sectors of no length are refused", () => {
  assertThrows(() => firstDifference(new Uint8Array(1), new Uint8Array(1), 0), RangeError);
});
