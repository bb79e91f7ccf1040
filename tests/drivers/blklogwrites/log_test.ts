import { assert, assertEquals, assertRejects } from "@std/assert";
import { DISCARD, FLUSH, WriteLog } from "../../../drivers/blklogwrites/log.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { readU32LE, readU64LE, writeU64LE } from "../../../lib/bytes/endian.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { Random } from "../../_random.ts";

const SETTINGS = { sectorSize: 512, interval: 4096 };

interface Entry {
  readonly offset: number;
  readonly length: number;
  readonly flags: bigint;
}

/** What a log says, by its layout alone. */
function readLog(bytes: Uint8Array): { entries: Entry[]; disk: Uint8Array } {
  assertEquals(new TextDecoder().decode(bytes.subarray(0, 8)), "rhswfsj\0");
  assertEquals(readU64LE(bytes, 8), 1n);
  const sector = readU32LE(bytes, 24);
  const entries: Entry[] = [];
  const disk = new Uint8Array(1 << 16);
  for (let at = sector, n = readU64LE(bytes, 16); n > 0n; n--) {
    const [offset, length] = [0, 8].map((field) => Number(readU64LE(bytes, at + field)) * sector);
    const flags = readU64LE(bytes, at + 16);
    entries.push({ offset: offset!, length: length!, flags });
    at += sector;
    if (flags !== 0n) continue;
    disk.set(bytes.subarray(at, at + length!), offset);
    at += length!;
  }
  return { entries, disk };
}

Deno.test("a log has the writes in their order, replayed they make the disk", async () => {
  const file = new MemoryNode({ filename: "log" });
  const log = WriteLog.begin(file, SETTINGS);
  const bytes = new Random(1).bytes(1024);
  await log.add({ offset: 4096, length: 1024, bytes });
  await log.add({ offset: 4608, length: 512 });
  await log.add({ offset: 8192, length: 2048, flags: DISCARD });
  await log.add({ offset: 0, length: 0, flags: FLUSH });
  const { entries, disk } = readLog(file.bytes());
  assertEquals(entries, [
    { offset: 4096, length: 1024, flags: 0n },
    { offset: 4608, length: 512, flags: 0n },
    { offset: 8192, length: 2048, flags: DISCARD },
    { offset: 0, length: 0, flags: FLUSH },
  ]);
  const expected = new Uint8Array(1 << 16);
  expected.set(bytes.subarray(0, 512), 4096);
  assertEquals(disk, expected);
});

Deno.test("the superblock is written after as many entries, at a flush and at the end", async () => {
  const file = new MemoryNode({ filename: "log" });
  const log = WriteLog.begin(file, { sectorSize: 512, interval: 2 });
  const told = () => Number(readU64LE(file.slice(16, 8), 0));
  const seen: number[] = [];
  for (const flags of [0n, 0n, 0n, FLUSH, 0n]) {
    await log.add({ offset: 0, length: 512, flags });
    seen.push(told());
  }
  await log.finish();
  assertEquals([...seen, told()], [0, 2, 2, 4, 4, 5]);
});

Deno.test("a log that is resumed goes on behind its last entry", async () => {
  const file = new MemoryNode({ filename: "log" });
  const first = WriteLog.begin(file, { sectorSize: 4096, interval: 1 });
  await first.add({ offset: 4096, length: 4096, bytes: new Uint8Array(4096).fill(1) });
  await first.add({ offset: 0, length: 8192, flags: DISCARD });
  const second = await WriteLog.resume(file, SETTINGS);
  assertEquals(second.sectorSize, 4096);
  await second.add({ offset: 8192, length: 4096, bytes: new Uint8Array(4096).fill(2) });
  await second.finish();
  const { entries, disk } = readLog(file.bytes());
  assertEquals(entries.map(({ offset }) => offset), [4096, 0, 8192]);
  assertEquals([disk[4096], disk[8192]], [1, 2]);
});

Deno.test("an empty file is resumed as a new log", async () => {
  const log = await WriteLog.resume(new MemoryNode({ filename: "log" }), SETTINGS);
  assertEquals(log.sectorSize, 512);
});

Deno.test("a log whose entries lead behind its end is refused at once", async () => {
  const file = new MemoryNode({ filename: "log" });
  const log = WriteLog.begin(file, { sectorSize: 512, interval: 1 });
  await log.add({ offset: 0, length: 512, bytes: new Uint8Array(512) });
  for (
    const [field, value] of [[16, 2n ** 64n - 1n], [520, 2n ** 64n - 1n], [520, 2n ** 60n]] as const
  ) {
    const bytes = file.bytes();
    writeU64LE(bytes, field, value);
    let reads = 0;
    const damaged = new MemoryNode({ bytes, before: () => void reads++ });
    await assertRejects(() => WriteLog.resume(damaged, SETTINGS), ImageError);
    assert(reads < 10, `${reads} reads`);
  }
});

Deno.test("damaged logs are resumed or refused, in time that their length bounds", async () => {
  const seed = 5;
  const random = new Random(seed);
  const file = new MemoryNode({ filename: "log" });
  const log = WriteLog.begin(file, { sectorSize: 512, interval: 1 });
  for (let i = 0; i < 8; i++) {
    await log.add({ offset: i * 512, length: 512, bytes: random.bytes(512) });
  }
  let refused = 0;
  for (let i = 0; i < 1000; i++) {
    const bytes = file.bytes();
    for (let n = 1 + random.below(3); n > 0; n--) {
      bytes[random.pick([random.below(32), 512 * random.below(16) + random.below(32)])] = random
        .below(256);
    }
    let reads = 0;
    const node = new MemoryNode({ bytes, before: () => void reads++ });
    try {
      await WriteLog.resume(node, SETTINGS);
    } catch (error) {
      if (!(error instanceof ImageError)) throw new Error(`seed ${seed}, ${i}`, { cause: error });
      refused++;
    }
    // Sectors of a log may be as small as 32 bytes.
    assert(reads <= bytes.length / 32 + 2, `${reads} reads, seed ${seed}, ${i}`);
  }
  assert(refused > 300 && refused < 1000, `${refused} refused, seed ${seed}`);
});
