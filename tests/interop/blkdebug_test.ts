/** blkdebug: options, files with rules, limits, and that requests fail when they should. */
import { disk, type Given, img, io, ioAs, same, sameForEach, text } from "./_cases.ts";

const M = 1024 * 1024;

const IMAGES: readonly Given[] = [
  disk("r", M, [[0, 65536, "noise"], [262144, 4096, "noise"]]),
  disk("s", M, [[0, M, "flat"]]),
  disk("one", M, [[0, 327680, "noise"]]),
  img("create -f qcow2 q 1M"),
  io("q", "write -P 7 0 64k", "write -P 8 192k 64k"),
  img("create -f qcow2 -b q -F qcow2 o"),
  text("empty", ""),
  text("read", '[inject-error]\nevent = "read_aio"\nerrno = "28"\n'),
];

const info = (...lists: readonly string[]) =>
  lists.map((list) => `info --image-opts driver=blkdebug,image.filename=r,${list}`);

sameForEach("blkdebug by name", [
  "info blkdebug::r",
  "info --output=json blkdebug:read:r",
  "info blkdebug:empty:q",
  "info blkdebug::o",
  "info blkdebug:r",
  "info blkdebug:",
  "info blkdebug:none:r",
  "info blkdebug:.:r",
  "info blkdebug::none",
  "info blkdebug::blkdebug::r",
  "info blkdebug::file:r",
  "map blkdebug::r",
  "map --output=json blkdebug::q",
  "map --output=json blkdebug::o",
  "check blkdebug::q",
  "measure -O qcow2 blkdebug::r",
  "compare blkdebug::r r",
  "compare blkdebug:read:r r",
  "create -f raw blkdebug::t 1M",
  "create -f qcow2 blkdebug::t 1M",
  "create -f blkdebug t 1M",
  "convert -O qcow2 r blkdebug::t",
  "convert -O blkdebug r t",
  "resize -f raw blkdebug::r 2M",
  "resize blkdebug::q 2M",
  "snapshot -c one blkdebug::q",
], { given: IMAGES });

sameForEach("blkdebug's options", [
  "info --image-opts driver=blkdebug",
  "info --image-opts driver=blkdebug,filename=r",
  "info --image-opts driver=blkdebug,x-image=r",
  "info --image-opts driver=blkdebug,x-image=q,image.driver=qcow2",
  "info --image-opts driver=blkdebug,image=none",
  "info --image-opts driver=qcow2,file.driver=blkdebug,file.image.filename=q",
  "info --image-opts driver=qcow2,file.driver=blkdebug,file.config=empty,file.image.filename=q",
  'info json:{"driver":"raw","file":{"driver":"blkdebug","image":{"driver":"file","filename":"r"},' +
  '"inject-error":[{"event":"write_aio","errno":5,"once":true}],' +
  '"set-state":[{"event":"read_aio","state":1,"new_state":2}],"align":4096}}',
  ...info(
    "config=empty",
    "config=",
    "config=none",
    "config=empty,align=512",
    "x-image=r",
    "foo=1",
    "align=512",
    "align=513",
    "align=-1",
    "align=x",
    "align=2G",
    "align=1G",
    "max-transfer=5",
    "max-transfer=4k",
    "align=512,max-transfer=1000",
    "max-transfer=5000000000",
    "align=512,opt-write-zero=3",
    "align=512,opt-write-zero=1k,max-write-zero=1536",
    "align=512,opt-discard=1000",
    "align=512,opt-discard=1k,max-discard=1536",
    "opt-write-zero=2147483647",
    "opt-write-zero=3,max-write-zero=9",
    "max-discard=2147483646",
    "max-discard=2147483648",
    "inject-error.event=none,inject-error.iotype=write",
    "inject-error.0.event=none,inject-error.0.iotype=write",
    "inject-error.0.event=l1_grow_alloc_table",
    "inject-error.0.event=zz",
    "inject-error.0.event=READ_AIO",
    "inject-error.0.errno=5",
    "inject-error.0.event=none,inject-error.0.errno=x",
    "inject-error.0.event=none,inject-error.0.iotype=zz",
    "inject-error.0.event=none,inject-error.0.once=zz",
    "inject-error.0.event=none,inject-error.0.immediately=zz",
    "inject-error.0.event=none,inject-error.0.sector=-1",
    "inject-error.0.event=none,inject-error.0.sector=x",
    "inject-error.0.event=none,inject-error.0.foo=1",
    "inject-error.0.event=none,inject-error.0.id=x",
    "inject-error.0.event.x=1",
    "inject-error.1.event=none",
    "inject-error.0=x",
    "inject-error.foo=1",
    "inject-error.event=none,inject-error.foo=1",
    "inject-error.event=none,inject-error.0.event=none",
    "inject-error.0.event=none,inject-error.2.event=none",
    "inject-error=x",
    "set-state.0.event=none,set-state.0.new_state=2",
    "set-state.0.event=none,set-state.0.state=x",
    "set-state.0.event=none,set-state.0.errno=1",
    "set-state.0.new_state=2",
    "suspend.0.event=none",
  ),
], { given: IMAGES });

