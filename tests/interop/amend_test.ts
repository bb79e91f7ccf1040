/** `amend`: other options for images that exist, with equal output and equal bytes afterwards. */
import { assertEquals } from "@std/assert";
import { reference, runQimg, runReference, sha256, useQimg, useReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { type Case, disk, type Given, img, io, same, sameForEach, text } from "./_cases.ts";
import { ZOO } from "./_zoo.ts";

const K = 1024;
const M = 1024 * K;
/** The reference writes whole clusters where a sector changes, be there holes or not: the header's, the L1 table's. */
const SLACK = 4 * M;

/** Both tools leave the same bytes. */
function amends(
  about: string,
  lines: readonly string[],
  given: readonly Given[],
  more: Partial<Case> = {},
): void {
  sameForEach(`amend, ${about}`, lines.map((line) => `amend ${line}`), {
    given,
    files: ["a"],
    code: 0,
    slack: SLACK,
    ...more,
  });
}

/** Fails and, with `files`, changes nothing. */
function refuses(
  about: string,
  lines: readonly string[],
  given: readonly Given[],
  more: Partial<Case> = {},
): void {
  sameForEach(`amend refuses ${about}`, lines.map((line) => `amend ${line}`), {
    given,
    files: ["a"],
    code: 1,
    ...more,
  });
}

const make = (options: string, size = "1M") =>
  img(`create -f qcow2 ${options === "" ? "" : `-o ${options} `}a ${size}`);
const PLAIN: readonly Given[] = [make("")];
const VERSION_2: readonly Given[] = [make("compat=0.10")];

sameForEach("amend", [
  "amend",
  "amend a",
  "amend -o size=1M",
  "amend -o size=1M a a",
  "amend -o help",
  "amend -o help a a",
  "amend -f zork -o help",
  "amend -f raw -o help",
  "amend -f raw -o help a",
  "amend -p -f raw -o help a",
  "amend -p -o help a a",
  "amend -p -o help none",
  "amend -f raw -o size=1M a",
  "amend -f file -o size=1M a",
  "amend -f zork -o size=1M a",
  "amend -o size=1M none",
  "amend -p -o size=1M none",
  "amend -o size=1M -t zork none",
  "amend -o size=1M -t zork",
  "amend -o help -t zork a",
  "amend -o  a",
  "amend -o size=1M, a",
  "amend -o ,size=1M a",
  "amend -U -o size=1M a",
  "amend --forc -o size=2M a",
  "amend --zork -o size=2M a",
  "amend -o foo=1 a",
  "amend -o foo a",
  "amend -o cluster_size=64k a",
  "amend -o preallocation=full a",
  "amend -o cluster_size=64k,foo=1 a",
  "amend -o foo=1,cluster_size=64k a",
  "amend -o size=1M,cluster_size=64k a",
  "amend -o encrypt.format=luks a",
  "amend -o size=x a",
  "amend -o size=x,cluster_size=64k a",
  "amend -o size=-1 a",
  "amend -o size=8E a",
  "amend -o size=7E a",
  "amend -o size=1000 a",
  "amend -o size=1152921504606846977 a",
  "amend -o size=1000000T a",
  "amend -o refcount_bits=x a",
  "amend -o refcount_bits=3 a",
  "amend -o refcount_bits=0 a",
  "amend -o refcount_bits=-1 a",
  "amend -o refcount_bits=128 a",
  "amend -o refcount_bits=99999999999999999999 a",
  "amend -o lazy_refcounts=x a",
  "amend -o compat=x a",
  "amend -o compat= a",
  "amend -o compat=x,refcount_bits=3 a",
  "amend -o compat=x,data_file=y,refcount_bits=3 a",
  "amend -o data_file=y,refcount_bits=3 a",
  "amend -o encrypt.state=active,compat=x a",
  "amend -o encrypt.keyslot=x a",
  "amend -o encrypt.keyslot=1 a",
  "amend -o encrypt.iter-time=x a",
  "amend -o backing_file=x a",
  "amend -o backing_file= a",
  "amend -o backing_fmt=raw a",
  "amend -o data_file=x a",
  "amend -o data_file= a",
  "amend -o data_file_raw=on a",
  "amend -p -o refcount_bits=3 a",
  "amend -p -o foo=1 a",
  "amend -p -q -o refcount_bits=3 a",
], { given: PLAIN, files: ["a"] });

amends("nothing to change", [
  "-o id=1 a",
  "-o compat=1.1 a",
  "-o compat=v3 a",
  "-o refcount_bits=16 a",
  "-o lazy_refcounts=off a",
  "-o nolazy_refcounts a",
  "-o data_file_raw=off a",
  "-o size=1M a",
  "-o size=0 a",
  "-p -o compat=1.1 a",
  "--force -o compat=1.1 a",
], PLAIN);

amends("how it is asked", [
  "a -o size=2M",
  "-f qcow2 -o size=2M a",
  "-fqcow2 -osize=2M a",
  "--format=qcow2 --options=size=2M a",
  "-o size=2M -o lazy_refcounts=on a",
  "-o size=2M,size=3M a",
  "-q -p -o size=2M a",
  "--progress --quiet -o size=2M a",
  "-t none -o size=2M a",
  "-t unsafe -o size=2M a",
  "-t writethrough -o refcount_bits=8 a",
  "--cache directsync -o compat=0.10 a",
  "-o size=2M -- a",
], PLAIN);

const KINDS = [
  "qcow2, empty",
  "qcow2, nothing written",
  "qcow2, an odd size",
  "qcow2, every kind of cluster",
  "qcow2, version 2",
  "qcow2, clusters of 512 bytes",
  "qcow2, clusters of 2 MiB",
  "qcow2, refcounts of 1 bit",
  "qcow2, refcounts of 64 bits",
  "qcow2, lazy refcounts",
  "qcow2, extended L2",
  "qcow2, subclusters",
  "qcow2, compressed with zlib",
  "qcow2, compressed with zstd",
  "qcow2, metadata in advance",
  "qcow2, space in advance",
  "qcow2, snapshots",
  "qcow2, a bitmap",
  "qcow2, on a raw file",
  "qcow2, on a shorter file",
  "qcow2, on a longer file",
  "qcow2, on three others",
  "qcow2, version 2 on another",
  "qcow2, a data file",
  "qcow2, a raw data file",
  "qcow2, not closed",
  "qcow2, features that nobody knows",
] as const;

/** In these the reference takes minutes to go through refcounts that are not there. */
const MANY_REFCOUNTS: ReadonlySet<string> = new Set([
  "qcow2, clusters of 2 MiB",
  "qcow2, refcounts of 1 bit",
]);
/** The reference makes tables for what never was there, to empty them. */
const SHRUNK_WITHOUT_TABLES: ReadonlySet<string> = new Set([
  "qcow2, nothing written",
  "qcow2, clusters of 512 bytes",
  "qcow2, clusters of 2 MiB",
]);
for (const kind of KINDS) {
  sameForEach(`amend, ${kind}`, [
    ...(MANY_REFCOUNTS.has(kind) ? [] : [
      "amend -p -o refcount_bits=8 a",
      "amend -o refcount_bits=16 a",
      "amend -o refcount_bits=64 a",
    ]),
    "amend -o lazy_refcounts=on a",
    "amend -o lazy_refcounts=off a",
    "amend -p -o compat=1.1 a",
    "amend -o compat=1.1,lazy_refcounts=on a",
    "amend -o size=16M a",
    ...(SHRUNK_WITHOUT_TABLES.has(kind) ? [] : ["amend -o size=100k a"]),
  ], { given: ZOO[kind]!, files: ["a"], slack: SLACK });
}

/** Where the reference leaves its bitmaps behind, see the tests of differences. */
const DOWNGRADED = KINDS.filter((kind) =>
  !["qcow2, a bitmap", "qcow2, snapshots", "qcow2, compressed with zstd"].includes(kind)
);
for (const kind of DOWNGRADED) {
  sameForEach(`amend, ${kind}`, ["amend -p -o compat=0.10 a"], {
    given: ZOO[kind]!,
    files: ["a"],
    slack: SLACK,
  });
}

for (const size of ["512", "4096", "64k", "2M"]) {
  const version2: readonly Given[] = [
    make(`compat=0.10,cluster_size=${size}`, "4M"),
    io("a", "write -P 1 0 300k", "write -c -P 2 2M 2M"),
  ];
  amends(
    `version 2, clusters of ${size}`,
    [
      "-p -o compat=1.1 a",
      "-p -o compat=1.1,refcount_bits=8 a",
      "-o compat=1.1,refcount_bits=32,lazy_refcounts=on,size=8M a",
      "-o compat=0.10 a",
    ].filter((line) => size !== "2M" || !line.includes("refcount_bits")),
    version2,
  );
  amends(
    `version 2 with snapshots, clusters of ${size}`,
    [
      "-o compat=1.1 a",
      "-o compat=1.1,size=8M a",
      "-o compat=1.1,refcount_bits=32 a",
    ].filter((line) => size !== "2M" || !line.includes("refcount_bits")),
    [...version2, img("snapshot -c one a"), io("a", "write -P 3 64k 64k")],
  );

  const zeros: readonly Given[] = [
    make(`cluster_size=${size}`, "8M"),
    io(
      "a",
      "write -P 1 0 2M",
      "write -z 0 1M",
      "write -z -u 2M 2M",
      "write -P 2 4M 2M",
      "write -z -u 4M 2M",
      "discard 6M 2M",
    ),
  ];
  amends(`zero clusters of ${size}`, ["-p -o compat=0.10 a", "-o compat=0.10,size=1M a"], zeros);
  amends(`zero clusters of ${size} in snapshots, too`, ["-p -o compat=0.10 a"], [
    make(`cluster_size=${size}`, "8M"),
    io("a", "write -z -u 0 4M"),
    img("snapshot -c one a"),
    io("a", "write -z -u 4M 4M", "write -P 1 2M 2M"),
    img("snapshot -c two a"),
  ]);
  amends(`zero clusters of ${size} on a file`, ["-p -o compat=0.10 a"], [
    disk("base", 8 * M, [[0, 8 * M, "mixed"]]),
    img(`create -f qcow2 -o cluster_size=${size} -b base -F raw a`),
    io("a", "write -z -u 0 2M", "write -P 2 2M 2M"),
    img("snapshot -c one a"),
    io("a", "write -z -u 4M 2M", "write -P 3 0 100k", "write -P 4 6M 2M", "write -z 6M 2M"),
  ]);
}
refuses("version 2 with features of version 3", [
  "-p -o compat=0.10 a",
  "-o compat=0.10,refcount_bits=16 a",
], [make("extended_l2=on")]);
refuses(
  "version 2 with other refcounts",
  ["-o compat=0.10 a", "-o compat=0.10,refcount_bits=8 a"],
  [
    make("refcount_bits=8"),
  ],
);
refuses("version 2 with other refcounts than it has", ["-o compat=0.10,refcount_bits=8 a"], PLAIN, {
  files: [],
});
refuses("version 2 with a data file", ["-p -o compat=0.10 a"], ZOO["qcow2, a data file"]!);
refuses("version 2 with compressed clusters of zstd", ["-o compat=0.10 a"], [
  make("compression_type=zstd"),
  io("a", "write -c -P 1 0 64k"),
]);
amends("no compressed clusters of zstd", ["-o compat=0.10 a"], [
  make("compression_type=zstd"),
  io("a", "write -P 1 0 64k", "write -z 64k 64k"),
]);
refuses("version 2 with snapshots of other sizes", ["-o compat=0.10 a"], [
  make(""),
  img("snapshot -c one a"),
  img("resize a 2M"),
]);
amends("snapshots of other sizes, but for a moment", ["-o compat=0.10,size=1M a"], [
  make(""),
  io("a", "write -P 1 0 64k"),
  img("snapshot -c one a"),
  img("resize a 2M"),
]);
refuses("what version 2 does not have", [
  "-o refcount_bits=8 a",
  "-p -o refcount_bits=8 a",
  "-o lazy_refcounts=on a",
], VERSION_2);
amends("what version 2 has", ["-o lazy_refcounts=off a", "-o refcount_bits=16 a", "-o size=2M a"], [
  ...VERSION_2,
]);
refuses("lazy refcounts in what becomes version 2", ["-o lazy_refcounts=on,compat=0.10 a"], PLAIN);
refuses("another size of version 2 with snapshots", ["-o size=2M a", "-o size=512k a"], [
  ...VERSION_2,
  img("snapshot -c one a"),
]);
amends("lazy refcounts", [
  "-p -o lazy_refcounts=off a",
  "-o lazy_refcounts=off,compat=0.10 a",
  "-o compat=0.10 a",
  "-o lazy_refcounts=on,refcount_bits=4 a",
], [make("lazy_refcounts=on"), io("a", "write -P 1 0 64k", "write -z 64k 64k")]);

const OVERLAY: readonly Given[] = [
  disk("base", M, [[0, M, "mixed"]]),
  img("create -f qcow2 -b base -F raw a"),
];
amends("the backing file that it has", ["-o backing_file=base,backing_fmt=raw a"], OVERLAY);
refuses("another backing file", [
  "-o backing_file=other a",
  "-o backing_file=base a",
  "-o backing_fmt=raw a",
  "-o backing_file=,backing_fmt= a",
  "-o backing_file=base,backing_fmt=qcow2 a",
], OVERLAY);

const DATA_FILE = ZOO["qcow2, a data file"]!;
amends(
  "a data file",
  [
    "-o data_file=e a",
    "-o data_file=d a",
    "-o data_file= a",
    "-o data_file=a,,b a",
    "-o data_file_raw=off a",
    "-o size=512k a",
    "-o size=8M a",
    "-o data_file=e,size=8M,refcount_bits=1 a",
  ],
  DATA_FILE,
  { files: ["a", "d"] },
);
refuses("a data file that is to be raw", ["-o data_file_raw=on a"], DATA_FILE);
amends(
  "a raw data file",
  [
    "-o data_file_raw=on a",
    "-o data_file_raw=off a",
    "-o data_file_raw=off,data_file=e a",
    "-o size=8M a",
  ],
  ZOO["qcow2, a raw data file"]!,
  { files: ["a", "d"] },
);

refuses("what cannot be opened", ["-o size=2M a"], ZOO["qcow2, corrupt"]!);
refuses("an image without its backing file", ["-o size=2M a"], [
  ...ZOO["qcow2, its backing file is missing"]!,
]);
refuses("what is no image", ["-f qcow2 -o size=2M a"], [text("a", "x")]);
same("amend twice", {
  given: [...PLAIN, img("amend -o refcount_bits=4 a"), img("amend -o size=3M a")],
  run: "amend -o refcount_bits=16,compat=0.10 a",
  files: ["a"],
});

/** The descriptions are our own, the layout is not. */
const withoutDescriptions = (help: string) => help.replaceAll(/ - .*$/gm, " - …");
Deno.test({
  name: "amend -o help: the same options with the same types in the same layout",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    const { path: cwd } = dir;
    await useReference(["create", "-q", "-f", "qcow2", "a", "1M"], { cwd });
    for (
      const args of [["-f", "qcow2", "-o", "help"], ["-o", "?", "a"], ["-o", "size=1M,help", "a"]]
    ) {
      // One after the other: both open the image for writing.
      const theirs = await runReference(["amend", ...args], { cwd });
      const ours = await runQimg(["amend", ...args], { cwd });
      assertEquals(withoutDescriptions(ours.stdout), withoutDescriptions(theirs.stdout));
      assertEquals([ours.code, ours.stderr], [theirs.code, theirs.stderr]);
    }
  },
});

