import { assertEquals, assertRejects } from "@std/assert";
import { loadCodec } from "../../../lib/codec/mod.ts";
import { loadNodeCrypto } from "../../../lib/crypto/node_crypto.ts";
import { createSectorCipher } from "../../../lib/crypto/sector_cipher.ts";
import {
  type JobPair,
  type JobPiece,
  PLAIN_CLUSTER,
  SLOT_SIZE,
  ZERO_CLUSTER,
} from "../../../lib/ops/copy/job.ts";
import { InlinePool, type Pool, WorkerPool } from "../../../lib/ops/copy/pool.ts";
import { sparseRule } from "../../../lib/ops/copy/sparse.ts";
import { Random } from "../../_random.ts";
import { type TempDir, tempDir } from "../../_temp.ts";

const KiB = 1024;
const CLUSTER = 64 * KiB;

/** A pool in this thread and one in others, which have to do the same. */
function testPools(name: string, body: (pool: Pool, dir: TempDir) => Promise<void>): void {
  const pools: Record<string, () => Pool> = {
    "in this thread": () => new InlinePool(2),
    "in workers": () => new WorkerPool(2, 2),
  };
  for (const [where, start] of Object.entries(pools)) {
    Deno.test(`${name}, ${where}`, async () => {
      await using dir = await tempDir();
      await using pool = start();
      await body(pool, dir);
    });
  }
}

async function write(dir: TempDir, name: string, bytes: Uint8Array) {
  await Deno.writeFile(dir.file(name), bytes);
  return { path: dir.file(name), direct: false };
}

const whole = (piece: JobPiece["parts"][number], offset = 0): JobPiece => ({
  offset,
  length: piece.length,
  parts: [piece],
});

testPools("a read fills a slot with parts of all kinds and finds the data", async (pool, dir) => {
  const cluster = new Random(1).bytes(CLUSTER, 3);
  const packed = new Uint8Array(CLUSTER);
  const length = (await loadCodec("deflate")).pack(cluster, packed)!;
  const plain = await write(dir, "plain", new Random(2).bytes(10 * KiB));
  const stream = await write(dir, "packed", new Uint8Array([1, 2, 3, ...packed.slice(0, length)]));
  const packedPart = {
    kind: "packed",
    file: 1,
    offset: 3,
    packedLength: length + 1000,
    codec: "deflate",
    size: CLUSTER,
  } as const;
  pool.slots[1]!.fill(9);
  const result = await pool.run({
    kind: "read",
    files: [plain, stream],
    slot: 1,
    sparse: sparseRule(4096, 1),
    pieces: [
      {
        offset: 0,
        length: 28 * KiB,
        parts: [
          // Reaches 4 KiB over the file's end.
          { kind: "plain", file: 0, offset: 2 * KiB, length: 12 * KiB },
          { kind: "zero", length: 8 * KiB },
          { kind: "ready", length: 8 * KiB },
        ],
      },
      whole({ ...packedPart, skip: 0, length: CLUSTER }, 1 << 20),
      whole({ ...packedPart, skip: 5 * KiB, length: KiB }, 2 << 20),
    ],
  });
  assertEquals(result, {
    kind: "read",
    runs: [
      [{ start: 0, length: 8 * KiB }, { start: 20 * KiB, length: 8 * KiB }],
      [{ start: 0, length: CLUSTER }],
      [{ start: 0, length: KiB }],
    ],
  });
  const slot = pool.slots[1]!;
  assertEquals(slot.slice(0, 8 * KiB), new Random(2).bytes(10 * KiB).slice(2 * KiB));
  assertEquals(slot.slice(8 * KiB, 20 * KiB), new Uint8Array(12 * KiB));
  assertEquals(slot.slice(20 * KiB, 28 * KiB), new Uint8Array(8 * KiB).fill(9));
  assertEquals(slot.slice(28 * KiB, 28 * KiB + CLUSTER), cluster);
  assertEquals(
    slot.slice(28 * KiB + CLUSTER, 29 * KiB + CLUSTER),
    cluster.slice(5 * KiB, 6 * KiB),
  );
});

for (const name of ["deflate", "zstd"] as const) {
  testPools(`clusters are packed with ${name}`, async (pool, dir) => {
    const easy = new Random(3).bytes(CLUSTER, 2);
    const hard = new Random(4).bytes(CLUSTER);
    const short = new Random(5).bytes(1000, 2);
    const bytes = new Uint8Array(3 * CLUSTER + 1000);
    bytes.set(easy, 0);
    bytes.set(hard, 2 * CLUSTER);
    bytes.set(short, 3 * CLUSTER);
    const file = await write(dir, "plain", bytes);
    const job = {
      kind: "pack",
      files: [file],
      slot: 0,
      codec: name,
      level: undefined,
      clusterSize: CLUSTER,
      keepZeros: false,
      pieces: [
        whole({ kind: "plain", file: 0, offset: 0, length: 2 * CLUSTER }),
        whole({ kind: "plain", file: 0, offset: 2 * CLUSTER, length: CLUSTER + 1000 }),
      ],
    } as const;
    const result = await pool.run(job);
    if (result.kind !== "pack") throw new Error(result.kind);
    const [first = 0, zero, plain, last = 0] = result.lengths;
    assertEquals([zero, plain, result.lengths.length], [ZERO_CLUSTER, PLAIN_CLUSTER, 4]);
    const codec = await loadCodec(name);
    const out = new Uint8Array(CLUSTER);
    codec.unpack(pool.slots[0]!.slice(0, first), out);
    assertEquals(out, easy);
    assertEquals(pool.slots[0]!.slice(first, first + CLUSTER), hard);
    codec.unpack(pool.slots[0]!.slice(first + CLUSTER, first + CLUSTER + last), out);
    assertEquals(out.subarray(0, 1000), short);
    assertEquals(out.subarray(1000), new Uint8Array(CLUSTER - 1000));

    const kept = await pool.run({ ...job, keepZeros: true });
    assertEquals(kept.kind === "pack" && kept.lengths[1]! > 0, true);
  });
}

