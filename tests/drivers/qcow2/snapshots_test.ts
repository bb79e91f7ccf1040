import { assertEquals, assertRejects } from "@std/assert";
import {
  encodeSnapshotTable,
  readSnapshotTable,
  type SnapshotSource,
} from "../../../drivers/qcow2/snapshots.ts";
import { readHeader } from "../../../drivers/qcow2/header_reader.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { context, hex, patch, type TestContext } from "./_image.ts";

const TABLE_AT = 0x40000;

/** A header that names a snapshot table with `count` entries. */
async function source(
  table: Uint8Array,
  count: number,
  using: TestContext = context({ checking: true }),
): Promise<SnapshotSource & { context: TestContext }> {
  const file = new MemoryNode();
  const head = patch(
    new Uint8Array(112),
    [0, 4, 0x514649fb],
    [4, 4, 3],
    [20, 4, 16],
    [24, 8, 1048576],
    [36, 4, 1],
    [40, 8, 0x30000],
    [48, 8, 0x10000],
    [56, 4, 1],
    [60, 4, count],
    [64, 8, TABLE_AT],
    [96, 4, 4],
    [100, 4, 112],
  );
  await file.write(0, head);
  await file.write(TABLE_AT, table);
  return { file, header: await readHeader(file, context({ checking: true })), context: using };
}

/** An entry with extra data of `extra` bytes. */
function entry(extra: Uint8Array, id: string, name: string): Uint8Array {
  const bytes = new Uint8Array(40 + extra.length + id.length + name.length);
  patch(
    bytes,
    [0, 8, 0x50000],
    [8, 4, 1],
    [12, 2, id.length],
    [14, 2, name.length],
    [16, 4, 1700000000],
    [20, 4, 123456000],
    [24, 8, 3723004000000n],
    [32, 4, 77],
    [36, 4, extra.length],
  );
  bytes.set(extra, 40);
  bytes.set(new TextEncoder().encode(id + name), 40 + extra.length);
  return bytes;
}

Deno.test("readSnapshotTable() reads the entry of the reference's example", async () => {
  const bytes = hex(`0000000000007000 00000001 0001 0003 6553f100 075bca00 0000000000000000
    00000000 00000018 0000000000000000 0000000000100000 0000000000000000 31 6f6e65`);
  const { entries, size } = await readSnapshotTable(await source(bytes, 1));
  assertEquals(size, 68);
  assertEquals(entries, [{
    id: "1",
    name: "one",
    dateSeconds: 1700000000,
    dateNanoseconds: 123456000,
    vmClock: 0n,
    vmStateSize: 0,
    icount: 0n,
    l1Offset: 0x7000,
    l1Size: 1,
    diskSize: 1048576,
    exact: { l1Offset: 0x7000n, vmStateSize: 0n, diskSize: 1048576n },
    extraSize: 24,
    unknownExtra: new Uint8Array(0),
    idBytes: hex("31"),
    nameBytes: hex("6f6e65"),
  }]);
});

Deno.test("an entry without extra data has the current disk size and 32 bits of state size", async () => {
  const { entries } = await readSnapshotTable(
    await source(entry(new Uint8Array(0), "1", "old"), 1),
  );
  const [old] = entries;
  assertEquals([old!.diskSize, old!.vmStateSize, old!.icount], [1048576, 77, undefined]);
  assertEquals(old!.vmClock, 3723004000000n);
});

Deno.test("64 bits of state size win over 32", async () => {
  const extra = patch(new Uint8Array(16), [0, 8, 2n ** 33n], [8, 8, 4096]);
  const { entries } = await readSnapshotTable(await source(entry(extra, "1", "x"), 1));
  assertEquals([entries[0]!.vmStateSize, entries[0]!.diskSize], [2 ** 33, 4096]);
});

