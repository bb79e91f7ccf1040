import { equalBytes, firstDifference } from "../lib/bytes/equal.ts";
import { firstNonZero, isZero, zeroRun } from "../lib/bytes/zero_scan.ts";
import { RandomBytes } from "./_disk.ts";

const MiB = 1 << 20;
const KiB = 1 << 10;

const zeros = new Uint8Array(MiB);
const random = new RandomBytes(1).fill(new Uint8Array(MiB));
const copy = random.slice();
// What a copy looks at: data with every fourth block of zeros.
const mixed = random.slice();
for (let at = 0; at < MiB; at += 16 * KiB) mixed.fill(0, at, at + 4 * KiB);

/** Fails the benchmark when the answer is wrong, and keeps the compiler from dropping the question. */
function expect(right: boolean): void {
  if (!right) throw new Error("wrong answer");
}

Deno.bench("1 MiB of zeros", { group: "zero scan" }, () => {
  expect(isZero(zeros));
});

Deno.bench("1 MiB of zeros, where data begins", { group: "zero scan" }, () => {
  expect(firstNonZero(zeros) === -1);
});

Deno.bench("1 MiB of data and zeros in 4 KiB steps", { group: "zero scan" }, () => {
  let runs = 0;
  for (let at = 0; at < MiB;) {
    at += zeroRun(mixed, at, 4 * KiB).length;
    runs++;
  }
  expect(runs === 128);
});

Deno.bench("1 MiB", { group: "equality" }, () => {
  expect(equalBytes(random, copy));
});

Deno.bench("1 MiB, where it ends", { group: "equality" }, () => {
  expect(firstDifference(random, copy) === -1);
});
