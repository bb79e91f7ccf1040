/** `bitmap`, and bitmaps in `convert`, `measure`, `check` and `resize`: equal words, equal bytes afterwards. */
import { runReference } from "../_reference.ts";
import { type Given, img, io, patch, same, sameForEach, text } from "./_cases.ts";
import { ZOO } from "./_zoo.ts";

/** A program that opens an image, writes to it and dies: its bitmaps stay in use. */
function crash(image: string, ...commands: readonly string[]): Given {
  const args = ["-f", "qcow2", ...commands.flatMap((command) => ["-c", command]), "-c", "abort"];
  return {
    key: `crash ${image} ${JSON.stringify(commands)}`,
    make: (cwd) => runReference([...args, image], { cwd, tool: "qemu-io" }),
  };
}

/** The reference makes up names of nodes, part of which is random; qimg has the name of the file. */
const nodeNames = (line: string) =>
  line.replaceAll(/#block[0-9]+/g, "a").replace("'a': The disk is empty", "'a'");

/** The reference rewrites the whole cluster of the header, qimg what has changed in it. */
const SLACK = 8 << 20;

const KINDS: Readonly<Record<string, string>> = {
  "": "",
  ", clusters of 512 bytes": "cluster_size=512",
  ", clusters of 4 KiB": "cluster_size=4k",
  ", clusters of 2 MiB": "cluster_size=2M",
  ", refcounts of 1 bit": "refcount_bits=1",
  ", refcounts of 64 bits": "refcount_bits=64",
  ", lazy refcounts": "lazy_refcounts=on",
  ", extended L2": "extended_l2=on",
  ", a data file": "data_file=d",
  ", a raw data file": "data_file=d,data_file_raw=on",
};

/** An image of 9 MiB with four bitmaps in use by nobody, parts of them dirty. */
function given(options: string): readonly Given[] {
  const list = options === "" ? [] : ["-o", options];
  return [
    img(["create", "-f", "qcow2", ...list, "a", "9M"]),
    img("bitmap --add a one"),
    img("bitmap --add -g 512 a fine"),
    img("bitmap --add -g 1M a coarse"),
    img("bitmap --add -g 2G a whole"),
    img("bitmap --disable a coarse"),
    io("a", "write -P 1 1M 100k", "write -z 3M 64k", "discard 5M 64k", "write -P 2 9436672 512"),
    img("bitmap --add -g 8k --disable a clean"),
  ];
}

const CHANGES = [
  "bitmap --add a new",
  "bitmap --add -g 512 a new",
  "bitmap --add -g 2G a new",
  "bitmap --add --disable a new",
  "bitmap --add --disable --merge fine a new",
  "bitmap --add --merge coarse --merge fine -g 64k a new",
  "bitmap --add --merge one --clear a new",
  "bitmap --add --merge one --remove a new",
  "bitmap --remove a one",
  "bitmap --remove a fine",
  "bitmap --remove a clean",
  "bitmap --remove --add -g 4k a one",
  "bitmap --remove --add --merge fine a one",
  "bitmap --clear a one",
  "bitmap --clear a fine",
  "bitmap --clear --merge one a fine",
  "bitmap --clear --merge fine a one",
  "bitmap --enable a coarse",
  "bitmap --enable --enable a coarse",
  "bitmap --disable a fine",
  "bitmap --disable --enable a fine",
  "bitmap --merge fine a coarse",
  "bitmap --merge coarse a fine",
  "bitmap --merge whole a fine",
  "bitmap --merge whole a coarse",
  "bitmap --merge clean a fine",
  "bitmap --merge one a one",
];

/** What shapes of images other than the first two have to show. */
const SOME_CHANGES: readonly string[] = CHANGES.filter((_, index) => index % 4 === 0);

for (const [kind, options] of Object.entries(KINDS)) {
  const all = options === "" || options === "cluster_size=512";
  sameForEach(`qcow2${kind}`, all ? CHANGES : SOME_CHANGES, {
    given: given(options),
    files: options.startsWith("data_file") ? ["a", "d"] : ["a"],
    slack: SLACK,
    code: 0,
  });
}

sameForEach("two images of different shapes", [
  "bitmap --merge one -b b a one",
  "bitmap --merge one -b b -F qcow2 a fine",
  "bitmap --merge one -f qcow2 -b b a coarse",
  "bitmap --merge small -b b a one",
  "bitmap --merge small -b b --merge one --disable a clean",
  "bitmap --add --merge small -b b -g 1k a new",
], {
  given: [
    ...given(""),
    img("create -f qcow2 -o cluster_size=512 b 9M"),
    img("bitmap --add b one"),
    img("bitmap --add -g 512 b small"),
    io("b", "write 0 512", "write 2097151 2", "write 4M 1M", "write 9437183 1"),
  ],
  files: ["a", "b"],
  code: 0,
});

sameForEach("the last bitmap goes", ["bitmap --remove a only", "bitmap --remove --add a only"], {
  given: [img("create -f qcow2 a 1M"), img("bitmap --add a only"), io("a", "write 0 1M")],
  files: ["a"],
  code: 0,
});

for (const clusterSize of ["512", "1k", "2k", "4k", "64k", "128k", "2M"]) {
  same(`default granularity with clusters of ${clusterSize}`, {
    given: [img(`create -f qcow2 -o cluster_size=${clusterSize} a 64M`)],
    run: "bitmap --add a new",
    files: ["a"],
    code: 0,
  });
}

const IN_USE: readonly Given[] = [
  img("create -f qcow2 a 10M"),
  img("bitmap --add a lost"),
  img("bitmap --add --disable a gone"),
  crash("a", "write 0 64k"),
  img("bitmap --add a good"),
  img("bitmap --add --disable a quiet"),
  io("a", "write 1M 3M"),
];

sameForEach("bitmaps in use", [
  "bitmap --remove a lost",
  "bitmap --remove a gone",
  "bitmap --remove a good",
  "bitmap --add a new",
  "bitmap --merge good a quiet",
  "convert -O qcow2 --bitmaps --skip-broken-bitmaps a b",
  "check a",
  "check -r all a",
  "check -r leaks a",
  "measure -O qcow2 a",
  "info a",
  "info --output=json a",
], { given: IN_USE, files: ["a"], code: 0 });
sameForEach("bitmaps in use", [
  "bitmap --add a lost",
  "bitmap --clear a lost",
  "bitmap --enable a lost",
  "bitmap --disable a lost",
  "bitmap --merge good a lost",
  "bitmap --merge gone a lost",
  "bitmap --merge lost a good",
  "bitmap --merge none a lost",
  "bitmap --merge other -b b a lost",
  "bitmap --merge other -b b a good",
  "bitmap --add --merge lost a new",
  "bitmap --remove --remove a lost",
  "resize a 20M",
  "resize --shrink a 5M",
  "convert -O qcow2 --bitmaps a t",
  "convert -O raw --bitmaps a t",
], {
  given: [...IN_USE, img("create -f qcow2 b 20M"), img("bitmap --add b other")],
  files: ["a"],
  code: 1,
});

sameForEach("what cannot be done", [
  "bitmap --add a one",
  "bitmap --add -g 512 a one",
  "bitmap --remove a none",
  "bitmap --clear a none",
  "bitmap --enable a none",
  "bitmap --disable a none",
  "bitmap --merge one a none",
  "bitmap --merge none a one",
  "bitmap --merge none a nothing",
  "bitmap --add --merge none a new",
  "bitmap --clear --add a new",
  "bitmap --add -g 513 a new",
  "bitmap --add -g 256 a new",
  "bitmap --add -g 1 a new",
  "bitmap --add -g 4G a new",
  "bitmap --add -g 1T a new",
  "bitmap --add -g 7E a new",
  "bitmap --merge one -b a a one",
  "bitmap --merge one -b nowhere a one",
  "bitmap --merge one -b note -F raw a one",
  "bitmap --merge one -b note -F qcow2 a one",
  "bitmap --merge one -b note -F zork a one",
  "bitmap --enable nowhere one",
  "bitmap --enable -f zork a one",
  "bitmap --enable -f qcow2 note one",
  "bitmap --remove -f raw note one",
  "bitmap --merge one -b a -f raw note one",
  "bitmap --enable . one",
], {
  given: [...given(""), text("note", "x".repeat(512))],
  files: ["a"],
  code: 1,
});
same("a name that is too long", {
  given: [img("create -f qcow2 a 1M")],
  run: ["bitmap", "--add", "a", "x".repeat(1024)],
  normalize: nodeNames,
  files: ["a"],
  code: 1,
});
same("the longest name", {
  given: [img("create -f qcow2 a 1M")],
  run: ["bitmap", "--add", "a", "ü".repeat(511) + "x"],
  files: ["a"],
  code: 0,
});
same("an empty name", {
  given: [img("create -f qcow2 a 1M")],
  run: ["bitmap", "--add", "a", ""],
  files: ["a"],
  code: 1,
});
sameForEach("images that can have none", ["bitmap --add a new", "bitmap --remove a new"], {
  given: [img("create -f qcow2 -o compat=0.10 a 1M")],
  normalize: nodeNames,
  files: ["a"],
  code: 1,
});
same("a raw file can have none", {
  given: [text("a", "x".repeat(512))],
  run: "bitmap --add -f raw a new",
  normalize: nodeNames,
  files: ["a"],
  code: 1,
});
sameForEach("too fine for the disk", ["bitmap --add -g 512 a new", "bitmap --add -g 8k a new"], {
  given: [img("create -f qcow2 a 40T")],
  normalize: nodeNames,
  files: ["a"],
  code: 1,
});

sameForEach("command line", [
  "bitmap",
  "bitmap a",
  "bitmap a one",
  "bitmap --add",
  "bitmap --add a",
  "bitmap --add a one two",
  "bitmap --add -b b a",
  "bitmap --add -F raw a",
  "bitmap -g 4k --clear a",
  "bitmap -F raw --clear a one",
  "bitmap -b b --clear a one",
  "bitmap -b b -F raw -g 4k --clear a one",
  "bitmap -F raw -g 4k --clear a one",
  "bitmap -g x",
  "bitmap --add -g -1 a one",
  "bitmap --add -g 8E a one",
  "bitmap --add -g 1z a one",
  "bitmap --add -g= a one",
  "bitmap --add=x a one",
  "bitmap --add --format qcow2 a one",
  "bitmap --add -q a one",
  "bitmap --add -U a one",
  "bitmap --add -z a one",
  "bitmap --zork a one",
  "bitmap --merge",
  "bitmap --source a one",
  "bitmap -b",
  "bitmap -F",
  "bitmap -f",
], { given: given(""), files: ["a"], code: 1 });
sameForEach("abbreviations and places of options", [
  "bitmap --a a new",
  "bitmap --e a one",
  "bitmap --r a one",
  "bitmap --c a one",
  "bitmap --d a one",
  "bitmap a --add new",
  "bitmap a new --add -g4k",
  "bitmap --gran=4k --add -fqcow2 -- a new",
  "bitmap --m=one --source-fi a2 a one",
  "bitmap --add -g 0 a new",
  "bitmap --clear -g 0 a one",
  "bitmap --add -g 4k -g 8k a new",
  "bitmap --add -g 0x1000 a new",
  "bitmap --add -g 4096 --merge one --disable a -- new",
], { given: [...given(""), img("convert --bitmaps -O qcow2 a a2")], files: ["a"], code: 0 });

// What else meets bitmaps.

for (const [kind, options] of Object.entries(KINDS)) {
  const files = options.startsWith("data_file") ? ["a", "d"] : ["a"];
  sameForEach(`a disk that grows${kind}`, ["resize a 20M", "resize a +512"], {
    given: given(options),
    files,
    slack: SLACK,
    code: 0,
  });
  // With small clusters the reference makes tables for what never was there, to discard it.
  const small = options === "cluster_size=512";
  sameForEach(
    `a disk that shrinks${kind}`,
    ["resize --shrink a 2M", "resize --shrink a 1536"],
    {
      given: given(options),
      ...(small ? { images: [{ name: "a", format: "qcow2", check: true }] } : { files }),
      slack: SLACK,
      code: 0,
    },
  );
}

sameForEach("convert with bitmaps", [
  "convert --bitmaps -O qcow2 a b",
  "convert --bitmaps -f qcow2 -O qcow2 -o cluster_size=4k a b",
  "convert --bitmaps -O qcow2 -o cluster_size=512 a b",
  "convert --bitmaps -O qcow2 -o cluster_size=2M a b",
  "convert --bitmaps -O qcow2 -o extended_l2=on,refcount_bits=1 a b",
  "convert --bitmaps -O qcow2 -o preallocation=metadata a b",
  "convert --bitmaps -c -O qcow2 a b",
  "convert --bitmaps --skip-broken-bitmaps -p -O qcow2 a b",
  "convert --bitmaps -S 0 -O qcow2 a b",
], { given: given("cluster_size=64k"), files: ["b"], code: 0 });
same("convert without bitmaps", {
  given: given(""),
  run: "convert -O qcow2 a b",
  files: ["b"],
  code: 0,
});
sameForEach("convert into an image with bitmaps", [
  "convert --bitmaps -n -O qcow2 a b",
  "convert -n -O qcow2 a b",
  "convert -n -c -O qcow2 a b",
  "convert -n -S 0 -O qcow2 a b",
], {
  given: [
    ...given(""),
    img("create -f qcow2 b 9M"),
    img("bitmap --add -g 512 b theirs"),
    img("bitmap --add --disable b quiet"),
  ],
  files: ["b"],
  code: 0,
});
sameForEach("convert into an image that has bitmaps of the same names", [
  "convert --bitmaps -n -O qcow2 a b",
], {
  given: [...given(""), img("create -f qcow2 b 9M"), img("bitmap --add -g 4k b fine")],
  files: ["b"],
  code: 1,
});
sameForEach("convert into a larger image", ["convert --bitmaps -n -O qcow2 a b"], {
  given: [...given(""), img("create -f qcow2 b 10M"), img("bitmap --add -g 4k b old")],
  files: ["b"],
  code: 1,
});
sameForEach("convert, bitmaps that cannot be copied", [
  "convert --skip-broken-bitmaps a b",
  "convert --skip-broken-bitmaps -C -c a b",
  "convert --skip-broken-bitmaps -n -o x a b",
  "convert --skip-broken-bitmaps",
  "convert --bitmaps a",
  "convert --bitmaps -O qcow2 a a b",
  "convert --bitmaps -O qcow2 none b",
  "convert --bitmaps -f raw -O qcow2 a b",
  "convert --bitmaps -f raw -O raw a a b",
  "convert --bitmaps -O zork -f raw a b",
  "convert --bitmaps -c -f raw -O raw a b",
  "convert --bitmaps -f raw -O qcow2 -B x a b",
  "convert --bitmaps -n a v",
  "convert --bitmaps -n -O qcow2 a v",
  "convert --bitmaps -n -O qcow2 v a",
  "convert --bitmaps -n -O qcow2 a a",
  "convert --bitmaps -n -O qcow2 a none",
], {
  given: [...given(""), img("create -f qcow2 -o compat=0.10 v 5M")],
  files: ["a", "v"],
  code: 1,
});
sameForEach("convert, formats without bitmaps", [
  "convert --bitmaps -O raw a b",
  "convert --bitmaps -O qcow2 -o compat=0.10 a b",
], { given: given(""), files: ["a"], leftByReference: ["b"], code: 1 });

sameForEach("measure", [
  "measure -O qcow2 a",
  "measure -O qcow2 --output=json a",
  "measure -O qcow2 -o cluster_size=512 a",
  "measure -O qcow2 -o cluster_size=2M a",
  "measure -O qcow2 -o compat=0.10 a",
  "measure -O raw a",
  "measure -O qcow2 -f raw a",
], { given: given(""), code: 0 });

sameForEach("check and info", [
  "check a",
  "check --output=json a",
  "check -r all a",
  "info a",
  "info --output=json a",
], { given: given(""), files: ["a"], code: 0 });

const LEAKING: readonly Given[] = [
  ...given("cluster_size=4k"),
  // The autoclear bit: a program that knows no bitmaps has written.
  patch("a", [95, 1, 0]),
];
sameForEach("bitmaps that nobody kept up to date", [
  "info a",
  "check a",
  "check -r leaks a",
  "bitmap --add a one",
  "bitmap --remove a one",
  "resize a 10M",
  "convert --bitmaps -O qcow2 a b",
], {
  given: LEAKING,
  files: ["a"],
  // The reference ends its warning without ending the line.
  normalize: (text) => text.replace(/ to fix\.\n?/, " to fix.\n"),
});

sameForEach("a snapshot", [
  "bitmap --add a new",
  "bitmap --merge old a old",
  "bitmap --remove a old",
], {
  given: [
    img("create -f qcow2 a 4M"),
    img("bitmap --add a old"),
    io("a", "write 0 1M"),
    img("snapshot -c s a"),
    io("a", "write 512k 1M"),
  ],
  files: ["a"],
  code: 0,
});

for (
  const kind of [
    "qcow2, on a raw file",
    "qcow2, its backing file is missing",
    "qcow2, not closed",
    "qcow2, features that nobody knows",
    "qcow2, compressed with zlib",
  ] as const
) {
  sameForEach(kind, ["bitmap --add a new", "bitmap --add -g 512 --merge new a new"], {
    given: ZOO[kind]!,
    files: ["a"],
    code: 0,
  });
}
sameForEach("what cannot be opened", ["bitmap --add a new"], {
  given: ZOO["qcow2, corrupt"]!,
  files: ["a"],
  code: 1,
});

sameForEach("option lists", [
  "bitmap --image-opts --add driver=qcow2,file.filename=a new",
  "bitmap --image-opts --remove driver=qcow2,file.driver=file,file.filename=a one",
  'bitmap --merge fine -b json:{"driver":"qcow2","file.filename":"b"} a one',
], { given: [...given(""), img("convert --bitmaps -O qcow2 a b")], files: ["a"], code: 0 });
sameForEach("option lists", [
  "bitmap --image-opts -f qcow2 --add driver=qcow2,file.filename=a new",
  "bitmap --image-opts --add driver=zork,file.filename=a new",
  "bitmap --image-opts --add a new",
  "bitmap --object secret --add a new",
  "bitmap --object zork,id=x --add a new",
], { given: given(""), files: ["a"], code: 1 });

const SECRET = ["--object", "secret,id=s,data=geheim"];
for (const [format, slots] of [["luks", ",encrypt.iter-time=10"], ["aes", ""]] as const) {
  const options = `encrypt.format=${format},encrypt.key-secret=s${slots}`;
  const named = "driver=qcow2,file.filename=a,encrypt.key-secret=s";
  const encrypted: readonly Given[] = [
    img(["create", ...SECRET, "-f", "qcow2", "-o", options, "a", "2M"]),
    img(["bitmap", ...SECRET, "--add", "--image-opts", named, "old"]),
  ];
  for (
    const [action, code] of [[["--add"], 0], [["--add", "--merge", "old"], 0], [
      ["--clear"],
      1,
    ]] as const
  ) {
    same(`an image encrypted with ${format}: bitmap ${action.join(" ")}`, {
      given: encrypted,
      run: ["bitmap", ...SECRET, ...action, "--image-opts", named, "new"],
      files: ["a"],
      code,
    });
  }
  same(`an image encrypted with ${format}, without its key`, {
    given: encrypted,
    run: "bitmap --add a new",
    files: ["a"],
    code: 1,
  });
}