const FILES: readonly string[] = [
  "foo",
  "[foo]\n",
  "[inject-error]\n",
  "[inject-error]\nevent=read_aio\n",
  '[inject-error]\nevent = "zz"\n',
  '[inject-error]\nfoo = "1"\n',
  '[inject-error "id"]\nevent = "l1_update"\n',
  '# hi\n\n[set-state]\nevent = "none"\nnew_state = "2"\n',
  '[set-state]\nevent = "none"\nstate = "x"\n',
  '[inject-error]\nevent = "none"\nevent = "l1_update"\n',
  'event = "none"\n',
  '[inject-error]\n  event = "none" \n',
  '[inject-error]\nevent = "none"\nonce = "zz"\n',
  '[inject-error \nevent = "none"\n',
  '[suspend]\nevent = "none"\n',
  '[inject-error]\nevent =   "l1_update" # x',
  '[inject-error]\nevent = ""\n',
  '[inject-error]\nevent = "none"\nerrno = ""\n',
  " [inject-error]\n",
  "[ inject-error]\n",
  '[inject-error "i d"]\nevent = "none"\n',
  '[inject-error "x"]\nevent = "none"\n[inject-error "x"]\nevent = "none"\n',
  '[inject-error "x"]\nevent = "l1_update"\n[set-state "x"]\nevent = "none"\n',
  "[inject-error]x\n",
  '[inject-error]\nid = "x"\nevent = "none"\n',
  "[inject-error]\n   \n",
  '[inject-error]\r\nevent = "none"\r\n',
  '[inject-error]\nevent = "none"\n[foo]\nparse error here\n',
  "[inject-error]\n[foo]\n",
];

for (const file of FILES) {
  same(`blkdebug's file with rules: ${JSON.stringify(file)}`, {
    given: [...IMAGES, text("c", file)],
    run: "info blkdebug:c:r",
  });
}

const raw = (file: string, rules: string) =>
  `driver=raw,file.driver=blkdebug,file.image.filename=${file},` +
  rules.split(",").map((rule) => `file.${rule}`).join(",");

sameForEach(
  "blkdebug fails reads",
  [
    "none",
    "read_aio",
    "none,inject-error.0.errno=28",
    "none,inject-error.0.errno=0",
    "none,inject-error.0.errno=99999",
    "none,inject-error.0.sector=512",
    "read_aio,inject-error.0.sector=512,inject-error.0.immediately=on",
    "none,inject-error.0.sector=100000",
    "none,inject-error.0.iotype=write",
    "none,inject-error.0.iotype=read",
    "none,inject-error.0.iotype=block-status",
    "none,inject-error.0.state=2",
    "none,inject-error.0.state=1",
    "read_aio,inject-error.0.state=2,set-state.0.event=read_aio,set-state.0.new_state=2",
    "write_aio",
    "flush_to_disk",
  ].flatMap((rule) => {
    const list = raw("r", `inject-error.0.event=${rule}`);
    return [
      `compare --image-opts ${list} driver=raw,file.filename=r`,
      `map --output=json --image-opts ${list}`,
    ];
  }),
  { given: IMAGES },
);

for (
  const [rule, code] of [
    ["event=read_aio", 1],
    ["event=none,inject-error.0.iotype=read", 1],
    ["event=none,inject-error.0.sector=512", 1],
    ["event=none,inject-error.0.sector=5", 1],
    ["event=none,inject-error.0.iotype=block-status", 1],
    ["event=none,inject-error.0.iotype=write", 0],
  ] as const
) {
  same(`blkdebug fails a copy's reads: ${rule}`, {
    given: IMAGES,
    run: `convert -O raw --image-opts ${raw("one", `inject-error.0.${rule}`)} t`,
    code,
    leftByReference: code === 0 ? [] : ["t"],
    images: code === 0 ? [{ name: "t", format: "raw" }] : [],
  });
}

for (
  const [rule, code] of [
    ["inject-error.0.event=none,inject-error.0.iotype=write", 1],
    ["inject-error.0.event=write_aio", 1],
    ["inject-error.0.event=write_aio,inject-error.0.errno=28", 1],
    ["inject-error.0.event=pwritev", 1],
    ["inject-error.0.event=none,inject-error.0.iotype=read", 0],
    ["inject-error.0.event=none,inject-error.0.sector=100", 1],
    ["inject-error.0.event=none,inject-error.0.sector=4000", 0],
    ["inject-error.0.event=none,inject-error.0.iotype=write-zeroes", 1],
    ["inject-error.0.event=none,inject-error.0.iotype=write-zeroes,inject-error.0.errno=95", 0],
    ["max-transfer=4k", 0],
    ["align=4k", 0],
    ["opt-write-zero=64k,max-write-zero=128k", 0],
    ["opt-write-zero=96k", 0],
  ] as const
) {
  same(`blkdebug below a raw target: ${rule}`, {
    given: IMAGES,
    run: `convert -n --target-image-opts r ${raw("s", rule)}`,
    code,
    images: code === 0 ? [{ name: "s", format: "raw" }] : [],
  });
}