Deno.test({
  name: "amend there and back through all widths and both versions keeps the disk",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    const { path: cwd } = dir;
    await useReference(["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "a", "4M"], {
      cwd,
    });
    await useReference(
      ["-c", "write -P 1 0 300k", "-c", "write -z 64k 64k", "-c", "write -c -P 2 1M 32k", "a"],
      { cwd, tool: "qemu-io" },
    );
    await Deno.copyFile(dir.file("a"), dir.file("before"));
    for (
      const step of [
        "refcount_bits=8",
        "refcount_bits=64",
        "lazy_refcounts=on",
        "refcount_bits=16",
        "compat=0.10",
        "compat=1.1",
        "refcount_bits=64",
      ]
    ) {
      await useQimg(["amend", "-o", step, "a"], { cwd });
      await useReference(["check", "a"], { cwd });
      await useReference(["compare", "a", "before"], { cwd });
    }
  },
});

/** Runs both tools on copies of what `make` leaves in a folder, and shows the outcome of both. */
async function withBoth(
  make: (cwd: string) => Promise<void>,
  args: readonly string[],
  look: (cwd: string, code: number, tool: "reference" | "qimg") => Promise<void>,
): Promise<void> {
  for (const [tool, runs] of [["reference", runReference], ["qimg", runQimg]] as const) {
    await using dir = await tempDir();
    await make(dir.path);
    const { code } = await runs(args, { cwd: dir.path });
    await look(dir.path, code, tool);
  }
}

