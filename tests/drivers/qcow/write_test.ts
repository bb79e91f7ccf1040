/** Writing to qcow images. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { qcow } from "../../../drivers/qcow/driver.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { CACHE_MODES } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { loadCodec } from "../../../lib/codec/mod.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { Random } from "../../_random.ts";
import {
  assertSound,
  CLUSTER,
  create,
  createEncrypted,
  field,
  filled,
  handMade,
  open,
  readOf,
  secretly,
} from "./_image.ts";

const KEEP = { unmap: false };
const OVERLAY = { backing_file: "base" };

function base(length = 1 << 20): MemoryNode {
  return new MemoryNode({ filename: "base", bytes: filled(length, 0xbb) });
}

async function pack(bytes: Uint8Array): Promise<Uint8Array> {
  const room = new Uint8Array(bytes.length - 1);
  const length = (await loadCodec("deflate")).pack(bytes, room);
  assert(length !== null);
  return room.subarray(0, length);
}

Deno.test("bytes are in the file before the entries that lead to them", async () => {
  const file = await create();
  await using node = await open(file);
  file.logging = true;
  await node.write(0, filled(CLUSTER, 1));
  await node.flush();
  const kinds = file.log.map(({ kind, offset, length }) => `${kind} ${offset} ${length}`);
  assertEquals(kinds, [
    "write 8192 4096",
    "flush 0 0",
    "write 4096 4096",
    "flush 0 0",
    "write 48 8",
    "flush 0 0",
  ]);
});

Deno.test("of a table that is there only what changed is written", async () => {
  const file = await create();
  await using node = await open(file);
  await node.write(0, filled(CLUSTER, 1));
  await node.flush();
  file.logging = true;
  await node.write(5 * CLUSTER, filled(2 * CLUSTER, 1));
  await node.flush();
  const kinds = file.log.map(({ kind, offset, length }) => `${kind} ${offset} ${length}`);
  assertEquals(kinds, ["write 12288 8192", "flush 0 0", `write ${4096 + 40} 16`, "flush 0 0"]);
});

Deno.test("what has a place is written there", async () => {
  const file = await create();
  await using node = await open(file);
  await node.write(0, filled(4 * CLUSTER, 1));
  await node.flush();
  file.logging = true;
  await node.write(5000, filled(9000, 2));
  assertEquals(file.log.map(({ kind, offset, length }) => [kind, offset, length]), [
    ["write", 8192 + 5000, 9000],
  ]);
});

Deno.test("a part of a cluster is surrounded by what the backing file has, whatever its size", async () => {
  // The reference makes no such images, and would show zeros around what it writes.
  const file = handMade({ size: 1 << 20, length: 4096, backing: filled(4, 97) });
  await using node = await open(file, { backing: base(CLUSTER * 4 + 100) });
  await node.write(CLUSTER + 1000, filled(100, 1));
  const expected = filled(CLUSTER, 0xbb);
  assertEquals(await readOf(node, CLUSTER, CLUSTER), expected.fill(1, 1000, 1100));
  await node.write(CLUSTER * 4 + 2000, filled(100, 1));
  const last = new Uint8Array(CLUSTER);
  assertEquals(
    await readOf(node, 4 * CLUSTER, CLUSTER),
    last.fill(0xbb, 0, 100).fill(1, 2000, 2100),
  );
});

Deno.test("a write of a few bytes to small clusters keeps what is behind", async () => {
  await using node = await open(await create(OVERLAY), { backing: base() });
  await node.write(1000, filled(100, 1));
  const expected = filled(2048, 0xbb);
  assertEquals(await readOf(node, 0, 2048), expected.fill(1, 1000, 1100));
});

Deno.test("a part of a compressed cluster is written to a copy of it", async () => {
  const file = await create();
  await using node = await open(file);
  await node.packer!.writePacked(0, await pack(filled(CLUSTER, 7)));
  await node.packer!.writePacked(CLUSTER, await pack(filled(CLUSTER, 8)));
  await node.write(100, filled(50, 1));
  const expected = filled(2 * CLUSTER, 7);
  assertEquals(await readOf(node, 0, 2 * CLUSTER), expected.fill(1, 100, 150).fill(8, CLUSTER));
  assertEquals((await node.extent(0, CLUSTER)).compressed, false);
  assertEquals((await node.extent(CLUSTER, CLUSTER)).compressed, true);
});

Deno.test("compressed clusters begin at whole sectors, and others at whole clusters", async () => {
  const file = await create();
  await using node = await open(file);
  const packed = await pack(filled(CLUSTER, 7));
  for (const cluster of [0, 3]) await node.packer!.writePacked(cluster * CLUSTER, packed);
  await node.write(CLUSTER, filled(CLUSTER, 1));
  await node.flush();
  const entry = (position: number) => 1n << 63n | BigInt(packed.length) << 51n | BigInt(position);
  assertEquals(field(file, 4096), entry(8192));
  assertEquals(field(file, 4096 + 24), entry(8704));
  assertEquals(field(file, 4096 + 8), 12288n);
});

Deno.test("a compressed cluster goes nowhere where something is stored", async () => {
  await using node = await open(await create());
  const packed = await pack(filled(CLUSTER, 7));
  await node.packer!.writePacked(0, packed);
  await node.write(CLUSTER, filled(512, 1));
  for (
    const [offset, bytes, errno] of [
      [0, packed, "EIO"],
      [CLUSTER, packed, "EIO"],
      [2 * CLUSTER + 512, packed, "EINVAL"],
      [2 * CLUSTER, filled(CLUSTER, 1), "EINVAL"],
      [2 * CLUSTER, filled(0, 1), "EINVAL"],
      [1 << 20, packed, "EIO"],
    ] as const
  ) {
    const error = await assertRejects(() => node.packer!.writePacked(offset, bytes), ImageError);
    assertEquals(error.errno, errno, `${offset}`);
  }
  assertEquals(await readOf(node, 0, CLUSTER), filled(CLUSTER, 7));
});

Deno.test("zeros are written", async () => {
  const file = await create();
  await using node = await open(file);
  await node.write(0, filled(CLUSTER, 1));
  await node.writeZeroes(100, 3 * CLUSTER, KEEP);
  assertEquals(await readOf(node, 0, 4 * CLUSTER), filled(4 * CLUSTER, 0).fill(1, 0, 100));
  assertEquals((await node.extent(0, 1 << 20)).length, 4 * CLUSTER);
  const error = await assertRejects(
    () => node.writeZeroes(0, 512, { unmap: false, noFallback: true }),
    ImageError,
  );
  assertEquals(error.errno, "ENOTSUP");
});

Deno.test("a discard changes nothing", async () => {
  await using node = await open(await create());
  await node.write(0, filled(CLUSTER, 1));
  await node.discard(0, CLUSTER);
  assertEquals(await readOf(node, 0, CLUSTER), filled(CLUSTER, 1));
});

Deno.test("without flushes there are no barriers either", async () => {
  const file = await create();
  const using = secretly({ writable: true, cache: CACHE_MODES["unsafe"]! });
  {
    await using node = await open(file, { using });
    file.logging = true;
    await node.write(0, filled(CLUSTER, 1));
  }
  assert(file.log.length > 0 && file.log.every(({ kind }) => kind !== "flush"));
});

Deno.test("writes through the cache are flushed one by one", async () => {
  const file = await create();
  const using = secretly({ writable: true, cache: CACHE_MODES["writethrough"]! });
  await using node = await open(file, { using });
  file.logging = true;
  await node.write(0, filled(CLUSTER, 1));
  assertEquals(file.log.at(-1)!.kind, "flush");
  assertEquals(field(file, 48), 4096n);
});

Deno.test("a failed write leaves the disk as it was", async () => {
  const file = await create(OVERLAY);
  await using node = await open(file, { backing: base() });
  let fails = true;
  file.onRequest(({ kind }) => {
    if (fails && kind === "write") throw ImageError.fromErrno("ENOSPC");
  });
  await assertRejects(() => node.write(5000, filled(9000, 1)), ImageError, "No space left");
  fails = false;
  assertEquals(await readOf(node, 4096, 12288), filled(12288, 0xbb));
  await node.write(5000, filled(9000, 2));
  assertEquals(await readOf(node, 5000, 9000), filled(9000, 2));
});

Deno.test("tables that could not be stored are stored later", async () => {
  const file = await create();
  const kept = file.copy();
  {
    await using node = await open(kept);
    await node.write(5000, filled(9000, 1));
    let count = 0;
    kept.onRequest(({ kind }) => {
      // The L2 table is written, but not the entry that names it.
      if (kind === "write" && ++count > 1) throw ImageError.fromErrno("ENOSPC");
    });
    await assertRejects(() => node.flush(), ImageError, "No space left");
    kept.onRequest(undefined);
  }
  await using node = await open(kept.copy());
  assertEquals(await readOf(node, 5000, 9000), filled(9000, 1));
  assertSound(kept);
});

Deno.test("two allocations in one cluster get one place, in either order of publishing", async () => {
  for (const order of [[0, 1], [1, 0]]) {
    const file = handMade({ size: 1 << 20, length: 4096 });
    await using node = await open(file, { backing: base() });
    const parts = [
      (await node.allocator!.allocate(512, 512))!,
      (await node.allocator!.allocate(1024, 512))!,
    ];
    assertEquals(parts[1]!.offset, parts[0]!.offset + 512);
    for (const i of order) {
      await parts[i]!.file.write(parts[i]!.offset, filled(512, 1 + i));
      await parts[i]!.publish();
      const other = 1 - i;
      if (i === order[0]) {
        assertEquals(await readOf(node, 512 + 512 * other, 512), filled(512, 0xbb));
      }
    }
    const expected = filled(2048, 0xbb).fill(1, 512, 1024).fill(2, 1024, 1536);
    assertEquals(await readOf(node, 0, 2048), expected);
  }
});

Deno.test("an allocation that is given up is not part of the disk", async () => {
  await using node = await open(await create(OVERLAY), { backing: base() });
  const part = (await node.allocator!.allocate(0, CLUSTER))!;
  assertEquals(part.length, CLUSTER);
  await part.file.write(part.offset, filled(CLUSTER, 7));
  await part.abandon();
  assertEquals((await node.extent(0, 1 << 20)).state, "unallocated");
  assertEquals(await readOf(node, 0, CLUSTER), filled(CLUSTER, 0xbb));
});

Deno.test("an allocation ends with its table", async () => {
  await using node = await open(await create({ size: "8M" }));
  const part = (await node.allocator!.allocate((2 << 20) - CLUSTER, 4 * CLUSTER))!;
  assertEquals(part.length, CLUSTER);
  await part.abandon();
});

Deno.test("an encrypted image holds no plain byte, and gives out no space", async () => {
  const file = await createEncrypted();
  const kept = file.copy();
  {
    await using node = await open(kept, { secret: "s" });
    assertEquals([node.allocator, node.packer], [undefined, undefined]);
    await node.write(1000, filled(3000, 0x5a));
    await node.write(100, filled(10, 0x11));
    const expected = new Uint8Array(8192).fill(0x5a, 1000, 4000).fill(0x11, 100, 110);
    assertEquals(await readOf(node, 0, 8192), expected);
    const { state, file: host, offset } = await node.extent(0, 4096);
    assertEquals([state, host, offset], ["data", undefined, undefined]);
  }
  const bytes = kept.bytes();
  for (let at = 8192; at < bytes.length; at++) {
    assert(bytes[at] !== 0x5a || bytes[at + 1] !== 0x5a || bytes[at + 2] !== 0x5a, `${at}`);
  }
  await using wrong = await open(kept.copy(), { secret: "other" });
  const shown = await readOf(wrong, 1000, 3000);
  assert(shown.some((byte) => byte !== 0x5a));
});

Deno.test("an encrypted image in front of another keeps what is around a write", async () => {
  const file = await createEncrypted(OVERLAY);
  await using node = await open(file, { secret: "s", backing: base() });
  await node.write(1000, filled(1000, 1));
  const expected = filled(3000, 0xbb).fill(1, 1000, 2000);
  assertEquals(await readOf(node, 0, 3000), expected);
});

Deno.test("a compressed cluster of an encrypted image is encrypted when it is written to", async () => {
  const plain = await create();
  const kept = plain.copy();
  {
    await using node = await open(kept);
    await node.packer!.writePacked(0, await pack(filled(CLUSTER, 7)));
  }
  const method = new Uint8Array(4).fill(1, 3);
  const encrypted = kept.copy();
  await encrypted.write(36, method);
  await using node = await open(encrypted, { secret: "s" });
  assertEquals(await readOf(node, 0, CLUSTER), filled(CLUSTER, 7));
  await node.write(512, filled(512, 1));
  assertEquals(await readOf(node, 0, CLUSTER), filled(CLUSTER, 7).fill(1, 512, 1024));
});

Deno.test("on a device the table is emptied when an image is made, and the header comes last", async () => {
  const device = Object.assign(new MemoryNode({ bytes: filled(1 << 20, 0xee) }), {
    fixedLength: true,
  });
  device.logging = true;
  await qcow.create!({
    filename: "device",
    options: new OptionSet(qcow.createOptions!, [["size", "1G"]]),
    createBase: () => Promise.resolve(device),
    context: secretly({ writable: true }),
  });
  assertEquals(device.slice(48, 4096), filled(4096, 0));
  assertEquals(device.log.map(({ kind, offset, length }) => [kind, offset, length]), [
    ["zero", 48, 4096],
    ["flush", 0, 0],
    ["write", 0, 48],
    ["flush", 0, 0],
  ]);
});

Deno.test("an emptied image is as it was when it was made, but for its length", async () => {
  const file = await create(OVERLAY);
  const fresh = file.bytes();
  const kept = file.copy();
  {
    await using node = await open(kept, { backing: base() });
    await node.write(3000, filled(90000, 1));
    await node.flush();
    await node.emptier!.makeEmpty();
    assertEquals(await readOf(node, 0, 1 << 20), filled(1 << 20, 0xbb));
    await node.write(0, filled(512, 2));
    await node.emptier!.makeEmpty();
  }
  assertEquals(kept.bytes(), fresh.subarray(0, 56 + 8));
});

Deno.test("a disk is what was written to it, whatever was written at a time", async () => {
  const first = Number(Deno.env.get("QIMG_SEED") ?? 1);
  const count = Number(Deno.env.get("QIMG_SEQUENCES") ?? 8);
  for (let seed = first; seed < first + count; seed++) {
    try {
      await session(new Random(seed));
    } catch (cause) {
      throw new Error(`with seed ${seed}`, { cause });
    }
  }
});

/** Several requests at a time, of which no two touch one byte. */
async function session(random: Random): Promise<void> {
  const size = 5 << 20;
  const behind = random.oneIn(2) ? random.bytes(2 << 20) : undefined;
  const secret = random.oneIn(3) ? "s" : undefined;
  const model = new Uint8Array(size);
  if (behind !== undefined) model.set(behind);
  const backing = () => behind && new MemoryNode({ bytes: behind, readOnly: true });
  const options = { size: `${size}`, ...(behind && random.oneIn(2) ? OVERLAY : {}) };
  let file = await (secret === undefined ? create(options) : createEncrypted(options));
  for (let life = 0; life < 3; life++) {
    const kept = file.copy();
    {
      const opening = { backing: backing(), ...(secret === undefined ? {} : { secret }) };
      await using node = await open(kept, opening);
      for (let round = 0; round < 15; round++) await somethingAtATime(node, model, random);
      assertEquals(await readOf(node, 0, size), model);
    }
    file = kept.copy();
    assertSound(file);
  }
  const opening = { backing: backing(), using: secretly({}), ...(secret ? { secret } : {}) };
  await using node = await open(file, opening);
  assertEquals(await readOf(node, 0, size), model);
}

