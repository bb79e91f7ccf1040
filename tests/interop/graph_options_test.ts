/** Trees of nodes in `json:` names and `--image-opts` lists, with filters in them: both tools do the same. */
import { disk, type Given, img, io, ioAs, same } from "./_cases.ts";

const M = 1024 * 1024;

const IMAGES: readonly Given[] = [
  disk("r", M, [[0, 4096, "noise"], [65536, 65536, "noise"]]),
  img("create -f qcow2 q 1M"),
  io("q", "write -P 7 64k 128k"),
  img("create -f qcow2 -b q -F qcow2 o 2M"),
  io("o", "write -P 8 0 64k"),
  img("create -f vmdk v 1M"),
  ioAs("vmdk", "v", "write -P 9 0 64k"),
  img("create -f qed e 1M"),
  img("create -f vdi d 1M"),
];

const GROUP = ["--object", "throttle-group,id=x,x-bps-total=1000000000"];

/** Lists of options, each of which is looked at. */
const INFO: readonly string[] = [
  // Filters over every kind of node.
  "driver=preallocate,file.filename=r",
  "driver=preallocate,file.driver=file,file.filename=r",
  "driver=preallocate,file.driver=raw,file.file.filename=r",
  "driver=preallocate,file.driver=qcow2,file.file.filename=q",
  "driver=preallocate,file.driver=qcow2,file.file.filename=o",
  "driver=preallocate,file.driver=vmdk,file.file.filename=v",
  "driver=preallocate,file.driver=qed,file.file.filename=e",
  "driver=preallocate,file.driver=vdi,file.file.filename=d",
  "driver=preallocate,file.driver=null-co",
  "driver=preallocate,file.driver=preallocate,file.file.driver=qcow2,file.file.file.filename=o",
  "driver=qcow2,file.driver=preallocate,file.file.filename=q",
  "driver=qcow2,file.driver=preallocate,file.file.filename=o",
  "driver=raw,file.driver=preallocate,file.file.filename=q",
  "driver=raw,offset=512,size=1024,file.driver=preallocate,file.file.filename=q",
  "driver=throttle,throttle-group=x,file.filename=r",
  "driver=throttle,throttle-group=x,file.driver=qcow2,file.file.filename=o",
  "driver=qcow2,file.driver=throttle,file.throttle-group=x,file.file.filename=q",
  "driver=compress,file.driver=qcow2,file.file.filename=o",
  "driver=compress,file.driver=vmdk,file.file.filename=v",
  "driver=copy-on-read,read-only=off,file.driver=qcow2,file.file.filename=o",
  "driver=copy-on-read,file.read-only=off,file.driver=qcow2,file.file.filename=o",
  "driver=copy-on-read,file.read-only=off,file.driver=qcow2,file.file.filename=o,file.node-name=a,bottom=a",
  "driver=copy-on-read,file.read-only=off,file.driver=qcow2,file.file.filename=o,file.backing.node-name=a,bottom=a",
  // What is below a node is there for good.
  "driver=raw,file.driver=qcow2,file.file.filename=o",
  "driver=raw,file.driver=raw,file.file.driver=qcow2,file.file.file.filename=o",
  "driver=raw,file.driver=raw,file.file.driver=raw,file.file.file.filename=r",
  "driver=raw,file.driver=qcow2,file.file.filename=o,file.backing.driver=null-co",
  "driver=raw,file.driver=qcow2,file.file.filename=o,file.backing.driver=qcow2,file.backing.file.filename=q",
  "driver=raw,size=64k,file.driver=qcow2,file.file.filename=o",
  "driver=raw,file.driver=qed,file.file.filename=e",
  "driver=qed,file.driver=raw,file.file.filename=e",
  "driver=vdi,file.driver=raw,file.file.filename=d",
  "driver=vmdk,file.driver=raw,file.file.filename=v",
  // What stores nothing.
  "driver=null-co",
  "driver=null-aio",
  "driver=null-co,size=0",
  "driver=null-co,size=700",
  "driver=null-aio,size=1M,read-zeroes=on",
  "driver=null-co,read-zeroes=off",
  "driver=null-co,latency-ns=1",
  "driver=raw,file.driver=null-co",
  "driver=raw,file.driver=null-co,file.size=700",
  "driver=raw,size=512,file.driver=null-co",
  // Wrong ones.
  "driver=preallocate",
  "driver=throttle",
  "driver=compress",
  "driver=copy-on-read",
  "driver=preallocate,file.filename=none",
  "driver=preallocate,file=none",
  "driver=preallocate,file.driver=none",
  "driver=preallocate,file.filename=r,foo=1",
  "driver=preallocate,file.filename=r,prealloc-align=700",
  "driver=preallocate,file.filename=r,prealloc-align=4k,prealloc-size=1",
  "driver=preallocate,file.driver=qcow2,file.file.filename=q,backing.driver=null-co",
  "driver=preallocate,file.driver=qcow2,file.file.filename=r",
  "driver=throttle,file.filename=r",
  "driver=throttle,throttle-group=y,file.filename=r",
  "driver=throttle,throttle-group=x,file.filename=r,limits.iops-total=4",
  "driver=compress,file.filename=q",
  "driver=compress,file.driver=raw,file.file.filename=q",
  "driver=compress,file.driver=vdi,file.file.filename=d",
  "driver=compress,file.driver=preallocate,file.file.driver=qcow2,file.file.file.filename=q",
  "driver=compress,file.driver=throttle,file.throttle-group=x,file.file.driver=qcow2,file.file.file.filename=q",
  "driver=copy-on-read,file.driver=qcow2,file.file.filename=o",
  "driver=copy-on-read,file.filename=r",
  "driver=copy-on-read,read-only=off,file.driver=qcow2,file.file.filename=o,bottom=none",
  "driver=null-co,foo=1",
  "driver=null-co,filename=null-co://",
  "driver=null-co,latency-ns=-1",
  "driver=null-co,file.filename=r",
  "driver=qcow2,file.driver=null-co",
  "driver=qcow2,file.driver=qcow2,file.file.filename=q",
  "driver=qcow2,file.driver=compress,file.file.filename=q",
  "driver=host_cdrom",
  "driver=host_cdrom,filename=r",
  "driver=host_cdrom,filename=none",
  "driver=host_cdrom,filename=/dev/null",
  "driver=raw,file.driver=host_cdrom,file.filename=/dev/null",
];

