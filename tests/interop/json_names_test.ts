/** `json:` names: what they can say, what is wrong with them, and where they may stand. */
import { disk, folder, type Given, img, io, same, sameForEach } from "./_cases.ts";

const M = 1024 * 1024;

const IMAGES: readonly Given[] = [
  disk("r", M, [[0, 4096, "noise"], [65536, 65536, "noise"]]),
  disk("s", M, [[0, 4096, "flat"]]),
  img("create -f qcow2 q 1M"),
  io("q", "write -P 7 0 64k"),
  img("create -f qcow2 -b r -F raw o"),
];

function info(...texts: readonly string[]): string[][] {
  return texts.map((text) => ["info", `json:${text}`]);
}
function map(...texts: readonly string[]): string[][] {
  return texts.map((text) => ["map", "--output=json", `json:${text}`]);
}
function forEach(about: string, lines: readonly (readonly string[])[]): void {
  for (const run of lines) same(`${about}: ${run.join(" ")}`, { given: IMAGES, run });
}

forEach(
  "a json: name that is no JSON",
  info(
    "",
    " ",
    "{",
    '{"a"',
    '{"a":1',
    "{a:1}",
    '{"a" 1}',
    '{"a":1,}',
    '{"a":1,"a":2}',
    "{1:2}",
    "{null:1}",
    '{"a":!}',
    '{"a":01}',
    '{"a":-}',
    '{"a":1.}',
    '{"a":1e}',
    '{"a":+1}',
    '{"a":tru}',
    '{"a":True}',
    '{"a":[1,]}',
    '{"a":[1 2]}',
    '{"a":1 "b":2}',
    '{"a":"\\x"}',
    '{"a":"\\u12"}',
    '{"a":"\\ud800"}',
    '{"a":"\\udc00"}',
    '{"a":"\\ud800\\ud800"}',
    '{"a":"\\ufffe"}',
    '{"a":"\ufffe"}',
    '{"a":"\t"}',
    '{"a":"abc',
    "{'a':'b",
    '{"a":"\\',
    "}",
    "]",
    '{"a":1]',
    '{"a":%d}',
    '{"a":1}}',
    "{}{}",
    "{} x",
    "{,}",
    '{"a"::1}',
    "[]",
    "5",
    '"x"',
    "{}",
    "[".repeat(1025),
    '{"a":'.repeat(1024),
  ),
);

forEach("a json: name", [
  ...info(
    '{"driver":"raw","file":{"driver":"file","filename":"r"}}',
    "{'driver':'raw','file':{'filename':'r'}}",
    '{"file":{"filename":"q"}}',
    '{"file.filename":"r","file":{"filename":"s"}}',
    '{"file":{"filename":"s"},"file.filename":"r"}',
    '{"driver":"raw","file":"r"}',
    '{"driver":"raw","file":{}}',
    '{"driver":"raw","file":[]}',
    '{"driver":"raw","file":["r"]}',
    '{"driver":"raw","file":null}',
    '{"driver":5,"file":{"filename":"r"}}',
    '{"driver":null}',
    '{"file":{"filename":5}}',
    '{"filename":"r"}',
    '{"driver":"file","filename":"r","file":"x"}',
    '{"file":{"driver":"file","filename":"json:{}"}}',
    '{"driver":"qcow2","file":{"driver":"raw","file":{"filename":"q"}}}',
    '{"driver":"raw","file":{"filename":"r"},"node-name":"top"}',
    '{"driver":"raw","file":{"filename":"r"},"node-name":5}',
    '{"driver":"qcow2","file":{"driver":"file","filename":"q"},"encrypt":{"key-secret":"x"}}',
    '{"driver":"qcow2","file":{"driver":"file","filename":"q"},"foo":[]}',
    '{"driver":"qcow2","file":{"driver":"file","filename":"q"},"foo":[1,{"a":2}]}',
    '{"driver":"qcow2","file":{"driver":"file","filename":"q"},"lazy-refcounts":1}',
    '{"driver":"qcow2","file":{"driver":"file","filename":"q"},"l2-cache-size":1048576}',
  ),
  ...map(
    '{"driver":"raw","file":{"filename":"r"},"offset":512}',
    '{"driver":"raw","file":{"filename":"r"},"offset":512.0}',
    '{"driver":"raw","file":{"filename":"r"},"offset":512.5}',
    '{"driver":"raw","file":{"filename":"r"},"offset":1.024e3}',
    '{"driver":"raw","file":{"filename":"r"},"offset":1e30}',
    '{"driver":"raw","file":{"filename":"r"},"offset":1e400}',
    '{"driver":"raw","file":{"filename":"r"},"offset":18446744073709551615}',
    '{"driver":"raw","file":{"filename":"r"},"offset":-1}',
    '{"driver":"raw","file":{"filename":"r"},"offset":true}',
    '{"driver":"raw","file":{"filename":"r"},"offset":null}',
    '{"driver":"raw","file":{"filename":"r"},"offset":{}}',
    '{"driver":"raw","file":{"filename":"r"},"offset":{"a":1}}',
    '{"driver":"raw","file":{"filename":"r"},"offset":"512"}',
    '{"file":{"filename":"r"},"read-only":true}',
    '{"file":{"filename":"r"},"read-only":1}',
    '{"file":{"filename":"r"},"cache":{"direct":true,"no-flush":false}}',
    '{"file":{"filename":"r","locking":"off"}}',
    '{"file":{"filename":"r","locking":true}}',
    '{"file":{"filename":"r"},"discard":"unmap","detect-zeroes":"unmap"}',
    '{"driver":"qcow2","file":{"filename":"o"},"backing":null}',
    '{"driver":"qcow2","file":{"filename":"o"},"backing":""}',
    '{"driver":"qcow2","file":{"filename":"o"},"backing":"x"}',
    '{"driver":"qcow2","file":{"filename":"o"},"backing":5}',
    '{"driver":"qcow2","file":{"filename":"o"},"backing":{}}',
    '{"driver":"qcow2","file":{"filename":"o"},"backing":[1]}',
    '{"driver":"qcow2","file":{"filename":"o"},"backing":{"driver":null}}',
    '{"driver":"qcow2","file":{"filename":"o"},"backing":{"driver":"raw","file":{"driver":"file","filename":"s"}}}',
  ),
  ["info", "-f", "raw", 'json:{"driver":"qcow2","file":{"filename":"q"}}'],
  ["info", "-f", "qcow2", 'json:{"driver":"raw","file":{"filename":"q"}}'],
  ["info", "-f", "raw", 'json:{"file":{"filename":"r"},"offset":512}'],
  ["info", "-f", "file", 'json:{"filename":"r"}'],
  ["info", "--output=json", 'json:{"driver":"raw","size":512,"file":{"filename":"r"}}'],
  ["info", "json:json:{}"],
]);

