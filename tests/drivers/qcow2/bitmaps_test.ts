import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { Bitmaps } from "../../../drivers/qcow2/bitmaps.ts";
import type { Qcow2Image } from "../../../drivers/qcow2/image.ts";
import { flushImage } from "../../../drivers/qcow2/lazy.ts";
import { openImage } from "../../../drivers/qcow2/open.ts";
import { ImageError } from "../../../lib/block/error.ts";
import type { OpenMode } from "../../../lib/block/mode.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { reference, runReference, useReference, writeWithReference } from "../../_reference.ts";
import { tempDir } from "../../_temp.ts";
import { context, hex, patch, sha256 } from "./_image.ts";

/**
 * A 1 MiB disk in 4 KiB clusters with one bitmap: test vector V13 of the
 * format's reference, with a table entry in place of its zero.
 */
function withBitmap(entry = 0n, flags = 2, more: [number, 1 | 2 | 4 | 8, number | bigint][] = []) {
  const bytes = new Uint8Array(0x8000);
  bytes.set(hex(`514649fb 00000003 0000000000000000 00000000 0000000c 0000000000100000
    00000000 00000001 0000000000003000 0000000000001000 00000001 00000000
    0000000000000000 0000000000000000 0000000000000000 0000000000000001
    00000004 00000070 0000000000000000
    23852875 00000018 00000001 00000000 0000000000000020 0000000000005000`));
  bytes.set(hex("0000000000002000"), 0x1000);
  bytes.set(hex("0001 0001 0001 0001 0001 0001 0001"), 0x2000);
  bytes.set(
    hex(
      "0000000000004000 00000001 00000002 01 0c 0002 00000000 6230 000000000000",
    ),
    0x5000,
  );
  patch(bytes, [0x4000, 8, entry], [0x500c, 4, flags], ...more);
  return bytes;
}

/** What is seen of it. */
const B0 = { name: "b0", granularity: 4096, flags: ["auto"], enabled: true, consistent: true };

const repair = () => Promise.reject(new Error("not dirty"));

async function opened(
  bytes: Uint8Array,
  changes: Partial<OpenMode> = { writable: true },
): Promise<{ file: MemoryNode; image: Qcow2Image; bitmaps: Bitmaps }> {
  const file = new MemoryNode({ bytes });
  return { file, ...await openImage(file, context(changes), repair) };
}

async function closed({ image, bitmaps }: { image: Qcow2Image; bitmaps: Bitmaps }): Promise<void> {
  await bitmaps.store();
  await flushImage(image);
}

/** The bits of the only bitmap of a closed image, as bytes. */
async function bits(file: MemoryNode): Promise<Uint8Array> {
  const view = new DataView(file.bytes().buffer);
  const directory = Number(view.getBigUint64(0x70 + 8 + 16));
  const table = Number(view.getBigUint64(directory));
  const data = Number(view.getBigUint64(table));
  return await Promise.resolve(data === 0 ? new Uint8Array(4096) : file.slice(data, 4096));
}

Deno.test("bitmaps of a read-only image are listed and nothing is written", async () => {
  const file = new MemoryNode({ bytes: withBitmap(), readOnly: true });
  const { bitmaps } = await openImage(file, context(), repair);
  assertEquals(bitmaps.list(), [B0]);
});

Deno.test("opening for writing marks bitmaps as in use, under a clear autoclear bit", async () => {
  const file = new MemoryNode({ bytes: withBitmap() });
  file.logging = true;
  const { bitmaps } = await openImage(file, context({ writable: true }), repair);
  assertEquals(bitmaps.list()[0]!.flags, ["in-use", "auto"]);
  const steps = file.log.map((request) => {
    if (request.kind !== "write") return request.kind;
    const view = new DataView(request.bytes.buffer, request.bytes.byteOffset);
    return request.offset === 0
      ? `header ${view.getBigUint64(88)}`
      : `${request.offset.toString(16)} flags ${view.getUint32(12)}`;
  });
  assertEquals(steps, ["header 0", "flush", "5000 flags 3", "flush", "header 1", "flush"]);
});

Deno.test("closing stores what the guest wrote", async () => {
  const image = await opened(withBitmap());
  image.bitmaps.record(4096 * 3 + 17, 4096 * 7);
  image.bitmaps.record(0, 1);
  image.bitmaps.record(1048575, 1);
  await closed(image);
  const stored = await bits(image.file);
  assertEquals(stored.subarray(0, 3), hex("f90700"));
  assertEquals(stored.subarray(30, 33), hex("008000"));
  const again = await opened(image.file.bytes(), {});
  assertEquals(again.bitmaps.list(), [B0]);
});

