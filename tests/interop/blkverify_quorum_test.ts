/** blkverify and quorum, which compare disks, and snapshot-access, which shows one that nobody keeps. */
import { disk, type Given, img, io, ioAs, patch, same, sameForEach } from "./_cases.ts";

const M = 1024 * 1024;

const IMAGES: readonly Given[] = [
  disk("a", M, [[0, 65536, "noise"], [524288, 4096, "noise"]]),
  { key: "b is a", make: (dir) => Deno.copyFile(`${dir}/a`, `${dir}/b`) },
  { key: "c is a", make: (dir) => Deno.copyFile(`${dir}/a`, `${dir}/c`) },
  patch("c", [700, 1, 90]),
  disk("long", 2 * M, []),
  disk("z", M, []),
  img("create -f qcow2 q 1M"),
  img("convert -O qcow2 a qa"),
  img("create -f qcow2 -b a -F raw o"),
  io("o", "write -P 3 128k 64k"),
];

sameForEach("blkverify by name", [
  "info blkverify:a:b",
  "info --output=json blkverify:a:qa",
  "info blkverify:a",
  "info blkverify:",
  "info blkverify:none:a",
  "info blkverify:a:none",
  "info blkverify:a:o",
  "map blkverify:a:b",
  "map --output=json blkverify:a:qa",
  "check blkverify:a:qa",
  "measure -O qcow2 blkverify:a:qa",
  "compare blkverify:a:qa a",
  "resize -f raw blkverify:a:qa 2M",
  "create -f raw blkverify:x:y 1M",
  "create -f blkverify x 1M",
], { given: IMAGES });

sameForEach(
  "blkverify's options",
  [
    "driver=blkverify",
    "driver=blkverify,filename=x",
    "driver=blkverify,filename=blkverify:a:b",
    "driver=blkverify,x-raw=a,x-image=b",
    "driver=blkverify,raw.filename=a",
    "driver=blkverify,test.file.filename=a",
    "driver=blkverify,raw.filename=a,test.filename=b",
    "driver=blkverify,raw.filename=a,test.file.filename=b,foo=1",
    "driver=blkverify,raw.filename=a,test.driver=raw,test.file.filename=b",
    "driver=blkverify,raw.filename=a,test.driver=raw,test.size=1M,test.file.filename=b",
    "driver=raw,file.driver=blkverify,file.raw.filename=a,file.test.file.filename=qa",
    "driver=blkverify,raw.driver=qcow2,raw.file.filename=qa,test.file.filename=qa",
  ].map((list) => `info --image-opts ${list}`),
  { given: IMAGES },
);

same("blkverify copies", {
  given: IMAGES,
  run: "convert -O qcow2 blkverify:a:qa t",
  images: ["t"],
  code: 0,
});

const members = (...names: readonly string[]) =>
  names.map((name, i) => `children.${i}.driver=raw,children.${i}.file.filename=${name}`).join(",");
const THREE = `driver=quorum,${members("a", "c", "b")}`;
const TWO = `driver=quorum,${members("a", "b")},vote-threshold=2`;

sameForEach(
  "quorum's options",
  [
    "driver=quorum",
    "driver=quorum,filename=x",
    "driver=quorum,vote-threshold=1",
    `driver=quorum,${members("a")},vote-threshold=1`,
    `driver=quorum,${members("a", "b")}`,
    `driver=quorum,${members("a", "b")},vote-threshold=0`,
    `driver=quorum,${members("a", "b")},vote-threshold=3`,
    `driver=quorum,${members("a", "b")},vote-threshold=-1`,
    `driver=quorum,${members("a", "b")},vote-threshold=x`,
    `driver=quorum,${members("a", "long")},vote-threshold=1`,
    `driver=quorum,${members("a", "none")},vote-threshold=1`,
    "driver=quorum,children.0.file.filename=a,children.2.file.filename=b,vote-threshold=1",
    "driver=quorum,children.0.file.filename=a,children.x.file.filename=b,vote-threshold=1",
    "driver=quorum,children.0=n,vote-threshold=1",
    "driver=quorum,children.0.file.filename=qa,children.1.file.filename=a,vote-threshold=2",
    "driver=quorum,children.0.file.filename=o,children.1.file.filename=a,vote-threshold=1",
    `${TWO}`,
    `${TWO},blkverify=zz`,
    `${TWO},blkverify=on`,
    `${TWO},blkverify=on,rewrite-corrupted=on`,
    `${TWO},read-pattern=fifo`,
    `${TWO},read-pattern=quorum`,
    `${TWO},read-pattern=zz`,
    `${TWO},rewrite-corrupted=zz`,
    `${TWO},rewrite-corrupted=on`,
    `${TWO},rewrite-corrupted=on,read-pattern=fifo`,
    `${TWO},foo=1`,
    `${TWO},children.foo=1`,
    `${TWO},children.0.foo=1`,
    `${THREE},vote-threshold=2,blkverify=on`,
    `driver=raw,${`${TWO}`.split(",").map((item) => `file.${item}`).join(",")}`,
  ].map((list) => `info --image-opts ${list}`),
  { given: IMAGES },
);

