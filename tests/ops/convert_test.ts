import { loadNative } from "../../lib/io/native.ts";
import { assertSame, reference, type SameOptions } from "../_reference.ts";
import { disksIn } from "./_disks.ts";

// Outside the tests, each of which would count it as left open.
loadNative();

/** Registers a test for each command line, which finds the disks that it names. */
function testCopies(lines: readonly string[], options: SameOptions = {}): void {
  for (const line of lines) {
    Deno.test({
      name: `as the reference: convert ${line}`,
      ignore: reference.ignore,
      fn: async () => {
        const words = line.split(" ").map((word) => word === "''" ? "" : word);
        await assertSame(["convert", ...words], {
          ...options,
          setup: async (dir) => {
            await disksIn(line)(dir);
            await options.setup?.(dir);
          },
        });
      },
    });
  }
}

const RAW: SameOptions = { code: 0, images: [{ name: "new", format: "raw" }] };
const QCOW2: SameOptions = { code: 0, images: [{ name: "new", format: "qcow2", check: true }] };

const SOURCES = [
  "-f raw src",
  "-f raw odd",
  "-f raw tiny",
  "-f raw empty",
  "-f raw zeros",
  "plain.qcow2",
  "packed.qcow2",
  "zstd.qcow2",
  "small.qcow2",
  "large.qcow2",
  "extended.qcow2",
  "old.qcow2",
  "full.qcow2",
  "data.qcow2",
  "overlay.qcow2",
  "mixed.qcow2",
  "none.qcow2",
  "-f raw src odd tiny empty zeros",
  "mixed.qcow2 overlay.qcow2 plain.qcow2",
];

testCopies(SOURCES.map((source) => `${source} new`), RAW);
// Where nothing is compressed even the bytes are the same.
testCopies(SOURCES.map((source) => `-O qcow2 ${source} new`), { ...QCOW2, files: ["new"] });
testCopies(SOURCES.map((source) => `-c -O qcow2 ${source} new`), QCOW2);

const SPARSE_SIZES = ["0", "512", "8k", "12k", "64k", "1M", "1000k", "3M", "16M"];
testCopies(
  SPARSE_SIZES.flatMap((size) => [`-S ${size} -f raw src new`, `-S ${size} mixed.qcow2 new`]),
  RAW,
);
testCopies(
  SPARSE_SIZES.flatMap((size) => [
    `-S ${size} -O qcow2 -f raw src new`,
    `-S ${size} -O qcow2 small.qcow2 new`,
    `-S ${size} -c -O qcow2 overlay.qcow2 new`,
  ]),
  QCOW2,
);

const TARGET_OPTIONS = [
  "cluster_size=512",
  "cluster_size=4k",
  "cluster_size=2M",
  "extended_l2=on",
  "extended_l2=on,cluster_size=2M",
  "compat=0.10",
  "lazy_refcounts=on",
  "refcount_bits=1",
  "preallocation=metadata",
  "preallocation=falloc",
  "preallocation=full",
  "data_file=new.data",
  "data_file=new.data,data_file_raw=on",
];
testCopies(TARGET_OPTIONS.map((option) => `-O qcow2 -o ${option} -f raw src new`), QCOW2);
testCopies(TARGET_OPTIONS.map((option) => `-O qcow2 -o ${option} mixed.qcow2 new`), QCOW2);
testCopies([
  "-c -O qcow2 -o cluster_size=512 -f raw odd new",
  "-c -O qcow2 -o cluster_size=4k mixed.qcow2 new",
  "-c -O qcow2 -o cluster_size=2M overlay.qcow2 new",
  "-c -O qcow2 -o compression_type=zstd -f raw src new",
  "-c -O qcow2 -o compression_type=zstd,cluster_size=2M mixed.qcow2 new",
  "-c -O qcow2 -o compat=0.10 plain.qcow2 new",
  "-c -O qcow2 -o preallocation=off plain.qcow2 new",
], QCOW2);
testCopies([
  "-o preallocation=off -f raw src new",
  "-o preallocation=falloc -f raw src new",
  "-o preallocation=full mixed.qcow2 new",
], RAW);

const WAYS = [
  "-m 1",
  "-m 16",
  "-m 3 -W",
  "-W",
  "-t none -T none",
  "-t writethrough",
  "-t directsync -T directsync",
  "-t writeback -T unsafe",
  "-r 1G",
  "-C",
  "--salvage",
  "-U",
  "-q",
];
testCopies(WAYS.map((way) => `${way} -f raw src new`), RAW);
testCopies(WAYS.map((way) => `${way} mixed.qcow2 new`), RAW);
testCopies(WAYS.map((way) => `${way} -O qcow2 -f raw src new`), QCOW2);
testCopies(
  WAYS.filter((way) => way !== "-C").map((way) => `${way} -c -O qcow2 overlay.qcow2 new`),
  QCOW2,
);