testPools("the first sector that differs is found", async (pool, dir) => {
  const size = SLOT_SIZE;
  const left = new Random(6).bytes(size);
  const right = left.slice();
  const a = await write(dir, "left", left);
  const pair = (offset: number, length: number): JobPair => ({
    offset,
    left: { kind: "plain", file: 0, offset, length },
    right: { kind: "plain", file: 1, offset, length },
  });
  const pairs = [pair(0, size / 2), pair(size / 2, size / 2)];
  for (const [at, found] of [[0, 0], [1_500_001, 1_499_648], [size - 1, size - 512]] as const) {
    right[at]! ^= 1;
    const b = await write(dir, "right", right);
    assertEquals(await pool.run({ kind: "compare", files: [a, b], pairs }), {
      kind: "compare",
      mismatch: found,
    });
    right[at]! ^= 1;
  }
  const b = await write(dir, "right", right);
  assertEquals(await pool.run({ kind: "compare", files: [a, b], pairs }), {
    kind: "compare",
    mismatch: -1,
  });
});

testPools("what is compared with nothing has to be zeros", async (pool, dir) => {
  const bytes = new Uint8Array(CLUSTER);
  bytes[40_000] = 1;
  const file = await write(dir, "file", bytes);
  const result = await pool.run({
    kind: "compare",
    files: [file],
    pairs: [{
      offset: 512,
      left: { kind: "zero", length: CLUSTER },
      right: { kind: "plain", file: 0, offset: 0, length: CLUSTER },
    }],
  });
  assertEquals(result, { kind: "compare", mismatch: 512 + 39_936 });
});

testPools("what cannot be read or inflated fails without an exception", async (pool, dir) => {
  const damaged = await write(dir, "damaged", new Random(7).bytes(1000));
  const missing = { path: dir.file("missing"), direct: false };
  const packed = {
    kind: "packed",
    length: CLUSTER,
    file: 0,
    offset: 0,
    packedLength: 1000,
    codec: "deflate",
    size: CLUSTER,
    skip: 0,
  } as const;
  const read = { kind: "read", slot: 0, sparse: null } as const;
  assertEquals(await pool.run({ ...read, files: [damaged], pieces: [whole(packed)] }), {
    kind: "failed",
  });
  const plain = { kind: "plain", length: 512, file: 0, offset: 0 } as const;
  assertEquals(await pool.run({ ...read, files: [missing], pieces: [whole(plain)] }), {
    kind: "failed",
  });
});

testPools("many jobs at a time come each to its own end", async (pool, dir) => {
  const file = await write(dir, "file", new Random(8).bytes(100 * 512));
  const found = await Promise.all(Array.from({ length: 100 }, (_, index) =>
    pool.run({
      kind: "compare",
      files: [file],
      pairs: [{
        offset: index * 512,
        left: { kind: "plain", file: 0, offset: index * 512, length: 512 },
        right: { kind: "plain", file: 0, offset: index % 2 * 512, length: 512 },
      }],
    })));
  assertEquals(
    found.map((result) => result.kind === "compare" && result.mismatch),
    Array.from({ length: 100 }, (_, index) => index < 2 ? -1 : index * 512),
  );
});

Deno.test("what a pool has not done when it ends is rejected", async () => {
  for (const pool of [new InlinePool(0), new WorkerPool(1, 0)]) {
    const job = pool.run({ kind: "compare", files: [], pairs: [] });
    const rejected = assertRejects(() => job, Error, "the pool has ended");
    await pool[Symbol.asyncDispose]();
    await rejected;
  }
});

testPools("encrypted sectors are decrypted under their numbers", async (pool, dir) => {
  const cipher = { cipher: "aes-256", mode: "xts", ivgen: "plain64" } as const;
  const key = new Random(1).bytes(64);
  const disk = new Random(2).bytes(8 * KiB);
  const sectors = new Uint8Array(disk.length);
  {
    using made = createSectorCipher(await loadNodeCrypto(), cipher, key);
    made.encrypt(disk, sectors, 1000);
  }
  const file = await write(dir, "sealed", new Uint8Array([...new Uint8Array(512), ...sectors]));
  const sealed = { kind: "sealed", file: 0, cipher, key } as const;
  const part = { ...sealed, length: 4 * KiB, offset: 512 + 2 * KiB, sector: 1004 } as const;
  await pool.run({
    kind: "read",
    files: [file],
    slot: 0,
    sparse: null,
    pieces: [{
      offset: 0,
      length: 12 * KiB,
      parts: [{ ...sealed, length: 8 * KiB, offset: 512, sector: 1000 }, part],
    }],
  });
  assertEquals(pool.slots[0]!.slice(0, 8 * KiB), disk);
  assertEquals(pool.slots[0]!.slice(8 * KiB, 12 * KiB), disk.slice(2 * KiB, 6 * KiB));

  const plain = await write(dir, "plain", disk.with(2 * KiB + 3000, disk[2 * KiB + 3000]! ^ 1));
  const compared = await pool.run({
    kind: "compare",
    files: [file, plain],
    pairs: [{
      offset: 0,
      left: part,
      right: { kind: "plain", file: 1, offset: 2 * KiB, length: 4 * KiB },
    }],
  });
  assertEquals(compared, { kind: "compare", mismatch: 2560 });
});
