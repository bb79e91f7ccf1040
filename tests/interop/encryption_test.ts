/**
 * Encrypted qcow2 images through both tools: equal output, and equal bytes
 * where nothing is drawn by lot (images that the reference made before).
 */
import { assert, assertEquals } from "@std/assert";
import {
  type Outcome,
  reference,
  runQimg,
  runReference,
  useQimg,
  useReference,
} from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { type Case, disk, type Given, img, patch, same } from "./_cases.ts";

const K = 1024;
const M = 1024 * K;

const SECRETS = [
  ...["--object", "secret,id=s,data=123456"],
  ...["--object", "secret,id=t,data=another-passphrase"],
  ...["--object", "secret,id=long,data=more than sixteen bytes"],
  ...["--object", "secret,id=wrong,data=654321"],
  ...["--object", "secret,id=notext,data=//8=,format=base64"],
];
const LUKS = "encrypt.format=luks,encrypt.iter-time=10,encrypt.key-secret=";
const AES = "encrypt.format=aes,encrypt.key-secret=";

/** A command line with all secrets: the command, then its operands and options. */
function line(words: string | readonly string[]): string[] {
  const [command, ...rest] = typeof words === "string" ? words.split(" ") : words;
  return [command!, ...SECRETS, ...rest];
}

/** An image's options. */
function opened(file: string, secret = "s", more = ""): string {
  return `driver=qcow2,file.filename=${file},encrypt.key-secret=${secret}${more}`;
}

const make = (words: string): Given => img(line(words));
/** `qemu-io` on an encrypted image. */
function write(file: string, secret: string, ...commands: string[]): Given {
  return {
    key: `write ${file} ${secret} ${commands}`,
    make: (cwd) =>
      useReference([
        ...SECRETS,
        ...commands.flatMap((command) => ["-c", command]),
        ...["--image-opts", opened(file, secret)],
      ], { cwd, tool: "qemu-io" }),
  };
}

const DISK = disk("disk", 3 * M, [[0, 700 * K, "noise"], [1 * M, 256 * K, "gaps"]]);
const EMPTY: readonly Given[] = [make(`create -f qcow2 -o ${LUKS}s a 3M`)];
/** Images with every kind of cluster. */
const FULL: readonly Given[] = [
  ...EMPTY,
  write("a", "s", "write -P 1 0 64k", "write -P 2 100k 7k", "write -z 1M 128k", "write -P 3 2M 1M"),
  write("a", "s", "discard 2M 64k", "write -c -P 4 192k 64k", "write -P 5 1000 10"),
];

// What there is to encrypt with.

/** Ciphers and modes with their generators and hashes: every one of each. */
const COMBINATIONS: readonly string[] = [
  "",
  "cipher-alg=aes-128,ivgen-alg=plain,hash-alg=md5",
  "cipher-alg=aes-192,hash-alg=sha1",
  "cipher-alg=aes-256,ivgen-alg=essiv,ivgen-hash-alg=sm3,hash-alg=sha224",
  "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,hash-alg=sha384",
  "cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=plain,hash-alg=sha512",
  "cipher-alg=aes-128,cipher-mode=ctr,ivgen-alg=essiv,ivgen-hash-alg=md5,hash-alg=ripemd160",
  "cipher-alg=aes-256,cipher-mode=ctr,hash-alg=sm3",
  "cipher-alg=aes-128,cipher-mode=ecb,ivgen-alg=plain64,ivgen-hash-alg=sha1",
  "cipher-alg=aes-256,cipher-mode=ecb,ivgen-alg=essiv,ivgen-hash-alg=sha256",
];

