import { assertEquals, assertThrows } from "@std/assert";
import { formatJson } from "../../lib/bytes/json.ts";
import { type JsonData, readJson } from "../../lib/bytes/json_reader.ts";
import { Random } from "../_random.ts";

/** The same as what JavaScript reads. */
function plain(data: JsonData): unknown {
  if (typeof data === "bigint") return Number(data);
  if (data instanceof Map) {
    return Object.fromEntries(Array.from(data, ([key, value]) => [key, plain(value)]));
  }
  return Array.isArray(data) ? data.map(plain) : data;
}

const VALUES: readonly (readonly [text: string, value: unknown])[] = [
  ["null", null],
  [" true ", true],
  ["false", false],
  ["0", 0n],
  ["-0", 0n],
  ["18446744073709551615", 18446744073709551615n],
  ["18446744073709551616", 18446744073709551616],
  ["-9223372036854775808", -9223372036854775808n],
  ["-9223372036854775809", -9223372036854775809],
  ["1.5e3", 1500],
  ["1e400", Infinity],
  ['"a"', "a"],
  ["'a\"b'", 'a"b'],
  ['"\\"\\\'\\\\\\/\\b\\f\\n\\r\\t"', "\"'\\/\b\f\n\r\t"],
  ['"\\u0041\\u00e9\\ud83d\\ude00é😀"', "Aé😀é😀"],
  ['"\\u0000"', "\0"],
  ["[]", []],
  ["[1, [2]]", [1n, [2n]]],
];

for (const [text, value] of VALUES) {
  Deno.test(`JSON text ${text} is read`, () => {
    assertEquals<unknown>(readJson(text), value);
  });
}

Deno.test("members keep their order, whatever they are called", () => {
  const object = readJson('{"b":1,"__proto__":2,"a":{"constructor":3}}');
  assertEquals(object instanceof Map && [...object.keys()], ["b", "__proto__", "a"]);
});

const ERRORS: readonly (readonly [text: string, message: string])[] = [
  ["", "Expecting a JSON value"],
  ["{", "JSON parse error, premature EOI"],
  ["{a:1}", "JSON parse error, invalid keyword 'a'"],
  ["{1:2}", "JSON parse error, key is not a string in object"],
  ['{"a" 1}', "JSON parse error, missing : in object pair"],
  ['{"a":1,}', "JSON parse error, expecting value"],
  ['{"a":1,"a":2}', "JSON parse error, duplicate key"],
  ['{"a":1]', "JSON parse error, expected separator in dict"],
  ["[1 2]", "JSON parse error, expected separator in list"],
  ["-", "JSON parse error, stray '-'"],
  ["01", "JSON parse error, stray '01'"],
  ["1.x", "JSON parse error, stray '1.x'"],
  ["1e+", "JSON parse error, stray '1e+'"],
  ["é", "JSON parse error, stray 'é'"],
  ["😀", "JSON parse error, stray '😀'"],
  ['"a\n"', "JSON parse error, stray '\"a\n'"],
  ['"\\', "JSON parse error, stray '\"\\'"],
  ['"\\x"', "JSON parse error, invalid escape sequence in string"],
  ['"\\ud800\\ud800"', "JSON parse error, \\ud800 is not a valid Unicode character"],
  ['"\ufdd0"', "JSON parse error, invalid UTF-8 sequence in string"],
  ["{}{}", "Expecting at most one JSON value"],
  ["[".repeat(1025), "JSON nesting depth limit exceeded"],
  ["1,".repeat(1 << 21), "Expecting at most one JSON value"],
  [`[${"1,".repeat(1 << 21)}1]`, "JSON token count limit exceeded"],
];

for (const [text, message] of ERRORS) {
  Deno.test(`JSON text ${text.slice(0, 20)} is refused: ${message}`, () => {
    assertEquals(assertThrows(() => readJson(text), SyntaxError).message, message);
  });
}

Deno.test("as deep as it goes, JSON can be read", () => {
  let depth = 0;
  for (let data = readJson("[".repeat(1024) + "]".repeat(1024)); Array.isArray(data);) {
    depth++;
    data = data[0] ?? null;
  }
  assertEquals(depth, 1024);
});

Deno.test("what is written is read again, and JavaScript reads the same", () => {
  const seed = 20;
  const random = new Random(seed);
  const value = (depth: number): unknown => {
    switch (random.below(depth > 4 ? 4 : 6)) {
      case 0:
        return random.pick([null, true, false]);
      case 1:
        return random.below(1 << 30) - (1 << 29);
      case 2:
        return random.below(1000) / 8;
      case 3:
        return String.fromCharCode(
          ...Array.from({ length: random.below(9) }, () => 1 + random.below(0xd7ff)),
        );
      case 4:
        return Array.from({ length: random.below(5) }, () => value(depth + 1));
      default:
        return Object.fromEntries(
          Array.from({ length: random.below(5) }, (_, i) => [`k${i}`, value(depth + 1)]),
        );
    }
  };
  for (let round = 0; round < 300; round++) {
    const data = value(0);
    const text = formatJson(data as never, random.pick(["compact", "pretty"]));
    assertEquals(plain(readJson(text)), data, `seed ${seed}, round ${round}`);
    assertEquals(JSON.parse(text), data, `seed ${seed}, round ${round}`);
  }
});
