import { loadNative } from "../../lib/io/native.ts";
import { assertSame, reference, writeWithReference } from "../_reference.ts";
import { disksIn } from "./_disks.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

/** Registers a test for each command line, which finds the disks that it names. */
function testComparisons(
  lines: readonly string[],
  change: (dir: string) => void | Promise<unknown> = () => {},
): void {
  for (const line of lines) {
    Deno.test({
      name: `as the reference: compare ${line}`,
      ignore: reference.ignore,
      fn: async () => {
        await assertSame(["compare", ...line.split(" ")], {
          setup: async (dir) => {
            await disksIn(line)(dir);
            await change(dir);
          },
        });
      },
    });
  }
}

const IMAGES = [
  "plain.qcow2",
  "packed.qcow2",
  "zstd.qcow2",
  "small.qcow2",
  "large.qcow2",
  "extended.qcow2",
  "old.qcow2",
  "full.qcow2",
  "data.qcow2",
  "mixed.qcow2",
  "overlay.qcow2",
  "none.qcow2",
  "-F raw other",
  "-F raw odd",
  "-F raw empty",
  "-F raw zeros",
];

testComparisons(IMAGES.flatMap((image) => [
  `-f raw src ${image}`,
  `-s -f raw src ${image}`,
  // Tables of very small clusters the reference looks at piece by piece, which its progress shows.
  ...(image === "small.qcow2" ? [] : [`-p -f raw src ${image}`]),
]));
testComparisons([
  "-F raw overlay.qcow2 src",
  "overlay.qcow2 packed.qcow2",
  "packed.qcow2 overlay.qcow2",
  "packed.qcow2 mixed.qcow2",
  "-p mixed.qcow2 zstd.qcow2",
  "-s packed.qcow2 zstd.qcow2",
  "-s plain.qcow2 old.qcow2",
  "-s plain.qcow2 packed.qcow2",
  "-s plain.qcow2 small.qcow2",
  "-p -s -f raw -F raw odd tiny",
  "-s -f raw none.qcow2 zeros",
  "-F raw none.qcow2 zeros",
  "-f raw -F raw empty zeros",
  "-p -f raw -F raw zeros empty",
  "-p -f raw -F raw empty empty",
  "-f raw -F raw tiny odd",
  "-q -f raw -F raw tiny odd",
  "-q -f raw -F raw src src",
  "-U -s -f raw -F raw src src",
  "-T none -p -f raw src packed.qcow2",
  "-T none -f raw -F raw src other",
  "-f raw src missing",
  "missing src",
  "-f qcow2 src src",
  "-F zork src src",
  "-T zork src src",
]);

for (const offset of ["0", "511", "512", "5M", "8191k", "12582912", "12583423"]) {
  testComparisons(
    [`-p -f raw src plain.qcow2`, `-p -F raw packed.qcow2 src`, `-F raw plain.qcow2 src`],
    (dir) => writeWithReference("src", [`write -P 0x5a ${offset} 1`], { cwd: dir, format: "raw" }),
  );
}
