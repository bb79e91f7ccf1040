import { assertEquals } from "@std/assert";
import { offsetOf, packedEntry, packedRange } from "../../../drivers/qcow2/cluster_entry.ts";
import { Random } from "../../_random.ts";

function word([high, low]: readonly [number, number]): bigint {
  return BigInt(high) << 32n | BigInt(low);
}

Deno.test("compressed clusters: offset below, sectors above, the border depends on the cluster size", () => {
  // Vectors V6 and V7: 22 bytes at 0x5000 and behind them.
  assertEquals(word(packedEntry(12, 0x5000, 22)), 0x4000000000005000n);
  assertEquals(word(packedEntry(12, 0x5016, 22)), 0x4000000000005016n);
  // A stream that touches three sectors counts two more than one.
  assertEquals(word(packedEntry(16, 0x501ff, 600)), 0x4000000000000000n | 2n << 54n | 0x501ffn);
  assertEquals(word(packedEntry(9, 0x501ff, 300)), 0x4000000000000000n | 1n << 61n | 0x501ffn);
  assertEquals(word(packedEntry(21, 0, 2 ** 21 - 1)), 0x4000000000000000n | 4095n << 49n);
});

Deno.test("what a compressed cluster's entry says is what was stored, in whole sectors", () => {
  const random = new Random(7);
  for (let i = 0; i < 3000; i++) {
    const bits = random.between(9, 21);
    const length = random.between(1, 2 ** bits - 1);
    const offset = random.below(Math.min(2 ** (70 - bits), 2 ** 52));
    const [high, low] = packedEntry(bits, offset, length);
    const range = packedRange(bits, high, low);
    const end = Math.ceil((offset + length) / 512) * 512;
    assertEquals(range, { offset, length: end - offset }, `${bits} ${offset} ${length}`);
  }
});

Deno.test("offsets lose flags and reserved bits", () => {
  assertEquals(offsetOf(0x80000012, 0x34567801), 0x12_34567800);
  assertEquals(offsetOf(0xff000000, 0x000001ff), 0);
});