for (const list of INFO) {
  same(`info --image-opts ${list}`, {
    given: IMAGES,
    run: ["info", ...GROUP, "--image-opts", list],
  });
}

/** The same as JSON texts, whose values need not be texts. */
const JSON_NAMES: readonly string[] = [
  '{"driver":"preallocate","file":{"driver":"qcow2","file":{"filename":"o"}}}',
  '{"driver":"preallocate","prealloc-align":4096,"prealloc-size":65536,"file":{"filename":"r"}}',
  '{"driver":"preallocate","prealloc-align":513,"file":{"filename":"r"}}',
  '{"driver":"throttle","throttle-group":"x","file":{"driver":"qcow2","file.filename":"o"}}',
  '{"driver":"throttle","throttle-group":5,"file":{"filename":"r"}}',
  '{"driver":"throttle","throttle-group":null,"file":{"filename":"r"}}',
  '{"driver":"compress","file":{"driver":"qcow2","file":{"filename":"q"}}}',
  '{"driver":"null-co","size":1024,"read-zeroes":true}',
  '{"driver":"null-aio","size":1024.0}',
  '{"driver":"raw","file":{"driver":"null-co","size":65536},"offset":512}',
  '{"driver":"raw","file":{"driver":"qcow2","backing":null,"file":{"filename":"o"}}}',
  '{"driver":"raw","file":{"driver":"qcow2","backing":{"driver":"null-co"},"file":{"filename":"o"}}}',
  '{"driver":"preallocate","file":["r"]}',
  '{"driver":"preallocate","file":{}}',
];
for (const text of JSON_NAMES) {
  same(`info json:${text}`, { given: IMAGES, run: ["info", ...GROUP, `json:${text}`] });
}