for (const combination of COMBINATIONS) {
  const extra = combination.split(",").filter(Boolean).map((o) => `,encrypt.${o}`).join("");
  Deno.test({
    name: `what one tool encrypts the other one reads: ${combination || "defaults"}`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const at = { cwd: dir.path };
      await DISK.make(dir.path);
      const convert = (to: string) =>
        line(`convert -f raw -O qcow2 -o ${LUKS}s${extra} disk ${to}`);
      await useQimg(convert("ours"), at);
      await useReference(convert("theirs"), at);
      const compare = (image: string) => [
        ...line("compare --image-opts"),
        ...["driver=raw,file.filename=disk", opened(image)],
      ];
      assertEquals(await useReference(compare("ours"), at), "Images are identical.\n");
      assertEquals(await useQimg(compare("theirs"), at), "Images are identical.\n");
      await useReference(line(["check", "--image-opts", opened("ours")]), at);
      const shown = async (image: string) => {
        const info = JSON.parse(await useQimg(["info", "--output=json", image], at));
        const { encrypt } = info["format-specific"].data;
        assertEquals(
          info,
          JSON.parse(await useReference(["info", "--output=json", image], at)),
        );
        return [encrypt["cipher-alg"], encrypt["cipher-mode"], encrypt["hash-alg"]];
      };
      assertEquals(await shown("ours"), await shown("theirs"));
      const sizes = ["ours", "theirs"].map((name) => Deno.statSync(dir.file(name)).size);
      assertEquals(sizes[0], sizes[1]);
    },
  });
}

/** Tests of command lines that get all secrets. */
function both(about: string, lines: readonly string[], options: Omit<Case, "run"> = {}): void {
  for (const words of lines) same(`${about}: ${words}`, { ...options, run: line(words) });
}

both(
  "create refuses",
  [
    `encrypt.format=luks`,
    `encrypt.format=luks,encrypt.key-secret=none`,
    `encrypt.format=luks,encrypt.key-secret=notext`,
    `encrypt.format=aes,encrypt.key-secret=notext`,
    `encrypt.format=aes`,
    `encryption=on`,
    `encryption=on,encrypt.key-secret=none`,
    `${LUKS}s,encrypt.cipher-alg=cast5-128`,
    `${LUKS}s,encrypt.cipher-alg=cast5-128,encrypt.ivgen-alg=essiv`,
    `${LUKS}s,encrypt.cipher-alg=des`,
    `${LUKS}s,encrypt.cipher-alg=3des,encrypt.ivgen-alg=essiv`,
    `${LUKS}s,encrypt.cipher-alg=sm4`,
    `${LUKS}s,encrypt.cipher-alg=rot13`,
    `${LUKS}s,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha1`,
    `${LUKS}s,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha512`,
    `${LUKS}s,encrypt.cipher-alg=serpent-256,encrypt.ivgen-alg=essiv,encrypt.ivgen-hash-alg=sha1`,
    `${LUKS}s,cluster_size=1000`,
    `${LUKS}none,backing_fmt=raw`,
  ].map((options) => `create -f qcow2 -o ${options} a 1M`),
  { code: 1 },
);

both("create encrypts as before LUKS", [
  `create -f qcow2 -o encryption=on,encrypt.key-secret=s a 1M`,
  `create -f qcow2 -o ${AES}long a 1M`,
  `create -f qcow2 -o ${AES}s,compat=0.10,cluster_size=4k a 1M`,
  `create -f qcow2 -o ${AES}s,preallocation=metadata a 1M`,
], { code: 0, files: ["a"] });

both("measure", [
  `measure -O qcow2 -o ${LUKS}s --size 1G`,
  `measure -O qcow2 -o ${LUKS}s,encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc --size 1G`,
  `measure -O qcow2 -o ${LUKS}s,cluster_size=4k,extended_l2=off --output=json --size 100M`,
  `measure -O qcow2 -o ${LUKS}s,encrypt.cipher-alg=aes-192,cluster_size=2M --size 1G`,
  `measure -O qcow2 -o ${AES}s --size 1G`,
  `measure -O qcow2 -o ${AES}none --size 1G`,
  `measure -O qcow2 -o ${LUKS}none --size 1G`,
  `measure -O qcow2 -o encrypt.format=luks --size 1G`,
  `measure -O qcow2 -o ${LUKS}s,encrypt.cipher-alg=rot13 --size 1G`,
  `measure -O qcow2 -o encrypt.key-secret=s --size 1G`,
  `measure -f raw -O qcow2 -o ${LUKS}s disk`,
  `measure -O raw --image-opts ${opened("a")}`,
  `measure -O qcow2 --image-opts ${opened("a")}`,
], { given: [...FULL, DISK] });

// Opening.

