import { assertEquals } from "@std/assert";
import { probeQcow2 } from "../../../drivers/qcow2/probe.ts";
import { hex } from "./_image.ts";

Deno.test("probeQcow2() knows the magic with version 2 and later", () => {
  for (const [head, score] of [["514649fb 00000002", 100], ["514649fb 00000004", 100]] as const) {
    assertEquals(probeQcow2(hex(head), "x"), score, head);
  }
});

Deno.test("probeQcow2() leaves version 1, other magics and short heads to others", () => {
  for (const head of ["514649fb 00000001", "514649fa 00000003", "514649fb 000000", ""]) {
    assertEquals(probeQcow2(hex(head), "x.qcow2"), 0, head);
  }
});
