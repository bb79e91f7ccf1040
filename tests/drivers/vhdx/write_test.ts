import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { CACHE_MODES } from "../../../lib/block/mode.ts";
import { equalBytes } from "../../../lib/bytes/equal.ts";
import type { MemoryNode } from "../../_memory_node.ts";
import { Random } from "../../_random.ts";
import { sha256 } from "../qcow2/_image.ts";
import { contentOf, create, guid, handMade, hex, MIB, open, summed } from "./_image.ts";
import { withoutDrawn } from "./_mask.ts";

/** Sequences of random requests for each kind of image. */
const SEQUENCES = Number(Deno.env.get("QIMG_SEQUENCES") ?? 4);

/** The log as zeros, too. */
function masked(file: MemoryNode): Uint8Array<ArrayBuffer> {
  const bytes = file.bytes();
  withoutDrawn(bytes);
  bytes.fill(0, MIB, 2 * MIB);
  return bytes;
}

function headers(file: MemoryNode) {
  return [0x10000, 0x20000].map((at) => {
    const bytes = file.slice(at, 4096);
    assertEquals(summed(bytes.slice()), bytes, "checksum");
    return {
      sequence: new DataView(bytes.buffer).getBigUint64(8, true),
      fileGuid: bytes.slice(16, 32).toHex(),
      dataGuid: bytes.slice(32, 48).toHex(),
      logGuid: bytes.slice(48, 64).toHex(),
    };
  });
}

Deno.test("vhdx: made images have known bytes", async () => {
  const cases = [
    [
      { size: "4M", block_size: "1M" },
      "333aa37ab4040f2ba3036bbd9bd69f3b95d1c0a08898b5035f29644bfa5f1a21",
    ],
    [{ size: "16M" }, "2811c884edeb95b1ecb79d2b8c1a85f18297418653843ca338bf472f300744e7"],
    [
      { size: "4M", subformat: "fixed", block_state_zero: "off", block_size: "1M" },
      "09afea1d2d140a629e18682390767ea7aa7a198f7f8bf8400141ee5db8114f58",
    ],
  ] as const;
  for (const [options, sum] of cases) {
    assertEquals(await sha256(masked(await create(options))), sum, JSON.stringify(options));
  }
});

Deno.test("vhdx: what is written has known bytes", async () => {
  const file = await create({ size: "4M", block_size: "1M" });
  {
    await using node = await open(file, { writable: true });
    await node.write(1536 * 1024, new Uint8Array(4096).fill(0x5a));
  }
  assertEquals(
    await sha256(masked(file)),
    "2584d9aed2964471eb5b723ad5f336e2cbd54482b2fa0f2687cb518db9d62f51",
  );
  const entry = file.slice(MIB, 8192);
  assertEquals(summed(entry.slice()), entry, "checksum of the log entry");
  assertEquals(entry.subarray(8, 32), hex("00200000 00000000 01000000 00000000 01000000 00000000"));
  assertEquals(entry.subarray(48, 64), hex("00009000 00000000 00009000 00000000"));
  assertEquals(
    entry.subarray(64, 96),
    hex("64657363 00000000 02000000 00000000 00002000 00000000 01000000 00000000"),
  );
  assertEquals(
    entry.subarray(4096, 4128),
    hex("64617461 00000000 06008000 00000000 02000000 00000000 02000000 00000000"),
  );
});

Deno.test("vhdx: headers follow what is written", async () => {
  const file = await create({ size: "8M", block_size: "1M" });
  const before = headers(file);
  const first = before[0]!.sequence;
  assertEquals(before[1]!.sequence, first + 1n);
  const copy = file.copy();
  {
    await using node = await open(copy, { writable: true });
    await node.read(0, new Uint8Array(512));
    await node.flush();
    await node.discard(0, 512);
  }
  assertEquals(headers(copy), before, "nothing was written");

  const one = file.copy();
  {
    await using node = await open(one, { writable: true });
    await node.write(0, new Uint8Array(512));
  }
  const after = headers(one);
  // Two for new data, two for an entry in the log, two for none.
  assertEquals(after.map(({ sequence }) => sequence - first), [6n, 7n]);
  assertEquals(after.map(({ logGuid }) => logGuid), ["0".repeat(32), "0".repeat(32)]);
  assertEquals(after[0]!.fileGuid, after[1]!.fileGuid);
  const guids = [...before, ...after].map(({ dataGuid }) => dataGuid);
  assertEquals(guids.map((guid) => guids.indexOf(guid)), [0, 0, 2, 2], "new data");
  assert(after[0]!.fileGuid !== before[0]!.fileGuid, "another opening");

  const two = one.copy();
  {
    await using node = await open(two, { writable: true });
    await node.write(0, new Uint8Array(512).fill(1));
    await node.write(512, new Uint8Array(512).fill(1));
  }
  // In place.
  assertEquals(headers(two).map(({ sequence }) => sequence - first), [8n, 9n]);
});

