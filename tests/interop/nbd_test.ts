import { assert, assertEquals } from "@std/assert";
import {
  assertSame,
  type Outcome,
  reference,
  runReference,
  type SameOptions,
  useQimg,
} from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { disk, type Given, hole, img } from "./_cases.ts";
import {
  ignoreWithoutNbdkit,
  type ReferenceServer,
  startNbdkit,
  startReference,
} from "./_nbd_peers.ts";

// The same command line on the same kind of server, once with each tool.

const MIB = 1 << 20;
const URI = "nbd+unix:///exp?socket=reference.sock";
const KIT = "nbd+unix:///?socket=nbdkit.sock";

type Start = (dir: string) => Promise<ReferenceServer>;

interface ServerCase extends Omit<SameOptions, "setup"> {
  readonly given?: readonly Given[];
  /** What listens while the tool runs. */
  readonly start?: Start;
  readonly ignore?: boolean;
  /** What the outcome has to be beside equal. */
  readonly expect?: (outcome: Outcome) => void;
}

/** Registers a test: both tools do the same, each in a folder with a server of its own. */
function sameOn(
  name: string,
  line: string | readonly string[],
  { given = [], start, ignore = false, expect, ...options }: ServerCase = {},
): void {
  Deno.test({
    name: `nbd: ${name}: ${typeof line === "string" ? line : line.join(" ")}`,
    ignore: reference.ignore || ignore,
    async fn() {
      await using servers = new AsyncDisposableStack();
      const outcome = await assertSame(typeof line === "string" ? line.split(" ") : line, {
        ...options,
        async setup(dir) {
          for (const step of given) await step.make(dir);
          if (start !== undefined) servers.use(await start(dir));
        },
      });
      expect?.(outcome);
    },
  });
}

/** `disk` as the export `exp`. */
const raw = (...args: readonly string[]): Start => (dir) => {
  return startReference(dir, ["-f", "raw", "-x", "exp", "--discard=unmap", ...args, "disk"]);
};

const succeeds = ({ code, stderr }: Outcome) => assertEquals([code, stderr], [0, ""]);

const DISK = disk("disk", MIB, [[0, 65536, "noise"], [300 * 1024, 100 * 1024, "gaps"]]);
const OTHER = disk("other", MIB, [[4096, 65536, "noise"], [900 * 1024, 8192, "flat"]]);

for (
  const line of [
    `info ${URI}`,
    `info --output=json ${URI}`,
    "info nbd:unix:reference.sock:exportname=exp",
    "info -f nbd nbd:unix:reference.sock:exportname=exp",
    "info --image-opts driver=nbd,path=reference.sock,export=exp",
    "info --image-opts file.driver=nbd,file.server.type=unix,file.server.path=reference.sock,file.export=exp",
    'info json:{"driver":"raw","offset":512,"file":{"driver":"nbd","path":"reference.sock","export":"exp"}}',
    'info json:{"driver":"raw","offset":512,"file":{"driver":"nbd","server":{"type":"unix","path":"reference.sock"},"export":"exp"}}',
    "info --image-opts driver=nbd,path=reference.sock,export=exp,open-timeout=3,reconnect-delay=2",
    `map ${URI}`,
    `map --output=json ${URI}`,
    "map --output=json --image-opts driver=nbd,path=reference.sock,export=exp",
    `measure -O qcow2 ${URI}`,
    `compare -f raw disk ${URI}`,
  ]
) {
  sameOn("an export", line, { given: [DISK], start: raw(), expect: succeeds });
}

for (
  const line of [
    "info --image-opts driver=nbd,path=reference.sock,export=nope",
    "info --image-opts driver=nbd,path=reference.sock,export=exp,bla=1",
    "info --image-opts driver=nbd,path=reference.sock,export=exp,reconnect-delay=x",
    "info --image-opts driver=nbd,path=reference.sock,export=exp,tls-creds=t",
    "info --object secret,id=t,data=x --image-opts driver=nbd,path=reference.sock,export=exp,tls-creds=t",
    "info --image-opts driver=nbd,filename=nbd://h,path=reference.sock,export=exp",
    `check ${URI}`,
    `check -f raw ${URI}`,
    `compare -f raw other ${URI}`,
    `resize -f raw ${URI} 2M`,
    `resize -f raw --shrink ${URI} 512k`,
    `create -f raw ${URI} 2M`,
    `convert -n -O raw big ${URI}`,
    `convert -O raw big ${URI}`,
    `snapshot -c a ${URI}`,
    `amend -o compat=1.1 ${URI}`,
  ]
) {
  sameOn("what cannot be done with an export", line, {
    given: [DISK, OTHER, hole("big", 2 * MIB)],
    start: raw(),
    expect: ({ code }) => assert(code !== 0),
  });
}

