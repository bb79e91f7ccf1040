import { assertEquals, assertThrows } from "@std/assert";
import { firstNonZero, isZero, type ZeroRun, zeroRun } from "../../lib/bytes/zero_scan.ts";
import { forSeeds } from "../_random.ts";

Deno.test("a single byte is found at every place and alignment", () => {
  const buffer = new Uint8Array(300);
  for (let start = 0; start < 9; start++) {
    for (const length of [1, 7, 8, 9, 63, 64, 65, 200]) {
      const bytes = buffer.subarray(start, start + length);
      assertEquals(isZero(bytes), true);
      assertEquals(firstNonZero(bytes), -1);
      for (let at = 0; at < length; at++) {
        bytes[at] = 0x80;
        assertEquals(isZero(bytes), false, `byte ${at} of ${length} at ${start}`);
        assertEquals(firstNonZero(bytes), at);
        bytes[at] = 0;
      }
    }
  }
});

Deno.test("bytes around the array are not looked at", () => {
  const buffer = new Uint8Array(256).fill(0xff);
  buffer.fill(0, 3, 203);
  assertEquals(isZero(buffer.subarray(3, 203)), true);
  assertEquals(zeroRun(buffer.subarray(3, 203), 0, 64), { zero: true, length: 200 });
});

Deno.test("an empty array is zero", () => {
  assertEquals(isZero(new Uint8Array(0)), true);
  assertEquals(firstNonZero(new Uint8Array(0)), -1);
});

Deno.test("the first byte that is not zero is found beyond many blocks", () => {
  const bytes = new Uint8Array(100_000);
  bytes[99_999] = 1;
  bytes[77_777] = 1;
  assertEquals(firstNonZero(bytes), 77_777);
});

Deno.test("runs agree with a sector by sector count", () => {
  forSeeds(200, (random) => {
    const step = random.pick([1, 8, 100, 512, 4096]);
    const bytes = new Uint8Array(random.between(1, 20 * step)).subarray(random.below(8));
    for (let at = 0; at < bytes.length; at += step) {
      if (random.oneIn(2)) bytes[Math.min(at + random.below(step), bytes.length - 1)] = 1;
    }
    const offset = random.below(bytes.length + 1);
    assertEquals(zeroRun(bytes, offset, step), slowRun(bytes, offset, step));
  });
});

function slowRun(bytes: Uint8Array, offset: number, step: number): ZeroRun {
  const states: boolean[] = [];
  for (let at = offset; at < bytes.length; at += step) {
    states.push(bytes.subarray(at, at + step).every((byte) => byte === 0));
  }
  const change = states.findIndex((state) => state !== states[0]);
  const end = change === -1 ? bytes.length : offset + change * step;
  return { zero: states[0] ?? true, length: end - offset };
}

Deno.test("the last sector may be short", () => {
  const bytes = new Uint8Array(1000);
  assertEquals(zeroRun(bytes, 0, 512), { zero: true, length: 1000 });
  bytes[999] = 1;
  assertEquals(zeroRun(bytes, 0, 512), { zero: true, length: 512 });
  assertEquals(zeroRun(bytes, 512, 512), { zero: false, length: 488 });
});

Deno.test("at the end the run is empty", () => {
  assertEquals(zeroRun(new Uint8Array(512), 512, 512), { zero: true, length: 0 });
});

Deno.test("a shared buffer is scanned in place", () => {
  const bytes = new Uint8Array(new SharedArrayBuffer(2048));
  bytes[1024] = 1;
  assertEquals(isZero(bytes), false);
  assertEquals(zeroRun(bytes, 0, 512), { zero: true, length: 1024 });
});

Deno.test("offsets outside the array and sectors of no length are refused", () => {
  const bytes = new Uint8Array(512);
  assertThrows(() => zeroRun(bytes, 513, 512), RangeError);
  assertThrows(() => zeroRun(bytes, -1, 512), RangeError);
  for (const step of [0, -512, 0.5, NaN]) {
    assertThrows(() => zeroRun(bytes, 0, step), RangeError);
  }
});
