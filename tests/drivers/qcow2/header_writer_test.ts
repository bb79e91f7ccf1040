import { assertEquals, assertThrows } from "@std/assert";
import { Incompatible } from "../../../drivers/qcow2/_layout.ts";
import type { Qcow2Header } from "../../../drivers/qcow2/header.ts";
import { readHeader } from "../../../drivers/qcow2/header_reader.ts";
import { encodeHeader, updateFeatures } from "../../../drivers/qcow2/header_writer.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context, hex, patch } from "./_image.ts";

/** A header as if read from a file. */
function header(changes: Partial<Qcow2Header> = {}): Qcow2Header {
  return {
    version: 3,
    backingFile: "",
    backingFormat: undefined,
    clusterBits: 12,
    size: 1048576,
    cryptMethod: 0,
    l1Size: 1,
    l1Offset: 0x3000,
    refcountTableOffset: 0x1000,
    refcountTableClusters: 1,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatible: 0n,
    compatible: 0n,
    autoclear: 0n,
    refcountOrder: 4,
    compressionType: 0,
    unknownFields: new Uint8Array(0),
    dataFile: undefined,
    cryptoHeader: undefined,
    bitmaps: undefined,
    staleBitmaps: false,
    unknownExtensions: [],
    spellings: new Map(),
    ...changes,
  };
}

const readBack = (bytes: Uint8Array) => readHeader(new MemoryNode({ bytes }), context());

Deno.test("encodeHeader() writes what test vector V10 shows", () => {
  const bytes = encodeHeader(header({ backingFile: "base.qcow2", backingFormat: "qcow2" }));
  assertEquals(bytes.subarray(8, 20), hex("0000000000000088 0000000a"));
  assertEquals(
    bytes.subarray(0x70, 0x92),
    hex("e2792aca 00000005 7163 6f77 32 000000 00000000 00000000 62 61 73 65 2e 71 63 6f 77 32"),
  );
});

Deno.test("encodeHeader() ends a version 2 header at 72 bytes", () => {
  const bytes = encodeHeader(header({ version: 2, backingFile: "b", compatible: 1n }));
  assertEquals(bytes.subarray(8, 16), hex("0000000000000050"));
  assertEquals(bytes.subarray(72, 82), hex("0000000000000000 62 00"));
});

Deno.test("encodeHeader() writes the feature table in clusters above 4 KiB only", () => {
  const small = encodeHeader(header());
  assertEquals(small.subarray(0x70, 0x78), new Uint8Array(8));
  const large = encodeHeader(header({ clusterBits: 13 }));
  assertEquals(large.subarray(0x70, 0x82), hex("6803f857 00000180 0000 6469727479206269"));
  assertEquals(large.length, 8192);
});

Deno.test("encodeHeader() and readHeader() agree on everything that a header can say", async () => {
  const full = header({
    clusterBits: 16,
    l1Offset: 0x30000,
    refcountTableOffset: 0x10000,
    backingFile: "dir/base.raw",
    backingFormat: "raw",
    cryptMethod: 2,
    cryptoHeader: { offset: 0x50000, length: 2068480 },
    dataFile: "data.raw",
    incompatible: BigInt(
      Incompatible.dataFile | Incompatible.compressionType | Incompatible.extendedL2,
    ),
    compatible: 0x81n,
    autoclear: 1n,
    compressionType: 1,
    unknownFields: hex("00112233445566778899aabbccddeeff"),
    bitmaps: { count: 2, directorySize: 64, directoryOffset: 0x40000 },
    snapshotCount: 1,
    snapshotsOffset: 0x60000,
    unknownExtensions: [{ type: 0x11111111, data: hex("01") }],
  });
  assertEquals(await readBack(encodeHeader(full)), full);
});

Deno.test("encodeHeader() turns the order of unknown extensions around, as the reference does", async () => {
  const unknownExtensions = [
    { type: 0x11111111, data: hex("010203") },
    { type: 0x22222222, data: hex("0405060708090a0b0c") },
  ];
  const again = await readBack(encodeHeader(header({ unknownExtensions })));
  assertEquals(again.unknownExtensions, unknownExtensions.toReversed());
});

Deno.test("a backing name that is not UTF-8 is written back as it was", async () => {
  const bytes = encodeHeader(header({ backingFile: "base" }));
  const at = bytes.indexOf(0x62, 0x70);
  patch(bytes, [at, 2, 0xfffe]);
  const read = await readBack(bytes);
  assertEquals(encodeHeader(read), bytes);
});

Deno.test("encodeHeader() finds no room for a name of 377 bytes in 512", () => {
  const small = header({ clusterBits: 9, backingFormat: "raw" });
  encodeHeader({ ...small, backingFile: "x".repeat(376) });
  const error = assertThrows(
    () => encodeHeader({ ...small, backingFile: "x".repeat(377) }),
    ImageError,
  );
  assertEquals([error.errno, error.message], ["ENOSPC", "No space left on device"]);
});

Deno.test("updateFeatures() flushes, rewrites the sector that changes and flushes", async () => {
  const file = new MemoryNode({ bytes: encodeHeader(header({ incompatible: 1n })) });
  const owner = { file, header: await readHeader(file, context()) };
  file.logging = true;
  await updateFeatures(owner, { set: Incompatible.corrupt, clear: Incompatible.dirty });
  assertEquals(file.log.map(({ kind, length }) => [kind, length]), [
    ["flush", 0],
    ["write", 512],
    ["flush", 0],
  ]);
  assertEquals((await readHeader(file.copy(), context())).incompatible, 2n);
});

Deno.test("updateFeatures() writes nothing when nothing changes", async () => {
  const file = new MemoryNode({ bytes: encodeHeader(header()) });
  const owner = { file, header: await readHeader(file, context()) };
  file.logging = true;
  await updateFeatures(owner, { clear: Incompatible.dirty });
  assertEquals(file.log, []);
});