/** What filters and windows show of the data. */
const MAPS: readonly string[] = [
  "driver=preallocate,file.driver=qcow2,file.file.filename=o",
  "driver=throttle,throttle-group=x,file.driver=qcow2,file.file.filename=o",
  "driver=compress,file.driver=qcow2,file.file.filename=o",
  "driver=copy-on-read,file.read-only=off,file.driver=qcow2,file.file.filename=o",
  "driver=qcow2,file.driver=throttle,file.throttle-group=x,file.file.filename=o",
  "driver=preallocate,file.driver=raw,file.file.filename=r",
  "driver=raw,file.driver=qcow2,file.file.filename=q",
  "driver=raw,offset=64k,file.driver=qcow2,file.file.filename=q",
  "driver=raw,offset=64k,size=128k,file.filename=r",
  "driver=null-co,size=1M",
  "driver=null-co,size=1M,read-zeroes=on",
  "driver=raw,file.driver=null-co,file.size=1M",
];
for (const list of MAPS) {
  same(`map --image-opts ${list}`, {
    given: IMAGES,
    run: ["map", "--output=json", ...GROUP, "--image-opts", list],
  });
}

/** What a copy of it is. */
const SOURCES: readonly string[] = [
  "driver=preallocate,file.driver=qcow2,file.file.filename=o",
  "driver=throttle,throttle-group=x,file.driver=qcow2,file.file.filename=o",
  "driver=compress,file.driver=qcow2,file.file.filename=o",
  "driver=qcow2,file.driver=throttle,file.throttle-group=x,file.file.filename=o",
  "driver=raw,file.driver=qcow2,file.file.filename=o",
  "driver=raw,offset=64k,size=128k,file.driver=qcow2,file.file.filename=o",
  "driver=raw,offset=1000,file.filename=r",
  "driver=null-co,size=1M,read-zeroes=on",
];
for (const list of SOURCES) {
  same(`convert --image-opts ${list}`, {
    given: IMAGES,
    run: ["convert", "-O", "qcow2", ...GROUP, "--image-opts", list, "t"],
    images: ["t"],
  });
}

same("copy-on-read stores what is read", {
  given: IMAGES,
  run: [
    "convert",
    "-O",
    "raw",
    "--image-opts",
    "driver=copy-on-read,file.read-only=off,file.driver=qcow2,file.file.filename=o",
    "t",
  ],
  images: [{ name: "t", format: "raw" }, "o"],
});

/** Copies onto nodes that are there. */
const TARGETS: Readonly<Record<string, string>> = {
  "driver=preallocate,file.driver=qcow2,file.file.filename=q": "q",
  "driver=throttle,throttle-group=x,file.driver=qcow2,file.file.filename=q": "q",
  "driver=copy-on-read,file.driver=qcow2,file.file.filename=o": "o",
  "driver=qcow2,file.driver=preallocate,file.file.filename=q": "q",
  "driver=qcow2,file.driver=throttle,file.throttle-group=x,file.file.filename=q": "q",
  "driver=raw,file.driver=qcow2,file.file.filename=q": "q",
  "driver=raw,offset=64k,file.driver=qcow2,file.file.filename=o": "o",
};
for (const [list, image] of Object.entries(TARGETS)) {
  same(`convert --target-image-opts ${list}`, {
    given: IMAGES,
    run: ["convert", "-n", ...GROUP, "--target-image-opts", "-f", "raw", "r", list],
    images: [image],
  });
}

