import { assert, assertEquals, assertThrows } from "@std/assert";
import { createAdc } from "../../lib/codec/adc.ts";
import { createLzfse } from "../../lib/codec/lzfse.ts";
import { CodecError, type Unpacker } from "../../lib/codec/mod.ts";
import { forSeeds, Random } from "../_random.ts";
import { entropyBlock, lzfseStream, lzvnBlock, packAdc, storedBlock } from "./_apple.ts";
import { fromHex, noise, words } from "./_samples.ts";

const lzfse = createLzfse();
const adc = createAdc();

function unpack(codec: Unpacker, packed: Uint8Array, length: number): Uint8Array {
  const out = new Uint8Array(length);
  codec.unpack(packed, out);
  return out;
}

/** Bytes of many kinds: words and noise, long runs, what was there long before. */
function mixture(random: Random): Uint8Array {
  const bytes = words(random.between(1, 8000), random.u32());
  for (let count = random.below(4); count > 0; count--) {
    const start = random.below(bytes.length);
    const end = start + random.below(3000);
    if (random.oneIn(2)) bytes.fill(random.below(256), start, end);
    else bytes.set(noise(bytes.subarray(start, end).length, random.u32()), start);
  }
  return bytes;
}

/** What Apple's compressor makes of bytes that are all the same. */
const BY_APPLE: readonly (readonly [name: string, byte: number, length: number, hex: string])[] = [
  [
    "LZVN, 1024 zeros",
    0,
    1024,
    "6276786e000400001600000068" + "0100f0fff0fff0fff0b8e20000060000000000000062767824",
  ],
  [
    "LZVN, 512 letters",
    0x45,
    512,
    "6276786e000200001200000068" + "0145f0fff0d6e24545060000000000000062767824",
  ],
  [
    "LZFSE, 4096 letters",
    0x41,
    4096,
    "6276783200100000040000000003007000000000000c0050830000002490000ce7d75c030000005c03000000c04ff093" +
    "7c0f00000000000000000000000000000000000000000000000000000000000000c0a30f000000000000000000000000" +
    "000000000000000000000000000000000000000000000000000000000000000000000000000000000000003456ff3f62" +
    "767824",
  ],
];

for (const [name, byte, length, hex] of BY_APPLE) {
  Deno.test(`LZFSE: what Apple's compressor made: ${name}`, () => {
    assertEquals(unpack(lzfse, fromHex(hex), length), new Uint8Array(length).fill(byte));
  });
}

const KINDS: Readonly<
  Record<string, readonly [Unpacker, (bytes: Uint8Array, random: Random) => Uint8Array]>
> = {
  "ADC": [adc, packAdc],
  "LZVN": [lzfse, (bytes, random) => lzfseStream(lzvnBlock(bytes, random.u32()))],
  "LZFSE": [lzfse, (bytes) => lzfseStream(entropyBlock(bytes))],
  "LZFSE with plain tables": [lzfse, (bytes) => lzfseStream(entropyBlock(bytes, "1"))],
  "LZFSE, blocks of all kinds": [
    lzfse,
    (bytes, random) => {
      const blocks: number[][] = [];
      for (let at = 0; at < bytes.length;) {
        const part = bytes.subarray(at, at + random.between(1, 3000));
        blocks.push(
          random.pick([
            storedBlock,
            lzvnBlock,
            (part: Uint8Array) => entropyBlock(part),
            (part: Uint8Array) => entropyBlock(part, "1"),
          ])(part),
        );
        at += part.length;
      }
      return lzfseStream(...blocks);
    },
  ],
};

for (const [kind, [codec, pack]] of Object.entries(KINDS)) {
  Deno.test(`${kind}: unpacks what was packed`, () => {
    forSeeds(25, (random) => {
      const bytes = mixture(random);
      assertEquals(unpack(codec, pack(bytes, random), bytes.length), bytes);
    });
  });

  Deno.test(`${kind}: ignores what follows`, () => {
    const bytes = words(3000);
    const packed = pack(bytes, new Random(1));
    assertEquals(unpack(codec, new Uint8Array([...packed, 1, 2, 3]), bytes.length), bytes);
  });

  Deno.test(`${kind}: refuses data that are cut anywhere`, () => {
    const bytes = words(500);
    const packed = pack(bytes, new Random(1));
    for (let length = 0; length < packed.length; length++) {
      assertThrows(() => unpack(codec, packed.subarray(0, length), bytes.length), CodecError);
    }
  });

  Deno.test(`${kind}: refuses data that are longer or shorter than their cluster`, () => {
    const bytes = words(3000);
    const packed = pack(bytes, new Random(1));
    assertThrows(() => unpack(codec, packed, bytes.length - 1), CodecError);
    assertThrows(() => unpack(codec, packed, bytes.length + 1), CodecError);
  });

  Deno.test(`${kind}: takes damaged data, or refuses them, and stays in its bounds`, () => {
    const bytes = words(1000);
    const intact = pack(bytes, new Random(1));
    forSeeds(200, (random) => {
      const packed = intact.slice();
      for (let count = random.between(1, 4); count > 0; count--) {
        packed[random.below(packed.length)] = random.below(256);
      }
      const around = new Uint8Array(bytes.length + 100).fill(0xee);
      try {
        codec.unpack(packed, around.subarray(50, 50 + bytes.length));
      } catch (error) {
        assert(error instanceof CodecError, String(error));
      }
      for (const edge of [around.subarray(0, 50), around.subarray(50 + bytes.length)]) {
        assert(edge.every((byte) => byte === 0xee));
      }
    });
  });
}

Deno.test("ADC: refuses a match before the beginning", () => {
  assertThrows(() => unpack(adc, Uint8Array.of(0x80, 1, 0x00, 1), 4), CodecError);
});

Deno.test("LZVN: refuses instructions of no meaning", () => {
  const rows = [0x70, 0x7f, 0xd0, 0xdf, 0x1e, 0x26, 0x2e, 0x36, 0x3e];
  for (const opcode of rows) {
    const block = lzvnBlock(Uint8Array.of(1, 2, 3, 4));
    // In front of all others; three bytes more are the block's end.
    const payload = [0xe4, 1, 2, 3, 4, opcode, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0];
    block.splice(8, Infinity, payload.length, 0, 0, 0, ...payload);
    assertThrows(() => unpack(lzfse, lzfseStream(block), 4), CodecError, "meaning");
  }
});

Deno.test("LZFSE: refuses a block of more symbols than bytes", () => {
  const block = entropyBlock(words(100));
  // The matches are counted in bits 40 to 59 of the first word.
  [block[13], block[14]] = [0xff, 0xff];
  assertThrows(() => unpack(lzfse, lzfseStream(block), 100), CodecError, "more symbols");
});

Deno.test("LZFSE: refuses frequencies of more than all states", () => {
  const block = entropyBlock(words(100), "1");
  block.splice(50, 2, 65, 0);
  assertThrows(() => unpack(lzfse, lzfseStream(block), 100), CodecError, "frequencies");
});

Deno.test("LZFSE: refuses what is no stream", () => {
  assertThrows(() => unpack(lzfse, new Uint8Array(100), 100), CodecError, "no LZFSE block");
  assertThrows(() => unpack(lzfse, new Uint8Array(0), 100), CodecError, "too early");
});