both("a key is needed", [
  "check a",
  "map a",
  "compare a a",
  "convert -O raw a b",
  "dd if=a of=b",
  "resize a 4M",
  "amend -o encrypt.state=active,encrypt.new-secret=t a",
  "snapshot -l a",
  "info a",
  "info --output=json a",
  "check --image-opts driver=qcow2,file.filename=a",
  `check --image-opts ${opened("a", "none")}`,
  `check --image-opts ${opened("a", "wrong")}`,
  `check --image-opts ${opened("a", "notext")}`,
  `info --image-opts ${opened("a", "wrong")}`,
  `info --image-opts ${opened("a", "none")}`,
  `check --image-opts ${opened("a", "s", ",encrypt.format=luks")}`,
  `check --image-opts ${opened("a", "s", ",encrypt.format=aes")}`,
  `info --image-opts driver=qcow2,file.filename=a,encrypt.format=aes`,
  `check --image-opts ${opened("a", "s", ",encrypt.format=rot13")}`,
  `check --image-opts ${opened("a", "s", ",encrypt.cipher-alg=aes-256")}`,
  `check --image-opts ${opened("a")}`,
  `check --output=json --image-opts ${opened("a")}`,
  `map --image-opts ${opened("a")}`,
  `map --output=json --image-opts ${opened("a")}`,
], { given: FULL });

both("an image without encryption needs none", [
  `check --image-opts ${opened("p")}`,
  `check --image-opts ${opened("p", "none")}`,
  `check --image-opts ${opened("p", "s", ",encrypt.format=luks")}`,
  `info --image-opts ${opened("p", "s", ",encrypt.format=aes")}`,
], { given: [img("create -f qcow2 p 1M")] });

both("the old encryption is opened", [
  `info a`,
  `check a`,
  `check --image-opts ${opened("a")}`,
  `check --image-opts ${opened("a", "wrong")}`,
  `check --image-opts ${opened("a", "none")}`,
  `check --image-opts ${opened("a", "s", ",encrypt.format=luks")}`,
  `amend --image-opts ${opened("a")} -o encrypt.state=active,encrypt.new-secret=t`,
  `map --output=json --image-opts ${opened("a")}`,
], { given: [make(`create -f qcow2 -o ${AES}s a 1M`), write("a", "s", "write -P 7 0 100k")] });

const HEADER = 0x50000;
for (
  const [what, ...change] of [
    ["magic", HEADER, 4, 0],
    ["version", HEADER + 6, 2, 2],
    ["iterations", HEADER + 164, 4, 0],
    ["slot state", HEADER + 208, 4, 5],
    ["slot offset", HEADER + 208 + 40, 4, 4],
    ["digest", HEADER + 112, 4, 0],
    ["salt", HEADER + 132, 4, 0],
    ["key material", HEADER + 4096, 4, 0],
    ["odd key", HEADER + 108, 4, 60],
  ] as const
) {
  both(`a damaged LUKS header: ${what}`, [`check --image-opts ${opened("a")}`, "info a"], {
    given: [...EMPTY, patch("a", change)],
  });
}

// Reading and writing. All bytes are equal: keys and places are given.

both("an encrypted image is read", [
  `convert -O raw --image-opts ${opened("a")} b`,
  `dd -O raw bs=1k count=2000 skip=3 if=${opened("a")} --image-opts of=b`,
  `convert -O qcow2 --image-opts ${opened("a")} b`,
  `convert -O qcow2 -c --image-opts ${opened("a")} b`,
], { given: FULL, code: 0, images: ["b"] });

both("an encrypted image is written", [
  `convert -f raw -n --target-image-opts disk ${opened("a")}`,
  `convert -f raw -n -S 0 --target-image-opts disk ${opened("a")}`,
  `convert -f raw -n -S 64k --target-image-opts disk ${opened("a")}`,
  `resize --image-opts ${opened("a")} 10M`,
  `resize --preallocation=metadata --image-opts ${opened("a")} 5M`,
  `resize --preallocation=falloc --image-opts ${opened("a")} 5M`,
  `resize --shrink --image-opts ${opened("a")} 1M`,
  `check -r all --image-opts ${opened("a")}`,
], { given: [...FULL, DISK], code: 0, files: ["a"] });

for (
  const options of [
    "cluster_size=512",
    "cluster_size=4k",
    "compat=0.10",
    "cluster_size=2M",
    "extended_l2=on",
    "refcount_bits=1,lazy_refcounts=on",
    "preallocation=metadata",
    "preallocation=full",
    "encrypt.cipher-alg=aes-128,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv",
  ]
) {
  both(`an empty encrypted image is written, ${options}`, [
    `convert -f raw -n --target-image-opts disk ${opened("a")}`,
  ], {
    given: [make(`create -f qcow2 -o ${LUKS}s,${options} a 3M`), DISK],
    code: 0,
    files: ["a"],
  });
}

