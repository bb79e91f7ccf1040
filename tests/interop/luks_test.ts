/**
 * LUKS images through both tools: equal output, and equal bytes where nothing
 * is drawn by lot (images that the reference made before).
 */
import { assertEquals } from "@std/assert";
import { reference, runQimg, runReference, useQimg, useReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { type Case, disk, type Given, img, patch, same, text, truncate } from "./_cases.ts";

const K = 1024;
const M = 1024 * K;
/** Where the disk begins behind a header for keys of 16 bytes. */
const SMALL_PAYLOAD = 528384;

const SECRETS = [
  ...["--object", "secret,id=s,data=123456"],
  ...["--object", "secret,id=t,data=another-passphrase"],
  ...["--object", "secret,id=wrong,data=654321"],
  ...["--object", "secret,id=notext,data=//8=,format=base64"],
];
const QUICK = "iter-time=10,key-secret=";
const SMALL = "cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv";

/** A command line with all secrets: the command, then its operands and options. */
function line(words: string): string[] {
  const [command, ...rest] = words.split(" ");
  return [command!, ...SECRETS, ...rest];
}

/** An image's options. */
function opened(file: string, secret = "s"): string {
  return `driver=luks,key-secret=${secret},file.filename=${file}`;
}

/** The same with its header in another file. */
function detached(payload: string, header: string, secret = "s"): string {
  return `${opened(payload, secret)},header.filename=${header}`;
}

/** Tests of command lines that get all secrets. */
function both(about: string, lines: readonly string[], options: Omit<Case, "run"> = {}): void {
  for (const words of lines) same(`${about}: ${words}`, { ...options, run: line(words) });
}

/** `qemu-io` on an encrypted image. */
function write(file: string, ...commands: string[]): Given {
  return {
    key: `write luks ${file} ${commands}`,
    make: (cwd) =>
      useReference([
        ...SECRETS,
        ...commands.flatMap((command) => ["-c", command]),
        ...["--image-opts", opened(file)],
      ], { cwd, tool: "qemu-io" }),
  };
}

/** Takes an image apart: `h`, whose header says so, and `p`. */
const DETACH: Given = {
  key: "detach a to h and p",
  make(dir) {
    const bytes = Deno.readFileSync(`${dir}/a`);
    Deno.writeFileSync(`${dir}/p`, bytes.subarray(SMALL_PAYLOAD));
    const header = bytes.subarray(0, SMALL_PAYLOAD);
    header.fill(0, 104, 108);
    Deno.writeFileSync(`${dir}/h`, header);
    Deno.removeSync(`${dir}/a`);
  },
};

const DISK = disk("disk", 3 * M, [[0, 700 * K, "noise"], [1 * M, 256 * K, "gaps"]]);
const SHORT = disk("short", 5000, [[0, 5000, "noise"]]);
const EMPTY: readonly Given[] = [img(line(`create -f luks -o ${QUICK}s,${SMALL} a 3M`))];
const FULL: readonly Given[] = [
  ...EMPTY,
  write("a", "write -P 1 0 64k", "write -P 2 100k 7k", "write -z 1M 128k", "write -P 3 2M 1M"),
];
const XTS: readonly Given[] = [img(line(`create -f luks -o ${QUICK}s a 3M`)), DISK];

// Making.

for (const options of ["", `,${SMALL},hash-alg=sha512`]) {
  Deno.test({
    name: `what one tool encrypts the other one reads: luks ${options}`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const at = { cwd: dir.path };
      await DISK.make(dir.path);
      const convert = (to: string) =>
        line(`convert -f raw -O luks -o ${QUICK}s${options} disk ${to}`);
      await useQimg(convert("ours"), at);
      await useReference(convert("theirs"), at);
      const compare = (image: string) =>
        line(`compare --image-opts driver=raw,file.filename=disk ${opened(image)}`);
      assertEquals(await useReference(compare("ours"), at), "Images are identical.\n");
      assertEquals(await useQimg(compare("theirs"), at), "Images are identical.\n");
      const shown = async (image: string) => {
        const ours = await useQimg(["info", "--output=json", image], at);
        assertEquals(ours, await useReference(["info", "--output=json", image], at));
        const { data } = JSON.parse(ours)["format-specific"];
        return [data["cipher-alg"], data["cipher-mode"], data["hash-alg"], data["payload-offset"]];
      };
      assertEquals(await shown("ours"), await shown("theirs"));
      const sizes = ["ours", "theirs"].map((name) => Deno.statSync(dir.file(name)).size);
      assertEquals(sizes[0], sizes[1]);
      // What is not drawn by lot: names, sizes, places, and the slots that are not in use.
      const header = (name: string) => {
        const bytes = Deno.readFileSync(dir.file(name)).subarray(0, 4096);
        bytes.fill(0, 112, 208).fill(0, 212, 248);
        return bytes;
      };
      assertEquals(header("ours"), header("theirs"));
    },
  });
}

