import { assertEquals } from "@std/assert";
import { humanSize, parseInteger, parseSize } from "../../lib/bytes/size.ts";
import { reference, runReference, useReference } from "../_reference.ts";
import { Random } from "../_random.ts";
import { tempDir } from "../_temp.ts";

const KI = 1024n;

const SIZES: Record<string, bigint | "malformed" | "out-of-range"> = {
  "1000": 1000n,
  "1b": 1n,
  "1B": 1n,
  "1k": KI,
  "1K": KI,
  "1M": KI ** 2n,
  "1g": KI ** 3n,
  "1T": KI ** 4n,
  "1p": KI ** 5n,
  "1E": KI ** 6n,
  " 1k": KI,
  "\t1k": KI,
  "\v\f\r\n1": 1n,
  "+1k": KI,
  "08": 8n,
  "0": 0n,
  "1.": 1n,
  "1.k": KI,
  ".5k": 512n,
  "+.5k": 512n,
  "1.5k": 1536n,
  "0.1k": 102n,
  ".9999k": 1024n,
  "1.0": 1n,
  "1.0b": 1n,
  ".0": 0n,
  // A tie goes up, and just below it goes down.
  "0.00048828125k": 1n,
  "0.00048828124k": 0n,
  // Double precision, as the reference has it.
  "0.7E": 807045053224792832n,
  "0.1234567890123456789E": 142335986942043632n,
  "15.9E": 18331451923248866944n,
  "1.0000000000000000001E": KI ** 6n,
  "0x10": 16n,
  "0X1F": 31n,
  "0x1b": 27n,
  "18446744073709551615": 2n ** 64n - 1n,
  "0xffffffffffffffff": 2n ** 64n - 1n,
  "18446744073709551616": "out-of-range",
  "0x10000000000000000": "out-of-range",
  "16E": "out-of-range",
  "15.99999999999999999999E": "out-of-range",
  "-1": "out-of-range",
  "-0": "out-of-range",
  " -1": "out-of-range",
  "-99999999999999999999999": "out-of-range",
  // Beyond 64 bits the reference no longer sees the suffix.
  "99999999999999999999999k": "malformed",
  "-1k": "malformed",
  "-0x10": "malformed",
  "- 1": "malformed",
  "-": "malformed",
  "-1.5": "malformed",
  "-1.": "malformed",
  "": "malformed",
  " ": "malformed",
  "+": "malformed",
  "++1": "malformed",
  "+-1": "malformed",
  "+ 1": "malformed",
  "1 ": "malformed",
  "1 k": "malformed",
  "1k ": "malformed",
  ".": "malformed",
  ".k": "malformed",
  "k": "malformed",
  "1.5": "malformed",
  "1.5b": "malformed",
  "1.00000000000000000000000000000000000000001": "malformed",
  "1e3": "malformed",
  "1.e1": "malformed",
  "1.5e3M": "malformed",
  "0x": "malformed",
  "0xk": "malformed",
  "0x10k": "malformed",
  "0x.8": "malformed",
  "0x1p3": "malformed",
  "00x10": "malformed",
  "1KB": "malformed",
  "1MiB": "malformed",
  "1G1": "malformed",
  "1Q": "malformed",
  "1,5k": "malformed",
  "1.+5k": "malformed",
  "1. 5k": "malformed",
  "inf": "malformed",
  "nan": "malformed",
  "abc": "malformed",
  "\u00a01": "malformed",
  "１": "malformed",
};

function outcome(parsed: ReturnType<typeof parseSize>): bigint | string {
  return typeof parsed === "string" ? parsed : parsed.value;
}

Deno.test("the size grammar of the command-line reference", () => {
  for (const [text, expected] of Object.entries(SIZES)) {
    assertEquals(outcome(parseSize(text)), expected, JSON.stringify(text));
  }
});

Deno.test({
  name: "sizes are read as the reference tool reads them",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    await Deno.writeFile(dir.file("x"), new Uint8Array(512));
    const random = new Random(7);
    const texts = Object.keys(SIZES).filter((text) => !/[,\n]/.test(text));
    const parts = ["0", "1", "9", "12", ".", ".5", "k", "M", "E", "b", "x", "-", "+", " ", "e"];
    for (let i = 0; i < 60; i++) {
      texts.push(Array.from({ length: random.between(1, 5) }, () => random.pick(parts)).join(""));
    }
    for (const text of texts) {
      assertEquals(
        outcome(parseSize(text)),
        await referenceSize(text, dir.path),
        JSON.stringify(text),
      );
    }
  },
});