both("the old encryption is written", [
  `convert -f raw -O qcow2 -o ${AES}s disk a`,
  `convert -f raw -O qcow2 -o encryption=on,encrypt.key-secret=long disk a`,
  `convert -f raw -O qcow2 -o ${AES}s,cluster_size=4k,compat=0.10 disk a`,
  `convert -f raw -O qcow2 -o ${AES}s,preallocation=metadata disk a`,
  `convert -f raw -O qcow2 -o ${AES}s,extended_l2=on disk a`,
], { given: [DISK], code: 0, files: ["a"] });

both("a data file holds encrypted bytes", [
  `convert -f raw -n --target-image-opts disk ${opened("a")}`,
  `check --image-opts ${opened("a")}`,
  `map --output=json --image-opts ${opened("a")}`,
], {
  given: [make(`create -f qcow2 -o ${LUKS}s,data_file=d a 3M`), DISK],
  code: 0,
  files: ["a", "d"],
});

both("convert refuses", [
  `convert -f raw -O qcow2 -o encrypt.format=luks disk b`,
  `convert -f raw -O qcow2 -o ${LUKS}none disk b`,
  `convert -f raw -O qcow2 -o ${AES}none disk b`,
  `convert -f raw -O qcow2 -c -o ${LUKS}s disk b`,
  `convert -f raw -n --target-image-opts disk ${opened("a", "wrong")}`,
], { given: [...EMPTY, DISK], code: 1 });
both("convert refuses", [
  `convert -f raw -O qcow2 -B a -F qcow2 -o ${LUKS}t disk b`,
], { given: [...EMPTY, DISK], code: 1, leftByReference: ["b"] });

// Chains with several keys.

const CHAIN: readonly Given[] = [
  make(`create -f qcow2 -o ${LUKS}s base 2M`),
  write("base", "s", "write -P 1 0 2M"),
  make(`create -f qcow2 -b base -F qcow2 -o ${LUKS}t top 3M`),
  {
    key: "write top over base",
    make: (cwd) =>
      useReference([
        ...SECRETS,
        ...["-c", "write -P 2 100k 5k", "-c", "write -z 1M 64k", "--image-opts"],
        opened("top", "t", ",backing.encrypt.key-secret=s"),
      ], { cwd, tool: "qemu-io" }),
  },
];
const chained = (file: string) => opened(file, "t", ",backing.encrypt.key-secret=s");

both("a chain with a key for each image", [
  `convert -O raw --image-opts ${chained("top")} out`,
], { given: CHAIN, code: 0, images: [{ name: "out", format: "raw" }] });
both("a chain with a key for each image is written", [
  `convert -f raw -n --target-image-opts disk ${chained("top")}`,
], { given: [...CHAIN, DISK], code: 0, files: ["top", "base"] });
both("a chain with a key for each image", [
  `map --output=json --image-opts ${chained("top")}`,
  `compare --image-opts ${chained("top")} ${chained("top")}`,
  `map --image-opts ${opened("top", "t")}`,
  `map --image-opts ${opened("top", "s", ",backing.encrypt.key-secret=s")}`,
  `map --image-opts ${opened("top", "t", ",backing.encrypt.key-secret=t")}`,
  `info --backing-chain top`,
], { given: CHAIN });

// Key slots.

const SLOT = "encrypt.iter-time=10,encrypt.new-secret=t,encrypt.state=active";