Deno.test("bits that were stored before are kept", async () => {
  const bytes = withBitmap(0x6000n);
  bytes[0x6000] = 0x81;
  const image = await opened(bytes);
  image.bitmaps.record(4096, 1);
  await closed(image);
  assertEquals((await bits(image.file)).subarray(0, 2), hex("8300"));
});

Deno.test("a table entry that stands for all ones has no bits behind the disk", async () => {
  const image = await opened(withBitmap(1n));
  await closed(image);
  const stored = await bits(image.file);
  assertEquals(stored.subarray(0, 32), new Uint8Array(32).fill(0xff));
  assertEquals(stored.subarray(32), new Uint8Array(4096 - 32));
});

Deno.test("a disabled bitmap does not follow writes and stays disabled", async () => {
  const image = await opened(withBitmap(0n, 0));
  image.bitmaps.record(0, 1048576);
  await closed(image);
  assertEquals(await bits(image.file), new Uint8Array(4096));
  const { bitmaps } = await opened(image.file.bytes(), {});
  assertEquals(bitmaps.list()[0]!.flags, []);
});

Deno.test("a bitmap that was in use is neither followed nor stored nor lost", async () => {
  const bytes = withBitmap(0x6000n, 3);
  const image = await opened(bytes);
  image.bitmaps.record(0, 1048576);
  await closed(image);
  assertEquals(image.file.bytes(), bytes as Uint8Array<ArrayBuffer>);
});

Deno.test("a bitmap that was in use forbids resizing", async () => {
  const { bitmaps } = await opened(withBitmap(0n, 3));
  const error = assertThrows(() => bitmaps.assertResizable(), ImageError);
  assertEquals(error.message, "Bitmap 'b0' is inconsistent and cannot be used");
  assertEquals(error.hint, "Try block-dirty-bitmap-remove to delete this bitmap from disk");
});

Deno.test("what a smaller disk cut off a bitmap does not come back with a larger one", async () => {
  const bytes = withBitmap(0x6000n);
  bytes.fill(0xff, 0x6000, 0x6020);
  const image = await opened(bytes);
  image.bitmaps.record(1048575, 1);
  image.bitmaps.resize(5 * 4096);
  image.bitmaps.resize(1048576);
  await closed(image);
  const stored = await bits(image.file);
  assertEquals(stored.subarray(0, 2), hex("1f00"));
  assertEquals(stored.subarray(2), new Uint8Array(4094));
});

/** Ways to damage the bitmap, and what opening then says. */
const DAMAGES: readonly (readonly [
  name: string,
  bytes: Uint8Array,
  text: string,
])[] = [
  [
    "directory of a bitmap more than the header says",
    withBitmap(0n, 2, [[0x70 + 8 + 15, 1, 64], [0x5020, 8, 0x4000], [0x5028, 4, 1], [
      0x5030,
      4,
      0x010c0001,
    ], [0x5038, 1, 0x63]]),
    "More bitmaps found than specified in header extension",
  ],
  [
    "directory of a bitmap less than the header says",
    withBitmap(0n, 2, [[0x78, 4, 2]]),
    "Less bitmaps found than specified in header extension",
  ],
  [
    "entry cut by the end of the directory",
    withBitmap(0n, 2, [[0x70 + 8 + 15, 1, 16]]),
    "Broken bitmap directory",
  ],
  [
    "name cut by the end of the directory",
    withBitmap(0n, 2, [[0x5012, 2, 500]]),
    "Broken bitmap directory",
  ],
  [
    "extra data",
    withBitmap(0n, 2, [[0x5012, 2, 1], [0x5014, 4, 1]]),
    "Bitmap extra data is not supported",
  ],
  ["unknown flag", withBitmap(0n, 4), "Bitmap 'b0' doesn't satisfy the constraints"],
  ["type 2", withBitmap(0n, 2, [[0x5010, 1, 2]]), "Bitmap 'b0' doesn't satisfy the constraints"],
  [
    "granularity 2^8",
    withBitmap(0n, 2, [[0x5011, 1, 8]]),
    "Bitmap 'b0' doesn't satisfy the constraints",
  ],
  [
    "granularity 2^32",
    withBitmap(0n, 2, [[0x5011, 1, 32]]),
    "Bitmap 'b0' doesn't satisfy the constraints",
  ],
  [
    "unaligned table",
    withBitmap(0n, 2, [[0x5000, 8, 0x4008]]),
    "Bitmap 'b0' doesn't satisfy the constraints",
  ],
  ["no table", withBitmap(0n, 2, [[0x5008, 4, 0]]), "Bitmap 'b0' doesn't satisfy the constraints"],
  [
    "table for more than 512 MiB",
    withBitmap(0n, 2, [[0x5008, 4, 131073]]),
    "Bitmap 'b0' doesn't satisfy the constraints",
  ],
  [
    "table of two entries for a disk that needs one",
    withBitmap(0n, 2, [[0x5008, 4, 2]]),
    "Could not read bitmap 'b0' from image: Invalid argument",
  ],
  [
    "reserved bit in the table",
    withBitmap(2n),
    "Could not read bitmap_table table from image for bitmap 'b0': Invalid argument",
  ],
  [
    "offset with the bit for all ones",
    withBitmap(0x6001n),
    "Could not read bitmap_table table from image for bitmap 'b0': Invalid argument",
  ],
  [
    "unaligned bits",
    withBitmap(0x6200n),
    "Could not read bitmap_table table from image for bitmap 'b0': Invalid argument",
  ],
];

