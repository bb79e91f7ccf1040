import { assert, assertEquals, assertThrows } from "@std/assert";
import zlib from "node:zlib";
import { CodecError, loadCodec } from "../../lib/codec/mod.ts";
import { createDeflate } from "../../lib/codec/deflate.ts";
import { Random } from "../_random.ts";
import { fromHex, noise, words } from "./_samples.ts";

const VARIANTS = [
  { name: "reused streams", codec: createDeflate(zlib) },
  { name: "fresh streams", codec: createDeflate(zlib, { reuse: false }) },
];

// Qcow2 reference, test vector V6: two clusters of 4 KiB in one run of 44 bytes.
const FIRST = "edc1010d000000c2a09eef1fc41e0e28000000e0dd00";
const SECOND = "edc1010d000000c2a00cef5fd61e0e28000000e0dd00";

for (const { name, codec } of VARIANTS) {
  const test = (behaviour: string, fn: () => void) =>
    Deno.test({ name: `deflate, ${name}: ${behaviour}`, fn });

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

  test("inflates what the reference wrote", () => {
    assertEquals(unpack(fromHex(FIRST), 4096), new Uint8Array(4096).fill(0x5a));
    assertEquals(unpack(fromHex(SECOND), 4096), new Uint8Array(4096).fill(0x11));
  });

  test("ignores what follows a stream", () => {
    assertEquals(unpack(fromHex(FIRST + SECOND), 4096), new Uint8Array(4096).fill(0x5a));
    assertEquals(unpack(fromHex(FIRST + "ff".repeat(2000)), 4096), new Uint8Array(4096).fill(0x5a));
  });

  test("needs no end marker once the cluster is full", () => {
    const cluster = words(65536);
    const open = zlib.deflateRawSync(cluster, { finishFlush: zlib.constants.Z_SYNC_FLUSH });
    assertEquals(unpack(open, 65536), cluster);
  });

  test("takes the beginning of a stream that goes on", () => {
    const long = words(70000);
    assertEquals(unpack(zlib.deflateRawSync(long), 65536), long.subarray(0, 65536));
  });

  test("inflates streams with the largest window", () => {
    const far = new Uint8Array(65536);
    far.set(noise(20000));
    far.set(noise(20000), 40000);
    assertEquals(unpack(zlib.deflateRawSync(far, { windowBits: 15 }), 65536), far);
  });

  test("packs and unpacks at every level", () => {
    const cluster = words(65536);
    for (let level = 1; level <= 9; level++) {
      const packed = pack(cluster, 65535, level);
      assert(packed !== null, `level ${level}`);
      assertEquals(unpack(packed, 65536), cluster, `level ${level}`);
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

  test("writes for a reader with a window of 4 KiB", () => {
    const cluster = new Uint8Array(65536);
    // Repeats at many distances, below and above 4096.
    const part = noise(3000);
    for (let at = 0; at + 3000 <= cluster.length; at += 3000 + at / 8 & ~7) cluster.set(part, at);
    const packed = pack(cluster, 65535)!;
    assertEquals(
      new Uint8Array(zlib.inflateRawSync(packed, { windowBits: 12 })),
      cluster,
    );
  });

  test("answers null for what does not pack, and goes on working", () => {
    assertEquals(pack(noise(65536), 65535), null);
    assertEquals(pack(noise(512), 511), null);
    const cluster = words(65536);
    assertEquals(unpack(pack(cluster, 65535)!, 65536), cluster);
  });

  test("uses space to the last byte", () => {
    const cluster = words(4096);
    const { length } = pack(cluster, 4095)!;
    assertEquals(pack(cluster, length)?.length, length);
    assertEquals(unpack(pack(cluster, length)!, 4096), cluster);
    for (let less = 1; less < 20; less++) {
      assertEquals(pack(cluster, length - less), null, `${length} - ${less} bytes`);
    }
  });

  test("the same bytes pack to the same bytes, whatever was packed before", () => {
    const [a, b] = [words(65536, 5), words(65536, 6)];
    const first = pack(a, 65535);
    pack(b, 65535);
    pack(noise(65536), 65535);
    assertEquals(pack(a, 65535), first);
  });

  test("a stream that ends too early is an error with both lengths", () => {
    const packed = pack(words(30000), 30000)!;
    assertThrows(
      () => unpack(packed, 65536),
      CodecError,
      "deflated data end after 30000 of 65536 bytes",
    );
    assertThrows(() => unpack(new Uint8Array(0), 4096), CodecError);
  });

  test("truncated streams are errors at every length", () => {
    const packed = pack(words(4096), 4095)!;
    // Without its last bytes a stream can still hold the whole cluster: the end marker is not needed.
    for (let length = 0; length < packed.length - 4; length += 7) {
      assertThrows(
        () => unpack(packed.subarray(0, length), 4096),
        CodecError,
        undefined,
        `${length}`,
      );
    }
  });

  test("damaged streams are errors or other data, never anything else, and leave no trace", () => {
    const random = new Random(11);
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
    assertThrows(() => unpack(new Uint8Array(100).fill(0xff), 4096), CodecError);
  });

  test("refuses levels that there are not", () => {
    for (const level of [0, 10, -1, 1.5, NaN]) {
      assertThrows(() => pack(new Uint8Array(512), 511, level), RangeError, "1 to 9");
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

  test("works in the middle of a larger buffer and leaves the rest alone", () => {
    const buffer = new Uint8Array(20000).fill(0xee);
    const cluster = words(4096);
    buffer.set(cluster, 5);
    const length = codec.pack(buffer.subarray(5, 4101), buffer.subarray(6001, 10096))!;
    codec.unpack(buffer.subarray(6001, 6001 + length), buffer.subarray(12003, 16099));
    assertEquals(buffer.subarray(12003, 16099), cluster);
    for (const at of [4, 4101, 6000, 10096, 12002, 16099]) assertEquals(buffer[at], 0xee, `${at}`);
  });
}

Deno.test("deflate is loaded once, with reused streams where Deno has them", async () => {
  const codec = await loadCodec("deflate");
  assertEquals(await loadCodec("deflate"), codec);
  assertEquals(codec.name, "deflate");
  assertEquals(codec.levels, [1, 9]);
});
