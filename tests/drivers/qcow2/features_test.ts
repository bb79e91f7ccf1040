import { assertEquals } from "@std/assert";
import { describeUnknownFeatures, featureNameTable } from "../../../drivers/qcow2/features.ts";
import { patch } from "./_image.ts";

/** An extension area with one feature name table. */
function area(...rows: (readonly [word: number, bit: number, name: string])[]): Uint8Array {
  const bytes = new Uint8Array(8 + rows.length * 48);
  patch(bytes, [0, 4, 0x6803f857], [4, 4, rows.length * 48]);
  for (const [i, [word, bit, name]] of rows.entries()) {
    patch(bytes, [8 + i * 48, 1, word], [9 + i * 48, 1, bit]);
    bytes.set(new TextEncoder().encode(name), 10 + i * 48);
  }
  return bytes;
}

Deno.test("featureNameTable() has eight rows of 48 bytes", () => {
  assertEquals(featureNameTable().length, 384);
});

Deno.test("describeUnknownFeatures() names bits in the order of the table", () => {
  const table = area([0, 9, "nine"], [0, 7, "seven"]);
  assertEquals(describeUnknownFeatures(0x280n, table), "nine, seven");
});

Deno.test("describeUnknownFeatures() does not take compatible features for incompatible ones", () => {
  assertEquals(
    describeUnknownFeatures(0x80n, area([1, 7, "seven"])),
    "Unknown incompatible feature: 80",
  );
});

Deno.test("describeUnknownFeatures() ends at a row without a name", () => {
  assertEquals(
    describeUnknownFeatures(0x80n, area([0, 6, ""], [0, 7, "seven"])),
    "Unknown incompatible feature: 80",
  );
});

Deno.test("describeUnknownFeatures() ends at an extension that is longer than its area", () => {
  const damaged = patch(area([0, 7, "seven"]), [4, 4, 4096]);
  assertEquals(describeUnknownFeatures(0x80n, damaged), "Unknown incompatible feature: 80");
});

Deno.test("describeUnknownFeatures() lets no name steer the terminal", () => {
  assertEquals(describeUnknownFeatures(0x80n, area([0, 7, "\x1b[2Jx"])), "?[2Jx");
});

Deno.test("describeUnknownFeatures() ignores bits above 63", () => {
  assertEquals(
    describeUnknownFeatures(1n << 63n, area([0, 200, "no"], [0, 63, "last"])),
    "last",
  );
});
