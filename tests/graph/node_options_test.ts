import { assertEquals, assertThrows } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { NodeOptions, valueText } from "../../lib/graph/node_options.ts";

function entries(options: NodeOptions): Record<string, unknown> {
  return Object.fromEntries(options.keys.map((key) => [key, options.get(key)]));
}

function list(text: string): { options: Record<string, unknown>; warnings: string[] } {
  const warnings: string[] = [];
  const options = NodeOptions.fromList(text, (warning) => warnings.push(warning));
  return { options: entries(options), warnings };
}

Deno.test("a list's first word names a node, others are flags that are warned of", () => {
  assertEquals(list("n"), { options: { file: "n" }, warnings: [] });
  assertEquals(list("driver=raw,a,nob"), {
    options: { driver: "raw", a: "on", b: "off" },
    warnings: [
      "short-form boolean option 'a' deprecated\nPlease use a=on instead",
      "short-form boolean option 'nob' deprecated\nPlease use b=off instead",
    ],
  });
  assertEquals(list("driver=raw,help,?"), { options: { driver: "raw" }, warnings: [] });
});

Deno.test("in a list the last of a key wins, and a comma is written twice", () => {
  assertEquals(list("a=1,a=2,b=x,,y").options, { a: "2", b: "x,y" });
});

Deno.test("nested and dotted JSON keys are one; nested ones win", () => {
  const json = (text: string) => entries(NodeOptions.fromJson(`json:${text}`));
  assertEquals(json('{"a":{"b":{"c":1},"d":"x"},"a.e":true}'), {
    "a.b.c": 1n,
    "a.d": "x",
    "a.e": true,
  });
  assertEquals(json('{"a":{"b":"in"},"a.b":"out"}'), { "a.b": "in" });
  assertEquals(json('{"a":["x",{"b":null}]}'), { "a.0": "x", "a.1.b": null });
  assertEquals(json('{"a":{},"b":[]}'), { a: new Map(), b: [] });
});

Deno.test("a child's options lose their beginning, and are gone from their parent", () => {
  const options = NodeOptions.fromJson('json:{"file":{"x":1,"file":{"y":2}},"filed":3,"file":"n"}'
    .replace(',"file":"n"', ""));
  const file = options.takeChild("file");
  assertEquals(entries(file), { x: 1n, "file.y": 2n });
  assertEquals(entries(options), { filed: 3n });
});

Deno.test("what a name says counts less than what was said before", () => {
  const options = new NodeOptions([["driver", "raw"]]);
  options.addMissing(NodeOptions.fromJson('json:{"driver":"qcow2","size":1}'));
  assertEquals(entries(options), { driver: "raw", size: 1n });
});

const TEXTS: readonly (readonly [value: Parameters<typeof valueText>[0], text: unknown])[] = [
  ["x", "x"],
  [true, "on"],
  [false, "off"],
  [18446744073709551615n, "18446744073709551615"],
  [512.5, "512.5"],
  [1e3, "1000"],
  [0.1, "0.10000000000000001"],
  [1e17, "1e+17"],
  [123456789012345680, "1.2345678901234568e+17"],
  [1e-5, "1.0000000000000001e-05"],
  [0, "0"],
  [Infinity, "inf"],
  [-Infinity, "-inf"],
  [null, undefined],
  [[], undefined],
  [new Map(), undefined],
];

for (const [value, text] of TEXTS) {
  Deno.test(`the JSON value ${value} is the option's text ${text}`, () => {
    assertEquals(valueText(value), text);
  });
}

Deno.test("an id must be one, and a JSON name an object", () => {
  const message = (body: () => unknown) => assertThrows(body, ImageError).message;
  assertEquals(message(() => list("id=1")), "Parameter 'id' expects an identifier");
  assertEquals(message(() => NodeOptions.fromJson("json:[]")), "Invalid JSON object given");
  assertEquals(
    message(() => NodeOptions.fromJson("json:{")),
    "Could not parse the JSON options: JSON parse error, premature EOI",
  );
});