const guest = (cwd: string, ...commands: string[]) =>
  useReference([...commands.flatMap((command) => ["-c", command]), "a"], { cwd, tool: "qemu-io" });

Deno.test({
  name:
    "amend to version 2 keeps what a snapshot has where the disk is zeros now (the reference does not)",
  ignore: reference.ignore,
  fn: () =>
    withBoth(
      async (cwd) => {
        await useReference(["create", "-q", "-f", "qcow2", "a", "1M"], { cwd });
        await guest(cwd, "write -P 7 0 128k");
        await useReference(["snapshot", "-c", "one", "a"], { cwd });
        await guest(cwd, "write -z 0 64k");
      },
      ["amend", "-o", "compat=0.10", "a"],
      async (cwd, code, tool) => {
        assertEquals(code, 0);
        const check = await runReference(["check", "-q", "a"], { cwd });
        assertEquals(check.code, tool === "qimg" ? 0 : 2, tool);
        await guest(cwd, "read -P 0 0 64k", "read -P 7 64k 64k");
        await useReference(["snapshot", "-a", "one", "a"], { cwd });
        const out = await guest(cwd, "read -P 7 0 128k").catch(() => "Pattern verification failed");
        assertEquals(out.includes("Pattern verification failed"), tool !== "qimg", tool);
      },
    ),
});