Deno.test("vhdx: the log is used around its end", async () => {
  const file = await create({ size: "200M", block_size: "1M" });
  {
    await using node = await open(file, { writable: true });
    for (let block = 0; block < 130; block++) {
      await node.write(block * MIB, Uint8Array.of(block + 1));
    }
  }
  const sequenceAt = (position: number) =>
    new DataView(file.slice(MIB + position, 32).buffer).getBigUint64(16, true);
  assertEquals([0, 8192, 16384, MIB - 8192].map(sequenceAt), [129n, 130n, 3n, 128n]);
  await using node = await open(file.copy());
  for (let block = 0; block < 130; block++) {
    const byte = new Uint8Array(1);
    await node.read(block * MIB, byte);
    assertEquals(byte[0], block + 1);
  }
});

Deno.test("vhdx: without a log new blocks are refused, and old ones written", async () => {
  const file = await handMade({
    length: 2 * MIB,
    logLength: 0,
    entries: [[0, 6, 6 * MIB]],
    fileLength: 7 * MIB,
  });
  await using node = await open(file, { writable: true });
  await node.write(0, Uint8Array.of(1));
  const error = await assertRejects(() => node.write(MIB, Uint8Array.of(1)), ImageError);
  assertEquals([error.errno, error.field], ["EINVAL", "log length"]);
});

Deno.test("vhdx: space that was given back is used again, as zeros", async () => {
  const file = await create({ size: "8M", block_size: "1M" });
  const length = file.length;
  {
    await using node = await open(file, { writable: true });
    const { allocator } = node;
    const first = (await allocator!.allocate(0, 4096))!;
    const second = (await allocator!.allocate(MIB, 4096))!;
    await first.file.write(first.offset, new Uint8Array(4096).fill(1));
    await first.abandon();
    const third = (await allocator!.allocate(2 * MIB, 4096))!;
    assertEquals(third.offset, first.offset);
    await third.publish();
    await second.abandon();
    assertEquals(file.length, length + MIB, "the end is cut off");
  }
  await using node = await open(file.copy());
  assertEquals(await contentOf(node), new Uint8Array(8 * MIB));
});

Deno.test("vhdx: two runs in one block share its space, whatever becomes of them", async () => {
  const run = (byte: number) => new Uint8Array(4096).fill(byte);
  for (
    const ends of [["publish", "publish"], ["publish", "abandon"], ["abandon", "publish"]] as const
  ) {
    const file = await create({ size: "2M", block_size: "1M" });
    {
      await using node = await open(file, { writable: true });
      const { allocator } = node;
      const first = (await allocator!.allocate(0, 4096))!;
      const second = (await allocator!.allocate(8192, 4096))!;
      assertEquals(second.offset, first.offset + 8192);
      await file.write(first.offset, run(1));
      await file.write(second.offset, run(2));
      await first[ends[0]]();
      await second[ends[1]]();
    }
    const expected = new Uint8Array(2 * MIB);
    if (ends[0] === "publish") expected.set(run(1));
    if (ends[1] === "publish") expected.set(run(2), 8192);
    await using node = await open(file.copy());
    assertEquals(await contentOf(node), expected, ends.join());
  }
});

