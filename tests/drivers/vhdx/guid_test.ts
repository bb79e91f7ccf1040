import { assertEquals, assertNotEquals } from "@std/assert";
import { formatGuid, newGuid, parseGuid, Region } from "../../../drivers/vhdx/guid.ts";

Deno.test("vhdx: GUIDs are stored as Windows does", () => {
  assertEquals(Region.table.toHex(), "6677c22d23f600429d64115e9bfd4a08");
  assertEquals(formatGuid(Region.table), "2dc27766-f623-4200-9d64-115e9bfd4a08");
});

Deno.test("vhdx: GUIDs in texts may have braces, and are nothing else", () => {
  assertEquals(parseGuid("{8B7CA206-4790-4B9A-B8FE-575F050F886E}"), Region.metadata);
  assertEquals(parseGuid(" 8b7ca206-4790-4b9a-b8fe-575f050f886e "), Region.metadata);
  for (
    const text of ["", "{}", "8b7ca206", "8b7ca206-4790-4b9a-b8fe-575f050f886", "x".repeat(36)]
  ) {
    assertEquals(parseGuid(text), undefined, text);
  }
});

Deno.test("vhdx: new GUIDs are drawn by lot, and say so", () => {
  assertNotEquals(newGuid(), newGuid());
  assertEquals(/^.{14}4.{4}[89ab]/.test(formatGuid(newGuid())), true);
});
