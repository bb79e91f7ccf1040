/** Slots that a partner writes, or does not. */
import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { QUIET } from "../../../lib/graph/environment.ts";
import { openImage } from "../../../lib/graph/open.ts";
import { loadNative } from "../../../lib/io/native.ts";
import { checkImage, createImage } from "../../../lib/mod.ts";
import type { Run } from "../../../lib/ops/copy/partner.ts";
import { type SlotPartner, SlotWriter } from "../../../lib/ops/copy/slot_writer.ts";
import { Writer } from "../../../lib/ops/copy/writer.ts";
import { tempDir } from "../../_temp.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

const K64 = 65536;
/** Two pieces in one slot: the second has a hole in its middle. */
const PIECES = [
  { offset: 0, length: 2 * K64, places: [] },
  { offset: 4 * K64, length: 3 * K64, places: [] },
];
const RUNS = [
  [{ start: 0, length: 2 * K64 }],
  [{ start: 0, length: K64 }, { start: 2 * K64, length: K64 }],
];
const SLOT = new Uint8Array(5 * K64).map((_, i) => 1 + i / K64);
SLOT.fill(0, 3 * K64, 4 * K64);

/** One that does what it is told at once, in this thread. */
function partner(does: (runs: readonly Run[]) => boolean, isReady = true): SlotPartner {
  let outcome = false;
  return {
    canTake: () => isReady,
    buffer: () => SLOT,
    take: (_, runs) => outcome = does(runs),
    ended: () => Promise.resolve(outcome),
    forget: () => {},
  };
}

function writeRuns(runs: readonly Run[]): boolean {
  for (const { at, length, target, to } of runs) {
    using file = Deno.openSync(target.path, { write: true });
    file.seekSync(to, Deno.SeekMode.Start);
    file.writeSync(SLOT.subarray(at, at + length));
  }
  return true;
}

/** What `body` leaves of an image of 8 clusters: the first byte of each, and clusters that leaked. */
async function left(body: (node: BlockNode) => Promise<void>): Promise<[number[], number]> {
  await using dir = await tempDir();
  const filename = dir.file("image");
  await createImage({ filename, format: "qcow2", size: 8 * K64 });
  {
    await using node = await openImage({ filename }, { ...READ_ONLY, writable: true }, QUIET);
    await body(node);
  }
  const bytes = new Uint8Array(8 * K64);
  {
    await using node = await openImage({ filename }, READ_ONLY, QUIET);
    await node.read(0, bytes);
  }
  const { leaks, corruptions } = (await checkImage({ filename }))!.result;
  assertEquals(corruptions, 0);
  return [Array.from({ length: 8 }, (_, i) => bytes[i * K64]!), leaks];
}

const writerTo = (node: BlockNode) => new Writer(node, { unmap: false, skipZeros: true, rate: 0 });

Deno.test("what the partner has written is there", async () => {
  const found = await left(async (node) => {
    const slots = new SlotWriter(writerTo(node), partner(writeRuns));
    assertEquals(await slots.write(0, PIECES, RUNS), true);
  });
  assertEquals(found, [[1, 2, 0, 0, 3, 0, 5, 0], 0]);
});

Deno.test("what the partner could not write is given back", async () => {
  const found = await left(async (node) => {
    const slots = new SlotWriter(writerTo(node), partner(() => false));
    assertEquals(await slots.write(0, PIECES, RUNS), false);
  });
  assertEquals(found, [[0, 0, 0, 0, 0, 0, 0, 0], 0]);
});

Deno.test("nothing is reserved for a partner that has not started", async () => {
  await left(async (node) => {
    const before = await node.allocatedSize();
    const slots = new SlotWriter(writerTo(node), partner(writeRuns, false));
    assertEquals(await slots.write(0, PIECES, RUNS), false);
    assertEquals(await node.allocatedSize(), before);
  });
});

Deno.test("what cannot be reserved fails, and gives back the rest", async () => {
  const found = await left(async (node) => {
    const slots = new SlotWriter(writerTo(node), partner(writeRuns));
    const beyond = [...PIECES, { offset: 9 * K64, length: K64, places: [] }];
    const runs = [...RUNS, [{ start: 0, length: K64 }]];
    await assertRejects(() => slots.write(0, beyond, runs), ImageError, "while writing at byte");
  });
  assertEquals(found, [[0, 0, 0, 0, 0, 0, 0, 0], 0]);
});
