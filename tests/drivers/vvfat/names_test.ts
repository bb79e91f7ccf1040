import { assertEquals } from "@std/assert";
import {
  LongName,
  longNameEntries,
  plainName,
  ShortNames,
  shortNameSum,
} from "../../../drivers/vvfat/names.ts";

const ascii = (bytes: Uint8Array | undefined) => String.fromCharCode(...bytes ?? []);

function shortNames(...filenames: string[]): string[] {
  const names = new ShortNames();
  return filenames.map((filename) => ascii(names.choose(filename)));
}

Deno.test("a name that is short already is put in upper case", () => {
  assertEquals(shortNames("hello.txt", "README", "a.b"), [
    "HELLO   TXT",
    "README     ",
    "A       B  ",
  ]);
});

Deno.test("what a short name cannot have is left out, and a number says so", () => {
  assertEquals(shortNames("a+b;c=d.txt", "two.dots.txt", ".hidden", "My Long File Name.document"), [
    "ABCD~1  TXT",
    "TWO~1   TXT",
    "HIDDEN~1   ",
    "MYLONG~1DOC",
  ]);
});

Deno.test("names that nothing is left of are a number", () => {
  assertEquals(shortNames("+++", "ß.txt"), ["~1         ", "TXT~1      "]);
});

Deno.test("letters of other alphabets count where their upper case is a plain letter", () => {
  assertEquals(shortNames("ſ.txt", "ı.txt", "ü.txt"), [
    "S       TXT",
    "I       TXT",
    "TXT~1      ",
  ]);
});

Deno.test("names that become the same are numbered, the number taking the place of letters", () => {
  const files = Array.from({ length: 11 }, (_, i) => `collide name ${i}.text`);
  const names = shortNames(...files);
  assertEquals(names.slice(0, 2), ["COLLID~1TEX", "COLLID~2TEX"]);
  assertEquals(names.slice(9), ["COLLI~10TEX", "COLLI~11TEX"]);
});

Deno.test("a name that only differs by case gets a number, and so does one that the volume has", () => {
  assertEquals(shortNames("abcdefgh.txt", "ABCDEFGH.TXT"), ["ABCDEFGHTXT", "ABCDEF~1TXT"]);
  const names = new ShortNames();
  names.take(new TextEncoder().encode("HELLO      "));
  assertEquals(ascii(names.choose("hello")), "HELLO~1    ");
});

Deno.test("a hundred thousand names of one beginning are told apart", () => {
  const names = new ShortNames();
  const all = new Set<string>();
  for (let i = 0; i < 100_000; i++) all.add(ascii(names.choose(`beginning ${i}`)));
  assertEquals(all.size, 100_000);
});

Deno.test("a long name is read back as it was written, whatever its length", () => {
  const shortName = new TextEncoder().encode("ABC~1   TXT");
  for (let length = 1; length <= 255; length++) {
    const name = "ä🎉".repeat(85).slice(0, length).toWellFormed();
    const entries = longNameEntries(name, shortName);
    const reader = new LongName();
    for (let at = 0; at < entries.length; at += 32) {
      assertEquals(reader.add(entries.subarray(at, at + 32)), true);
    }
    assertEquals(reader.end(shortName), name);
  }
});

Deno.test("a long name of exactly one part has no end mark", () => {
  const entries = longNameEntries("abcdefghijklm", new Uint8Array(11));
  assertEquals(entries.length, 32);
  assertEquals([entries[0], entries[30], entries[31]], [0x41, "m".charCodeAt(0), 0]);
});

Deno.test("parts of a long name in another order, or of another file, are none", () => {
  const shortName = new TextEncoder().encode("ABC~1   TXT");
  const entries = longNameEntries("a name of more than one part", shortName);
  const reader = new LongName();
  assertEquals(reader.add(entries.subarray(32, 64)), false);
  assertEquals(reader.add(entries.subarray(0, 32)), true);
  assertEquals(reader.add(entries.subarray(64, 96)), false);
  assertEquals(reader.end(shortName), undefined);
  const other = new LongName();
  for (let at = 0; at < entries.length; at += 32) other.add(entries.subarray(at, at + 32));
  assertEquals(other.end(new TextEncoder().encode("XYZ        ")), undefined);
});

Deno.test("the sum of a short name is that of the specification", () => {
  // The rotating sum of "ABCDEFGHTXT", by hand.
  let sum = 0;
  for (const char of "ABCDEFGHTXT") {
    sum = ((sum & 1 ? 0x80 : 0) + (sum >> 1) + char.charCodeAt(0)) % 256;
  }
  assertEquals(shortNameSum(new TextEncoder().encode("ABCDEFGHTXT")), sum);
});

Deno.test("a short name alone is shown in the case that its entry says", () => {
  const entry = new Uint8Array(32);
  entry.set(new TextEncoder().encode("README  TXT"));
  assertEquals(plainName(entry), "README.TXT");
  entry[12] = 0x08;
  assertEquals(plainName(entry), "readme.TXT");
  entry[12] = 0x18;
  assertEquals(plainName(entry), "readme.txt");
  entry[0] = 0x90;
  assertEquals(plainName(entry), undefined);
});