const NAME = 'json:{"driver":"raw","file":{"driver":"file","filename":"s"}}';

forEach("where a json: name may stand", [
  ["create", "-f", "qcow2", 'json:{"driver":"qcow2"}', "1M"],
  ["convert", "r", 'json:{"driver":"raw","file":{"filename":"t"}}'],
  ["convert", "-n", "r", 'json:{"driver":"raw","file":{"filename":"none"}}'],
  ["dd", "if=r", `of=${NAME}`],
  ["compare", NAME, "r"],
  ["measure", "-O", "qcow2", NAME],
  ["check", 'json:{"driver":"qcow2","file":{"filename":"q"}}'],
  ["check", "--output=json", 'json:{"driver":"qcow2","file":{"filename":"q"}}'],
  ["create", "-f", "qcow2", "-b", 'json:{"file.filename":"q"}', "t"],
  ["create", "-f", "qcow2", "-b", 'json:{"driver":"raw","file.filename":"r"}', "-F", "qcow2", "t"],
  ["create", "-f", "qcow2", "-b", "json:{", "-F", "raw", "t"],
]);

same("an image with a json: backing file", {
  given: IMAGES,
  run: ["create", "-f", "qcow2", "-b", NAME, "-F", "raw", "t"],
  files: ["t"],
});
sameForEach("an image whose backing file is a json: name", [
  "info t",
  "info --output=json t",
  "info --backing-chain t",
  "map --output=json t",
  "map t",
  "check t",
], { given: [...IMAGES, img(["create", "-f", "qcow2", "-b", NAME, "-F", "raw", "t"])] });

same("a json: name in an image in another folder is not relative to it", {
  given: [
    ...IMAGES,
    folder("sub"),
    img(["create", "-f", "qcow2", "-u", "-b", NAME, "-F", "raw", "sub/t", "1M"]),
  ],
  run: "map --output=json sub/t",
});

for (
  const [about, run, file] of [
    ["a source", [
      "convert",
      `json:{"driver":"raw","offset":512,"size":1024,"file":{"filename":"r"}}`,
      "t",
    ], "t"],
    ["a target that is there", ["convert", "-n", "r", NAME], "s"],
    ["what dd reads", ["dd", `if=${NAME}`, "of=t", "count=3"], "t"],
    ["what is resized", ["resize", NAME, "2M"], "s"],
  ] as const
) {
  same(`a json: name for ${about}`, { given: IMAGES, run, images: [file] });
}