same("blkdebug fails a flush of a raw target", {
  given: IMAGES,
  run: `convert -n -t writeback --target-image-opts r ${
    raw("s", "inject-error.0.event=none,inject-error.0.iotype=flush")
  }`,
});

const qcow2 = (file: string, rules: string) =>
  `driver=qcow2,file.driver=blkdebug,file.image.filename=${file},` +
  rules.split(",").map((rule) => `file.${rule}`).join(",");

sameForEach("blkdebug below qcow2", [
  `compare --image-opts ${qcow2("q", "align=4k,max-transfer=4k")} driver=qcow2,file.filename=q`,
  `check --image-opts ${qcow2("q", "align=4k")}`,
], { given: IMAGES });

for (
  const rules of ["align=4k", "align=512,max-transfer=64k", "opt-write-zero=4k,opt-discard=64k"]
) {
  same(`blkdebug below a qcow2 target: ${rules}`, {
    given: [...IMAGES, ioAs("raw", "s", "write -P 5 1k 1k")],
    run: `convert -n --target-image-opts r ${qcow2("q", rules)}`,
    images: [{ name: "q", format: "qcow2", check: true }],
    code: 0,
  });
}

// What qcow2 does, step by step. Both get as far, and say the same of it first; what a node that
// is closed after that has to say is not told here.
const EVENTFUL: readonly Given[] = [
  disk("base", 8 * M, [[0, 8 * M, "flat"]]),
  disk("src", 8 * M, [[0, 3 * M, "noise"], [5_120_000, 1024, "noise"]]),
  img("create -f qcow2 -b base -F raw over 8M"),
  io("over", "write -P 1 0 1M", "write -c -P 2 2M 64k"),
  img("create -f qcow2 new 8M"),
  img("create -f qcow2 -o cluster_size=512 small 8M"),
  img("create -f qcow2 -b base -F raw shared 8M"),
  io("shared", "write -P 1 0 1M", "write -c -P 2 2M 64k"),
  img("snapshot -c one shared"),
];
const failingAt = (file: string, event: string) =>
  qcow2(file, `inject-error.0.event=${event},inject-error.0.errno=5`);
const intoTarget = (target: string, more = "") => (event: string) =>
  `convert -m 1 -n${more} --target-image-opts -f raw src ${failingAt(target, event)}`;

const EVENTS_OF: readonly {
  readonly line: (event: string) => string;
  readonly fails: readonly string[];
  readonly passes: readonly string[];
  /** Exit code of what fails. */
  readonly code?: number;
}[] = [
  {
    line: (event) => `map --output=json --image-opts ${failingAt("over", event)}`,
    fails: ["l2_load", "reftable_load"],
    passes: ["read_aio", "refblock_load", "cluster_alloc"],
  },
  {
    line: (event) => `check --image-opts ${failingAt("over", event)}`,
    fails: ["reftable_load"],
    passes: ["read_aio", "read_compressed", "l2_update"],
  },
  {
    line: (event) =>
      `compare -s --image-opts ${failingAt("over", event)} driver=qcow2,file.filename=over`,
    fails: ["read_aio", "read_compressed"],
    passes: ["write_aio", "cow_read"],
    code: 4,
  },
  {
    line: intoTarget("new"),
    fails: [
      ...["l1_update", "l2_update", "l2_alloc_write", "write_aio", "refblock_load"],
      ...["refblock_update_part", "refblock_alloc", "cluster_alloc"],
    ],
    passes: ["l2_alloc_cow_read", "read_aio", "write_compressed", "cluster_alloc_bytes"],
  },
  {
    line: intoTarget("new", " -c"),
    fails: ["l1_update", "write_compressed", "cluster_alloc_bytes"],
    passes: ["cow_read", "l1_grow_alloc_table"],
  },
  {
    line: intoTarget("small"),
    fails: ["refblock_alloc_write", "refblock_alloc_hookup"],
    passes: ["reftable_grow", "refblock_alloc_switch_table"],
  },
  {
    line: intoTarget("shared"),
    fails: ["l2_load", "l2_alloc_cow_read", "l2_alloc_write", "cow_read", "cow_write"],
    passes: ["read_compressed", "l1_grow_activate_table"],
  },
  {
    line: (event) => `resize --image-opts ${failingAt("over", event)} 64G`,
    fails: ["l1_grow_alloc_table", "l1_grow_write_table", "l1_grow_activate_table"],
    passes: ["l1_update", "l2_update"],
  },
];
const firstError = (text: string) =>
  text.split("\n").find((line) => line.startsWith("qemu-img: ")) ?? "";

for (const { line, fails, passes, code = 1 } of EVENTS_OF) {
  const more = { given: EVENTFUL, normalize: firstError };
  sameForEach("blkdebug, events of qcow2", fails.map((event) => line(event)), { ...more, code });
  sameForEach("blkdebug, events of qcow2", passes.map((event) => line(event)), {
    ...more,
    code: 0,
  });
}
