/** Logs that nothing but a crash of Hyper-V leaves, by hand. */
import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import type { MemoryNode } from "../../_memory_node.ts";
import {
  guid,
  type HandMade,
  handMade,
  type HandMadeEntry,
  inLog,
  logEntry,
  MIB,
  open,
  sector,
  summed,
} from "./_image.ts";

/** Where the entries below write to: 4096 bytes each that are in nobody's way. */
const place = (number: number) => 8 * MIB + number * 4096;
const FILE = 9 * MIB;

/** A step that writes the sector of a number to its place. */
const write = (number: number, seed = number) => ({ at: place(number), bytes: sector(seed) });

/** An entry whose steps are one write. */
const entry = (sequence: number, tail: number, more: Partial<HandMadeEntry> = {}) =>
  logEntry({ sequence, tail, steps: [write(sequence)], ...more });

/** An image with entries at their positions in the log. */
function imageWith(
  entries: readonly (readonly [position: number, bytes: Uint8Array])[],
  more: Partial<HandMade> = {},
): Promise<MemoryNode> {
  const { data = [], logLength = MIB } = more;
  return handMade({
    length: MIB,
    logGuid: guid(5),
    fileLength: FILE,
    ...more,
    data: [...data, ...inLog(entries, logLength)],
  });
}

/** What opening an image for a repair makes of it: the places that got their sector, by number. */
async function replayed(file: MemoryNode): Promise<{ places: number[]; found: number }> {
  const copy = file.copy();
  const seen = () =>
    Array.from({ length: 200 }, (_, i) => i).filter((number) => {
      const there = file.slice(place(number), 4096);
      return there.some((byte) => byte !== 0) &&
        sector(number).every((byte, i) => byte === there[i]);
    });
  await using node = await open(file, { writable: true, checking: true });
  const { corruptionsFixed } = await node.checker!.check("all", () => {});
  const result = { places: seen(), found: corruptionsFixed };
  // The log is empty now, so that it can be opened for reading.
  await using again = await open(file.copy());
  assertEquals((await again.checker!.check("none", () => {})).corruptionsFixed, 0);
  if (result.found === 0) {
    assertEquals(file.bytes(), copy.bytes(), "nothing to replay, nothing to change");
  }
  return result;
}

const E = 8192;

Deno.test("vhdx log: several entries are replayed, the last of which counts", async () => {
  const both = (sequence: number) => [write(100, sequence), write(sequence)];
  const file = await imageWith([
    [0, entry(7, 0, { steps: both(7) })],
    [3 * 4096, entry(8, 0, { steps: both(8) })],
    [6 * 4096, entry(9, 0, { steps: both(9) })],
  ]);
  assertEquals(await replayed(file), { places: [7, 8, 9], found: 1 });
  assertEquals(file.slice(place(100), 4096), sector(9));
});

Deno.test("vhdx log: an image with one cannot be read before it is replayed", async () => {
  const file = await imageWith([[0, entry(7, 0)]]);
  const before = file.bytes();
  const error = await assertRejects(() => open(file), ImageError);
  assertEquals(
    error.message,
    "VHDX image file 'test.qcow2' opened read-only, but contains a log that needs to be replayed",
  );
  assertEquals(error.hint, "To replay the log, run:\nqemu-img check -r all 'test.qcow2'");
  assertEquals(file.bytes(), before);
});

Deno.test("vhdx log: whoever writes to an image replays its log first", async () => {
  const file = await imageWith([[0, entry(7, 0)]]);
  await using _node = await open(file, { writable: true });
  assertEquals(file.slice(place(7), 4096), sector(7));
});

Deno.test("vhdx log: a replay begins where the last entry says, in what was not done yet", async () => {
  const file = await imageWith([[0, entry(7, 0)], [E, entry(8, 0)], [2 * E, entry(9, E)]]);
  assertEquals(await replayed(file), { places: [8, 9], found: 1 });
});

Deno.test("vhdx log: entries go on at the begin of the log", async () => {
  const end = MIB - 2 * E;
  const file = await imageWith([
    [end, entry(7, end)],
    [end + E, entry(8, end)],
    [0, entry(9, end)],
    [E, entry(10, end)],
  ]);
  assertEquals(await replayed(file), { places: [7, 8, 9, 10], found: 1 });
});

Deno.test("vhdx log: an entry may lie around the end of the log", async () => {
  const file = await imageWith([
    [MIB - 4096, entry(7, MIB - 4096, { steps: [write(7), write(8)] })],
    [E, entry(8, MIB - 4096, { steps: [write(9)] })],
  ]);
  assertEquals(await replayed(file), { places: [7, 8, 9], found: 1 });
});

