import { assertEquals } from "@std/assert";
import type { DataRun } from "../../../lib/ops/copy/job.ts";
import { dataRuns, isPiecewise, sparseRule } from "../../../lib/ops/copy/sparse.ts";
import { forSeeds, type Random } from "../../_random.ts";

const SECTOR = 512;

/** The rule as the raw reference words it (section 5), sector by sector and write by write. */
function runsByTheBook(
  bytes: Uint8Array,
  offset: number,
  smallest: number,
  block: number,
): DataRun[] {
  const isZero = (sector: number) =>
    bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR).every((byte) => byte === 0);
  const sectors = bytes.length / SECTOR;
  const alignment = block / SECTOR;
  /** The run at `from`: its kind and its end, adjusted to the alignment on the disk. */
  const runAt = (from: number): { zero: boolean; end: number } => {
    let zero = isZero(from);
    let end = from + 1;
    while (end < sectors && isZero(end) === zero) end++;
    if (end === sectors) return { zero, end };
    const tail = (offset / SECTOR + end) % alignment;
    if (tail === 0) return { zero, end };
    if (zero && end - from <= tail) zero = false;
    end += zero ? -tail : alignment - tail;
    return { zero, end: Math.min(end, sectors) };
  };
  const runs: DataRun[] = [];
  for (let at = 0; at < sectors;) {
    const shortest = Math.min(smallest / SECTOR, sectors - at);
    const first = runAt(at);
    if (first.zero) {
      at = first.end;
      continue;
    }
    let end = first.end;
    for (let next = end; next < sectors;) {
      const run = runAt(next);
      if (run.zero && run.end - next >= shortest) break;
      if (!run.zero) end = run.end;
      next = run.end;
    }
    runs.push({ start: at * SECTOR, length: (end - at) * SECTOR });
    at = end;
  }
  return runs;
}

function sparseBytes(random: Random): Uint8Array {
  const bytes = new Uint8Array(SECTOR * random.between(1, 400));
  for (let at = 0; at < bytes.length;) {
    const length = SECTOR * random.pick([1, 2, 3, 7, 8, 9, 16, 60]);
    // One byte is enough to make a sector data.
    if (random.oneIn(2)) {
      for (let sector = at; sector < Math.min(at + length, bytes.length); sector += SECTOR) {
        bytes[sector + random.below(SECTOR)] = 1;
      }
    }
    at += length;
  }
  return bytes;
}

Deno.test("data are found as the reference's rule words it, for any offset and size", () => {
  forSeeds(400, (random) => {
    const smallest = SECTOR * random.pick([1, 2, 8, 8, 8, 9, 15, 16, 24, 128, 1000]);
    const alignment = random.pick([1, SECTOR, 4096]);
    const rule = sparseRule(smallest, alignment)!;
    const bytes = sparseBytes(random);
    const offset = SECTOR * random.below(64);
    assertEquals(
      dataRuns(bytes, offset, rule),
      runsByTheBook(bytes, offset, smallest, rule.block),
      `-S ${smallest} at ${offset}, requests of ${alignment}`,
    );
  });
});

Deno.test("piecewise rules find the same data in pieces as in the whole", () => {
  forSeeds(200, (random) => {
    const rule = sparseRule(SECTOR * random.pick([1, 2, 8, 16, 64]), random.pick([1, 4096]));
    const size = 64 * 1024;
    assertEquals(isPiecewise(rule, size), true);
    const bytes = sparseBytes(random);
    const offset = SECTOR * random.below(300);
    const inPieces: DataRun[] = [];
    for (let at = 0; at < bytes.length;) {
      const length = Math.min(size - (offset + at) % size, bytes.length - at);
      for (const run of dataRuns(bytes.subarray(at, at + length), offset + at, rule)) {
        const last = inPieces.at(-1);
        if (last !== undefined && last.start + last.length === at + run.start) {
          inPieces[inPieces.length - 1] = { start: last.start, length: last.length + run.length };
        } else inPieces.push({ start: at + run.start, length: run.length });
      }
      at += length;
    }
    assertEquals(inPieces, dataRuns(bytes, offset, rule));
  });
});

Deno.test("a rule that merges short runs of zeros or has large blocks is not piecewise", () => {
  assertEquals(isPiecewise(sparseRule(12 * 1024, 1), 1 << 20), false);
  assertEquals(isPiecewise(sparseRule(1 << 20, 1), 256 * 1024), false);
});

Deno.test("a smallest run of 0 makes everything data", () => {
  assertEquals(sparseRule(0, 512), null);
  assertEquals(dataRuns(new Uint8Array(1024), 0, null), [{ start: 0, length: 1024 }]);
  assertEquals(dataRuns(new Uint8Array(0), 0, null), []);
});