Deno.test({
  name:
    "amend to version 2 keeps reserved clusters apart that a snapshot shares, on a backing file",
  ignore: reference.ignore,
  fn: () =>
    withBoth(
      async (cwd) => {
        await useReference(["create", "-q", "-f", "raw", "base", "1M"], { cwd });
        await useReference(["-f", "raw", "-c", "write -P 9 0 1M", "base"], {
          cwd,
          tool: "qemu-io",
        });
        await useReference(["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "a"], {
          cwd,
        });
        await guest(cwd, "write -P 7 0 64k", "write -z 0 64k");
        await useReference(["snapshot", "-c", "one", "a"], { cwd });
        await guest(cwd, "write -P 5 64k 64k");
      },
      ["amend", "-o", "compat=0.10", "a"],
      async (cwd, code, tool) => {
        assertEquals(code, 0);
        const check = await runReference(["check", "-q", "a"], { cwd });
        assertEquals(check.code, tool === "qimg" ? 0 : 2, tool);
        await guest(cwd, "read -P 0 0 64k", "read -P 5 64k 64k", "read -P 9 128k 64k");
      },
    ),
});

Deno.test({
  name: "amend to version 2 removes bitmaps, and what they took (the reference leaves both behind)",
  ignore: reference.ignore,
  fn: () =>
    withBoth(
      async (cwd) => {
        await useReference(["create", "-q", "-f", "qcow2", "a", "1M"], { cwd });
        await useReference(["bitmap", "--add", "a", "b0"], { cwd });
        await guest(cwd, "write -P 7 0 64k");
      },
      ["amend", "-o", "compat=0.10", "a"],
      async (cwd, code, tool) => {
        assertEquals(code, 0);
        const check = await runReference(["check", "a"], { cwd });
        assertEquals(check.code, tool === "qimg" ? 0 : 3, tool);
        assertEquals(check.stderr.includes("contains bitmaps"), tool !== "qimg", tool);
      },
    ),
});

