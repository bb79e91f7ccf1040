import { assert, assertEquals, assertThrows } from "@std/assert";
import zlib from "node:zlib";
import { CodecError, loadCodec } from "../../lib/codec/mod.ts";
import { createZstd } from "../../lib/codec/zstd.ts";
import { Random } from "../_random.ts";
import { fromHex, noise, words } from "./_samples.ts";

const VARIANTS = [
  { name: "reused stream", codec: createZstd(zlib) },
  { name: "fresh streams", codec: createZstd(zlib, { reuse: false }) },
];

// Qcow2 reference, test vector V7.
const VECTOR = fromHex("28b52ffd60000f4d0000105a5a0100fbf70116");

for (const { name, codec } of VARIANTS) {
  const test = (behaviour: string, fn: () => void) =>
    Deno.test({ name: `zstd, ${name}: ${behaviour}`, fn });

  const unpack = (packed: Uint8Array, length: number) => {
    const out = new Uint8Array(length);
    codec.unpack(packed, out);
    return out;
  };
  const pack = (bytes: Uint8Array, limit: number, level?: number) => {
    const out = new Uint8Array(limit);
    const length = codec.pack(bytes, out, level);
    return length === null ? null : out.subarray(0, length);
  };

  test("unpacks what the reference wrote", () => {
    assertEquals(unpack(VECTOR, 4096), new Uint8Array(4096).fill(0x5a));
  });

  test("writes what the reference writes", () => {
    assertEquals(pack(new Uint8Array(4096).fill(0x5a), 4095), VECTOR);
  });

  test("a frame carries the size of its content and no checksum", () => {
    const packed = pack(words(65536), 65535)!;
    const descriptor = packed[4]!;
    assertEquals(descriptor & 0x04, 0, "checksum");
    assert((descriptor & 0x20) !== 0, "single segment");
    assertEquals(descriptor >>> 6, 1, "size in two bytes");
    assertEquals((packed[5]! | packed[6]! << 8) + 256, 65536);
  });

  test("ignores what follows a frame that fills the cluster", () => {
    const cluster = words(65536);
    const packed = pack(cluster, 65535)!;
    for (const tail of [new Uint8Array(1), new Uint8Array(400), noise(400), packed]) {
      const padded = new Uint8Array(packed.length + tail.length);
      padded.set(packed);
      padded.set(tail, packed.length);
      assertEquals(unpack(padded, 65536), cluster, `${tail.length} bytes`);
    }
  });

  test("packs and unpacks at every level", () => {
    const cluster = words(16384);
    for (let level = 1; level <= 22; level++) {
      const packed = pack(cluster, 16383, level);
      assert(packed !== null, `level ${level}`);
      assertEquals(unpack(packed, 16384), cluster, `level ${level}`);
    }
  });

  test("packs every cluster size in turn", () => {
    for (let bits = 9; bits <= 21; bits++) {
      const cluster = words(2 ** bits, bits);
      const packed = pack(cluster, cluster.length - 1);
      assert(packed !== null, `2^${bits}`);
      assertEquals(unpack(packed, cluster.length), cluster, `2^${bits}`);
    }
  });

  test("answers null for what does not pack, and goes on working", () => {
    assertEquals(pack(noise(65536), 65535), null);
    const cluster = words(65536);
    assertEquals(unpack(pack(cluster, 65535)!, 65536), cluster);
  });

  test("uses space to the last byte", () => {
    const cluster = words(4096);
    const { length } = pack(cluster, 4095)!;
    assertEquals(pack(cluster, length)?.length, length);
    assertEquals(pack(cluster, length - 1), null);
  });

  test("a cluster may be in several frames, some of them without data", () => {
    const cluster = words(65536);
    const skippable = fromHex("532a4d1803000000aabbcc");
    const parts = [
      zlib.zstdCompressSync(cluster.subarray(0, 30000)),
      skippable,
      // No size in the frame, and a checksum.
      zlib.zstdCompressSync(cluster.subarray(30000), {
        params: {
          [zlib.constants.ZSTD_c_contentSizeFlag]: 0,
          [zlib.constants.ZSTD_c_checksumFlag]: 1,
        },
      }),
    ];
    assertEquals(unpack(new Uint8Array(parts.flatMap((part) => [...part])), 65536), cluster);
  });

  test("truncated frames are errors at every length", () => {
    const packed = pack(words(4096), 4095)!;
    for (let length = 0; length < packed.length; length++) {
      assertThrows(
        () => unpack(packed.subarray(0, length), 4096),
        CodecError,
        undefined,
        `${length}`,
      );
    }
  });

  test("a frame that holds less than the cluster is an error", () => {
    assertThrows(() => unpack(pack(words(4000), 4000)!, 4096), CodecError, "ends too early");
  });

  test("a frame that holds more than the cluster is an error", () => {
    for (const flag of [0, 1]) {
      const packed = zlib.zstdCompressSync(words(5000), {
        params: { [zlib.constants.ZSTD_c_contentSizeFlag]: flag },
      });
      assertThrows(() => unpack(packed, 4096), CodecError, undefined, `size flag ${flag}`);
    }
  });

  test("what is no frame is an error", () => {
    assertThrows(() => unpack(noise(1000), 4096), CodecError, "no zstd frame");
    assertThrows(() => unpack(new Uint8Array(1000), 4096), CodecError, "no zstd frame");
  });

  test("a chain of frames without data ends", () => {
    const empty = fromHex("502a4d1800000000");
    const packed = new Uint8Array(8 * 1000);
    for (let at = 0; at < packed.length; at += 8) packed.set(empty, at);
    assertThrows(() => unpack(packed, 4096), CodecError, "ends too early");
  });

  test("damaged frames are errors or other data, never anything else, and leave no trace", () => {
    const random = new Random(12);
    const cluster = words(4096);
    const packed = pack(cluster, 4095)!;
    let errors = 0;
    for (let i = 0; i < 300; i++) {
      const damaged = packed.slice();
      damaged[random.below(damaged.length)]! ^= 1 << random.below(8);
      try {
        unpack(damaged, 4096);
      } catch (error) {
        assert(error instanceof CodecError, `${error}`);
        errors++;
      }
      assertEquals(unpack(packed, 4096), cluster);
    }
    assert(errors > 0);
  });

  test("a window of gigabytes is refused", () => {
    // One raw block of 4096 bytes in a frame that claims a window of 2^41 bytes.
    const packed = new Uint8Array(6 + 3 + 4096);
    packed.set(fromHex("28b52ffd00f8" + "018000"));
    assertThrows(() => unpack(packed, 4096), CodecError);
  });

  test("refuses levels that there are not", () => {
    for (const level of [0, 23, -1, 1.5, NaN]) {
      assertThrows(() => pack(new Uint8Array(512), 511, level), RangeError, "1 to 22");
    }
  });

  test("works in shared memory", () => {
    const cluster = new Uint8Array(new SharedArrayBuffer(4096));
    cluster.set(words(4096));
    const packed = new Uint8Array(new SharedArrayBuffer(4095));
    const length = codec.pack(cluster, packed)!;
    const out = new Uint8Array(new SharedArrayBuffer(4096));
    codec.unpack(packed.subarray(0, length), out);
    assertEquals(out, cluster);
  });
}

Deno.test("zstd is loaded once", async () => {
  const codec = await loadCodec("zstd");
  assertEquals(await loadCodec("zstd"), codec);
  assertEquals(codec.name, "zstd");
  assertEquals(codec.defaultLevel, 3);
});
