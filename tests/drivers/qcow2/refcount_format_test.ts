import { assertEquals } from "@std/assert";
import { refcountFormat } from "../../../drivers/qcow2/refcount_format.ts";
import { Random } from "../../_random.ts";

const BLOCK = 512;

function stored(order: number, values: readonly number[]): string {
  const format = refcountFormat(order, BLOCK);
  const block = new Uint8Array(BLOCK);
  for (const [index, value] of values.entries()) format.set(block, index, value);
  return block.subarray(0, Math.max(values.length * format.bits / 8, 1)).toHex();
}

Deno.test("refcounts below a byte fill it from the low bits upward", () => {
  assertEquals(stored(0, [1, 1, 1, 1]), "0f");
  assertEquals(stored(0, [0, 0, 0, 0, 0, 0, 0, 1]), "80");
  assertEquals(stored(1, [1, 1, 1, 1]), "55");
  assertEquals(stored(1, [3, 0, 2, 1]), "63");
  assertEquals(stored(2, [1, 1, 1, 1]), "1111");
  assertEquals(stored(2, [15, 1]), "1f");
});

Deno.test("refcounts of whole bytes are big-endian", () => {
  assertEquals(stored(3, [1, 255]), "01ff");
  assertEquals(stored(4, [1, 0x1234]), "00011234");
  assertEquals(stored(5, [1, 0xfedcba98]), "00000001fedcba98");
  assertEquals(stored(6, [1, 2 ** 40]), "00000000000000010000010000000000");
});

Deno.test("a block holds as many refcounts as fit", () => {
  const counts = Array.from({ length: 7 }, (_, order) => refcountFormat(order, BLOCK).perBlock);
  assertEquals(counts, [4096, 2048, 1024, 512, 256, 128, 64]);
});

for (let order = 0; order <= 6; order++) {
  const format = refcountFormat(order, BLOCK);

  Deno.test(`refcounts of ${format.bits} bits do not disturb their neighbours`, () => {
    const random = new Random(order + 1);
    const block = new Uint8Array(BLOCK);
    const model = new Array<number>(format.perBlock).fill(0);
    const largest = Math.min(format.maximum, 2 ** 53 - 1);
    for (let i = 0; i < 2000; i++) {
      const index = random.below(format.perBlock);
      const value = random.pick([0, 1, largest, random.below(largest + 1)]);
      model[index] = value;
      format.set(block, index, value);
    }
    assertEquals(Array.from(model.keys(), (index) => format.get(block, index)), model);
  });

  Deno.test(`refcounts of ${format.bits} bits stay within their range`, () => {
    const block = new Uint8Array(BLOCK);
    assertEquals(format.add(block, 3, -1), -1);
    assertEquals(format.add(block, 3, 1), 1);
    assertEquals(format.add(block, 3, -1), 0);
    format.set(block, 3, format.maximum);
    const full = block.toHex();
    assertEquals(format.add(block, 3, 1), -1);
    assertEquals(block.toHex(), full);
    assertEquals(format.get(block, 2) + format.get(block, 4), 0);
  });

  Deno.test(`free and used refcounts of ${format.bits} bits are found from any place`, () => {
    const random = new Random(order + 100);
    const { perBlock } = format;
    for (const density of [1, 2, 40]) {
      const block = new Uint8Array(BLOCK);
      const used = Array.from({ length: perBlock }, () => !random.oneIn(density));
      for (const [index, is] of used.entries()) if (is) format.set(block, index, format.maximum);
      for (let i = 0; i < 300; i++) {
        const from = random.below(perBlock + 1);
        const to = random.between(from, perBlock);
        const find = (state: boolean) => {
          const found = used.indexOf(state, from);
          return found < 0 || found > to ? to : found;
        };
        assertEquals(format.firstFree(block, from, to), find(false), `free in ${from} to ${to}`);
        assertEquals(format.firstUsed(block, from, to), find(true), `used in ${from} to ${to}`);
      }
    }
  });
}

Deno.test("a 64-bit refcount is exact beyond what a number can tell", () => {
  const format = refcountFormat(6, BLOCK);
  const block = new Uint8Array(BLOCK);
  new DataView(block.buffer).setBigUint64(0, 2n ** 63n + 1n);
  format.add(block, 0, 1);
  assertEquals(new DataView(block.buffer).getBigUint64(0), 2n ** 63n + 2n);
});