async function somethingAtATime(
  node: BlockNode,
  model: Uint8Array,
  random: Random,
): Promise<void> {
  const requests: Promise<void>[] = [];
  const { clusterSize } = node.limits;
  let at = random.below(model.length - 400000);
  for (let n = random.between(1, 4); n > 0; n--) {
    if (random.oneIn(3)) at = Math.ceil(at / clusterSize) * clusterSize;
    const length = random.between(1, random.oneIn(4) ? 90000 : 6000);
    const bytes = random.bytes(length);
    if (random.oneIn(5)) {
      bytes.fill(0);
      requests.push(node.writeZeroes(at, length, KEEP));
    } else if (random.oneIn(4) && node.packer !== undefined) {
      requests.push(packAt(node, at, bytes));
      at += 2 * clusterSize;
      continue;
    } else requests.push(node.write(at, bytes));
    model.set(bytes, at);
    at += length + random.below(3) * random.below(5000);
  }
  await Promise.all(requests);
  if (random.oneIn(3)) await node.flush();
  const sample = random.below(model.length - 1000);
  assertEquals(await readOf(node, sample, 1000), model.slice(sample, sample + 1000));

  /** Stores what the disk has anyway, compressed, if nothing is stored there. */
  async function packAt(node: BlockNode, at: number, noise: Uint8Array): Promise<void> {
    const start = Math.ceil(at / clusterSize) * clusterSize;
    const { state, length } = await node.extent(start, clusterSize);
    if (state !== "unallocated" || length !== clusterSize) return;
    const bytes = filled(clusterSize, noise[0]!);
    model.set(bytes, start);
    await node.packer!.writePacked(start, await pack(bytes));
  }
}
