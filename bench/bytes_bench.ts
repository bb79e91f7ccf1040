/** Looking for zeros and for differences: what every byte of a conversion or a comparison goes through. */

import { equalBytes, firstDifference } from "../lib/bytes/equal.ts";
import { isZero, zeroRun } from "../lib/bytes/zero_scan.ts";
import { Random } from "../tests/_random.ts";

const MIB = 1 << 20;
const CLUSTER = 65536;
const SECTOR = 512;

const zeros = new Uint8Array(MIB);
const sharedZeros = new Uint8Array(new SharedArrayBuffer(MIB));
const data = new Random(1).bytes(MIB);
const copy = data.slice();
const moved = new Uint8Array(MIB + 3).subarray(3);
moved.set(data);
/** Every second sector is zero. */
const striped = new Uint8Array(MIB);
for (let at = 0; at < MIB; at += 2 * SECTOR) striped[at + SECTOR / 2] = 1;

function runs(bytes: Uint8Array, step: number): number {
  let count = 0;
  for (let at = 0; at < bytes.length; count++) at += zeroRun(bytes, at, step).length;
  return count;
}

function expect(condition: boolean): void {
  if (!condition) throw new Error("the wrong answer, however fast");
}

Deno.bench("1 MiB of zeros", { group: "zero scan" }, () => expect(isZero(zeros)));
Deno.bench("1 MiB of zeros, shared", { group: "zero scan" }, () => expect(isZero(sharedZeros)));
Deno.bench("1 MiB of zeros by the cluster", { group: "zero scan" }, () => {
  for (let at = 0; at < MIB; at += CLUSTER) expect(isZero(zeros.subarray(at, at + CLUSTER)));
});
Deno.bench("1 MiB of zeros by the sector", { group: "zero scan" }, () => {
  expect(runs(zeros, SECTOR) === 1);
});
Deno.bench("1 MiB of data by the sector", { group: "zero scan" }, () => {
  expect(runs(data, SECTOR) === 1);
});
Deno.bench("1 MiB in stripes by the sector", { group: "zero scan" }, () => {
  expect(runs(striped, SECTOR) === MIB / SECTOR);
});

Deno.bench("1 MiB, equal", { group: "equality" }, () => expect(equalBytes(data, copy)));
Deno.bench("1 MiB, equal, of other alignment", { group: "equality" }, () => {
  expect(equalBytes(data, moved));
});
Deno.bench("1 MiB, equal, by the sector", { group: "equality" }, () => {
  expect(firstDifference(data, copy, SECTOR) === -1);
});