for (const [name, bytes, text] of DAMAGES) {
  Deno.test(`opening refuses bitmaps: ${name}`, async () => {
    const error = await assertRejects(() => opened(bytes, {}), ImageError);
    assertEquals(error.message, text);
  });
}

Deno.test({
  name: "opening refuses bitmaps with the reference's words",
  ignore: reference.ignore,
  fn: async (t) => {
    await using dir = await tempDir();
    for (const [name, bytes, text] of DAMAGES) {
      await t.step(name, async () => {
        await Deno.writeFile(dir.file("x"), bytes);
        const { stderr } = await runReference(["info", "-f", "qcow2", "x"], { cwd: dir.path });
        assertEquals(stderr, `qemu-img: Could not open 'x': ${text}\n`);
      });
    }
  },
});

Deno.test({
  name: "opening for writing and closing leaves the bytes that the reference leaves",
  ignore: reference.ignore,
  fn: async (t) => {
    const makings: Record<string, string[][]> = {
      "one clean bitmap": [["bitmap", "--add", "x", "b0"]],
      "three bitmaps, one disabled": [
        ["bitmap", "--add", "-g", "512", "x", "a"],
        ["bitmap", "--add", "-g", "64k", "--disable", "x", "second"],
        ["bitmap", "--add", "-g", "4k", "x", "third bitmap"],
      ],
    };
    for (const [name, commands] of Object.entries(makings)) {
      for (const clusterSize of ["512", "4k", "64k"]) {
        await t.step(`${name}, clusters of ${clusterSize}`, async () => {
          await using dir = await tempDir();
          const at = { cwd: dir.path };
          await useReference(
            ["create", "-q", "-f", "qcow2", "-o", `cluster_size=${clusterSize}`, "x", "9M"],
            at,
          );
          for (const command of commands) await useReference(command, at);
          await writeWithReference("x", ["write 1M 3M", "write 8M 512"], at);
          const image = await opened(await Deno.readFile(dir.file("x")));
          await closed(image);
          await writeWithReference("x", ["flush"], { ...at, format: "qcow2" });
          const expected = await Deno.readFile(dir.file("x"));
          assertEquals(image.file.exactLength, expected.length);
          assertEquals(await sha256(image.file.bytes()), await sha256(expected));
        });
      }
    }
  },
});

Deno.test({
  name: "the reference reads the bits that were recorded here",
  ignore: reference.ignore,
  fn: async () => {
    await using dir = await tempDir();
    const at = { cwd: dir.path };
    await useReference(
      ["create", "-q", "-f", "qcow2", "-o", "cluster_size=512", "x", "64M"],
      at,
    );
    await useReference(["bitmap", "--add", "-g", "512", "x", "b"], at);
    const image = await opened(await Deno.readFile(dir.file("x")));
    // Crosses clusters of the bitmap, each of which covers 2 MiB of the disk.
    image.bitmaps.record(2097152 - 512, 4194304);
    image.bitmaps.record(67108863, 1);
    await closed(image);
    await Deno.writeFile(dir.file("x"), image.file.bytes());
    const checked = await runReference(["check", "x"], at);
    assertEquals([checked.code, checked.stderr], [0, ""]);
    // A bitmap shows itself to who merges it into one of a coarser image.
    await useReference(["create", "-q", "-f", "qcow2", "y", "64M"], at);
    await useReference(["bitmap", "--add", "-g", "512", "y", "m"], at);
    await useReference(["bitmap", "--merge", "b", "-b", "x", "y", "m"], at);
    const merged = await opened(await Deno.readFile(dir.file("y")), {});
    const directory = merged.image.header.bitmaps!.directoryOffset;
    const view = new DataView(merged.file.bytes().buffer);
    const table = Number(view.getBigUint64(directory));
    const data = Number(view.getBigUint64(table));
    const stored = merged.file.slice(data, 67108864 / 512 / 8);
    const expected = new Uint8Array(stored.length);
    for (let bit = 4095; bit < 4095 + 8192; bit++) expected[bit >> 3]! |= 1 << (bit & 7);
    expected[expected.length - 1]! |= 0x80;
    assertEquals(stored, expected);
  },
});
