import { assertEquals } from "@std/assert";
import { FatTable } from "../../../drivers/vvfat/fat_table.ts";
import { layoutOf, makeHead } from "../../../drivers/vvfat/layout.ts";
import { Random } from "../../_random.ts";

const LABEL = new TextEncoder().encode("QEMU VVFAT ");

Deno.test("disks are as long as their kind has it", () => {
  const length = (fatType: 12 | 16 | 32 | undefined, floppy: boolean) =>
    layoutOf({ fatType, floppy }).length;
  assertEquals([undefined, 12, 16, 32].map((type) => length(type as 12, false)), [
    528_482_304,
    33_030_144,
    528_482_304,
    528_482_304,
  ]);
  assertEquals([undefined, 12, 16, 32].map((type) => length(type as 12, true)), [
    2_949_120,
    1_474_560,
    2_949_120,
    2_949_120,
  ]);
});

Deno.test("no cluster of a folder lies behind the end of the disk, nor has the FAT no entry for one", () => {
  for (const floppy of [false, true]) {
    for (const fatType of [undefined, 12, 16, 32] as const) {
      const layout = layoutOf({ fatType, floppy });
      const clusters = Math.max(layout.capacity, layout.clusterEnd);
      assertEquals(layout.root + clusters * 8192 <= layout.length, true);
      assertEquals(clusters * layout.fatType / 8 <= layout.fatLength, true);
    }
  }
});

Deno.test("a hard disk begins with a table of one partition, a floppy disk with its boot sector", () => {
  const hard = makeHead(layoutOf({ fatType: undefined, floppy: false }), LABEL);
  assertEquals([...hard.subarray(0x1be, 0x1ce)], [
    ...[0x80, 0x01, 0x01, 0x00, 0x06, 0x0f, 0xff, 0xff],
    ...[0x3f, 0x00, 0x00, 0x00, 0xc1, 0xbf, 0x0f, 0x00],
  ]);
  assertEquals([...hard.subarray(63 * 512, 63 * 512 + 3)], [0xeb, 0x3e, 0x90]);
  const floppy = makeHead(layoutOf({ fatType: undefined, floppy: true }), LABEL);
  assertEquals(floppy.length, 512);
  assertEquals([floppy[0x13], floppy[0x14], floppy[0x15]], [0x80, 0x16, 0xf0]);
});

for (const bits of [12, 16, 32] as const) {
  Deno.test(`a table of ${bits} bits keeps what it is told, whatever is beside it`, () => {
    const table = new FatTable(new Uint8Array(1536), bits);
    const count = Math.floor(1536 * 8 / bits);
    const expected = new Array<number>(count).fill(0);
    const random = new Random(bits);
    for (let i = 0; i < 2000; i++) {
      const cluster = random.below(count);
      table.set(cluster, expected[cluster] = random.below(table.last + 1));
    }
    assertEquals(expected.map((_, cluster) => table.get(cluster)), expected);
  });
}