Deno.test("vhdx: after an error in the log nothing goes through it, and a replay puts it right", async () => {
  for (let fail = 0;; fail++) {
    const file = await create({ size: "4M", block_size: "1M" });
    const node = await open(file, { writable: true });
    let count = 0;
    file.onRequest((request) => {
      if (request.kind !== "read" && count++ === fail) throw ImageError.fromErrno("EIO");
    });
    const failed = await node.write(MIB, new Uint8Array(512).fill(1)).then(() => false, () => true);
    file.onRequest(undefined);
    if (!failed) {
      await node[Symbol.asyncDispose]();
      assert(fail > 10, "there was something to fail");
      break;
    }
    await node.write(2 * MIB, new Uint8Array(512).fill(2)).catch(() => {});
    await node.flush();
    const kept = file.copy();
    await node[Symbol.asyncDispose]();
    await using again = await open(kept, { writable: true, checking: true });
    assertEquals((await again.checker!.check("none", () => {})).corruptions, 0);
    const content = await contentOf(again);
    assert([0, 1].includes(content[MIB]!), `failed at ${fail}`);
    assert([0, 2].includes(content[2 * MIB]!), `failed at ${fail}`);
    content.fill(0, MIB, MIB + 512).fill(0, 2 * MIB, 2 * MIB + 512);
    assert(equalBytes(content, new Uint8Array(4 * MIB)), `failed at ${fail}`);
  }
});

Deno.test("vhdx: writes through to the disk are flushed", async () => {
  const file = await create({ size: "4M", block_size: "1M" });
  await using node = await open(file, { writable: true, cache: CACHE_MODES["writethrough"]! });
  await node.write(0, Uint8Array.of(1));
  file.logging = true;
  await node.write(1, Uint8Array.of(1));
  assertEquals(file.log.map(({ kind }) => kind), ["write", "flush"]);
});

const KINDS = [
  { block_size: "1M" },
  { block_size: "2M", block_state_zero: "off" },
  { block_size: "1M", subformat: "fixed" },
  { block_size: "1M", subformat: "fixed", block_state_zero: "off" },
];
for (const options of KINDS) {
  Deno.test(`vhdx: random requests, ${JSON.stringify(options)}`, async () => {
    for (let seed = 1; seed <= SEQUENCES; seed++) {
      const random = new Random(seed);
      const model = new Uint8Array(random.between(1, 12) * MIB / 2 + 512);
      let file = await create({ size: String(model.length), ...options });
      for (let opening = 0; opening < 3; opening++) {
        await using node = await open(file, { writable: true });
        for (let n = 0; n < 12; n++) {
          const offset = random.below(model.length);
          const most = random.pick([512, 5000, 100000, 3 * MIB]);
          const length = random.between(1, Math.min(most, model.length - offset));
          switch (random.below(5)) {
            case 0:
              await node.writeZeroes(offset, length, { unmap: random.oneIn(2) });
              model.fill(0, offset, offset + length);
              break;
            case 1:
              await node.discard(offset, length);
              break;
            case 2: {
              const into = new Uint8Array(length);
              await node.read(offset, into);
              assert(equalBytes(into, model.subarray(offset, offset + length)), `seed ${seed}`);
              break;
            }
            default: {
              const from = new Uint8Array(length).fill(random.between(1, 255));
              from.set(random.bytes(Math.min(1000, length)));
              await node.write(offset, from);
              model.set(from, offset);
            }
          }
        }
        assert(equalBytes(await contentOf(node), model), `seed ${seed}`);
        const { corruptions } = await node.checker!.check("none", () => {});
        assertEquals(corruptions, 0, `seed ${seed}`);
        await node.flush();
        file = file.copy();
      }
    }
  });
}

Deno.test("vhdx: where bytes lie is told to copies", async () => {
  const file = await create({ size: "6M", block_size: "1M" });
  await using node = await open(file, { writable: true });
  for (const block of [1, 2, 5, 4]) await node.write(block * MIB, Uint8Array.of(1));
  const found: [number, string, number | undefined][] = [];
  for (let at = 0; at < node.length;) {
    const { length, state, offset, file: below } = await node.locate!(at, node.length - at);
    assertEquals(below, state === "data" ? file : undefined);
    found.push([length / MIB, state, offset === undefined ? undefined : offset / MIB]);
    at += length;
  }
  assertEquals(found, [
    [1, "zero", undefined],
    [2, "data", 8],
    [1, "zero", undefined],
    [1, "data", 11],
    [1, "data", 10],
  ]);
  assertEquals(await node.extent(0, node.length), {
    length: node.length,
    state: "data",
    compressed: false,
  });
});

Deno.test("vhdx: an image whose data GUID is another one has other data", async () => {
  const file = await handMade({ length: MIB, dataGuid: guid(9) });
  {
    await using node = await open(file, { writable: true });
    await node.write(0, Uint8Array.of(1));
  }
  assert(headers(file).every(({ dataGuid }) => dataGuid !== guid(9).toHex()));
});