for (
  const line of [
    "info nbd:reference.sock",
    "info nbd:",
    "info nbd:unix:nope.sock",
    "info nbd+unix:///?socket=nope.sock",
    "info nbd://localhost:1/",
    "info nbd://h/?x=y",
    "info nbd://h:99999",
    "info nbd:h:abc",
    "info nbds://h",
    "info -f nbd disk",
    "info --image-opts driver=nbd",
    "info --image-opts driver=nbd,filename=nbd://h",
    "info --image-opts driver=nbd,port=7",
    "info --image-opts driver=nbd,path=a,host=b",
    "info --image-opts driver=nbd,path=a,server.type=unix",
    "info --image-opts driver=nbd,server.type=x",
    "info --image-opts driver=nbd,server.type=inet",
    "info --image-opts driver=nbd,server.type=unix,server.path=a,server.host=b",
    "info --image-opts driver=nbd,path=nope.sock,open-timeout=1",
    "create -f raw nbd:unix:nope.sock 1M",
    "create -f qcow2 nbd:unix:nope.sock 1M",
    "convert -O raw disk nbd:unix:nope.sock",
    "convert -n -O raw disk nbd:unix:nope.sock",
    "info --object tls-creds-x509,id=t disk",
    "info --object tls-creds-x509,id=t,dir=nope disk",
    "info --object tls-creds-psk,id=t,dir=nope,endpoint=client disk",
    "info --object tls-creds-psk,id=t,dir=nope,endpoint=x disk",
  ]
) {
  sameOn("nobody listens", line, { given: [DISK], expect: ({ code }) => assert(code !== 0) });
}

/** What is written to an export is what its file has afterwards. */
for (
  const line of [
    `convert -n -f raw -O raw other ${URI}`,
    `convert -n -f raw -O raw -W -m 16 other ${URI}`,
    `convert -n -f raw -O raw -S 0 other ${URI}`,
    `convert -f raw -O raw other ${URI}`,
    `convert -f raw -O qcow2 other ${URI}`,
    `create -f raw ${URI} 1M`,
    `create -f qcow2 ${URI} 10M`,
    `create -f qcow2 -o cluster_size=512 ${URI} 3M`,
  ]
) {
  sameOn("an export is written", line, {
    given: [DISK, OTHER],
    start: raw(),
    files: ["disk"],
    expect: ({ code }) => assertEquals(code, 0),
  });
}

for (const replaced of ["raw", "qcow2"]) {
  sameOn("an export is read", `convert -O ${replaced} ${URI} copy`, {
    given: [DISK],
    start: raw(),
    images: [{ name: "copy", format: replaced }],
    expect: succeeds,
  });
}

sameOn("an export is read", `dd if=${URI} of=copy bs=64k skip=4 count=9`, {
  given: [DISK],
  start: raw(),
  files: ["copy"],
  expect: succeeds,
});

sameOn("what is read-only stays so", `convert -n -f raw -O raw other ${URI}`, {
  given: [DISK, OTHER],
  start: raw("--read-only"),
  files: ["disk"],
  expect: ({ stderr }) => assert(stderr.includes("Permission denied"), stderr),
});

const qcow2: Start = (dir) => startReference(dir, ["-f", "raw", "-x", "exp", "image"]);

for (
  const line of [
    `info ${URI}`,
    `info --output=json ${URI}`,
    `check ${URI}`,
    `map ${URI}`,
    `map --output=json ${URI}`,
    `compare -f raw disk ${URI}`,
    `snapshot -l ${URI}`,
  ]
) {
  sameOn("a qcow2 image in an export", line, {
    given: [DISK, img("convert -f raw -O qcow2 disk image")],
    start: qcow2,
    expect: succeeds,
  });
}

const overlay: Given = {
  key: "overlay",
  make: (dir) => img(`create -u -f qcow2 -b ${URI} -F raw overlay 1M`).make(dir),
};

for (
  const line of [
    "info overlay",
    "info --backing-chain overlay",
    "map --output=json overlay",
    "compare -f raw disk overlay",
    "convert -O raw overlay copy",
    'map --output=json json:{"driver":"qcow2","file":{"driver":"file","filename":"overlay"},"backing":{"driver":"raw","offset":512}}',
  ]
) {
  sameOn("a backing file in an export", line, {
    given: [DISK, overlay],
    start: raw(),
    expect: succeeds,
  });
}

const kit = (...args: readonly string[]): Start => (dir) => startNbdkit(dir, args);

const KITS: readonly (readonly [what: string, start: Start])[] = [
  ["file", kit("file", "disk")],
  ["without structured replies", kit("--no-sr", "file", "disk")],
  ["oldstyle", kit("--oldstyle", "file", "disk")],
  ["without zeros", kit("--filter=nozero", "file", "disk")],
  ["with flushes for FUA", kit("--filter=fua", "file", "disk", "fuamode=emulate")],
  ["without extents", kit("--filter=noextents", "file", "disk")],
  [
    "of large blocks",
    kit(
      "--filter=blocksize-policy",
      "file",
      "disk",
      "blocksize-minimum=4096",
      "blocksize-maximum=64k",
      "blocksize-error-policy=error",
    ),
  ],
  ["of few bytes at a time", kit("--filter=blocksize", "file", "disk", "maxdata=8k")],
];

