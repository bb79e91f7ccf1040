import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { makeDisk, RandomBytes } from "../../bench/_disk.ts";
import { tempDir } from "../_temp.ts";

const MiB = 1 << 20;
const SIZE = 64 * MiB;

/** CRC-32 bit by bit, as UEFI refers to it; slow, and not the code under test. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/** The disk of the demonstration, smaller. */
async function disk(): Promise<Uint8Array<ArrayBuffer>> {
  await using dir = await tempDir();
  makeDisk(dir.file("disk.img"), SIZE);
  return await Deno.readFile(dir.file("disk.img"));
}

Deno.test("the demonstration's disk has a GPT with two sound headers and tables", async () => {
  const bytes = await disk();
  assertEquals(bytes.length, SIZE);
  const view = new DataView(bytes.buffer);
  const last = SIZE / 512 - 1;

  assertEquals([bytes[450], bytes[510], bytes[511]], [0xee, 0x55, 0xaa]);
  assertEquals([view.getUint32(454, true), view.getUint32(458, true)], [1, last]);
  for (const [own, other] of [[1, last], [last, 1]] as const) {
    const at = own * 512;
    assertEquals(new TextDecoder().decode(bytes.subarray(at, at + 8)), "EFI PART");
    const header = bytes.slice(at, at + 92);
    header.fill(0, 16, 20);
    assertEquals(view.getUint32(at + 16, true), crc32(header));
    assertEquals(view.getBigUint64(at + 24, true), BigInt(own));
    assertEquals(view.getBigUint64(at + 32, true), BigInt(other));
    const table = Number(view.getBigUint64(at + 72, true)) * 512;
    assertEquals(view.getUint32(at + 88, true), crc32(bytes.subarray(table, table + 128 * 128)));
    for (let entry = table; entry < table + 2 * 128; entry += 128) {
      const [first, end] = [
        view.getBigUint64(entry + 32, true),
        view.getBigUint64(entry + 40, true),
      ];
      assert(first >= view.getBigUint64(at + 40, true));
      assert(end > first && end <= view.getBigUint64(at + 48, true));
    }
  }
});

Deno.test("the demonstration's disk is the same every time and holds a FAT16 file system", async () => {
  const [one, other] = [await disk(), await disk()];
  assertEquals(
    await crypto.subtle.digest("SHA-256", one),
    await crypto.subtle.digest("SHA-256", other),
  );
  const name = one.subarray(MiB + 54, MiB + 62);
  assertEquals(new TextDecoder().decode(name), "FAT16   ");
});

Deno.test("random bytes depend on nothing but the seed", () => {
  const bytes = (seed: number) => new RandomBytes(seed).fill(new Uint8Array(4096));
  assertEquals(bytes(1), bytes(1));
  assertNotEquals(bytes(1), bytes(2));
  // Not compressible, or the images would be no measure of anything.
  assertEquals(new Set(bytes(1)).size, 256);
});
