import { assert, assertEquals } from "@std/assert";
import { type HeaderWrite, planHeaderRewrite } from "../../../drivers/qcow2/header_rewrite.ts";
import type { Qcow2Header } from "../../../drivers/qcow2/header.ts";
import { readHeader } from "../../../drivers/qcow2/header_reader.ts";
import { encodeHeader, writeHeader } from "../../../drivers/qcow2/header_writer.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { Random } from "../../_random.ts";
import { context } from "./_image.ts";

const SECTOR = 512;

/** A header as if read from a file. */
function header(changes: Partial<Qcow2Header> = {}): Qcow2Header {
  return {
    version: 3,
    backingFile: "",
    backingFormat: undefined,
    clusterBits: 16,
    size: 1024,
    cryptMethod: 0,
    l1Size: 1,
    l1Offset: 0x30000,
    refcountTableOffset: 0x10000,
    refcountTableClusters: 1,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatible: 0n,
    compatible: 0n,
    autoclear: 0n,
    refcountOrder: 4,
    compressionType: 0,
    unknownFields: new Uint8Array(0),
    dataFile: undefined,
    cryptoHeader: undefined,
    bitmaps: undefined,
    staleBitmaps: false,
    unknownExtensions: [],
    spellings: new Map(),
    ...changes,
  };
}

function plan(present: Uint8Array, after: Qcow2Header): HeaderWrite[][] {
  const moved = (nameOffset: number, featureNames: boolean) =>
    encodeHeader(after, { featureNames, nameOffset });
  return planHeaderRewrite(present, encodeHeader(after), moved);
}

/** Every sector of a step on its own: the smallest that a disk may keep or lose. */
function sectorsOf(step: readonly HeaderWrite[]): HeaderWrite[] {
  const parts: HeaderWrite[] = [];
  for (const { offset, bytes } of step) {
    for (let at = offset; at < offset + bytes.length;) {
      const end = Math.min(Math.floor(at / SECTOR) * SECTOR + SECTOR, offset + bytes.length);
      parts.push({ offset: at, bytes: bytes.subarray(at - offset, end - offset) });
      at = end;
    }
  }
  return parts;
}

/** All that a host that fails may leave of cluster 0, or many of them. */
function* torn(present: Uint8Array, steps: readonly HeaderWrite[][], random: Random) {
  const cluster = present.slice();
  for (const step of steps) {
    const parts = sectorsOf(step);
    const few = parts.length <= 6;
    const choices = few ? 2 ** parts.length : 64;
    for (let choice = 0; choice < choices; choice++) {
      const state = cluster.slice();
      for (const [i, { offset, bytes }] of parts.entries()) {
        if (few ? (choice >> i & 1) !== 0 : random.oneIn(2)) state.set(bytes, offset);
      }
      yield state;
    }
    for (const { offset, bytes } of step) cluster.set(bytes, offset);
  }
  yield cluster;
}

const read = (bytes: Uint8Array) => readHeader(new MemoryNode({ bytes }), context());

/** Any crash of the rewrite leaves the one header or the other; in the end the file has the new one. */
async function assertNeverTorn(before: Qcow2Header, after: Qcow2Header): Promise<void> {
  const [present, wanted] = [encodeHeader(before), encodeHeader(after)];
  const [old, fresh] = [await read(present), await read(wanted)];
  const steps = plan(present, after);
  let last: Uint8Array = present;
  for (const state of torn(present, steps, new Random(1))) {
    const found = await read(state);
    const same = (other: Qcow2Header) => Deno.inspect(found) === Deno.inspect(other);
    assert(same(old) || same(fresh), `neither old nor new: ${Deno.inspect(found)}`);
    last = state;
  }
  assertEquals(last, wanted);
}

const longName = "/a/rather/long/folder/".repeat(40) + "base.qcow2";
const bitmaps = { count: 2, directorySize: 64, directoryOffset: 0x40000 };
const HEADERS: Readonly<Record<string, Partial<Qcow2Header>>> = {
  "plain": {},
  "lazy": { compatible: 1n },
  "version 2": { version: 2 },
  "version 2 on a file": { version: 2, backingFile: "b", backingFormat: "raw" },
  "on a file": { backingFile: "base.qcow2", backingFormat: "qcow2" },
  "on a file without format": { backingFile: "base.qcow2" },
  "on a file of a long name": { backingFile: longName, backingFormat: "qcow2" },
  "on another of a long name": { backingFile: `${longName}x`, backingFormat: "raw" },
  "bitmaps": { bitmaps, autoclear: 1n },
  "bitmaps on a file": { bitmaps, autoclear: 1n, backingFile: longName, backingFormat: "raw" },
  "a data file": { incompatible: 4n, dataFile: "data.raw" },
  "another data file": { incompatible: 4n, dataFile: "x".repeat(200) },
  "LUKS": { cryptMethod: 2, cryptoHeader: { offset: 0x50000, length: 4096 } },
  "unknown fields": { unknownFields: new Uint8Array(16).fill(7), backingFile: "b" },
};