for (const [what, start] of KITS) {
  const options = { given: [DISK, OTHER], start, ignore: ignoreWithoutNbdkit };
  sameOn(`nbdkit ${what}`, `map --output=json ${KIT}`, { ...options, expect: succeeds });
  sameOn(`nbdkit ${what}`, `convert -O raw ${KIT} copy`, {
    ...options,
    images: [{ name: "copy", format: "raw" }],
    expect: succeeds,
  });
  // An oldstyle nbdkit says that it does what it then does not.
  if (what === "oldstyle") continue;
  sameOn(`nbdkit ${what}`, `convert -n -f raw -O raw other ${KIT}`, {
    ...options,
    images: [{ name: "disk", format: "raw", map: false }],
    expect: succeeds,
  });
}

const FAULTS: readonly (readonly [what: string, line: string, args: readonly string[]])[] = [
  ["fails reads", `convert -O raw ${KIT} copy`, ["error-pread-rate=100%"]],
  ["has no room", `convert -n -f raw -O raw other ${KIT}`, [
    "error=ENOSPC",
    "error-pwrite-rate=100%",
    "error-zero-rate=100%",
  ]],
  ["fails questions", `map ${KIT}`, ["error-extents-rate=100%"]],
  ["is not to be opened", `info ${KIT}`, ["error-rate=0"]],
];

for (const [what, line, args] of FAULTS) {
  sameOn(`a server that ${what}`, line, {
    given: [DISK, OTHER],
    start: kit("--filter=error", "file", "disk", ...args),
    ignore: ignoreWithoutNbdkit,
  });
}

sameOn("an export that ends within a sector", `map --output=json ${KIT}`, {
  start: kit("memory", "1000"),
  ignore: ignoreWithoutNbdkit,
  expect: succeeds,
});

for (
  const context of ["qemu:dirty-bitmap:b", "base:allocation"]
) {
  const options = `driver=nbd,path=reference.sock,export=exp,x-dirty-bitmap=${context}`;
  sameOn("another context", `map --output=json --image-opts ${options}`, {
    given: [
      img("create -f qcow2 image 1M"),
      img("bitmap --add image b"),
      { key: "io", make: (dir) => io(dir) },
    ],
    start: (dir) => startReference(dir, ["-r", "-f", "qcow2", "-x", "exp", "-B", "b", "image"]),
    expect: succeeds,
  });
}

async function io(dir: string): Promise<void> {
  const { writeWithReference } = await import("../_reference.ts");
  await writeWithReference("image", ["write -P 7 64k 128k"], { cwd: dir, format: "qcow2" });
}

Deno.test({
  name: "nbd: random disks of nbdkit are copied as they are",
  ignore: reference.ignore || ignoreWithoutNbdkit,
  async fn() {
    await using dir = await tempDir();
    const args = ["sparse-random", "size=8M", "seed=1", "percent=20", "runlength=65536"];
    await using _server = await startNbdkit(dir.path, args);
    await useQimg(["convert", "-O", "qcow2", KIT, "copy"], { cwd: dir.path });
    const { stdout } = await assertIdentical(dir.path);
    assertEquals(stdout, "Images are identical.\n");
    const measured = await useQimg(["info", "--output=json", "copy"], { cwd: dir.path });
    assert(JSON.parse(measured)["actual-size"] < 5 * MIB, "the copy is not sparse");
  },
});

for (const format of ["raw", "qcow2"]) {
  Deno.test({
    name: `nbd: much of a server is written to ${format} while more is read`,
    ignore: reference.ignore || ignoreWithoutNbdkit,
    async fn() {
      await using dir = await tempDir();
      const args = ["sparse-random", "size=256M", "seed=2", "percent=25", "runlength=3000000"];
      await using _server = await startNbdkit(dir.path, args);
      await useQimg(["convert", "-O", format, KIT, "copy"], { cwd: dir.path });
      const { stdout } = await assertIdentical(dir.path, "-F", format);
      assertEquals(stdout, "Images are identical.\n");
      if (format === "raw") return;
      const { code, stderr } = await runReference(["check", "copy"], { cwd: dir.path });
      assertEquals([code, stderr], [0, ""]);
    },
  });
}

Deno.test({
  name: "nbd: much is read by one thread and sent to a server by another",
  ignore: reference.ignore || ignoreWithoutNbdkit,
  async fn() {
    await using dir = await tempDir();
    await disk("copy", 96 * MIB, [[0, 40 * MIB, "noise"], [60 * MIB, 9 * MIB, "gaps"]])
      .make(dir.path);
    await using _server = await startNbdkit(dir.path, ["memory", "size=96M"]);
    await useQimg(["convert", "-n", "-f", "raw", "-O", "raw", "copy", KIT], { cwd: dir.path });
    const { stdout } = await assertIdentical(dir.path, "-F", "raw");
    assertEquals(stdout, "Images are identical.\n");
  },
});

async function assertIdentical(cwd: string, ...options: readonly string[]): Promise<Outcome> {
  return await runReference(["compare", ...options, KIT, "copy"], { cwd });
}
