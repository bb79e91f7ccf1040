/** The table of images whose header says more than the file has. */
import { assert, assertEquals } from "@std/assert";
import { MemoryNode } from "../../_memory_node.ts";
import { open, parallelsImage, SECTOR } from "./_images.ts";

const CLUSTER = 8 * SECTOR;
/** Entries of a table of half a gigabyte. */
const ENTRIES = 2 ** 27;
/** The cluster of the file behind that table. */
const BEHIND = Math.ceil((64 + ENTRIES * 4) / CLUSTER);

/** A disk of 64 MiB with a table for half a terabyte, whose last cluster is the file's last. */
async function hugeTable(): Promise<MemoryNode> {
  const disk = 64 << 20;
  const bytes = parallelsImage({
    table: [],
    sectors: disk / SECTOR,
    dataOffset: BEHIND * 8,
    fileLength: 64,
  });
  new DataView(bytes.buffer).setUint32(32, ENTRIES, true);
  const file = new MemoryNode({ bytes });
  await file.resize((BEHIND + 1) * CLUSTER, "off");
  await file.write(BEHIND * CLUSTER, new Uint8Array(CLUSTER).fill(7));
  const entry = new Uint8Array(4);
  new DataView(entry.buffer).setUint32(0, BEHIND, true);
  await file.write(64 + (disk / CLUSTER - 1) * 4, entry);
  return file;
}

Deno.test("what a table does not have in its file is neither read nor kept", async () => {
  const file = await hugeTable();
  let read = 0;
  file.onRequest(({ kind, length }) => read += kind === "read" ? length : 0);
  await using image = await open(file);
  const { length } = image;
  const empty = await image.extent(0, length);
  assertEquals([empty.state, empty.length], ["unallocated", length - CLUSTER]);
  const last = await image.extent(length - CLUSTER, CLUSTER);
  assertEquals([last.state, last.offset], ["data", BEHIND * CLUSTER]);
  assert(read < 1 << 20, `${read} bytes were read`);
});

Deno.test("what is written goes where the table has it", async () => {
  const file = await hugeTable();
  {
    await using image = await open(file, { writable: true });
    await image.write(0, new Uint8Array(CLUSTER).fill(3));
    await image.write(image.length / 2, new Uint8Array(SECTOR).fill(4));
  }
  assertEquals([...file.slice(64, 5)], [...littleEndian(BEHIND + 1), 0]);
  const middle = 64 + (32 << 20) / CLUSTER * 4;
  assertEquals([...file.slice(middle - 4, 12)], [
    0,
    0,
    0,
    0,
    ...littleEndian(BEHIND + 2),
    0,
    0,
    0,
    0,
  ]);
  await using image = await open(file.copy());
  const bytes = new Uint8Array(2);
  await image.read(image.length / 2 - 1, bytes);
  assertEquals([...bytes], [0, 4]);
});

function littleEndian(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
}