for (const preallocation of ["metadata", "falloc", "full"]) {
  Deno.test({
    name: `an image of odd length takes as much space as the reference's: ${preallocation}`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const at = { cwd: dir.path };
      const create = (name: string) =>
        line(`create -q -f luks -o ${QUICK}s,preallocation=${preallocation} ${name} 1000001`);
      await useQimg(create("ours"), at);
      await useReference(create("theirs"), at);
      const [ours, theirs] = ["ours", "theirs"].map((name) => Deno.statSync(dir.file(name)));
      assertEquals(ours!.size, theirs!.size);
      assertEquals(Math.abs(ours!.blocks! - theirs!.blocks!) <= 16, true);
      assertEquals(await useQimg(["info", "ours"], at), await useReference(["info", "ours"], at));
    },
  });
}

both(
  "create refuses",
  [
    "key-secret=none",
    "key-secret=notext",
    "iter-time=1",
    `${QUICK}s,cipher-alg=rot13`,
    `${QUICK}s,cipher-mode=rot13`,
    `${QUICK}s,ivgen-alg=rot13`,
    `${QUICK}s,ivgen-hash-alg=rot13`,
    `${QUICK}s,hash-alg=rot13`,
    `${QUICK}s,cipher-alg=cast5-128`,
    `${QUICK}s,cipher-alg=cast5-128,cipher-mode=cbc,ivgen-alg=essiv`,
    `${QUICK}s,cipher-alg=des`,
    `${QUICK}s,cipher-alg=sm4`,
    `${QUICK}s,ivgen-alg=essiv,ivgen-hash-alg=sha1`,
    `${QUICK}s,cipher-alg=serpent-256,ivgen-alg=essiv,ivgen-hash-alg=sha512`,
    `${QUICK}s,detached-header=on`,
    `${QUICK}s,detached-header=off`,
    `${QUICK}s,detached-header=off,hash-alg=rot13`,
    `${QUICK}s,preallocation=rot13,hash-alg=rot13`,
    `${QUICK}s,cluster_size=4k`,
    `${QUICK}s,backing_file=x`,
    "key-secret=s,iter-time=x",
  ].map((options) => `create -f luks -o ${options} a 1M`),
  { code: 1 },
);
both("create refuses", [
  "create -f luks a 1M",
  `create -f luks -o ${QUICK}s a`,
  `create -f luks -o ${QUICK}s a 7E`,
  `create -f luks -b disk -F raw -o ${QUICK}s a 1M`,
  `create -f luks -o ${QUICK}s none/a 1M`,
], { code: 1 });

both("measure", [
  `measure -O luks -o ${QUICK}s --size 1G`,
  `measure -O luks -o ${QUICK}s,${SMALL} --output=json --size 1000`,
  `measure -O luks -o ${QUICK}s,cipher-alg=aes-192 --size 1G`,
  "measure -O luks --size 1G",
  "measure -O luks -o key-secret=none --size 1G",
  `measure -O luks -o ${QUICK}s,cipher-alg=rot13 --size 1G`,
  `measure -O luks -o ${QUICK}s,detached-header=on --size 1G`,
  `measure -f raw -O luks -o ${QUICK}s disk`,
  `measure -O raw --image-opts ${opened("a")}`,
  `measure -O qcow2 --image-opts ${opened("a")}`,
], { given: [...FULL, DISK] });

// Opening.

both("luks is probed, and a key is needed", [
  "info a",
  "info -f luks a",
  "info --output=json a",
  "check a",
  "map a",
  "compare a a",
  "convert -O raw a b",
  "dd if=a of=b",
  "resize a 4M",
  "amend -o state=active,new-secret=t a",
  "snapshot -l a",
  `info --image-opts ${opened("a", "wrong")}`,
  `info --image-opts ${opened("a", "none")}`,
  `map --image-opts ${opened("a", "none")}`,
  `map --image-opts ${opened("a", "wrong")}`,
  `map --image-opts ${opened("a", "notext")}`,
  `map --image-opts ${opened("a")},size=5`,
  `info --image-opts ${opened("a")},size=5`,
], { given: FULL });