Deno.test("vhdx log: what was there before is overwritten, and does not count", async () => {
  const end = MIB - E;
  const file = await imageWith([
    [0, entry(30, end)],
    // Left from the last time around.
    [E, entry(12, E)],
    [2 * E, entry(13, E)],
    [end, entry(29, end)],
  ]);
  assertEquals(await replayed(file), { places: [29, 30], found: 1 });
});

Deno.test("vhdx log: a full one is replayed once around", async () => {
  const count = MIB / E;
  const start = 40 * E;
  const file = await imageWith(
    Array.from({ length: count }, (_, i) => [
      (start + i * E) % MIB,
      entry(i + 1, start),
    ]),
  );
  const places = Array.from({ length: count }, (_, i) => i + 1);
  assertEquals(await replayed(file), { places, found: 1 });
});

Deno.test("vhdx log: a torn entry ends it", async () => {
  const torn = entry(9, 0);
  torn[5000]! ^= 1;
  const file = await imageWith([[0, entry(7, 0)], [E, entry(8, 0)], [2 * E, torn]]);
  assertEquals(await replayed(file), { places: [7, 8], found: 1 });
});

Deno.test("vhdx log: nothing but a torn entry is nothing", async () => {
  const torn = entry(9, 0);
  torn[5000]! ^= 1;
  assertEquals(await replayed(await imageWith([[0, torn]])), { places: [], found: 0 });
});

Deno.test("vhdx log: entries with another GUID are left from earlier", async () => {
  const stale = { guid: guid(4) };
  const file = await imageWith([
    [0, entry(17, 0, stale)],
    [E, entry(8, E)],
    [2 * E, entry(9, E, stale)],
  ]);
  assertEquals(await replayed(file), { places: [8], found: 1 });
  const none = await imageWith([[0, entry(17, 0, stale)]]);
  assertEquals(await replayed(none), { places: [], found: 0 });
});

Deno.test("vhdx log: numbers have to follow one another", async () => {
  const file = await imageWith([[0, entry(7, 0)], [E, entry(9, E)], [2 * E, entry(10, E)]]);
  assertEquals(await replayed(file), { places: [9, 10], found: 1 });
});

Deno.test("vhdx log: without a GUID in the headers there is none", async () => {
  const file = await imageWith([[0, entry(7, 0, { guid: guid(0) })]], { logGuid: guid(0) });
  assertEquals(await replayed(file), { places: [], found: 0 });
});

const NO_ENTRY: Readonly<Record<string, (bytes: Uint8Array<ArrayBuffer>) => void>> = {
  "signature": (bytes) => bytes[0]! ^= 1,
  "checksum": (bytes) => bytes[4]! ^= 1,
  "length 0": (bytes) => bytes.fill(0, 8, 12),
  "odd length": (bytes) => bytes[8] = 1,
  "length beyond the log": (bytes) => bytes[11] = 0xff,
  "number 0": (bytes) => bytes.fill(0, 16, 24),
  "more descriptors than there is room": (bytes) => bytes[25] = 0x10,
  "signature of a descriptor": (bytes) => bytes[64]! ^= 1,
  "number of a descriptor": (bytes) => bytes[64 + 24]! ^= 1,
  "offset of a descriptor": (bytes) => bytes[64 + 16]! ^= 1,
};
for (const [what, damage] of Object.entries(NO_ENTRY)) {
  Deno.test(`vhdx log: an entry with a wrong ${what} is none`, async () => {
    const bytes = entry(7, 0);
    damage(bytes);
    // What else is wrong is so with the right checksum.
    if (what !== "checksum") summed(bytes);
    assertEquals(await replayed(await imageWith([[0, bytes]])), { places: [], found: 0 });
  });
}

Deno.test("vhdx log: zero descriptors", async () => {
  const file = await imageWith([[
    0,
    entry(7, 0, { steps: [{ at: place(1), zeros: E }, write(3), { at: place(4), zeros: 4096 }] }),
  ]], {
    data: [1, 2, 3, 4, 5].map((number) => [place(number), sector(number)] as const),
  });
  assertEquals((await replayed(file)).places, [3, 5]);
});

Deno.test("vhdx log: more descriptors than one sector holds", async () => {
  const steps = Array.from({ length: 150 }, (_, i) => write(i + 1));
  const file = await imageWith([[0, entry(7, 0, { steps })], [152 * 4096, entry(8, 0)]]);
  const places = Array.from({ length: 150 }, (_, i) => i + 1);
  assertEquals(await replayed(file), { places, found: 1 });
});