sameForEach("quorum votes", [
  `compare --image-opts ${THREE},vote-threshold=1 driver=raw,file.filename=a`,
  `compare --image-opts ${THREE},vote-threshold=2 driver=raw,file.filename=a`,
  `compare --image-opts ${THREE},vote-threshold=3 driver=raw,file.filename=a`,
  `compare --image-opts ${THREE},vote-threshold=3,read-pattern=fifo driver=raw,file.filename=a`,
  `compare --image-opts driver=quorum,${
    members("a", "c")
  },vote-threshold=1 driver=raw,file.filename=a`,
  `compare --image-opts driver=quorum,${
    members("a", "c")
  },vote-threshold=1 driver=raw,file.filename=c`,
  `compare --image-opts driver=quorum,${
    members("c", "a")
  },vote-threshold=1,read-pattern=fifo driver=raw,file.filename=c`,
  `map --image-opts ${TWO}`,
  `map --output=json --image-opts ${TWO}`,
  `map --output=json --image-opts driver=quorum,${members("a", "z")},vote-threshold=1`,
  `measure -O qcow2 --image-opts ${THREE},vote-threshold=2`,
  `check --image-opts ${TWO}`,
  `resize --image-opts ${TWO} 2M`,
  `snapshot -l --image-opts ${TWO}`,
  "create -f quorum x 1M",
], { given: IMAGES });

for (const threshold of [2, 3]) {
  const code = threshold === 2 ? 0 : 1;
  same(`quorum copies what ${threshold} of three say`, {
    given: IMAGES,
    run: `convert -O raw --image-opts ${THREE},vote-threshold=${threshold} t`,
    code,
    ...(code === 0 ? { images: [{ name: "t", format: "raw" }] } : { leftByReference: ["t"] }),
  });
}

for (
  const [name, list] of [
    ["all members are written", `${THREE},vote-threshold=3`],
    [
      "one of three may fail",
      "driver=quorum,children.0.driver=raw,children.0.file.filename=a," +
      "children.1.driver=raw,children.1.file.filename=c," +
      "children.2.driver=blkdebug,children.2.image.filename=b," +
      "children.2.inject-error.0.event=none,children.2.inject-error.0.iotype=write," +
      "vote-threshold=2",
    ],
  ] as const
) {
  same(`quorum as a target: ${name}`, {
    given: [...IMAGES, ioAs("raw", "z", "write -P 4 64k 128k")],
    run: `convert -n --target-image-opts z ${list}`,
    code: 0,
    images: ["a", "c", "b"].map((image) => ({ name: image, format: "raw" })),
  });
}

same("quorum as a target: two of three fail", {
  given: [...IMAGES, ioAs("raw", "z", "write -P 4 64k 64k")],
  run:
    "convert -n --target-image-opts z driver=quorum,children.0.driver=raw,children.0.file.filename=a," +
    [1, 2].map((i) =>
      `children.${i}.driver=blkdebug,children.${i}.image.filename=${["a", "b", "c"][i]},` +
      `children.${i}.inject-error.0.event=none,children.${i}.inject-error.0.iotype=write,` +
      `children.${i}.inject-error.0.errno=28`
    ).join(",") + ",vote-threshold=2",
  code: 1,
});

sameForEach("snapshot-access", [
  "info --image-opts driver=snapshot-access",
  "info --image-opts driver=snapshot-access,file.filename=a",
  "info --image-opts driver=snapshot-access,file.filename=a,foo=1",
  "map --image-opts driver=snapshot-access,file.filename=a",
  "map --output=json --image-opts driver=snapshot-access,file.filename=a",
  "check --image-opts driver=snapshot-access,file.filename=a",
  "compare --image-opts driver=snapshot-access,file.filename=a driver=raw,file.filename=a",
  "convert -n --target-image-opts a driver=snapshot-access,file.filename=b",
  "resize --image-opts driver=snapshot-access,file.filename=a 2M",
  "create -f snapshot-access x 1M",
], { given: IMAGES });

same("snapshot-access has nothing to copy", {
  given: IMAGES,
  run: "convert -O raw --image-opts driver=snapshot-access,file.filename=a t",
  code: 1,
  leftByReference: ["t"],
});
