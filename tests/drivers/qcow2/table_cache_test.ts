import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { TableCache } from "../../../drivers/qcow2/table_cache.ts";
import { createInside, type Inside } from "./_session.ts";

const CLUSTER = 4096;
/** Behind everything that the image has. */
const BASE = 1024 * CLUSTER;

async function makeCache(tables: number): Promise<Inside & { cache: TableCache }> {
  const opened = await createInside({ cluster_size: String(CLUSTER), size: "1M" });
  await opened.file.write(BASE + 100 * CLUSTER, new Uint8Array(CLUSTER));
  // A table counts for somewhat more than its bytes.
  const budget = tables * (CLUSTER + 512);
  return { ...opened, cache: new TableCache(opened.image, "active L2 table", budget) };
}

function countReads({ file }: Inside): () => number {
  let reads = 0;
  file.onRequest(({ kind }) => void (kind === "read" && reads++));
  return () => reads;
}

Deno.test("a table is read once, by however many who ask for it at the same time", async () => {
  const opened = await makeCache(8);
  const reads = countReads(opened);
  const [one, two] = await Promise.all([opened.cache.load(BASE), opened.cache.load(BASE)]);
  assertStrictEquals(one, two);
  assertStrictEquals(opened.cache.peek(BASE), one);
  assertEquals(reads(), 1);
});

Deno.test("what lies behind the end of the file reads as zeros", async () => {
  const { cache } = await makeCache(8);
  const table = await cache.load(BASE + 5000 * CLUSTER);
  assert(table.entries.bytes.every((byte) => byte === 0));
});

Deno.test("unchanged tables make room for others, first those that nobody looked at since", async () => {
  const { cache } = await makeCache(8);
  for (let i = 0; i < 8; i++) await cache.load(BASE + i * CLUSTER);
  await cache.load(BASE + 8 * CLUSTER);
  // All had a second chance, so the oldest went; now those that are looked at stay.
  cache.peek(BASE + 1 * CLUSTER);
  await cache.load(BASE + 9 * CLUSTER);
  assert(cache.peek(BASE + 1 * CLUSTER) !== undefined);
  const left = Array.from({ length: 10 }, (_, i) => cache.peek(BASE + i * CLUSTER)).filter((
    table,
  ) => table !== undefined);
  assertEquals(left.length, 8);
});

Deno.test("changed tables stay until they are written", async () => {
  const { cache, file } = await makeCache(8);
  for (let i = 0; i < 4; i++) {
    const table = await cache.load(BASE + i * CLUSTER);
    table.entries.set(0, 7, i);
    cache.touch(table);
  }
  for (let i = 4; i < 40; i++) await cache.load(BASE + i * CLUSTER);
  for (let i = 0; i < 4; i++) {
    assertEquals(cache.peek(BASE + i * CLUSTER)?.entries.low(0), i);
    assertEquals(file.slice(BASE + i * CLUSTER, 8).toHex(), "0000000000000000");
  }
  await cache.makeRoom();
  for (let i = 0; i < 4; i++) {
    assertEquals(file.slice(BASE + i * CLUSTER, 8).toHex(), `000000070000000${i}`);
  }
});

Deno.test("a change is not lost when the table was pushed out and read anew meanwhile", async () => {
  const { cache, file } = await makeCache(4);
  const table = await cache.load(BASE);
  for (let i = 1; i < 20; i++) await cache.load(BASE + i * CLUSTER);
  await cache.load(BASE);
  table.entries.set(0, 0, 5);
  cache.touch(table);
  assertEquals(cache.peek(BASE)?.entries.low(0), 5);
  await cache.write();
  assertEquals(file.slice(BASE + 7, 1).toHex(), "05");
});

Deno.test("a table that was forgotten while it was read does not come back", async () => {
  const { cache } = await makeCache(8);
  const loading = cache.load(BASE);
  cache.forget(BASE);
  const created = cache.create(BASE);
  await loading;
  assertStrictEquals(cache.peek(BASE), created);
});

Deno.test("a forgotten table is not written", async () => {
  const { cache, file } = await makeCache(8);
  const table = cache.create(BASE);
  table.entries.set(0, 1, 1);
  cache.forget(BASE);
  await cache.flush();
  assertEquals(file.slice(BASE, 8).toHex(), "0000000000000000");
});

Deno.test("tables are written behind those of the cache that comes first, with a flush between", async () => {
  const { cache, file, image } = await makeCache(8);
  const first = new TableCache(image, "refcount block", 8 * CLUSTER);
  cache.create(BASE);
  first.create(BASE + CLUSTER);
  await cache.after(first);
  file.logging = true;
  await cache.write();
  assertEquals(file.log.map(({ kind, offset }) => [kind, offset]), [
    ["write", BASE + CLUSTER],
    ["flush", 0],
    ["write", BASE],
  ]);
});

Deno.test("two caches that wait for each other end in no circle", async () => {
  const { cache, file, image } = await makeCache(8);
  const other = new TableCache(image, "refcount block", 8 * CLUSTER);
  cache.create(BASE);
  await cache.after(other);
  other.create(BASE + CLUSTER);
  file.logging = true;
  await other.after(cache);
  other.create(BASE + 2 * CLUSTER);
  await other.write();
  // The older order is kept by then, and now the younger one.
  assertEquals(file.log.filter(({ kind }) => kind === "write").map(({ offset }) => offset), [
    BASE + CLUSTER,
    BASE,
    BASE + 2 * CLUSTER,
  ]);
});
