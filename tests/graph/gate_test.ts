import { assertEquals, assertThrows } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { QUIET } from "../../lib/graph/environment.ts";
import { gateOf } from "../../lib/graph/gate.ts";

const ROLES = ["backing", "data-file", "extent", "log"] as const;

Deno.test("the gate lets every reference pass unless images are untrusted", () => {
  const gate = gateOf(QUIET);
  for (const role of ROLES) gate.pass({ role, filename: "x", image: "a" });
  // Only what `info` shows to whoever looks first may be more than a path.
  assertEquals(ROLES.map((role) => gate.allowsProtocol(role)), [true, false, false, false]);
});

Deno.test("of an untrusted image no reference passes, and the error says which", () => {
  const gate = gateOf({ ...QUIET, untrusted: true });
  const messages = ROLES.map((role) =>
    assertThrows(() => gate.pass({ role, filename: "/etc/passwd", image: "a.img" }), ImageError)
      .message
  );
  const refusal = (what: string) =>
    `'a.img' refers to '/etc/passwd' as its ${what}, which is not opened for an untrusted image`;
  assertEquals(messages, ["backing file", "data file", "extent", "log file"].map(refusal));
  assertEquals(ROLES.some((role) => gate.allowsProtocol(role)), false);
});