Deno.test("an instruction count of all ones is none", async () => {
  const extra = patch(new Uint8Array(24), [16, 8, 0xffff_ffff_ffff_ffffn]);
  const { entries } = await readSnapshotTable(await source(entry(extra, "1", "x"), 1));
  assertEquals("icount" in entries[0]!, false);
});

Deno.test("encodeSnapshotTable() keeps unknown extra data and pads between entries", async () => {
  const extra = patch(
    new Uint8Array(29),
    [0, 8, 5],
    [8, 8, 1048576],
    [16, 8, 9],
    [24, 4, 0xdeadbeef],
    [28, 1, 7],
  );
  const first = entry(extra, "1", "a");
  const second = entry(extra.slice(0, 24), "22", "longer name");
  const table = new Uint8Array(Math.ceil(first.length / 8) * 8 + second.length);
  table.set(first);
  table.set(second, table.length - second.length);
  // The 32-bit field repeats what the extra data says.
  patch(table, [32, 4, 5], [table.length - second.length + 32, 4, 5]);
  const read = await readSnapshotTable(await source(table, 2));
  assertEquals(read.size, table.length);
  assertEquals(encodeSnapshotTable(read.entries), table);
});

Deno.test("encodeSnapshotTable() completes entries of version 2 images", async () => {
  const { entries } = await readSnapshotTable(
    await source(entry(new Uint8Array(0), "1", "old"), 1),
  );
  const again = await readSnapshotTable(await source(encodeSnapshotTable(entries), 1));
  assertEquals(again.entries[0]!.extraSize, 24);
  assertEquals({ ...again.entries[0]!, extraSize: 0 }, entries[0]!);
});

Deno.test("extra data above 1024 bytes is refused with a hint", async () => {
  const error = await assertRejects(
    async () => readSnapshotTable(await source(entry(new Uint8Array(1025), "1", "x"), 1)),
    ImageError,
  );
  assertEquals(error.message, "Too much extra metadata in snapshot table entry 0");
  assertEquals(
    error.hint,
    "You can force-remove this extra metadata with qemu-img check -r all",
  );
});

Deno.test("a repair cuts extra data above 1024 bytes", async () => {
  const from = await source(entry(new Uint8Array(1025), "1", "x"), 1);
  const table = await readSnapshotTable(from, true);
  assertEquals([table.extraDropped, table.entries[0]!.extraSize], [1, 1024]);
  assertEquals(table.entries[0]!.name, "x");
  assertEquals(from.context.reports, [
    "Discarding too much extra metadata in snapshot table entry 0 (1025 > 1024)",
  ]);
});

Deno.test("a table above 64 MiB is refused without reading it all into memory", async () => {
  // Names of 65535 bytes: 1024 such entries are more than 64 MiB.
  const from = await source(new Uint8Array(0), 2000);
  for (let i = 0; i < 1100; i++) {
    const head = patch(new Uint8Array(40), [14, 2, 65535], [36, 4, 0]);
    await from.file.write(TABLE_AT + i * Math.ceil((40 + 65535) / 8) * 8, head);
  }
  const error = await assertRejects(() => readSnapshotTable(from), ImageError);
  assertEquals([error.message, error.errno], ["Snapshot table is too big", "EFBIG"]);
  const repaired = await readSnapshotTable(from, true);
  assertEquals(repaired.entries.length + repaired.discarded, 2000);
  assertEquals(from.context.reports, [
    `Discarding ${repaired.discarded} overhanging snapshots (snapshot table is too big)`,
  ]);
});

Deno.test("an untrusted image has a snapshot table of at most 1 MiB", async () => {
  const from = await source(new Uint8Array(0), 20, context({}, { untrusted: true }));
  for (let i = 0; i < 20; i++) {
    const head = patch(new Uint8Array(40), [14, 2, 65535]);
    await from.file.write(TABLE_AT + i * Math.ceil((40 + 65535) / 8) * 8, head);
  }
  const error = await assertRejects(() => readSnapshotTable(from), ImageError);
  assertEquals(error.message, "Snapshot table is too big");
});
