/** `--image-opts`: what lists can say, what is wrong with them, and that they act. */
import { disk, folder, type Given, img, io, ioAs, same, sameForEach } from "./_cases.ts";

const M = 1024 * 1024;

const IMAGES: readonly Given[] = [
  disk("r", M, [[0, 4096, "noise"], [65536, 65536, "noise"]]),
  disk("s", M, [[0, 4096, "flat"]]),
  img("create -f qcow2 q 1M"),
  io("q", "write -P 7 0 64k", "write -P 8 192k 64k"),
  img("create -f qcow2 -b r -F raw o"),
  img("create -f qcow2 -o compat=0.10 v2 1M"),
  img("create -f qcow2 -o data_file=d1 d 1M"),
  io("d", "write -P 3 64k 64k"),
  disk("d2", M, [[0, 65536, "noise"]]),
];

/** Each list of options behind a command that shows what becomes of it. */
function info(...lists: readonly string[]): string[] {
  return lists.map((list) => `info --image-opts ${list}`);
}
function map(...lists: readonly string[]): string[] {
  return lists.map((list) => `map --output=json --image-opts ${list}`);
}
const qcow2 = (...lists: readonly string[]) =>
  lists.map((list) => `driver=qcow2,file.filename=q,${list}`);
const raw = (...lists: readonly string[]) =>
  lists.map((list) => `driver=raw,file.filename=r,${list}`);

sameForEach("image options, the tree", [
  ...info(
    "r",
    "file=r",
    "file.filename=r",
    "file.filename=q",
    "driver=raw",
    "driver=raw,r",
    "driver=raw,filename=r",
    "filename=r",
    "driver=file",
    "driver=file,filename=r",
    "driver=file,filename=r,offset=1",
    "driver=nope,file.filename=r",
    "file.driver=nope,file.filename=r",
    "driver=",
    "file.driver=file",
    "driver=qcow2,file.filename=r",
    "file.driver=raw,file.file.filename=r",
    "driver=qcow2,file.driver=raw,file.file.filename=q",
    "driver=raw,file.driver=qcow2,file.file.filename=q",
    "driver=qcow2,file=q,file.filename=q",
    "file.filename=none",
    "file.filename=",
    "file.filename=x,,y",
    "file.filename=file:r",
    "file.filename=json:{}",
    "file.driver=host_device,file.filename=r",
    "help",
    "driver=qcow2,help",
    ",",
    "id=x,file.filename=r",
    "id=1,file.filename=r",
    "driver=qcow2,,file.filename=q",
  ),
], { given: IMAGES });

sameForEach("image options of all nodes", [
  ...info(
    ...qcow2(
      "foo=1,bar=2,zoo=3",
      "file.foo=1,file.bar=2",
      "read-only",
      "noread-only",
      "x-foo",
      "read-only=maybe",
      "read-only=off",
      "auto-read-only=zz",
      "active=off",
      "active=zz",
      "force-share=on",
      "force-share=zz",
      "node-name=1a",
      "node-name=n,file.node-name=n",
      "node-name=abcdefghijabcdefghijabcdefghijab",
      "discard=zz",
      "discard=on",
      "detect-zeroes=zz",
      "detect-zeroes=unmap",
      "detect-zeroes=unmap,discard=unmap",
      "cache.direct=on",
      "cache.no-flush=maybe",
      "cache.foo=on",
      "cache=none",
      "file.locking=off",
      "file.locking=zz",
      "file.aio=zz",
      "file.aio=native",
      "file.aio=io_uring",
      "file.aio-max-batch=x",
      "file.drop-cache=x",
      "file.pr-manager=x",
    ),
    ...raw("foo=1", "backing=x", "backing.filename=s", "data-file.filename=s", "read-only=off"),
    "file.filename=r,read-only=off",
  ),
  "info -U --image-opts driver=raw,file.filename=r,force-share=off",
  "info -U --image-opts driver=raw,file.filename=r,force-share=yes",
  "info -U --image-opts driver=raw,file.filename=r,force-share=on",
  "info -f raw --image-opts driver=raw,file.filename=r",
  "info --output=json --image-opts driver=raw,offset=512,file.filename=r",
], { given: IMAGES });

sameForEach("image options of raw", [
  ...map(
    ...raw(
      "offset=x",
      "offset=-1",
      "offset=16E",
      "offset=2M",
      "offset=512",
      "offset=0,size=0x200",
      "offset=1k,size=4k",
      "size=513",
      "size=2M",
      "offset=512,size=1M",
    ),
  ),
  ...info(...raw("offset=1k,size=4k", "offset=0")),
  "map --image-opts driver=raw,file.filename=r,offset=512",
  "resize --image-opts driver=raw,file.filename=r,size=512 2M",
  "resize --image-opts driver=raw,file.filename=r,offset=512 2M",
], { given: IMAGES });