/** Everything else that is done to images, to what is below filters. */
const FILTERED = "driver=preallocate,file.driver=qcow2,file.file.filename=";
for (
  const [run, images] of [
    [["resize", "--image-opts", `${FILTERED}q`, "3M"], ["q"]],
    [["commit", "--image-opts", `${FILTERED}o`], ["o", "q"]],
    [["commit", "-d", "--image-opts", `${FILTERED}o`], ["o", "q"]],
    [["snapshot", "-l", "--image-opts", `${FILTERED}q`], []],
    [["check", "--image-opts", `${FILTERED}q`], []],
    [["amend", "-o", "lazy_refcounts=on", "--image-opts", `${FILTERED}q`], ["q"]],
    [["measure", "-O", "qcow2", "--image-opts", `${FILTERED}q`], []],
    [["compare", "--image-opts", `${FILTERED}q`, "driver=qcow2,file.filename=q"], []],
    [["resize", "--image-opts", "driver=null-co", "2G"], []],
    [["create", "-f", "throttle", "t", "1M"], []],
    [["create", "null-co://", "1M"], []],
    [["convert", "-n", "-f", "raw", "r", "null-co://"], []],
    [["info", "null-co://"], []],
    [["info", "null-co:x"], []],
    [["info", "-b", "--image-opts", `${FILTERED}o`], []],
    [["info", "-f", "preallocate", "q"], []],
    [["info", "-f", "throttle", "q"], []],
    [["bitmap", "--remove", "--image-opts", `${FILTERED}q`, "b"], ["q"]],
    [["rebase", "--image-opts", `${FILTERED}o`, "-u", "-b", "r", "-F", "raw"], ["o"]],
    [["rebase", "--image-opts", `${FILTERED}o`, "-b", "r", "-F", "raw"], ["o"]],
    [["rebase", "--image-opts", `${FILTERED}o`, "-b", ""], ["o"]],
    [["commit", "-b", "q", "--image-opts", `${FILTERED}o`], ["o", "q"]],
    [["snapshot", "-a", "s", "--image-opts", `${FILTERED}q`], ["q"]],
    [["snapshot", "-d", "s", "--image-opts", `${FILTERED}q`], ["q"]],
    [["convert", "-l", "s", "--image-opts", `${FILTERED}q`, "t"], []],
    [[
      "convert",
      "-l",
      "s",
      "--image-opts",
      "driver=raw,file.driver=qcow2,file.file.filename=q",
      "t",
    ], []],
    [["dd", "--image-opts", `if=${FILTERED}q`, "of=t", "bs=64k"], []],
    [
      [
        "resize",
        "--image-opts",
        "driver=copy-on-read,file.driver=qcow2,file.file.filename=o",
        "3M",
      ],
      ["o"],
    ],
    [[
      "resize",
      "--preallocation=full",
      "--image-opts",
      "driver=preallocate,file.driver=raw,file.file.filename=r",
      "3M",
    ], []],
    [[
      "resize",
      "--shrink",
      "--image-opts",
      "driver=raw,file.driver=preallocate,file.file.filename=r",
      "64k",
    ], []],
    [[
      "compare",
      "--image-opts",
      "driver=copy-on-read,file.read-only=off,file.driver=qcow2,file.file.filename=o",
      "driver=raw,file.filename=r",
    ], []],
  ] as const
) {
  same(run.join(" "), { given: IMAGES, run, images: [...images] });
}

/** Definitions of throttle groups, good and bad. */
const GROUPS: readonly string[] = [
  "limits.iops-total=5",
  "limits.iops-total=-5",
  "limits.iops-total=abc",
  "limits.iops-total-max-length=0",
  "limits.iops-size=5",
  "limits.bps-total-max-length=99999999999",
  "limits.bps-total.x=5",
  "limits.foo=5",
  "limits=5",
  "x-iops-total=0x10",
  "x-iops-total=09",
  "x-iops-total=-1",
  "x-iops-total=1k",
  "x-iops-total-max=5",
  "x-iops-total=5,x-iops-total-max=3",
  "x-iops-total=5,x-iops-total-max-length=3",
  "x-bps-total=1,x-bps-read=5",
  "x-bps-total=1000000000000001",
  "x-bps-total=5,x-bps-total-max=9,x-bps-total-max-length=5000000000",
  "x-bps-total=5,x-bps-total-max=900000000000,x-bps-total-max-length=500000",
  "foo=1",
];
for (const limits of GROUPS) {
  same(`a throttle group: ${limits}`, {
    run: [
      "info",
      "--object",
      `throttle-group,id=x,${limits}`,
      "--image-opts",
      "driver=throttle,throttle-group=x,file.driver=null-co",
    ],
  });
}
for (
  const limits of [
    '"limits":{"iops-total":5}',
    '"limits":{"iops-total":"5"}',
    '"x-iops-total":5',
    '"x-iops-total":5.5',
    '"limits":5',
  ]
) {
  same(`a throttle group: ${limits}`, {
    run: [
      "info",
      "--object",
      `{"qom-type":"throttle-group","id":"x",${limits}}`,
      "--image-opts",
      "driver=throttle,throttle-group=x,file.driver=null-co",
    ],
  });
}