Deno.test("vhdx log: an entry without descriptors is one", async () => {
  const file = await imageWith([
    [0, entry(7, 0)],
    [E, entry(8, 0, { steps: [] })],
    [E + 4096, entry(9, 0)],
  ]);
  assertEquals(await replayed(file), { places: [7, 9], found: 1 });
});

Deno.test("vhdx log: numbers above 2^32", async () => {
  const sequence = 5 * 2 ** 32 + 9;
  const file = await imageWith([[0, entry(sequence, 0, { steps: [write(3)] })]]);
  assertEquals(await replayed(file), { places: [3], found: 1 });
});

Deno.test("vhdx log: a file that is shorter than it was is refused", async () => {
  const file = await imageWith([[0, entry(7, 0, { flushed: FILE + MIB })]]);
  const error = await assertRejects(() => open(file, { writable: true }), ImageError);
  assertEquals([error.errno, error.field], ["EINVAL", "log: flushed file offset"]);
  assertEquals(file.slice(place(7), 4096), new Uint8Array(4096));
});

Deno.test("vhdx log: the file grows to where it has to end", async () => {
  for (const [last, length] of [[FILE + 1, FILE + MIB], [FILE + MIB, FILE + MIB], [FILE, FILE]]) {
    const file = await imageWith([[0, entry(7, 0, { last: last! })]]);
    await using _node = await open(file, { writable: true });
    assertEquals(file.length, length);
  }
});

Deno.test("vhdx log: data that belong to another entry are refused", async () => {
  const bytes = entry(7, 0);
  bytes[4096 + 4092]! ^= 1;
  const file = await imageWith([[0, summed(bytes)]]);
  const error = await assertRejects(() => open(file, { writable: true }), ImageError);
  assertEquals([error.errno, error.field], ["EINVAL", "log: data sector"]);
});

Deno.test("vhdx log: places that no file has are refused", async () => {
  for (
    const steps of [
      [{ at: 2 ** 53 - 4096, bytes: sector(1) }],
      [{ at: place(1), zeros: 2 ** 53 - 4096 }],
    ]
  ) {
    const file = await imageWith([[0, entry(7, 0, { steps })]]);
    const error = await assertRejects(() => open(file, { writable: true }), ImageError);
    assertEquals(error.errno, "EINVAL");
    assertEquals(file.length, FILE);
  }
});

Deno.test("vhdx log: after a replay both headers count, with new data and no log", async () => {
  const file = await imageWith([[0, entry(7, 0)]]);
  await (await open(file, { writable: true }))[Symbol.asyncDispose]();
  const headers = [0x10000, 0x20000].map((at) => file.slice(at, 4096));
  const numbers = headers.map((bytes) => new DataView(bytes.buffer).getBigUint64(8, true));
  assertEquals(numbers, [45n, 46n]);
  for (const bytes of headers) {
    assertEquals(summed(bytes.slice()), bytes, "checksum");
    assertEquals(bytes.slice(48, 64), guid(0), "log GUID");
    assertEquals(bytes.slice(32, 48).every((byte, i) => byte === guid(2)[i]), false, "data GUID");
    assertEquals(bytes.slice(16, 32).every((byte, i) => byte === guid(1)[i]), false, "file GUID");
  }
  assertEquals(headers[0]!.slice(16, 32), headers[1]!.slice(16, 32));
});

Deno.test("vhdx log: is begun anew after a crash at any time", async () => {
  const steps = [write(1), { at: place(2), zeros: 4096 }, write(3)];
  const make = () =>
    imageWith([[0, entry(7, 0, { steps })], [3 * 4096, entry(8, 0, { last: FILE + 1 })]], {
      data: [[place(2), sector(99)]],
    });
  let requests = Infinity;
  for (let fail = 0; fail < requests; fail++) {
    const file = await make();
    let count = 0;
    file.onRequest((request) => {
      if (request.kind !== "read" && count++ === fail) throw ImageError.fromErrno("EIO");
    });
    const node = await open(file, { writable: true }).catch(() => undefined);
    if (node !== undefined) requests = 0;
    file.onRequest(undefined);
    const after = file.copy();
    const kept = await open(after, { writable: true });
    assertEquals([1, 2, 3, 8].map((number) => after.slice(place(number), 4096)), [
      sector(1),
      new Uint8Array(4096),
      sector(3),
      sector(8),
    ], `failed at ${fail}`);
    assertEquals(after.length, FILE + MIB);
    await kept[Symbol.asyncDispose]();
  }
});
