import { assert, assertEquals, assertRejects } from "@std/assert";
import { hasFeature } from "../../../drivers/qcow2/header.ts";
import { geometryOf, readHeader } from "../../../drivers/qcow2/header_reader.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context, hex, patch } from "./_image.ts";

/** The first bytes of test vector V1 of the format's reference: 1 MiB, 64 KiB clusters. */
function vector1(): Uint8Array {
  const image = new Uint8Array(0x30008);
  image.set(hex(`514649fb 00000003 0000000000000000 00000000 00000010 0000000000100000
    00000000 00000001 0000000000030000 0000000000010000 00000001 00000000
    0000000000000000 0000000000000000 0000000000000000 0000000000000000
    00000004 00000070 0000000000000000`));
  return image;
}

const read = (bytes: Uint8Array, changes = {}, options = {}) =>
  readHeader(new MemoryNode({ bytes }), context(changes, options));

Deno.test("readHeader() reads the fields of a version 3 header", async () => {
  const header = await read(vector1());
  assertEquals(header.version, 3);
  assertEquals(header.clusterBits, 16);
  assertEquals(header.size, 1048576);
  assertEquals([header.l1Size, header.l1Offset], [1, 0x30000]);
  assertEquals([header.refcountTableOffset, header.refcountTableClusters], [0x10000, 1]);
  assertEquals([header.refcountOrder, header.compressionType], [4, 0]);
  assertEquals([header.backingFile, header.backingFormat], ["", undefined]);
});

Deno.test("readHeader() ignores everything behind the 72 bytes of a version 2 header", async () => {
  const header = await read(patch(vector1(), [4, 4, 2], [72, 4, 0], [88, 8, 99], [96, 4, 9]));
  assertEquals([header.version, header.refcountOrder], [2, 4]);
  assertEquals([header.incompatible, header.compatible, header.autoclear], [0n, 0n, 0n]);
});

Deno.test("readHeader() rounds the size down to sectors", async () => {
  assertEquals((await read(patch(vector1(), [24, 8, 1023]))).size, 512);
});

Deno.test("readHeader() takes a header of 104 bytes for one without compression type", async () => {
  const bytes = patch(vector1(), [100, 4, 104], [104, 8, 0]);
  assertEquals((await read(bytes)).compressionType, 0);
});

Deno.test("readHeader() keeps header fields that it does not know", async () => {
  const bytes = patch(vector1(), [100, 4, 120], [112, 8, 0x0102030405060708n]);
  assertEquals((await read(bytes)).unknownFields, hex("0102030405060708"));
});

Deno.test("readHeader() keeps unknown compatible and autoclear bits", async () => {
  const header = await read(patch(vector1(), [80, 8, 0xf0], [88, 8, 0xf00]));
  assertEquals([header.compatible, header.autoclear], [0xf0n, 0xf00n]);
});

Deno.test("readHeader() ends a backing name at a NUL", async () => {
  const bytes = patch(vector1(), [8, 8, 0x100], [16, 4, 8]);
  bytes.set(new TextEncoder().encode("base\0xyz"), 0x100);
  assertEquals((await read(bytes)).backingFile, "base");
});

Deno.test("readHeader() takes a file shorter than the header for one that ends in zeros", async () => {
  const error = await assertRejects(() => read(vector1().slice(0, 40)), ImageError);
  assertEquals(error.message, "qcow2 header too short");
});

Deno.test("readHeader() takes an empty file for no image at all", async () => {
  const error = await assertRejects(() => read(new Uint8Array(0)), ImageError);
  assertEquals(error.message, "Image is not in qcow2 format");
});

Deno.test("readHeader() names file and field in its errors", async () => {
  const error = await assertRejects(() => read(patch(vector1(), [20, 4, 40])), ImageError);
  assertEquals([error.file, error.field], ["test.qcow2", "cluster_bits"]);
});

Deno.test("readHeader() lets a check see an image without a refcount table", async () => {
  const header = await read(patch(vector1(), [56, 4, 0]), { checking: true });
  assertEquals(header.refcountTableClusters, 0);
});

Deno.test("readHeader() lets a check see a bad snapshot table", async () => {
  const header = await read(patch(vector1(), [60, 4, 70000], [64, 8, 1]), { checking: true });
  assertEquals([header.snapshotCount, header.snapshotsOffset], [70000, 1]);
});

Deno.test("readHeader() lets a check open a corrupt image for writing", async () => {
  const bytes = patch(vector1(), [72, 8, 2]);
  const header = await read(bytes, { checking: true, writable: true });
  assert(hasFeature(header, 2));
});

Deno.test("readHeader() refuses large tables of untrusted images", async (t) => {
  const cases: [string, Uint8Array, string][] = [
    ["L1", patch(vector1(), [36, 4, 524289]), "Active L1 table too large"],
    ["refcounts", patch(vector1(), [56, 4, 17]), "Reference count table too large"],
    ["snapshots", patch(vector1(), [60, 4, 1025]), "Snapshot table too large"],
  ];
  for (const [name, bytes, text] of cases) {
    await t.step(name, async () => {
      await read(bytes);
      const error = await assertRejects(() => read(bytes, {}, { untrusted: true }), ImageError);
      assertEquals(error.message, text);
    });
  }
});

Deno.test("geometryOf() halves the entries of a table with extended L2 entries", async () => {
  assertEquals(geometryOf(await read(vector1())), {
    clusterSize: 65536,
    clusterBits: 16,
    entrySize: 8,
    l2Entries: 8192,
    l2Span: 512 * 1024 * 1024,
    subclusters: 1,
    subclusterSize: 65536,
  });
  assertEquals(geometryOf(await read(patch(vector1(), [72, 8, 16]))), {
    clusterSize: 65536,
    clusterBits: 16,
    entrySize: 16,
    l2Entries: 4096,
    l2Span: 256 * 1024 * 1024,
    subclusters: 32,
    subclusterSize: 2048,
  });
});
