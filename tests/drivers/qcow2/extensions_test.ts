import { assertEquals, assertThrows } from "@std/assert";
import { readExtensions } from "../../../drivers/qcow2/extensions.ts";
import type { Qcow2Header } from "../../../drivers/qcow2/header.ts";
import { readHeader } from "../../../drivers/qcow2/header_reader.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context, hex, patch } from "./_image.ts";

/** A header without extensions. */
function blank(version: 2 | 3 = 3, autoclear = 0): Promise<Qcow2Header> {
  const head = patch(
    new Uint8Array(112),
    [0, 4, 0x514649fb],
    [4, 4, version],
    [20, 4, 16],
    [36, 4, 1],
    [40, 8, 0x30000],
    [48, 8, 0x10000],
    [56, 4, 1],
    [88, 8, version === 3 ? autoclear : 0],
    [96, 4, version === 3 ? 4 : 0],
    [100, 4, version === 3 ? 112 : 0],
  );
  return readHeader(new MemoryNode({ bytes: head }), context());
}

Deno.test("readExtensions() finds extensions at multiples of 8 and stops at the end marker", async () => {
  const header = await blank();
  const area = hex(`e2792aca 00000005 71636f7732 000000
    11223344 00000001 ff 00000000000000
    00000000 00000000
    ffffffff ffffffff`);
  readExtensions(area, header, context());
  assertEquals(header.backingFormat, "qcow2");
  assertEquals(header.unknownExtensions, [{ type: 0x11223344, data: hex("ff") }]);
});

Deno.test("readExtensions() needs no end marker", async () => {
  const header = await blank();
  readExtensions(hex("e2792aca 00000003 726177 0000000000"), header, context());
  assertEquals(header.backingFormat, "raw");
});

Deno.test("readExtensions() takes a last extension without padding", async () => {
  const header = await blank();
  readExtensions(hex("e2792aca 00000003 726177"), header, context());
  assertEquals(header.backingFormat, "raw");
});

Deno.test("readExtensions() refuses an extension that begins in the last 7 bytes", async () => {
  const header = await blank();
  const error = assertThrows(() => readExtensions(hex("e2792aca"), header, context()), ImageError);
  assertEquals(error.message, "Header extension too large");
});

const BITMAPS = hex("23852875 00000018 00000001 00000000 0000000000000020 0000000000050000");

Deno.test("readExtensions() reads where bitmaps are", async () => {
  const header = await blank(3, 1);
  readExtensions(BITMAPS, header, context());
  assertEquals(header.bitmaps, { count: 1, directorySize: 32, directoryOffset: 0x50000 });
});

Deno.test("bitmaps without the autoclear bit are dropped with a warning", async () => {
  const header = await blank();
  const using = context();
  readExtensions(BITMAPS, header, using);
  assertEquals([header.bitmaps, header.staleBitmaps], [undefined, true]);
  assertEquals(using.warnings, [
    "a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent",
  ]);
  assertEquals(using.reports, [
    "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.",
  ]);
});

Deno.test("bitmaps of a version 2 image are dropped with a warning of their own", async () => {
  const header = await blank(2);
  const using = context();
  readExtensions(BITMAPS, header, using);
  assertEquals(using.warnings, [
    "This qcow2 v2 image contains bitmaps, but they may have been modified by a program without " +
    "persistent bitmap support; so now they must all be considered inconsistent",
  ]);
});

Deno.test("an untrusted image has 256 bitmaps at most", async () => {
  const header = await blank(3, 1);
  const many = patch(BITMAPS.slice(), [8, 4, 257]);
  readExtensions(many, header, context());
  const error = assertThrows(
    () => readExtensions(many, header, context({}, { untrusted: true })),
    ImageError,
  );
  assertEquals(error.field, "bitmaps");
});
