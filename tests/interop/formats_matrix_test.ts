/** Every format that can be written, converted into every other one and back: nothing is lost. */
import { assert, assertEquals } from "@std/assert";
import { firstDifference } from "../../lib/bytes/equal.ts";
import { isZero } from "../../lib/bytes/zero_scan.ts";
import { convertImage } from "../../lib/mod.ts";
import {
  createOptions,
  type Kind,
  KINDS,
  nameOf,
  opens,
  referenceTo,
  WITH_SECRET,
} from "../_formats.ts";
import { reference, runReference } from "../_reference.ts";
import { withTempDir } from "../_temp.ts";
import { disk } from "./_cases.ts";

const K = 1024;
const M = K * K;
/** Whole clusters of no format, and of no disk geometry. */
const SIZE = 3 * M + 9 * 512;

const DISK = disk("disk", SIZE, [
  [0, 100 * K, "mixed"],
  [M, 300 * K, "gaps"],
  [2 * M + 512, 200 * K, "noise"],
  [2 * M + 600 * K, 100 * K, "zeros"],
  [3 * M, 9 * 512, "flat"],
]);

/** Each format at its defaults, and what is written in one go. */
const TARGETS = KINDS.filter((kind, i) =>
  kind.isStream || KINDS.findIndex(({ format }) => format === kind.format) === i
);

const convert = (from: Kind, source: string, to: Kind, target: string) =>
  convertImage({
    sources: [referenceTo(from, source)],
    target,
    targetFormat: to.format,
    options: createOptions(to),
  }, WITH_SECRET);

/** The same disk, which some formats make longer. */
function assertSameDisk(found: Uint8Array, disk: Uint8Array, message: string): void {
  assert(found.length >= disk.length, `${message}: ${found.length} bytes`);
  const differs = firstDifference(found.subarray(0, disk.length), disk);
  assertEquals(differs, -1, `${message}: first byte that differs`);
  assert(isZero(found.subarray(disk.length)), `${message}: zeros behind it`);
}

const RAW = KINDS.find(({ format }) => format === "raw")!;

for (const first of TARGETS) {
  Deno.test({
    name: `${nameOf(first)} to every format and back`,
    ignore: reference.ignore,
    fn: () =>
      withTempDir(async (dir) => {
        await DISK.make(dir);
        const disk = await Deno.readFile(`${dir}/disk`);
        await convert(RAW, `${dir}/disk`, first, `${dir}/first`);
        for (const second of TARGETS) {
          const pair = `${nameOf(first)}, ${nameOf(second)}`;
          await convert(first, `${dir}/first`, second, `${dir}/second`);
          const { code, stdout, stderr } = await runReference(
            ["convert", ...opens(second, "second"), "-O", "raw", "theirs"],
            { cwd: dir },
          );
          assertEquals([code, stdout, stderr], [0, "", ""], pair);
          assertSameDisk(await Deno.readFile(`${dir}/theirs`), disk, `${pair}, the reference`);
          await convert(second, `${dir}/second`, first, `${dir}/third`);
          await convert(first, `${dir}/third`, RAW, `${dir}/ours`);
          assertSameDisk(await Deno.readFile(`${dir}/ours`), disk, `${pair} and back`);
        }
      }),
  });
}
