import { assertEquals, assertThrows } from "@std/assert";
import * as endian from "../../lib/bytes/endian.ts";
import { forSeeds } from "../_random.ts";

const BYTES = Uint8Array.of(0xff, 0x01, 0x02, 0x83, 0x04, 0x05, 0x06, 0x07, 0x88, 0xff);

Deno.test("16-bit integers are read in both orders", () => {
  assertEquals(endian.readU16BE(BYTES, 1), 0x0102);
  assertEquals(endian.readU16LE(BYTES, 1), 0x0201);
});

Deno.test("32-bit integers are read unsigned in both orders", () => {
  assertEquals(endian.readU32BE(BYTES, 3), 0x83040506);
  assertEquals(endian.readU32LE(BYTES, 0), 0x830201ff);
});

Deno.test("64-bit integers are read exactly as bigint in both orders", () => {
  assertEquals(endian.readU64BE(BYTES, 1), 0x0102_8304_0506_0788n);
  assertEquals(endian.readU64LE(BYTES, 1), 0x8807_0605_0483_0201n);
});

Deno.test("64-bit integers up to 2^53 - 1 are read as numbers", () => {
  const bytes = new Uint8Array(8);
  endian.writeU64BE(bytes, 0, 2n ** 53n - 1n);
  assertEquals(endian.readSafeU64BE(bytes, 0), Number.MAX_SAFE_INTEGER);
  assertEquals(endian.readSafeU64LE(bytes.toReversed(), 0), Number.MAX_SAFE_INTEGER);
  assertEquals(endian.getSafeU64(endian.viewOf(bytes), 0), Number.MAX_SAFE_INTEGER);
  assertEquals(
    endian.getSafeU64(endian.viewOf(bytes.toReversed()), 0, true),
    Number.MAX_SAFE_INTEGER,
  );
});

Deno.test("64-bit integers from 2^53 on are refused as numbers, and the error has the value", () => {
  const bytes = new Uint8Array(8);
  for (const value of [2n ** 53n, 2n ** 64n - 1n]) {
    endian.writeU64BE(bytes, 0, value);
    const reads = [
      () => endian.readSafeU64BE(bytes, 0),
      () => endian.readSafeU64LE(bytes.toReversed(), 0),
      () => endian.getSafeU64(endian.viewOf(bytes), 0),
      () => endian.getSafeU64(endian.viewOf(bytes.toReversed()), 0, true),
    ];
    for (const read of reads) {
      assertEquals(assertThrows(read, endian.UnsafeIntegerError).value, value);
    }
  }
});

Deno.test("reading back what was written gives the same value", () => {
  forSeeds(50, (random) => {
    const bytes = new Uint8Array(16);
    const offset = random.below(9);
    const [u16, u32, u53] = [random.below(0x10000), random.u32(), random.below(2 ** 53)];
    const u64 = BigInt(random.u32()) << 32n | BigInt(random.u32());
    for (
      const [write, read, value] of [
        [endian.writeU16BE, endian.readU16BE, u16],
        [endian.writeU16LE, endian.readU16LE, u16],
        [endian.writeU32BE, endian.readU32BE, u32],
        [endian.writeU32LE, endian.readU32LE, u32],
        [endian.writeU64BE, endian.readU64BE, u64],
        [endian.writeU64LE, endian.readU64LE, u64],
        [endian.writeU64BE, endian.readSafeU64BE, u53],
        [endian.writeU64LE, endian.readSafeU64LE, u53],
      ] as [(b: Uint8Array, o: number, v: unknown) => void, typeof endian.readU64BE, unknown][]
    ) {
      write(bytes, offset, value);
      assertEquals<unknown>(read(bytes, offset), value, `${write.name} ${value}`);
    }
    const view = endian.viewOf(bytes);
    for (const littleEndian of [false, true]) {
      endian.setSafeU64(view, offset, u53, littleEndian);
      assertEquals(endian.getSafeU64(view, offset, littleEndian), u53);
      assertEquals(view.getBigUint64(offset, littleEndian), BigInt(u53));
    }
  });
});

Deno.test("writing touches no neighbouring byte", () => {
  const bytes = new Uint8Array(10).fill(0xee);
  endian.writeU64BE(bytes, 1, 0);
  assertEquals(bytes, Uint8Array.of(0xee, 0, 0, 0, 0, 0, 0, 0, 0, 0xee));
  endian.writeU32LE(bytes, 4, 0x01020304);
  assertEquals(bytes, Uint8Array.of(0xee, 0, 0, 0, 4, 3, 2, 1, 0, 0xee));
});

Deno.test("a negative bigint is written modulo 2^64", () => {
  const bytes = new Uint8Array(8);
  endian.writeU64BE(bytes, 0, -1n);
  assertEquals(endian.readU64BE(bytes, 0), 2n ** 64n - 1n);
});

Deno.test("numbers that are no unsigned integers below 2^53 are not written", () => {
  const bytes = new Uint8Array(8);
  for (const value of [-1, 0.5, 2 ** 53, NaN, Infinity]) {
    assertThrows(() => endian.writeU64BE(bytes, 0, value), RangeError);
    assertThrows(() => endian.writeU64LE(bytes, 0, value), RangeError);
    assertThrows(() => endian.setSafeU64(endian.viewOf(bytes), 0, value), RangeError);
  }
  assertEquals(bytes, new Uint8Array(8));
});

Deno.test("access beyond the array throws instead of giving zeros", () => {
  const bytes = new Uint8Array(8);
  const accesses: (() => unknown)[] = [
    () => endian.readU8(bytes, 8),
    () => endian.readU16BE(bytes, 7),
    () => endian.readU16LE(bytes, -1),
    () => endian.readU32BE(bytes, 5),
    () => endian.readU32LE(bytes, 5),
    () => endian.readU64BE(bytes, 1),
    () => endian.readSafeU64LE(bytes, 1),
    () => endian.writeU16BE(bytes, 7, 1),
    () => endian.writeU32LE(bytes, NaN, 1),
    () => endian.writeU64BE(bytes, 1, 1n),
    () => endian.writeU64LE(bytes, 1, 1),
  ];
  for (const access of accesses) assertThrows(access, RangeError);
  assertEquals(bytes, new Uint8Array(8));
});