for (const [from, before] of Object.entries(HEADERS)) {
  Deno.test(`a crash tears no rewrite of a header: ${from} to anything else`, async () => {
    for (const after of Object.values(HEADERS)) {
      for (const clusterBits of [9, 12, 16]) {
        // In sectors of 512 bytes long names have no room at all.
        if (
          clusterBits === 9 &&
          [before, after].some(({ backingFile }) => (backingFile?.length ?? 0) > 200)
        ) {
          continue;
        }
        await assertNeverTorn(
          header({ ...before, clusterBits }),
          header({ ...after, clusterBits }),
        );
      }
    }
  });
}

Deno.test("a crash tears no change of the name behind extensions of many sectors", async () => {
  const unknownExtensions = [{ type: 0x11111111, data: new Uint8Array(1500).fill(5) }];
  const before = header({ unknownExtensions, backingFile: longName, backingFormat: "raw" });
  await assertNeverTorn(before, { ...before, backingFile: "x".repeat(1000) });
  await assertNeverTorn(before, { ...before, backingFile: "" });
});

Deno.test("extensions that move to other sectors are not passed over on the way", () => {
  const unknownExtensions = [{ type: 0x11111111, data: new Uint8Array(1500).fill(5) }];
  const after = header({ unknownExtensions, backingFile: longName, backingFormat: "raw" });
  // As some other program writes it: without feature names.
  const present = encodeHeader({ ...after, backingFile: "base" }, { featureNames: false });
  assertEquals(plan(present, after).map((step) => step.map(({ bytes }) => bytes.length)), [[
    65536,
  ]]);
});

Deno.test("a header that stays as it is is not written", () => {
  const same = header({ backingFile: "base", backingFormat: "raw" });
  assertEquals(plan(encodeHeader(same), same), []);
});

Deno.test("a change of the fixed fields writes the first sector only", () => {
  const before = header({ backingFile: longName, backingFormat: "raw" });
  const steps = plan(encodeHeader(before), { ...before, refcountOrder: 3, autoclear: 1n });
  assertEquals(steps.map((step) => step.map(({ offset, bytes }) => [offset, bytes.length])), [
    [[0, SECTOR]],
  ]);
});

Deno.test("a name that is the first one is there before the header turns to it", () => {
  const steps = plan(encodeHeader(header()), header({ backingFile: "base" }));
  assertEquals(steps.map((step) => step.map(({ offset }) => offset)), [[512], [0]]);
});

Deno.test("a name that takes another's place lies elsewhere meanwhile, and is cleared there", () => {
  const before = header({ backingFile: "base", backingFormat: "raw" });
  const steps = plan(encodeHeader(before), { ...before, backingFile: "x".repeat(700) });
  const places = steps.map((step) => step.map(({ offset, bytes }) => [offset, bytes.length]));
  assertEquals(places.length, 5);
  assertEquals([places[1], places[3]], [[[0, SECTOR]], [[0, SECTOR]]]);
  assertEquals(places[0], places[4], "the copy's place");
  assertEquals(steps[4]![0]!.bytes, new Uint8Array(700));
});

Deno.test("what has no room twice is written in one request", () => {
  const before = header({ clusterBits: 10, backingFile: "a".repeat(500) });
  const steps = plan(encodeHeader(before), { ...before, backingFile: "b".repeat(600) });
  assertEquals(steps.map((step) => step.map(({ bytes }) => bytes.length)), [[1024]]);
});

Deno.test("writeHeader() flushes between steps, with the image's own barrier if it has one", async () => {
  const before = header({ backingFile: "base", backingFormat: "raw" });
  const after = { ...before, backingFile: "bore" };
  const file = new MemoryNode({ bytes: encodeHeader(before) });
  file.logging = true;
  await writeHeader({ file, header: after });
  assertEquals(file.log.map(({ kind }) => kind).join(" "), "write");
  const third = { ...before, backingFile: "x".repeat(900) };
  let barriers = 0;
  const barrier = () => {
    barriers++;
    return Promise.resolve();
  };
  await writeHeader({ file, header: third, barrier });
  assertEquals(barriers, 4);
  assertEquals(file.log.filter(({ kind }) => kind === "flush"), []);
  assertEquals(file.bytes(), encodeHeader(third));
});
