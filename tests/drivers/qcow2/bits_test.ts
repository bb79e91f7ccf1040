import { assertEquals } from "@std/assert";
import { clearBitsFrom, setBits, visitSetBits } from "../../../drivers/qcow2/_bits.ts";
import { Random } from "../../_random.ts";

const BITS = 200;

/** The bits as digits, the low one of a byte first. */
function digits(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(2).padStart(8, "0").split("").reverse().join(""))
    .join("");
}

Deno.test("setBits sets a range and nothing else", () => {
  for (let start = 0; start < 40; start++) {
    for (let end = start + 1; end <= 40; end++) {
      const bytes = new Uint8Array(5);
      setBits(bytes, start, end);
      const expected = "0".repeat(start) + "1".repeat(end - start) + "0".repeat(40 - end);
      assertEquals(digits(bytes), expected, `${start} to ${end}`);
    }
  }
});

Deno.test("clearBitsFrom clears the rest and nothing else", () => {
  for (let start = -3; start < 45; start++) {
    const bytes = new Uint8Array(5).fill(0xff);
    clearBitsFrom(bytes, start);
    const kept = Math.min(Math.max(start, 0), 40);
    assertEquals(digits(bytes), "1".repeat(kept) + "0".repeat(40 - kept), `from ${start}`);
  }
});

Deno.test("visitSetBits finds every run in order", () => {
  const random = new Random(1);
  for (let round = 0; round < 200; round++) {
    const bytes = new Uint8Array(BITS / 8);
    for (let runs = random.below(8); runs > 0; runs--) {
      const start = random.below(BITS);
      setBits(bytes, start, random.between(start + 1, BITS));
      clearBitsFrom(bytes, random.between(start, BITS));
    }
    const found = new Uint8Array(bytes.length);
    let last = -1;
    visitSetBits(bytes, (start, end) => {
      assertEquals(start > last && end > start, true, "runs are apart, ascending and not empty");
      last = end;
      setBits(found, start, end);
    });
    assertEquals(digits(found), digits(bytes), `round ${round}`);
  }
});
