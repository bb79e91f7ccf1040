/** `map`: parts of images, and what is wrong with a command line. */
import { disk, img, io, same, sameForEach, text } from "./_cases.ts";
import { ZOO } from "./_zoo.ts";

const M = 1024 * 1024;

const RANGES = [
  "-s 0",
  "-s 1",
  "-s 65536",
  "-s 100000",
  "-s 0x10000 -l 64k",
  "-s 1M -l 1",
  "-s 300k -l 100k",
  "-l 0",
  "-l 1",
  "-l 511",
  "-l 1M",
  "-l 100T",
  "-s 100T",
  "-s 100T -l 1",
  "-s 3M",
  "-s 3145727",
  "-s 8E -l 1",
  "-s 7E -l 7E",
  "--start-offset=64k --max-length=64k",
];

for (
  const kind of [
    "raw",
    "qcow2, every kind of cluster",
    "qcow2, subclusters",
    "qcow2, on three others",
  ]
) {
  sameForEach(
    `map, ${kind}`,
    RANGES.flatMap((range) => [`map ${range} a`, `map --output=json ${range} a`]),
    { given: ZOO[kind]! },
  );
}

sameForEach("map, ways to name the image", [
  "map -f qcow2 a",
  "map -f raw a",
  "map -f raw --output=json a",
  "map -f file a",
  "map -f file --output=json a",
  "map -U a",
  "map file:a",
  "map ./a",
  "map --output human a",
  "map a --output=json",
], { given: ZOO["qcow2, every kind of cluster"]! });

sameForEach("map refuses", [
  "map none",
  "map .",
  "map -f zork a",
  "map -f qcow2 a",
  "map zork:a",
  "map --output=xml a",
  "map over",
], {
  given: [text("a", "x"), img("create -f qcow2 -u -b none -F raw over 1M")],
  code: 1,
});

same("map, neighbours in the file are one", {
  given: [img("create -f qcow2 a 1M"), io("a", "write -P 1 0 64k", "write -P 2 64k 64k")],
  run: "map a",
});
same("map, neighbours on the disk that are apart in the file are two", {
  given: [img("create -f qcow2 a 1M"), io("a", "write -P 1 64k 64k", "write -P 2 0 64k")],
  run: "map a",
});
same("map, a file name with a space", {
  given: [disk("a b", M, [[0, 4096, "noise"]])],
  run: ["map", "a b"],
});