both("what the format can, and what not", [
  `check --image-opts ${opened("a")}`,
  `check --output=json --image-opts ${opened("a")}`,
  `check -r all --image-opts ${opened("a")}`,
  `map --image-opts ${opened("a")}`,
  `map --output=json --image-opts ${opened("a")}`,
  `compare --image-opts ${opened("a")} ${opened("a")}`,
  `snapshot -l --image-opts ${opened("a")}`,
  `snapshot -c one --image-opts ${opened("a")}`,
  `commit --image-opts ${opened("a")}`,
  `info --backing-chain --image-opts ${opened("a")}`,
], { given: FULL });

const SLOT0 = 208;
for (
  const [what, ...change] of [
    ["magic", 0, 4, 0],
    ["version", 6, 2, 2],
    ["cipher name", 8, 4, 0x61616161],
    ["payload offset", 104, 4, 7],
    ["payload past the end", 104, 4, 0x7fffff],
    ["iterations", 164, 4, 0],
    ["slot state", SLOT0, 4, 5],
    ["slot iterations", SLOT0 + 4, 4, 0],
    ["slot in the header", SLOT0 + 40, 4, 4],
    ["slot in the payload", SLOT0 + 40, 4, SMALL_PAYLOAD / 512 - 8],
    ["slots in each other", SLOT0 + 40, 4, 16],
    ["stripes", SLOT0 + 44, 4, 3999],
    ["digest", 112, 4, 0],
    ["key material", 4096, 4, 0],
    ["odd key", 108, 4, 17],
    ["huge key", 108, 4, 0xffffffff],
  ] as const
) {
  both(
    `a damaged header: ${what}`,
    [`map --image-opts ${opened("a")}`, "info -f luks a"],
    { given: [...EMPTY, patch("a", change)] },
  );
}
both("a file that ends before its disk", [
  `map --image-opts ${opened("a")}`,
  "info a",
  "info -f luks short",
], { given: [...EMPTY, truncate("a", SMALL_PAYLOAD - 512), text("short", "LUKS")] });
both("a file that ends with its header", [
  `map --output=json --image-opts ${opened("a")}`,
  `convert -O raw --image-opts ${opened("a")} b`,
  "info a",
], { given: [...EMPTY, truncate("a", SMALL_PAYLOAD)] });

// Reading and writing. All bytes are equal: the keys are given.

both("a luks image is read", [
  `convert -O raw --image-opts ${opened("a")} b`,
  `convert -O qcow2 -c --image-opts ${opened("a")} b`,
  `dd -O raw bs=1k count=2000 skip=3 if=${opened("a")} --image-opts of=b`,
  `dd -O raw bs=100 count=2000 skip=3 if=${opened("a")} --image-opts of=b`,
], { given: FULL, code: 0, images: ["b"] });

for (const [name, given] of [["xts", XTS], ["cbc", [...FULL, DISK]]] as const) {
  both(`a luks image is written, ${name}`, [
    `convert -f raw -n --target-image-opts disk ${opened("a")}`,
    `convert -f raw -n -S 0 --target-image-opts disk ${opened("a")}`,
    `convert -f raw -n -S 64k -W -m 4 --target-image-opts disk ${opened("a")}`,
    `resize --image-opts ${opened("a")} 10M`,
    `resize --shrink --image-opts ${opened("a")} 1000000`,
  ], { given, code: 0, files: ["a"] });
}
both("a short disk is written", [
  `convert -f raw -n --target-image-opts short ${opened("a")}`,
], { given: [...FULL, SHORT], code: 0, files: ["a"] });
both("resize", [
  `resize --preallocation=falloc --image-opts ${opened("a")} 5M`,
  `resize --preallocation=full --image-opts ${opened("a")} +1M`,
  `resize --preallocation=metadata --image-opts ${opened("a")} 5M`,
  `resize --image-opts ${opened("a")} 1M`,
  `resize --shrink --image-opts ${opened("a")} -- -1M`,
], { given: FULL, files: ["a"] });
both("convert refuses", [
  "convert -f raw -O luks disk b",
  "convert -f raw -O luks -o key-secret=none disk b",
  `convert -f raw -n --target-image-opts disk ${opened("a", "wrong")}`,
], { given: [...EMPTY, DISK], code: 1 });

// A header of its own.

