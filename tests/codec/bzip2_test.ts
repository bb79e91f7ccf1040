import { assert, assertEquals, assertThrows } from "@std/assert";
import { createBzip2 } from "../../lib/codec/bzip2.ts";
import { CodecError } from "../../lib/codec/mod.ts";
import { forSeeds } from "../_random.ts";
import { fromHex } from "./_samples.ts";

const codec = createBzip2();

function unpack(packed: Uint8Array, length: number): Uint8Array {
  const out = new Uint8Array(length);
  codec.unpack(packed, out);
  return out;
}

const TEXT = new TextEncoder().encode("She sells sea shells by the sea shore. ".repeat(3));
const PACKED_TEXT = fromHex(
  "425a68393141592653595d50bcbc00000e93804001080032449c2020005080680045127911b521f86c6871969818783d" +
    "6c65871f591b1e8d38c8f0431fc5dc914e142417542f2f00",
);

/** What bzip2 1.0.8 makes of bytes. */
const VECTORS: Readonly<Record<string, readonly [bytes: Uint8Array, hex: string]>> = {
  "nothing": [new Uint8Array(0), "425a683917724538509000000000"],
  "one byte": [
    Uint8Array.of(0x61),
    "425a683931415926535919939b6b00000001002000200021184682ee48a70a120332736d60",
  ],
  "a long run": [
    new Uint8Array(1024).fill(0x5a),
    "425a683931415926535965515b950000044200c00000100008200030cc05536a62283c5dc914e1424195456e54",
  ],
  "every byte, twice": [
    Uint8Array.from({ length: 512 }, (_, index) => index),
    "425a68393141592653592f728526000000ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff" +
    "ffffffb00160002aaaa02602600000000000000000000000000000000000000000000000000000000000024c00130001" +
    "300000000000000000000000000000000000000000000000000000000126000980009800000000000000000000000000" +
    "000000000000000000000000000001fd4050240d04415ff20c83a1084a1485a18ffd0d4390f441114491345115459174" +
    "61194691b4711d4791f481214892349125499274a1294a92b4b12d4b92f4c1314c9334d1354d9374e1394e93b4f13d4f" +
    "93f50141509435114551947521495294b5314d5394f54151549535515555957561595695b5715d5795f5816158963591" +
    "65599675a1695a96b5b16d5b96f5c1715c9735d1755d9775e1795e97b5f17d5f97f60181609836118561987621896298" +
    "b6318d6398f64191649936519565997661996699b6719d6799f681a1689a3691a5699a76a1a96a9ab6b1ad6b9af6c1b1" +
    "6c9b36d1b56d9b76e1b96e9bb6f1bd6f9bf701c1709c3711c5719c7721c9729cb731cd739cf741d1749d3751d5759d77" +
    "61d9769db771dd779df781e1789e3791e5799e77a1e97a9eb7b1ed7b9ef7c1f17c9f37d1f57d9f77e1f97e9fb7f1fd7f" +
    "85dc914e14240bdca14980",
  ],
  "three blocks": [
    new TextEncoder().encode("0123456789".repeat(25000)),
    "425a68313141592653594a8fffa500138708007fe0200070400c029543099c54151e550547aa82a3e541518541519541" +
    "51a54151b54151faa0a8e2a0a8e98a0ac9329ac86c1fdee00138704003ff01000382006014aa184ce2a0a8f150547b54" +
    "151f2a0a8c2a0a8caa0a8d2a0a8daa0a8fd505471505474c50564994d65f993dc98004e2c2001ff808001a829509a181" +
    "4aa1826e521518a42a319a42a3450a8c142a3250a8d142a3650a8fca151c2854745dc914e142413d73f82c",
  ],
  "text": [TEXT, PACKED_TEXT.toHex()],
};

for (const [name, [bytes, hex]] of Object.entries(VECTORS)) {
  Deno.test(`bzip2: unpacks ${name}`, () => {
    assertEquals(unpack(fromHex(hex), bytes.length), bytes);
  });
}

Deno.test("bzip2: unpacks again and again, after damage too", () => {
  const text = unpack(PACKED_TEXT, TEXT.length);
  assertThrows(() => unpack(PACKED_TEXT.subarray(0, 40), TEXT.length), CodecError);
  assertEquals(unpack(PACKED_TEXT, TEXT.length), text);
});

Deno.test("bzip2: ignores what follows the stream", () => {
  assertEquals(unpack(new Uint8Array([...PACKED_TEXT, 1, 2, 3]), TEXT.length), TEXT);
});

Deno.test("bzip2: refuses a stream that is longer or shorter than its cluster", () => {
  assertThrows(() => unpack(PACKED_TEXT, TEXT.length - 1), CodecError, "more than");
  assertThrows(() => unpack(PACKED_TEXT, TEXT.length + 1), CodecError, "end after");
  assertThrows(() => unpack(PACKED_TEXT, 0), CodecError);
});

Deno.test("bzip2: refuses a stream that is cut anywhere", () => {
  for (let length = 0; length < PACKED_TEXT.length; length++) {
    assertThrows(() => unpack(PACKED_TEXT.subarray(0, length), TEXT.length), CodecError);
  }
});

Deno.test("bzip2: a changed bit is noticed wherever it matters", () => {
  const unnoticed: number[] = [];
  for (let bit = 0; bit < 8 * PACKED_TEXT.length; bit++) {
    const packed = PACKED_TEXT.slice();
    packed[bit >> 3]! ^= 1 << (bit & 7);
    let text: Uint8Array;
    try {
      text = unpack(packed, TEXT.length);
    } catch (error) {
      assert(error instanceof CodecError, String(error));
      continue;
    }
    // Some do not: the size of the largest block, where a text that repeats itself begins, the last bits.
    assertEquals(text, TEXT);
    unnoticed.push(bit);
  }
  assert(unnoticed.length < 16, `bits ${unnoticed}`);
});

Deno.test("bzip2: damaged streams end, and stay in their bounds", () => {
  const [, hex] = VECTORS["three blocks"]!;
  forSeeds(100, (random) => {
    const packed = fromHex(hex);
    for (let count = random.between(1, 5); count > 0; count--) {
      packed[random.between(4, packed.length - 1)] = random.below(256);
    }
    const around = new Uint8Array(50_000).fill(0xee);
    assertThrows(() => codec.unpack(packed, around.subarray(100, 40_000)), CodecError);
    assert(around.subarray(0, 100).every((byte) => byte === 0xee));
    assert(around.subarray(40_000).every((byte) => byte === 0xee));
  });
});

Deno.test("bzip2: refuses what is no stream", () => {
  assertThrows(() => unpack(TEXT, 100), CodecError, "no bzip2 data");
  assertThrows(() => unpack(new Uint8Array(0), 100), CodecError);
});
