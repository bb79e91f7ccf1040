import { assertEquals } from "@std/assert";
import { crc32c } from "../../lib/bytes/crc32c.ts";
import { Random } from "../_random.ts";

/** Bit by bit, as it is defined. */
function slowly(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc >>> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

Deno.test("crc32c: published values", () => {
  const cases: readonly [Uint8Array, number][] = [
    [new Uint8Array(0), 0],
    [new TextEncoder().encode("123456789"), 0xe3069283],
    // Those of RFC 3720.
    [new Uint8Array(32), 0x8a9136aa],
    [new Uint8Array(32).fill(0xff), 0x62a8ab43],
    [Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    [Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
  ];
  for (const [bytes, sum] of cases) assertEquals(crc32c(bytes), sum);
});

Deno.test("crc32c: any length at any place is as its definition says", () => {
  const bytes = new Random(1).bytes(200, 256);
  for (let from = 0; from < 9; from++) {
    for (let to = from; to < bytes.length; to += 7) {
      const part = bytes.subarray(from, to);
      assertEquals(crc32c(part), slowly(part), `${from}..${to}`);
    }
  }
});

Deno.test("crc32c: parts are summed one after the other", () => {
  const bytes = new Random(2).bytes(1000, 256);
  for (const cut of [0, 1, 7, 8, 500, 999, 1000]) {
    const sum = crc32c(bytes.subarray(cut), crc32c(bytes.subarray(0, cut)));
    assertEquals(sum, crc32c(bytes), String(cut));
  }
});
