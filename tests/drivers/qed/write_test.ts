/** Writing to QED images. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { CACHE_MODES } from "../../../lib/block/mode.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { MemoryNode, type MemoryRequest } from "../../_memory_node.ts";
import { forSeeds, type Random } from "../../_random.ts";
import { context } from "../qcow2/_image.ts";
import { CLUSTER, create, field, filled, open, readOf } from "./_image.ts";

const L1 = CLUSTER;
const KEEP = { unmap: false };

function backing(length = 1 << 20): MemoryNode {
  return new MemoryNode({ filename: "base", bytes: filled(length, 0xbb) });
}

Deno.test("a part of a cluster is surrounded by what the backing file has", async () => {
  await using node = await open(await create(), backing());
  await node.write(10000, filled(100, 1));
  assertEquals(await readOf(node, 9999, 102), Uint8Array.of(0xbb, ...filled(100, 1), 0xbb));
});

Deno.test("a part of a cluster of zeros is surrounded by zeros, whatever the backing file has", async () => {
  await using node = await open(await create(), backing());
  await node.writeZeroes(8192, CLUSTER, KEEP);
  await node.write(8192 + 1000, filled(100, 1));
  const expected = new Uint8Array(CLUSTER);
  expected.fill(1, 1000, 1100);
  assertEquals(await readOf(node, 8192, CLUSTER), expected);
});

Deno.test("behind the end of the backing file are zeros", async () => {
  await using node = await open(await create(), backing(CLUSTER * 3 + 512));
  await node.write(CLUSTER * 3 + 1024, filled(512, 1));
  const expected = new Uint8Array(CLUSTER);
  expected.fill(0xbb, 0, 512).fill(1, 1024, 1536);
  assertEquals(await readOf(node, CLUSTER * 3, CLUSTER), expected);
});

Deno.test("what a file has behind its last whole cluster does not show", async () => {
  const file = await create();
  await file.write(file.length, filled(1000, 0xee));
  await using node = await open(file);
  await node.write(CLUSTER + 2000, filled(100, 1));
  assertEquals(await readOf(node, CLUSTER, 2000), filled(2000, 0));
  assertEquals(await readOf(node, 0, CLUSTER), filled(CLUSTER, 0));
});

Deno.test("zeros take no space but for their table", async () => {
  const file = await create({ size: "4M" });
  const before = file.exactLength;
  await using node = await open(file);
  await node.writeZeroes(0, 1 << 20, KEEP);
  await node.flush();
  assertEquals(file.exactLength - before, 2 * CLUSTER);
  assertEquals(await node.extent(0, 4 << 20), {
    length: 1 << 20,
    state: "zero",
    compressed: false,
  });
});

Deno.test("zeros over data are written in place", async () => {
  const file = await create();
  await using node = await open(file);
  await node.write(0, filled(CLUSTER, 1));
  const { offset } = await node.extent(0, CLUSTER);
  await node.writeZeroes(0, CLUSTER, KEEP);
  assertEquals((await node.extent(0, CLUSTER)).offset, offset);
  assertEquals(file.slice(offset!, CLUSTER), filled(CLUSTER, 0));
});

Deno.test("zeros that would have to be written are refused where nothing may be written", async () => {
  await using node = await open(await create());
  const error = await assertRejects(
    () => node.writeZeroes(512, 2 * CLUSTER, { unmap: false, noFallback: true }),
    ImageError,
  );
  assertEquals(error.errno, "ENOTSUP");
});

Deno.test("requests of many clusters end where they end", async () => {
  const length = 5000 * CLUSTER;
  await using node = await open(await create({ size: "32M", table_size: "16" }));
  await node.write(length, filled(CLUSTER, 9));
  await node.write(0, filled(length, 1));
  assertEquals(await readOf(node, length - 1, 2), Uint8Array.of(1, 9));
  await using other = await open(
    await create({ size: "32M", table_size: "16" }),
    backing(32 << 20),
  );
  await other.writeZeroes(0, length, KEEP);
  assertEquals(await readOf(other, length - 1, 2), Uint8Array.of(0, 0xbb));
});

Deno.test("a discard changes nothing", async () => {
  const file = await create();
  await using node = await open(file);
  await node.write(0, filled(CLUSTER, 1));
  await node.discard(0, CLUSTER);
  assertEquals(await readOf(node, 0, CLUSTER), filled(CLUSTER, 1));
});

Deno.test("bytes are in the file before the entries that lead to them", async () => {
  const file = await create();
  await using node = await open(file);
  file.logging = true;
  await node.write(0, filled(CLUSTER, 1));
  await node.flush();
  const kinds = file.log.map(({ kind, offset }) => `${kind} ${offset}`);
  assertEquals(kinds, [
    `write ${3 * CLUSTER}`,
    `zero ${4 * CLUSTER}`,
    "flush 0",
    `write ${L1}`,
    `write ${4 * CLUSTER}`,
    "flush 0",
  ]);
});

Deno.test("without flushes there are no barriers either", async () => {
  const file = await create();
  const using = context({ writable: true, cache: CACHE_MODES["unsafe"]! });
  {
    await using node = await open(file, null, using);
    file.logging = true;
    await node.write(0, filled(CLUSTER, 1));
  }
  assert(file.log.every(({ kind }) => kind !== "flush"));
});

Deno.test("writes through the cache are flushed one by one", async () => {
  const file = await create();
  const using = context({ writable: true, cache: CACHE_MODES["writethrough"]! });
  await using node = await open(file, null, using);
  file.logging = true;
  await node.write(0, filled(CLUSTER, 1));
  assertEquals(file.log.at(-1)!.kind, "flush");
  assertEquals(field(file, L1), BigInt(4 * CLUSTER));
});

Deno.test("a failed write leaves the disk as it was", async () => {
  const file = await create();
  await using node = await open(file, backing());
  let fails = true;
  file.onRequest((request: MemoryRequest) => {
    if (fails && request.kind === "write") throw ImageError.fromErrno("ENOSPC");
  });
  await assertRejects(() => node.write(5000, filled(9000, 1)), ImageError, "No space left");
  fails = false;
  assertEquals(await readOf(node, 4096, 12288), filled(12288, 0xbb));
  await node.write(5000, filled(9000, 2));
  assertEquals(await readOf(node, 5000, 9000), filled(9000, 2));
});

Deno.test("tables that could not be stored are stored later", async () => {
  const file = await create();
  {
    await using node = await open(file);
    await node.write(5000, filled(9000, 1));
    file.onRequest(({ kind }) => {
      if (kind === "write") throw ImageError.fromErrno("ENOSPC");
    });
    await assertRejects(() => node.flush(), ImageError, "No space left");
    file.onRequest(undefined);
  }
  await using node = await open(file.copy());
  assertEquals(await readOf(node, 5000, 9000), filled(9000, 1));
});

Deno.test("two allocations in one cluster get one place, in either order of publishing", async () => {
  for (const order of [[0, 1], [1, 0]]) {
    await using node = await open(await create(), backing());
    const { allocator } = node;
    const parts = [
      (await allocator!.allocate(512, 512))!,
      (await allocator!.allocate(1024, 512))!,
    ];
    assertEquals(parts[1]!.offset, parts[0]!.offset + 512);
    for (const i of order) {
      await parts[i]!.file.write(parts[i]!.offset, filled(512, 1 + i));
      await parts[i]!.publish();
    }
    const expected = Uint8Array.of(
      ...filled(512, 0xbb),
      ...filled(512, 1),
      ...filled(512, 2),
      ...filled(512, 0xbb),
    );
    assertEquals(await readOf(node, 0, 2048), expected);
  }
});

Deno.test("where one of two gave up the disk keeps what it had", async () => {
  for (const [given, kept] of [[0, 1], [1, 0]] as const) {
    await using node = await open(await create(), backing());
    const { allocator } = node;
    const parts = [
      (await allocator!.allocate(512, 512))!,
      (await allocator!.allocate(1024, 512))!,
    ];
    for (const part of parts) await part.file.write(part.offset, filled(512, 7));
    await parts[kept]!.publish();
    await parts[given]!.abandon();
    assertEquals(await readOf(node, 512 + 512 * given, 512), filled(512, 0xbb));
    assertEquals(await readOf(node, 512 + 512 * kept, 512), filled(512, 7));
  }
});

Deno.test("an allocation that is given up is not part of the disk", async () => {
  await using node = await open(await create(), backing());
  const part = (await node.allocator!.allocate(0, CLUSTER))!;
  await part.file.write(part.offset, filled(CLUSTER, 7));
  await part.abandon();
  assertEquals((await node.extent(0, 1 << 20)).state, "unallocated");
  assertEquals(await readOf(node, 0, CLUSTER), filled(CLUSTER, 0xbb));
});

Deno.test("a write joins an allocation of the same cluster", async () => {
  await using node = await open(await create(), backing());
  const part = (await node.allocator!.allocate(0, 512))!;
  await node.write(512, filled(512, 2));
  await part.file.write(part.offset, filled(512, 1));
  await part.publish();
  assertEquals(await readOf(node, 0, 512), filled(512, 1));
  assertEquals(await readOf(node, 512, 512), filled(512, 2));
  assertEquals(await readOf(node, 1024, 512), filled(512, 0xbb));
});

Deno.test("zeros beside an allocation leave it alone", async () => {
  await using node = await open(await create(), backing());
  const part = (await node.allocator!.allocate(2 * CLUSTER, CLUSTER))!;
  await node.writeZeroes(0, 2 * CLUSTER, KEEP);
  await node.writeZeroes(3 * CLUSTER, CLUSTER, KEEP);
  await part.file.write(part.offset, filled(CLUSTER, 1));
  await part.publish();
  assertEquals(await readOf(node, 2 * CLUSTER, CLUSTER), filled(CLUSTER, 1));
  assertEquals(await readOf(node, 0, 2 * CLUSTER), filled(2 * CLUSTER, 0));
  assertEquals(await readOf(node, 3 * CLUSTER, CLUSTER), filled(CLUSTER, 0));
});

Deno.test("a disk is what was written to it, whatever was written at a time", async () => {
  const sessions: Promise<void>[] = [];
  forSeeds(6, (random, seed) => {
    sessions.push(
      session(random).catch((cause) => {
        throw new Error(`with seed ${seed}`, { cause });
      }),
    );
  });
  await Promise.all(sessions);
});

/** Several requests at a time, of which no two touch one byte. */
async function session(random: Random): Promise<void> {
  const size = 3 << 20;
  const behind = random.oneIn(2) ? random.bytes(2 << 20) : undefined;
  const model = new Uint8Array(size);
  if (behind !== undefined) model.set(behind);
  const file = await create({ size: `${size}` });
  const openAgain = () =>
    open(file.copy(), behind && new MemoryNode({ bytes: behind, readOnly: true }));
  const image = await open(file, behind && new MemoryNode({ bytes: behind, readOnly: true }));
  {
    await using node = image;
    for (let round = 0; round < 25; round++) {
      const requests: Promise<unknown>[] = [];
      let at = random.below(size - 200000);
      if (random.oneIn(3)) at -= at % CLUSTER;
      for (let n = random.between(1, 4); n > 0; n--) {
        let length = random.between(1, 40000);
        if (random.oneIn(3)) length = Math.ceil((at + length) / CLUSTER) * CLUSTER - at;
        const bytes = random.bytes(length);
        switch (random.below(4)) {
          case 0:
            bytes.fill(0);
            requests.push(node.writeZeroes(at, length, KEEP));
            break;
          case 1:
            requests.push(moved(node, at, bytes));
            break;
          default:
            requests.push(node.write(at, bytes));
        }
        model.set(bytes, at);
        at += length + (random.oneIn(2) ? 0 : random.below(5000));
      }
      await Promise.all(requests);
      if (random.oneIn(6)) await node.flush();
    }
    assertEquals(await readOf(node, 0, size), model);
  }
  await using again = await openAgain();
  assertEquals(await readOf(again, 0, size), model);
  const { corruptions, leaks } = await again.checker!.check("none", () => {});
  assertEquals({ corruptions, leaks }, { corruptions: 0, leaks: 0 });
}

/** Writes as a copy does: into space that was given out. */
async function moved(
  node: Awaited<ReturnType<typeof open>>,
  at: number,
  bytes: Uint8Array,
): Promise<void> {
  for (let done = 0; done < bytes.length;) {
    const part = (await node.allocator!.allocate(at + done, bytes.length - done))!;
    await part.file.write(part.offset, bytes.subarray(done, done + part.length));
    await part.publish();
    done += part.length;
  }
}