sameForEach("image options of qcow2", [
  ...info(
    ...qcow2(
      "lazy-refcounts=zz",
      "lazy-refcounts=on",
      "pass-discard-request=zz",
      "discard-no-unref=zz",
      "overlap-check=zz",
      "overlap-check=all,overlap-check.template=none",
      "overlap-check.main-header=zz",
      "overlap-check.foo=on",
      "cache-size=x",
      "cache-size=1M,l2-cache-size=2M",
      "cache-size=1M,refcount-cache-size=2M",
      "cache-size=1M,l2-cache-size=1M,refcount-cache-size=1M",
      "cache-size=0",
      "l2-cache-size=8E",
      "l2-cache-entry-size=256",
      "l2-cache-entry-size=768",
      "l2-cache-entry-size=512",
      "l2-cache-entry-size=128k",
      "cache-clean-interval=x",
      "cache-clean-interval=5000000000",
      "cache-clean-interval=-1",
      "cache-clean-interval=99999999999999999999",
      "encrypt.format=aes",
      "encrypt.key-secret=x",
      "encrypt.foo=1",
      "encrypt=x",
      "data-file=x",
      "backing=",
      "backing=x",
      "backing.driver=raw",
    ),
    "driver=qcow2,file.filename=v2,lazy-refcounts=on",
    "driver=qcow2,file.filename=v2,discard-no-unref=on",
    "driver=qcow2,file.filename=d,data-file.filename=none",
  ),
], { given: IMAGES });

const d = (...lists: readonly string[]) =>
  lists.map((list) => `driver=qcow2,file.filename=d,${list}`);
const o = (...lists: readonly string[]) =>
  lists.map((list) => `driver=qcow2,file.filename=o,${list}`);

sameForEach("image options of children", [
  ...map(
    ...d(
      "data-file.filename=d2",
      "data-file.driver=file,data-file.filename=d2",
      "data-file.driver=raw,data-file.offset=512,data-file.file.filename=d2",
      "data-file.filename=none",
      "data-file.foo=1",
      "data-file.filename=d2,data-file.foo=1",
    ),
    ...qcow2("data-file.filename=d2", "data-file=zz", "backing.driver=raw", "backing.foo=1"),
    ...o(
      "backing=",
      "backing=nn",
      "backing.filename=r",
      "backing.driver=file",
      "backing.driver=file,backing.filename=s",
      "backing.driver=raw,backing.file.filename=s",
      "backing.driver=raw,backing.offset=64k,backing.file.filename=r",
      "backing.file.filename=q",
      "backing.driver=qcow2,backing.file.filename=q",
      "backing.file.filename=none",
      "backing.file.driver=file",
      "backing.read-only=off",
      "backing.foo=1",
      "backing=,backing.file.filename=q",
      "file.node-name=fn,backing=fn",
    ),
    ...raw("backing.foo=1", "backing=x"),
  ),
  "map --image-opts driver=qcow2,file.filename=o,backing.driver=raw,backing.file.filename=s",
], { given: IMAGES });

sameForEach("image options in commands", [
  "compare --image-opts driver=raw,file.filename=r driver=raw,file.filename=s",
  "compare --image-opts driver=raw,file.filename=r driver=raw,file.filename=r,file.locking=off",
  "compare --image-opts driver=raw,file.filename=r,size=4k driver=raw,file.filename=r,size=4k",
  "compare --image-opts driver=raw,file.filename=r s",
  "compare --image-opts driver=raw,file.filename=r,node-name=n n",
  "compare --image-opts driver=raw,file.filename=r,node-name=n file=n",
  "compare --image-opts driver=raw,file.filename=r,node-name=n driver=raw,file.filename=s,node-name=n",
  "compare --image-opts -f raw driver=raw,file.filename=r driver=raw,file.filename=s",
  "compare --image-opts -F raw driver=raw,file.filename=r driver=raw,file.filename=s",
  "convert --image-opts r t",
  "convert --image-opts -f raw driver=raw,file.filename=r t",
  "convert --target-image-opts r driver=raw,file.filename=s",
  "convert --target-image-opts -o help",
  "convert -n --target-image-opts -o help r s",
  "convert -n --target-image-opts -O raw r driver=raw,file.filename=s",
  "convert -n --target-image-opts r driver=qcow2,read-only=on,file.filename=q",
  "convert -n --target-image-opts r driver=raw,file.read-only=on,file.filename=s",
  "convert -n --target-image-opts r driver=raw,file.filename=none",
  "convert -n --target-image-opts r driver=raw,file.filename=r",
  "dd --image-opts -f raw if=driver=raw,file.filename=r of=t",
  "dd --image-opts if=r of=t",
  "measure --image-opts",
  "measure --image-opts --size 1M",
  "measure --image-opts -f raw driver=raw,file.filename=r",
  "measure -O qcow2 --image-opts driver=raw,file.filename=r,size=128k",
  "check --image-opts driver=qcow2,file.filename=o",
  "check --output json --image-opts driver=qcow2,file.filename=o",
  "check --image-opts driver=raw,file.filename=r",
  "check -r all --image-opts driver=qcow2,read-only=on,file.filename=q",
  "check -U -r all --image-opts driver=qcow2,file.filename=q",
  "resize --image-opts driver=qcow2,read-only=on,file.filename=q 2M",
  "resize --image-opts driver=qcow2,file.read-only=on,file.filename=q 2M",
  "resize --image-opts driver=raw,file.filename=r,force-share=on 2M",
  "resize --image-opts -f raw r 2M",
  "create --image-opts r 1M",
  "snapshot -c one --image-opts driver=qcow2,file.filename=q,read-only=on",
  "commit --image-opts driver=qcow2,file.filename=o,backing=",
  "rebase -u -F raw -b s --image-opts driver=qcow2,file.filename=o,backing=",
], { given: IMAGES });