/** What the reference makes of a size: its complaint about the offset tells the exact value. */
async function referenceSize(text: string, cwd: string): Promise<bigint | string> {
  const options = `driver=raw,offset=${text},file.driver=file,file.filename=x`;
  const { stdout, stderr } = await runReference(["info", "--image-opts", options], { cwd });
  const offset = /Offset \((\d+)\) cannot be greater/.exec(stderr)?.[1];
  if (offset !== undefined) return BigInt(offset);
  if (stderr.includes("is out of range for parameter")) return "out-of-range";
  if (stderr.includes("expects a non-negative number")) return "malformed";
  // A small offset opens; the window that is left, in whole sectors, does not tell it exactly.
  const parsed = parseSize(text);
  const left = /\((\d+) bytes\)/.exec(stdout)?.[1];
  if (typeof parsed === "string" || left === undefined) return `opens with ${left} bytes`;
  const expected = (512n - parsed.value + 511n) / 512n * 512n;
  return BigInt(left) === expected ? parsed.value : `opens with ${left} bytes`;
}

const INTEGERS: Record<string, bigint | "malformed" | "out-of-range"> = {
  "0": 0n,
  "16": 16n,
  " 16": 16n,
  "\t2": 2n,
  "+1": 1n,
  "0x10": 16n,
  "0X8": 8n,
  "020": 16n,
  "00": 0n,
  "-1": 2n ** 64n - 1n,
  "-0": 0n,
  "-0x1": 2n ** 64n - 1n,
  "-010": 2n ** 64n - 8n,
  "18446744073709551615": 2n ** 64n - 1n,
  "-18446744073709551615": 1n,
  "18446744073709551616": "out-of-range",
  "-99999999999999999999": "out-of-range",
  "0x10000000000000000": "out-of-range",
  "": "malformed",
  " ": "malformed",
  "+": "malformed",
  "-": "malformed",
  "08": "malformed",
  "0b1": "malformed",
  "0o7": "malformed",
  "0x": "malformed",
  "0xg": "malformed",
  "00x1": "malformed",
  "1k": "malformed",
  "1.": "malformed",
  "1.0": "malformed",
  "1e0": "malformed",
  "1 ": "malformed",
  "+ 1": "malformed",
  "- 1": "malformed",
  "99999999999999999999x": "malformed",
};

Deno.test("plain integers are in C's base 0", () => {
  for (const [text, expected] of Object.entries(INTEGERS)) {
    assertEquals(outcome(parseInteger(text)), expected, JSON.stringify(text));
  }
});

Deno.test({
  name: "plain integers are read as the reference tool reads them",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    for (const text of Object.keys(INTEGERS)) {
      // `-m` takes 1 to 16; with a good number the missing file is what fails.
      const { stderr } = await runReference(["convert", "-m", text, "missing", "target"], {
        cwd: dir.path,
      });
      const parsed = parseInteger(text);
      const expected = parsed === "malformed"
        ? `qemu-img: Invalid number of coroutines specified: '${text}'.\n`
        : parsed === "out-of-range" || parsed.value < 1n || parsed.value > 16n
        ? "qemu-img: Invalid number of coroutines specified. Must be between 1 and 16.\n"
        : "qemu-img: Could not open 'missing': Could not open 'missing': No such file or directory\n";
      assertEquals(stderr, expected, JSON.stringify(text));
    }
  },
});

const HUMAN: [bytes: number | bigint, text: string][] = [
  [0, "0 B"],
  [1, "1 B"],
  [512, "512 B"],
  [999, "999 B"],
  [1000, "0.977 KiB"],
  [1024, "1 KiB"],
  [1536, "1.5 KiB"],
  [200704, "196 KiB"],
  [1022976, "999 KiB"],
  [1023488, "1e+03 KiB"],
  [1024000, "0.977 MiB"],
  [1047552, "0.999 MiB"],
  [1048576, "1 MiB"],
  [10 * 2 ** 20, "10 MiB"],
  [1.5 * 2 ** 30, "1.5 GiB"],
  // Ties to the even digit: 1.125, 1.375.
  [1179648, "1.12 MiB"],
  [1441792, "1.38 MiB"],
  [2 ** 53 - 1, "8 PiB"],
  [2n ** 60n, "1 EiB"],
  [2n ** 64n - 1n, "16 EiB"],
];

Deno.test("human sizes have three significant digits and stay below 1000", () => {
  for (const [bytes, text] of HUMAN) assertEquals(humanSize(bytes), text, `${bytes}`);
});

Deno.test({
  name: "human sizes are written as the reference tool writes them",
  ignore: reference.ignore,
  async fn() {
    await using dir = await tempDir();
    const random = new Random(3);
    const sizes = HUMAN.map(([bytes]) => Number(bytes));
    for (let i = 0; i < 40; i++) sizes.push(random.below(2 ** random.between(9, 43)));
    for (const size of sizes) {
      const sectors = Math.ceil(size / 512) * 512;
      if (sectors > 2 ** 43) continue;
      await Deno.writeFile(dir.file("x"), new Uint8Array(0));
      await Deno.truncate(dir.file("x"), sectors);
      const info = await useReference(["info", "-f", "raw", "x"], { cwd: dir.path });
      assertEquals(
        /virtual size: (.*) \(/.exec(info)?.[1],
        humanSize(sectors),
        `${sectors} bytes`,
      );
    }
  },
});
