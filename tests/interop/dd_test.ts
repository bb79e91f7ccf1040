/** `dd`: where the part begins and ends, and what it is written to. */
import { disk, type Given, img, sameForEach, text } from "./_cases.ts";
import { MIXED_DISK, ZOO } from "./_zoo.ts";

const K = 1024;
const M = 1024 * K;

function copies(about: string, lines: readonly string[], given: readonly Given[]): void {
  sameForEach(`dd, ${about}`, lines.map((line) => `dd ${line}`), {
    given,
    files: ["b"],
    code: 0,
  });
}

const SMALL: readonly Given[] = [disk("a", 100 * K + 512, [[0, 60 * K, "noise"], [
  90 * K,
  10 * K + 512,
  "noise",
]])];

copies("parts", [
  "if=a of=b",
  "-f raw if=a of=b",
  "-O raw if=a of=b",
  "if=a of=b bs=512",
  "if=a of=b bs=513",
  "if=a of=b bs=64k",
  "if=a of=b bs=1M",
  "if=a of=b bs=2147483647",
  "if=a of=b bs=0x1000",
  "if=a of=b bs=1.5k",
  "if=a of=b count=0",
  "if=a of=b count=1",
  "if=a of=b count=3 bs=1000",
  "if=a of=b count=1000000",
  "if=a of=b count=0x10",
  "if=a of=b count=010",
  "if=a of=b skip=0",
  "if=a of=b skip=1",
  "if=a of=b skip=3 bs=1000",
  "if=a of=b skip=201",
  "if=a of=b skip=1 bs=100k",
  "if=a of=b skip=1 bs=102912",
  "if=a of=b skip=2 count=5 bs=1k",
  "if=a of=b skip=5 count=5 bs=1k",
  "if=a of=b bs=1k bs=2k count=3",
  "of=b bs=4k if=a",
  "-U if=a of=b",
  "if=file:a of=file:b",
], SMALL);
copies("blocks of one byte", [
  "if=a of=b bs=1",
  "if=a of=b bs=1 skip=3 count=100",
  "if=a of=b count=9223372036854775807 bs=1",
], [disk("a", 700, [[0, 700, "noise"]])]);
// Large products wrap around nowhere.
copies("counts that go beyond everything", [
  "if=a of=b bs=1M count=9223372036854775807",
  "if=a of=b bs=512 count=36028797018963968",
], SMALL);
copies("more left out than there is", [
  "if=a of=b skip=202",
  "if=a of=b skip=1 count=0",
  "if=a of=b skip=9223372036854775807 bs=1M",
  "-O qcow2 if=a of=b bs=1M skip=1",
], SMALL);
copies("another format", [
  "-O qcow2 if=a of=b",
  "-O qcow2 if=a of=b bs=1M skip=0",
  "-O qcow2 if=a of=b bs=1000 skip=3 count=50",
  "-O file if=a of=b",
], SMALL);
for (
  const kind of [
    "raw",
    "raw, 511 bytes",
    "raw, 513 bytes",
    "raw, empty",
    "qcow2, every kind of cluster",
    "qcow2, subclusters",
    "qcow2, compressed with zlib",
    "qcow2, on three others",
    "qcow2, an odd size",
    "qcow2, a data file",
  ]
) {
  copies(`from ${kind}`, [
    "if=a of=b bs=1M",
    "-O qcow2 if=a of=b bs=1M",
    "-O qcow2 if=a of=b bs=3M",
    "if=a of=b bs=500 count=2",
  ], ZOO[kind]!);
}
copies("over what is there", ["if=a of=b bs=64k", "-O qcow2 if=a of=b bs=64k"], [
  ...SMALL,
  disk("b", 2 * M, [[0, 2 * M, "noise"]]),
]);
copies("with zeros in it", ["if=src of=b bs=1M", "-O qcow2 if=src of=b bs=1M"], [MIXED_DISK]);

sameForEach("dd refuses", [
  "dd if=none of=b",
  "dd if=. of=b",
  "dd if=a of=none/b skip=3",
  "dd if=a of=none/b",
  "dd if=a of=.",
  "dd if=a of=zork:b",
  "dd if=zork:a of=b",
  "dd -f zork if=a of=b",
  "dd -f qcow2 if=a of=b",
  "dd -O zork if=a of=b",
  "dd -O host_device if=a of=b",
  "dd if= of=b",
  "dd if=a of=",
  "dd if=over of=b",
  "dd bs=0 if=a of=b",
  "dd bs=2147483648 if=a of=b",
  "dd bs=x if=a of=b",
  "dd count=1k if=a of=b",
  "dd skip=-1 if=a of=b",
  "dd skip=1.5 if=a of=b",
  "dd count=99999999999999999999 if=a of=b",
], {
  given: [text("a", "x".repeat(600)), img("create -f qcow2 -u -b none -F raw over 1M")],
  code: 1,
});