both("a detached header", [
  "info h",
  "info p",
  `info --image-opts ${detached("p", "h")}`,
  `info --output=json --image-opts ${detached("p", "h")}`,
  `info --image-opts driver=luks,file.filename=p,header.driver=file,header.filename=h`,
  `info --image-opts ${detached("p", "none")}`,
  `map --output=json --image-opts ${detached("p", "h")}`,
  `map --image-opts ${opened("h")}`,
  `map --image-opts ${detached("p", "h", "wrong")}`,
  `map --image-opts ${detached("p", "p")}`,
  `map --image-opts ${opened("p")},header.filename=h,header.offset=1`,
  `measure -O raw --image-opts ${detached("p", "h")}`,
], { given: [...FULL, DETACH] });
both("a detached header is written to", [
  `convert -f raw -n --target-image-opts disk ${detached("p", "h")}`,
  `resize --image-opts ${detached("p", "h")} 10M`,
  `resize --shrink --image-opts ${detached("p", "h")} 1M`,
], { given: [...FULL, DISK, DETACH], code: 0, files: ["h", "p"] });
both("a detached header is read", [
  `convert -O raw --image-opts ${detached("p", "h")} b`,
], { given: [...FULL, DETACH], code: 0, images: ["b"] });
both("a whole image as the header of another file", [
  `info --image-opts ${detached("p", "a")}`,
  `map --output=json --image-opts ${detached("p", "a")}`,
  `map --output=json --image-opts ${detached("disk", "a")}`,
  `map --image-opts ${detached("short", "a")}`,
], {
  given: [...EMPTY, DISK, SHORT, {
    key: "p",
    make: (dir) => Deno.copyFile(`${dir}/disk`, `${dir}/p`),
  }],
});

// Key slots.

const SLOT = "iter-time=10,new-secret=t,state=active";

both(
  "key slots stay as they are",
  [
    "state=active",
    "keyslot=1",
    "state=up",
    `${SLOT},keyslot=0`,
    `${SLOT},keyslot=8`,
    `${SLOT},old-secret=s`,
    "state=active,new-secret=none",
    "state=inactive",
    "state=inactive,keyslot=0",
    "state=inactive,keyslot=1",
    "state=inactive,keyslot=9",
    "state=inactive,old-secret=s",
    "state=inactive,old-secret=t",
    "state=inactive,keyslot=0,old-secret=t",
    "state=inactive,keyslot=0,iter-time=10",
    "hash-alg=sha1",
    "size=5M",
    "encrypt.state=active",
  ].map((options) => `amend --image-opts ${opened("a")} -o ${options}`),
  { given: EMPTY, code: 1, files: ["a"] },
);
both("options", [
  "amend -f luks -o help",
  "create -f luks -o help",
  "amend -o help -f luks a",
], {
  // The help's words are each tool's own.
  normalize: (text) => text.replaceAll(/ - .*$/gm, ""),
});

for (
  const [name, given, image] of [
    ["beside the disk", EMPTY, (secret: string) => opened("a", secret)],
    ["in a header of its own", [...EMPTY, DETACH], (secret: string) => detached("p", "h", secret)],
  ] as const
) {
  Deno.test({
    name: `key slots that one tool fills and erases are so for the other one, ${name}`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const at = { cwd: dir.path };
      for (const step of given) await step.make(dir.path);
      const tools = [
        (args: string[]) => runReference(args, at),
        (args: string[]) => runQimg(args, at),
      ] as const;
      const opens = async (secret: string) => {
        const codes = [];
        for (const tool of tools) {
          codes.push((await tool(line(`map --output=json --image-opts ${image(secret)}`))).code);
        }
        assertEquals(codes[0], codes[1]);
        return codes[0] === 0;
      };
      const amend = async (tool: number, secret: string, options: string) => {
        const { code, stderr } = await tools[tool]!(
          line(`amend --image-opts ${image(secret)} -o ${options}`),
        );
        assertEquals([code, stderr], [0, ""]);
      };
      await amend(1, "s", SLOT);
      assertEquals([await opens("s"), await opens("t")], [true, true]);
      await amend(0, "t", "state=inactive,old-secret=s");
      assertEquals([await opens("s"), await opens("t")], [false, true]);
      await amend(0, "t", "iter-time=10,new-secret=s,state=active,keyslot=5");
      await amend(1, "s", "state=inactive,keyslot=1");
      assertEquals([await opens("s"), await opens("t")], [true, false]);
    },
  });
}
