import { assertEquals, assertThrows } from "@std/assert";
import zlib from "node:zlib";
import { CodecError } from "../../lib/codec/mod.ts";
import { createExactZlib } from "../../lib/codec/deflate.ts";
import { words } from "./_samples.ts";

const BLOCK = words(65536);

for (const reuse of [true, false]) {
  const codec = createExactZlib(zlib, { reuse });
  const test = (behaviour: string, fn: () => void) =>
    Deno.test({ name: `zlib, exact, ${reuse ? "reused" : "fresh"} streams: ${behaviour}`, fn });
  const unpack = (packed: Uint8Array, length = BLOCK.length) => {
    const out = new Uint8Array(length);
    codec.unpack(packed, out);
    return out;
  };

  test("inflates a whole stream, again and again", () => {
    const packed = zlib.deflateSync(BLOCK);
    assertEquals(unpack(packed), BLOCK);
    assertThrows(() => unpack(packed.subarray(0, 100)), CodecError);
    assertEquals(unpack(packed), BLOCK);
  });

  test("ignores what follows the stream", () => {
    const packed = zlib.deflateSync(BLOCK);
    assertEquals(unpack(new Uint8Array([...packed, 1, 2, 3])), BLOCK);
  });

  for (const [what, length] of [["longer", 65535], ["shorter", 65537], ["empty", 0]] as const) {
    test(`refuses a stream that is not of the cluster's length: ${what}`, () => {
      assertThrows(() => unpack(zlib.deflateSync(BLOCK), length), CodecError);
    });
  }

  test("refuses a wrong checksum, and none", () => {
    const packed = zlib.deflateSync(BLOCK);
    assertThrows(() => unpack(packed.subarray(0, packed.length - 4)), CodecError);
    packed[packed.length - 1]! ^= 1;
    assertThrows(() => unpack(packed), CodecError);
  });

  test("refuses what is no stream", () => {
    assertThrows(() => unpack(BLOCK), CodecError);
    assertThrows(() => unpack(new Uint8Array(0)), CodecError);
  });
}
