import { assertEquals } from "@std/assert";
import { formatJson, hashBucket, hashOrder, type JsonValue } from "../../lib/bytes/json.ts";

// Command-line reference, 3.5.
const BUCKETS: Readonly<Record<string, number>> = {
  "cache.no-flush": 4,
  active: 48,
  port: 61,
  url: 79,
  "read-zeroes": 86,
  "lazy-refcounts": 107,
  "server.path": 109,
  "encrypt.format": 110,
  "server.host": 125,
  "server.port": 125,
  offset: 180,
  "data-file": 182,
  header: 187,
  backing: 198,
  "discard-no-unref": 205,
  "node-name": 212,
  host: 229,
  "encrypt.key-secret": 230,
  driver: 239,
  path: 253,
  filename: 313,
  size: 318,
  export: 326,
  encrypt: 339,
  server: 340,
  "read-only": 342,
  "server.type": 361,
  cookie: 390,
  type: 425,
  "cache.direct": 430,
  discard: 436,
  "force-share": 460,
  file: 463,
  "key-secret": 498,
};

Deno.test("hashBucket: the places that the reference gives to open options", () => {
  const found = Object.fromEntries(Object.keys(BUCKETS).map((key) => [key, hashBucket(key)]));
  assertEquals(found, BUCKETS);
});

Deno.test("hashOrder: by place, whatever the order of insertion", () => {
  const expected = ["offset", "driver", "filename", "size", "file"];
  assertEquals(hashOrder(expected), expected);
  assertEquals(hashOrder(expected.toReversed()), expected);
});

Deno.test("hashOrder: of two keys with one place the last inserted comes first", () => {
  assertEquals(hashOrder(["server.host", "server.port"]), ["server.port", "server.host"]);
  assertEquals(hashOrder(["server.port", "server.host"]), ["server.host", "server.port"]);
});

Deno.test("formatJson: the fields of info in the reference's order", () => {
  const image = {
    "dirty-flag": false,
    "backing-filename": "b",
    encrypted: true,
    "full-backing-filename": "b",
    "format-specific": {},
    "actual-size": 1,
    format: "qcow2",
    "cluster-size": 1,
    filename: "a",
    "virtual-size": 1,
    snapshots: [],
    "backing-filename-format": "raw",
    children: [],
  };
  const expected = [
    "children",
    "backing-filename-format",
    "snapshots",
    "virtual-size",
    "filename",
    "cluster-size",
    "format",
    "actual-size",
    "format-specific",
    "full-backing-filename",
    "encrypted",
    "backing-filename",
    "dirty-flag",
  ];
  assertEquals(Object.keys(JSON.parse(formatJson(image, "compact"))), expected);
});

const TEXTS: readonly (readonly [value: JsonValue, compact: string])[] = [
  [null, "null"],
  [true, "true"],
  [-1, "-1"],
  [2n ** 64n - 1n, "18446744073709551615"],
  [[], "[]"],
  [{}, "{}"],
  [[1, [2, "x"]], '[1, [2, "x"]]'],
  [{ driver: "raw", offset: "512" }, '{"offset": "512", "driver": "raw"}'],
  [{ driver: "raw", offset: undefined }, '{"driver": "raw"}'],
  ['a"b\\c', '"a\\"b\\\\c"'],
  ["\b\f\n\r\t", '"\\b\\f\\n\\r\\t"'],
  ["\x00\x1f ~\x7f/", '"\\u0000\\u001F ~\\u007F/"'],
  ["é€😀", '"\\u00E9\\u20AC\\uD83D\\uDE00"'],
  ["\ud800x", '"\\uFFFDx"'],
];

for (const [value, text] of TEXTS) {
  Deno.test(`formatJson: ${text}`, () => assertEquals(formatJson(value, "compact"), text));
}

Deno.test("formatJson: pretty text has a line for every item", () => {
  assertEquals(
    formatJson({ type: [], driver: { a: [1, true] }, file: {} }, "pretty"),
    `{
    "driver": {
        "a": [
            1,
            true
        ]
    },
    "type": [
    ],
    "file": {
    }
}`,
  );
});