Deno.test({
  name: "amend that is refused changes nothing (the reference stops in the middle)",
  ignore: reference.ignore,
  fn: () =>
    withBoth(
      async (cwd) => {
        await useReference(["create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "a", "1M"], {
          cwd,
        });
        await Deno.copyFile(`${cwd}/a`, `${cwd}/before`);
      },
      ["amend", "-o", "compat=0.10,size=2M,lazy_refcounts=off,refcount_bits=16", "a"],
      async (cwd, code, tool) => {
        assertEquals(code, 1);
        const same = await sha256(`${cwd}/a`) === await sha256(`${cwd}/before`);
        assertEquals(same, tool === "qimg", tool);
      },
    ),
});

Deno.test({
  name:
    "amend to version 2 finds compressed clusters of zstd in snapshots (the reference does not)",
  ignore: reference.ignore,
  fn: () =>
    withBoth(
      async (cwd) => {
        const options = "compression_type=zstd";
        await useReference(["create", "-q", "-f", "qcow2", "-o", options, "a", "1M"], { cwd });
        await guest(cwd, "write -c -P 7 0 64k");
        await useReference(["snapshot", "-c", "one", "a"], { cwd });
        await guest(cwd, "write -P 1 0 64k");
      },
      ["amend", "-o", "compat=0.10", "a"],
      (_, code, tool) => Promise.resolve(assertEquals(code, tool === "qimg" ? 1 : 0, tool)),
    ),
});