both(
  "key slots stay as they are",
  [
    "encrypt.state=active",
    "encrypt.keyslot=1",
    "encrypt.state=up",
    `${SLOT},encrypt.keyslot=0`,
    `${SLOT},encrypt.keyslot=8`,
    `${SLOT},encrypt.keyslot=-1`,
    `${SLOT},encrypt.old-secret=s`,
    "encrypt.state=active,encrypt.new-secret=none",
    "encrypt.state=active,encrypt.new-secret=notext",
    "encrypt.state=inactive",
    "encrypt.state=inactive,encrypt.keyslot=0",
    "encrypt.state=inactive,encrypt.keyslot=1",
    "encrypt.state=inactive,encrypt.keyslot=9",
    "encrypt.state=inactive,encrypt.old-secret=s",
    "encrypt.state=inactive,encrypt.old-secret=t",
    "encrypt.state=inactive,encrypt.old-secret=none",
    "encrypt.state=inactive,encrypt.keyslot=0,encrypt.old-secret=t",
    "encrypt.state=inactive,encrypt.keyslot=0,encrypt.iter-time=10",
    "encrypt.state=inactive,encrypt.keyslot=0,encrypt.new-secret=t",
    "encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=9223372036854775807",
  ].map((options) => `amend --image-opts ${opened("a")} -o ${options}`),
  {
    given: EMPTY,
    code: 1,
    files: ["a"],
    // How fast this machine is.
    normalize: (text) => text.replace(/iterations \d+ too/, "iterations N too").trimEnd(),
  },
);

Deno.test({
  name: "key slots that one tool fills and erases are so for the other one",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    const at = { cwd: dir.path };
    await useReference(line(`create -q -f qcow2 -o ${LUKS}s a 1M`), at);
    const tools = [
      (args: string[]) => runReference(args, at),
      (args: string[]) => runQimg(args, at),
    ];
    const opens = async (secret: string) => {
      const codes = [];
      for (const tool of tools) {
        codes.push((await tool(line(`check -q --image-opts ${opened("a", secret)}`))).code);
      }
      assertEquals(codes[0], codes[1]);
      return codes[0] === 0;
    };
    const amend = async (tool: number, secret: string, options: string) => {
      const { code, stderr } = await tools[tool]!(
        line(`amend --image-opts ${opened("a", secret)} -o ${options}`),
      );
      assertEquals([code, stderr], [0, ""]);
    };
    for (const tool of [0, 1]) {
      await amend(tool, "s", SLOT);
      assertEquals([await opens("s"), await opens("t")], [true, true]);
      await amend(1 - tool, "t", "encrypt.state=inactive,encrypt.old-secret=s");
      assertEquals([await opens("s"), await opens("t")], [false, true]);
      await amend(tool, "t", "encrypt.iter-time=10,encrypt.new-secret=s,encrypt.state=active");
      await amend(1 - tool, "s", "encrypt.state=inactive,encrypt.keyslot=1");
      assertEquals([await opens("s"), await opens("t")], [true, false]);
    }
  },
});

// Secrets.

Deno.test("no secret is in what qimg says, nor in a file", async () => {
  await using dir = await tempDir();
  await using temp = await tempDir();
  const at = { cwd: dir.path };
  const before = Deno.env.get("TMPDIR");
  Deno.env.set("TMPDIR", temp.path);
  const outcomes: Outcome[] = [];
  try {
    for (
      const words of [
        `create -f qcow2 -o ${LUKS}t a 1M`,
        `create -f qcow2 -o ${AES}t b 1M`,
        `create -f qcow2 -o ${LUKS}t,encrypt.cipher-alg=serpent-128 c 1M`,
        `check --image-opts ${opened("a", "t")}`,
        `check --image-opts ${opened("a", "long")}`,
        `info --image-opts ${opened("a", "t")}`,
        `amend --image-opts ${opened("a", "t")} -o ${SLOT.replace("=t", "=long")}`,
        `convert -O qcow2 -o ${LUKS}t --image-opts ${opened("a", "t")} d`,
        `measure -O qcow2 -o ${LUKS}t --size 1M`,
      ]
    ) outcomes.push(await runQimg(line(words), at));
  } finally {
    if (before === undefined) Deno.env.delete("TMPDIR");
    else Deno.env.set("TMPDIR", before);
  }
  assert(outcomes.some(({ code }) => code === 0) && outcomes.some(({ code }) => code !== 0));
  const written = [];
  for (const folder of [dir.path, temp.path]) {
    for (const { name } of Deno.readDirSync(folder)) written.push(`${folder}/${name}`);
  }
  assertEquals(written.length, 3, String(written));
  const decoder = new TextDecoder("latin1");
  const texts = [
    ...outcomes.flatMap(({ stdout, stderr }) => [stdout, stderr]),
    ...written.map((path) => decoder.decode(Deno.readFileSync(path))),
  ];
  for (const text of texts) {
    assert(!text.includes("another-passphrase") && !text.includes("more than sixteen"));
  }
});