for (
  const [name, run, images] of [
    [
      "a window of a source",
      "convert -O qcow2 --image-opts driver=raw,file.filename=r,offset=512,size=64k t",
      "t",
    ],
    [
      "sources that are windows",
      "convert --image-opts driver=raw,file.filename=r,size=512 driver=raw,file.filename=s,offset=0,size=1k t",
      "t",
    ],
    [
      "a source without its backing file",
      "convert --image-opts driver=qcow2,file.filename=o,backing= t",
      "t",
    ],
    [
      "a source over another backing file",
      "convert --source-image-opts driver=qcow2,file.filename=o,backing.driver=raw,backing.file.filename=s t",
      "t",
    ],
    [
      "a window of the target",
      "convert -n --target-image-opts r driver=raw,file.filename=big,offset=512k",
      "big",
    ],
    [
      "a target with another data file",
      "convert -n --target-image-opts r driver=qcow2,file.filename=d,data-file.filename=d2",
      "d2",
    ],
    [
      "dd of a window",
      "dd bs=1k count=8 --image-opts if=driver=raw,file.filename=r,offset=64k,size=64k of=t",
      "t",
    ],
    ["resize of a node without a format", "resize --image-opts driver=file,filename=r 2M", "r"],
  ] as const
) {
  same(`image options act: ${name}`, {
    given: [...IMAGES, disk("big", 2 * M, [[0, 2 * M, "flat"]])],
    run,
    images: [{ name: images, format: run.includes("qcow2 --image") ? "qcow2" : "raw" }],
  });
}

const TARGET: readonly Given[] = [
  disk("z", M, [[0, 65536, "noise"], [131072, 131072, "zeros"], [524288, 4096, "noise"]]),
  img("create -f qcow2 t 1M"),
  io("t", "write -P 9 0 1M"),
];

for (
  const options of [
    "lazy-refcounts=on",
    "lazy-refcounts=on,discard=unmap",
    "discard=unmap",
    "discard=ignore",
    "discard=unmap,pass-discard-request=off",
    "discard=unmap,discard-no-unref=on",
    "detect-zeroes=on",
    "detect-zeroes=unmap,discard=unmap",
    "overlap-check=none",
    "overlap-check=all",
    "cache.no-flush=on",
    "cache.direct=on,file.cache.direct=off",
  ]
) {
  for (const sparse of ["", "-S 0 "]) {
    same(`image options act on a qcow2 target: ${sparse}${options}`, {
      given: TARGET,
      run: `convert -n ${sparse}--target-image-opts z driver=qcow2,file.filename=t,${options}`,
      images: [{ name: "t", format: "qcow2", check: true }],
    });
  }
}

for (const detect of ["detect-zeroes=on", "detect-zeroes=unmap,discard=unmap", "discard=unmap"]) {
  same(`image options act on a raw target: ${detect}`, {
    given: [...TARGET, ioAs("raw", "z", "read 0 512"), disk("u", M, [[0, M, "flat"]])],
    run: `convert -n -S 0 --target-image-opts z driver=raw,file.filename=u,${detect}`,
    images: ["u"],
  });
}

for (const options of ["pass-discard-snapshot=off", "pass-discard-other=on"]) {
  same(`image options act when a snapshot is deleted: ${options}`, {
    given: [
      img("create -f qcow2 t 1M"),
      io("t", "write -P 9 0 512k"),
      img("snapshot -c one t"),
      io("t", "write -P 1 0 512k"),
    ],
    run: `snapshot -d one --image-opts driver=qcow2,file.filename=t,${options}`,
    files: ["t"],
  });
}

same("names in an image are relative to its lowest file", {
  given: [
    folder("sub"),
    img("create -f raw sub/base 1M"),
    img("create -f qcow2 -b base -F raw sub/o"),
  ],
  run:
    "map --output=json --image-opts driver=qcow2,file.driver=raw,file.offset=0,file.file.filename=sub/o",
});

same("info shows where such names lead", {
  given: [
    folder("sub"),
    img("create -f raw sub/base 1M"),
    img("create -f qcow2 -b base -F raw sub/o"),
  ],
  run: "info --backing-chain --image-opts driver=qcow2,file.filename=sub/o",
});