const PROGRESS = [
  "-p -f raw src new",
  "-p -f raw empty new",
  "-p -f raw zeros new",
  "-p -S 0 plain.qcow2 new",
  "-p -O qcow2 mixed.qcow2 new",
  "-p -c -O qcow2 mixed.qcow2 new",
  "-p -c -O qcow2 overlay.qcow2 new",
  "-p -q -f raw src new",
  "-p missing new",
  "-p -f raw src nodir/new",
];
testCopies(PROGRESS);

const BACKED = [
  "-O qcow2 -B other -F raw -f raw src new",
  "-O qcow2 -B packed.qcow2 -F qcow2 overlay.qcow2 new",
  "-O qcow2 -o backing_file=packed.qcow2,backing_fmt=qcow2 overlay.qcow2 new",
  "-O qcow2 -B odd -F raw overlay.qcow2 new",
  "-O qcow2 -B other -F raw mixed.qcow2 new",
  "-O qcow2 -B other -F raw none.qcow2 new",
  "-O qcow2 -S 0 -B odd -F raw overlay.qcow2 new",
  "-O qcow2 -o compat=0.10 -B other -F raw -f raw src new",
  "-O qcow2 -o cluster_size=4k -B other -F raw overlay.qcow2 new",
  "-c -O qcow2 -B odd -F raw overlay.qcow2 new",
  "-c -O qcow2 -o cluster_size=2M -B packed.qcow2 -F qcow2 overlay.qcow2 new",
  "-O qcow2 -o extended_l2=on -B other -F raw overlay.qcow2 new",
];
testCopies(BACKED, QCOW2);

const EXISTING = [
  "-n -f raw src other",
  "-n mixed.qcow2 other",
  "-n -S 0 mixed.qcow2 other",
  "-n -S 512 small.qcow2 other",
  "-n -f raw odd other",
  "-n --target-is-zero -f raw tiny zeros",
];
testCopies(EXISTING.slice(0, 5), { code: 0, images: [{ name: "other", format: "raw" }] });
testCopies(EXISTING.slice(5), { code: 0, images: [{ name: "zeros", format: "raw" }] });

const onto = (lines: readonly string[], name: string) =>
  testCopies(lines, { code: 0, images: [{ name, format: "qcow2", check: true }] });
onto([
  "-n -O qcow2 -f raw src plain.qcow2",
  "-n -O qcow2 -f raw odd plain.qcow2",
  "-n -O qcow2 -f raw zeros plain.qcow2",
  "-n -O qcow2 -S 0 -f raw zeros plain.qcow2",
], "plain.qcow2");
onto(
  ["-n -O qcow2 -f raw other packed.qcow2", "-n -O qcow2 -f raw zeros packed.qcow2"],
  "packed.qcow2",
);
onto([
  "-n -O qcow2 -f raw src overlay.qcow2",
  "-n -O qcow2 none.qcow2 overlay.qcow2",
  "-n -O qcow2 -B packed.qcow2 mixed.qcow2 overlay.qcow2",
], "overlay.qcow2");
onto([
  "-n -c -O qcow2 -f raw zeros none.qcow2",
  "-n --target-is-zero -O qcow2 -f raw odd none.qcow2",
  "-n -c --target-is-zero -O qcow2 -f raw zeros none.qcow2",
], "none.qcow2");

testCopies([
  "missing new",
  "-f qcow2 src new",
  "-f zork src new",
  "-O zork src new",
  "-f raw src zork:new",
  "-f raw src nodir/new",
  "-c -f raw src new",
  "-n -c -f raw src zeros",
  "-f raw src src",
  "-n -f raw src src",
  "-O qcow2 -f raw src src",
  "-O qcow2 packed.qcow2 packed.qcow2",
  "overlay.qcow2 packed.qcow2",
  "-n overlay.qcow2 packed.qcow2",
  "-O qcow2 -B src -F raw -f raw src src",
  "-n -f raw src tiny",
  "-n -f raw src missing",
  "-n -O qcow2 -f raw src zeros",
  "-n -O qcow2 -f raw src small.qcow2 none.qcow2",
  "-o size=1M,zork=1 -f raw src new",
  "-o zork -f raw src new",
  "-O qcow2 -o cluster_size=513 -f raw src new",
  "-O qcow2 -o preallocation=zork -f raw src new",
  "-c -O qcow2 -o preallocation=metadata -f raw src new",
  "-c -O qcow2 -o preallocation=full,encrypt.format=luks -f raw src new",
  "-c -O qcow2 -o encryption=on -f raw src new",
  "-B odd -F raw -f raw src new",
  "-F raw -f raw src new",
  "-o backing_file=odd -f raw src new",
  "-O qcow2 -B odd -f raw src new",
  "-O qcow2 -F raw -f raw src new",
  "-O qcow2 -B odd -F zork -f raw src new",
  "-O qcow2 -B odd -F raw -f raw src src new",
  "-O qcow2 -B odd -f raw src src new",
  "-O qcow2 -B odd -c -o preallocation=full -f raw src new",
  "-n -B odd -f raw src src zeros",
  "-n -c -O qcow2 -f raw odd none.qcow2",
  "-n -c -O qcow2 -f raw odd packed.qcow2",
  "-C -c src new",
  "-S 0 -C src new",
  "-T zork src new",
], {});
