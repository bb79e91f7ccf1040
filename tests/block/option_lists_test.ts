import { assertEquals } from "@std/assert";
import { optionPieces, splitOptions } from "../../lib/block/options.ts";

const LISTS: readonly (readonly [list: string, pairs: [string, string][]])[] = [
  ["", []],
  ["a=b", [["a", "b"]]],
  ["a=b,c=d", [["a", "b"], ["c", "d"]]],
  ["a=b=c", [["a", "b=c"]]],
  ["a=,b=", [["a", ""], ["b", ""]]],
  ["a=b,,c,d", [["a", "b,c"], ["d", "on"]]],
  ["a=,,,,", [["a", ",,"]]],
  ["word,nothing", [["word", "on"], ["thing", "off"]]],
  // A comma in a key cannot be doubled.
  ["a,,b=3", [["a", "on"], ["", "on"], ["b", "3"]]],
  ["a=b,", [["a", "b"]]],
  ["id=x,a=b", [["a", "b"]]],
];

for (const [list, pairs] of LISTS) {
  Deno.test(`splitOptions: ${JSON.stringify(list)}`, () => assertEquals(splitOptions(list), pairs));
}

Deno.test("optionPieces: a bare first item is the value of the implied key", () => {
  const pieces = (list: string) =>
    Array.from(optionPieces(list, "file"), ({ key, value }) => `${key}: ${value}`);
  assertEquals(pieces("a,,b,c"), ["file: a,b", "c: undefined"]);
  assertEquals(pieces("a=b,c"), ["a: b", "c: undefined"]);
  assertEquals(pieces(","), ["file: "]);
});
