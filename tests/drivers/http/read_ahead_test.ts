import { assert, assertEquals, assertRejects } from "@std/assert";
import { type Origin, ReadAhead } from "../../../drivers/http/read_ahead.ts";
import { firstDifference } from "../../../lib/bytes/equal.ts";
import { Random } from "../../_random.ts";

const K = 1024;
const M = 1024 * K;

/** Bytes that are nowhere the same. */
const CONTENT = new Uint8Array(Uint32Array.from({ length: 20 * M }, (_, i) => i).buffer);

/** An origin in memory that answers some turns later, in pieces, and remembers what it was asked. */
class Memory implements Origin {
  readonly content: Uint8Array;
  readonly asked: [start: number, end: number][] = [];
  fails: ((start: number) => boolean) | undefined;
  mostAtOnce = 0;
  #now = 0;

  constructor(size: number) {
    this.content = CONTENT.subarray(0, size);
  }

  get size(): number {
    return this.content.length;
  }

  async read(start: number, end: number, take: (bytes: Uint8Array) => void): Promise<void> {
    assert(0 <= start && start < end && end <= this.size, `${start} to ${end} of ${this.size}`);
    this.asked.push([start, end]);
    this.mostAtOnce = Math.max(this.mostAtOnce, ++this.#now);
    try {
      const scratch = new Uint8Array(50_000);
      for (let at = start; at < end;) {
        await Promise.resolve();
        if (this.fails?.(at)) throw new Error(`no byte ${at}`);
        const piece = this.content.subarray(at, Math.min(at + scratch.length, end));
        scratch.set(piece);
        // A piece lasts until the next one only.
        take(scratch.subarray(0, piece.length));
        at += piece.length;
        scratch.fill(0xee);
      }
    } finally {
      this.#now--;
    }
  }

  /** Bytes that it was asked for. */
  get bytes(): number {
    return this.asked.reduce((sum, [start, end]) => sum + end - start, 0);
  }
}

async function assertReads(file: ReadAhead, { content }: Memory, offset: number, length: number) {
  const into = new Uint8Array(length);
  await file.read(offset, into);
  const difference = firstDifference(into, content.subarray(offset, offset + length));
  assertEquals(difference, -1, `${length} bytes at ${offset}`);
}

for (const readahead of [0, 512, 64 * K, 256 * K, 64 * M]) {
  Deno.test(`reads anywhere, several at a time, are the file's bytes; readahead ${readahead}`, async () => {
    const seed = 17 + readahead;
    const random = new Random(seed);
    const origin = new Memory(72 * M + 12_345);
    const file = new ReadAhead(origin, readahead);
    for (let round = 0; round < 12; round++) {
      await Promise.all(Array.from({ length: 8 }, () => {
        const length = random.pick([1, 512, 65_536, 300_001, 2 * M]);
        const offset = random.oneIn(4)
          ? origin.size - length
          : random.oneIn(2)
          ? round * 3 * M
          : random.below(origin.size - length);
        return assertReads(file, origin, offset, length);
      }));
    }
    assert(origin.mostAtOnce <= 16, `${origin.mostAtOnce} requests at a time`);
  });
}

Deno.test("a file is read to its end in few requests, and each byte of it once", async () => {
  const origin = new Memory(20 * M + 777);
  const file = new ReadAhead(origin, 256 * K);
  const step = 64 * K;
  for (let at = 0; at < origin.size; at += step) {
    await assertReads(file, origin, at, Math.min(step, origin.size - at));
  }
  assertEquals(origin.bytes, origin.size);
  assert(origin.asked.length <= 50, `${origin.asked.length} requests`);
});

Deno.test("what comes next is fetched while the reader is busy with what it has", async () => {
  const origin = new Memory(32 * M);
  const file = new ReadAhead(origin, 256 * K);
  for (let at = 0; at < 8 * M; at += 128 * K) await assertReads(file, origin, at, 128 * K);
  const ahead = Math.max(...origin.asked.map(([, end]) => end)) - 8 * M;
  assert(ahead >= 4 * M && ahead <= 16 * M, `${ahead} bytes ahead`);
});

Deno.test("several readers that go on at places of their own are all read ahead for", async () => {
  const origin = new Memory(64 * M);
  const file = new ReadAhead(origin, 256 * K);
  for (let at = 0; at < 4 * M; at += 64 * K) {
    for (const place of [0, 20 * M, 40 * M]) await assertReads(file, origin, place + at, 64 * K);
  }
  assert(origin.asked.length <= 120, `${origin.asked.length} requests for 192 reads`);
  assert(origin.bytes <= 12 * M + 16 * M, `${origin.bytes} bytes`);
});

Deno.test("a read somewhere brings what is to be read ahead, in the same request", async () => {
  const origin = new Memory(8 * M);
  const file = new ReadAhead(origin, 256 * K);
  await assertReads(file, origin, 3 * M, 512);
  await assertReads(file, origin, 3 * M + 200 * K, 4 * K);
  assertEquals(origin.asked[0]![0], 3 * M);
  assert(origin.asked[0]![1] >= 3 * M + 256 * K);
  assertEquals(origin.asked.filter(([start]) => start < 3 * M + 256 * K).length, 1);
});

Deno.test("without reading ahead only the blocks that are asked for are fetched", async () => {
  const origin = new Memory(8 * M);
  const file = new ReadAhead(origin, 0);
  for (let at = 0; at < M; at += 8 * K) await assertReads(file, origin, at, 4 * K);
  assertEquals(origin.bytes, M / 2);
});

Deno.test("reads of one place at the same time are one request", async () => {
  const origin = new Memory(4 * M);
  const file = new ReadAhead(origin, 256 * K);
  await Promise.all(Array.from({ length: 10 }, () => assertReads(file, origin, 0, 4 * K)));
  assertEquals(origin.asked.length, 1);
});

Deno.test("what was read a moment ago is not fetched again, what was read long ago is", async () => {
  const origin = new Memory(80 * M);
  const file = new ReadAhead(origin, 256 * K);
  await assertReads(file, origin, 0, 64 * K);
  const before = origin.asked.length;
  await assertReads(file, origin, 0, 64 * K);
  assertEquals(origin.asked.length, before);
  for (let at = 8 * M; at < 72 * M; at += 2 * M) await assertReads(file, origin, at, 2 * M);
  const count = origin.asked.filter(([start]) => start === 0).length;
  await assertReads(file, origin, 0, 64 * K);
  assertEquals(origin.asked.filter(([start]) => start === 0).length, count + 1);
});

Deno.test("a failure reaches those who need the bytes, and the next read asks again", async () => {
  const origin = new Memory(4 * M);
  origin.fails = (at) => at >= 500_000;
  const file = new ReadAhead(origin, 0);
  await assertRejects(() => file.read(400_000, new Uint8Array(300_000)), Error, "no byte");
  await assertReads(file, origin, 400_000, 50_000);
  origin.fails = undefined;
  await assertReads(file, origin, 400_000, 300_000);
});

Deno.test("a failure ahead of the reader does not concern it", async () => {
  const origin = new Memory(16 * M);
  origin.fails = (at) => at >= 5 * M;
  const file = new ReadAhead(origin, 256 * K);
  for (let at = 0; at < 4 * M; at += 64 * K) await assertReads(file, origin, at, 64 * K);
  await assertRejects(() => file.read(6 * M, new Uint8Array(512)), Error, "no byte");
});