const SECRETS = ["--object", "secret,id=s,data=x", "--object", "secret,id=n,data=y"];
const ENCRYPTED = ["--image-opts", "driver=qcow2,encrypt.key-secret=s,file.filename=a"];
const LUKS = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";

for (
  const [format, options] of [["luks", LUKS], [
    "aes",
    "encrypt.format=aes,encrypt.key-secret=s",
  ]] as const
) {
  Deno.test({
    name: `amend to version 2 writes encrypted zeros, ${format} (the reference writes plain ones)`,
    ignore: reference.ignore,
    fn: () =>
      withBoth(
        async (cwd) => {
          const create = ["create", "-q", ...SECRETS, "-f", "qcow2", "-o", options, "a", "4M"];
          await useReference(create, { cwd });
          await useReference(
            [...SECRETS, "-c", "write -P 7 1M 128k", "-c", "write -z 1M 64k", ...ENCRYPTED],
            { cwd, tool: "qemu-io" },
          );
        },
        ["amend", ...SECRETS, "-o", "compat=0.10", ...ENCRYPTED],
        async (cwd, code, tool) => {
          assertEquals(code, 0);
          const read = ["-c", "read -P 0 1M 64k", "-c", "read -P 7 1088k 64k", ...ENCRYPTED];
          const { stdout } = await runReference([...SECRETS, ...read], { cwd, tool: "qemu-io" });
          assertEquals(stdout.includes("Pattern verification failed"), tool !== "qimg", tool);
        },
      ),
  });
}

sameForEach(
  "amend, key slots",
  [
    "encrypt.state=active",
    "encrypt.keyslot=1",
    "encrypt.state=x",
    "encrypt.state=inactive,encrypt.keyslot=0",
    "encrypt.state=inactive,encrypt.keyslot=0,refcount_bits=64",
    "encrypt.state=inactive,encrypt.keyslot=8",
    "encrypt.state=inactive",
    "encrypt.state=active,encrypt.new-secret=z",
  ].map((options) => `amend ${SECRETS.join(" ")} -p -o ${options} ${ENCRYPTED.join(" ")}`),
  {
    given: [img(`create ${SECRETS.join(" ")} -f qcow2 -o ${LUKS} a 1M`)],
    files: ["a"],
    code: 1,
  },
);
same("amend, a key and refcounts in one go", {
  given: [img(`create ${SECRETS.join(" ")} -f qcow2 -o ${LUKS},cluster_size=4k a 1M`)],
  run: [
    "amend",
    ...SECRETS,
    "-p",
    "-o",
    "encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=10,refcount_bits=64",
    ...ENCRYPTED,
  ],
  code: 0,
});
