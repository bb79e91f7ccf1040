/** Command lines made to do harm: an answer without a stack trace, in bounded time and memory. */
import { assert, assertEquals } from "@std/assert";
import { Random } from "../_random.ts";
import { type Outcome, runQimg } from "../_reference.ts";
import { type TempDir, tempDir } from "../_temp.ts";

function assertAnswered({ code, stderr }: Outcome, what: string): void {
  assert(code >= 0 && code <= 3 || code === 63, `${what}: exit code ${code}`);
  assert(!/internal error|\n +at .*\.ts:/.test(stderr), `${what}: ${stderr.slice(0, 500)}`);
  assert(code === 0 || stderr !== "", `${what}: no reason given`);
}

async function images(): Promise<TempDir> {
  const dir = await tempDir();
  await Deno.writeFile(dir.file("a"), new Uint8Array(1 << 20));
  const { code } = await runQimg(["create", "-q", "-f", "qcow2", "q", "1M"], { cwd: dir.path });
  assertEquals(code, 0);
  return dir;
}

const repeat = (text: string, times: number) => text.repeat(times);

const ATTACKS: readonly (readonly [name: string, args: readonly string[]])[] = [
  ["a list of commas", ["info", "--image-opts", repeat(",", 100_000)]],
  ["a list of equals signs", ["info", "--image-opts", repeat("=", 100_000)]],
  ["a list of flags", ["info", "--image-opts", `driver=raw,${repeat("x,", 50)}`]],
  [
    "a hundred thousand options",
    [
      "info",
      "--image-opts",
      `file.filename=a,${Array.from({ length: 100_000 }, (_, i) => `k${i}=v`)}`,
    ],
  ],
  ["a key of dots", ["info", "--image-opts", `driver=raw,${repeat(".", 100_000)}=x`]],
  ["files below files", ["info", "--image-opts", `${repeat("file.", 20_000)}filename=a`]],
  [
    "backing files behind backing files",
    ["map", "--image-opts", `driver=qcow2,file.filename=q,${repeat("backing.", 20_000)}driver=x`],
  ],
  [
    "an image behind itself",
    [
      "map",
      "--image-opts",
      "driver=qcow2,file.filename=q,backing.driver=qcow2,backing.file.filename=q",
    ],
  ],
  [
    "raw nodes on raw nodes",
    [
      "map",
      `json:${repeat('{"driver":"raw","file":', 1000)}{"driver":"file","filename":"a"}${
        repeat("}", 1000)
      }`,
    ],
  ],
  ["objects in objects", ["info", `json:${repeat('{"a":', 100_000)}`]],
  ["lists in lists", ["info", `json:{"a":${repeat("[", 100_000)}`]],
  ["a list of a million numbers", ["info", `json:{"file":[${repeat("1,", 1_000_000)}1]}`]],
  ["a string without an end", ["info", `json:{"a":"${repeat("x", 5_000_000)}`]],
  ["a number without an end", ["info", `json:{"driver":"raw","size":${repeat("9", 100_000)}}`]],
  ["a string of escapes", ["info", `json:{"driver":"${repeat("\\u0041", 200_000)}"}`]],
  ["keys of objects", [
    "info",
    'json:{"__proto__":{"driver":"raw"},"constructor":1,"toString":{}}',
  ]],
  ["the driver __proto__", ["info", "--image-opts", "driver=__proto__,file.filename=a"]],
  ["the driver constructor", ["info", "-f", "constructor", "a"]],
  ["a name with a NUL", ["info", 'json:{"driver":"file","filename":"a\\u0000b"}']],
  ["a name that is another name", [
    "info",
    'json:{"file.filename":"json:{\\"file.filename\\":\\"a\\"}"}',
  ]],
  ["an object of a hundred thousand keys", [
    "info",
    "--object",
    `secret,id=a,data=x,${Array.from({ length: 100_000 }, (_, i) => `k${i}=v`)}`,
    "a",
  ]],
  ["an object of dots", ["info", "--object", `secret,${repeat("a.", 50_000)}a=1`, "a"]],
  ["a JSON object that nests", ["info", "--object", repeat('{"a":', 100_000), "a"]],
  ["ten thousand objects", [
    "info",
    ...Array.from({ length: 10_000 }, (_, i) => ["--object", `secret,id=s${i},data=x`]).flat(),
    "a",
  ]],
  ["a secret that is encrypted with itself", [
    "info",
    "--object",
    "secret,id=a,keyid=a,data=x",
    "a",
  ]],
];

for (const [name, args] of ATTACKS) {
  Deno.test(`a hostile command line: ${name}`, async () => {
    await using dir = await images();
    assertAnswered(await runQimg(args, { cwd: dir.path }), name);
  });
}

Deno.test("option lists and JSON of random pieces are answered", async () => {
  await using dir = await images();
  const seed = 71;
  const random = new Random(seed);
  const pieces = [
    "driver",
    "file",
    "backing",
    "filename",
    "raw",
    "qcow2",
    "nope",
    "a",
    "q",
    "none",
    "offset",
    "size",
    "read-only",
    "on",
    "off",
    "node-name",
    "n",
    "data-file",
    "encrypt.key-secret",
    "null",
    "overlap-check",
    "all",
    "512",
    "1M",
    "-1",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    ",,",
    "=",
    ".",
    '"',
    "'",
    "\\",
    "\\u0041",
    "true",
    "1e9",
    " ",
    "é",
    "\u0001",
    "help",
    "?",
    "json:",
  ];
  for (let round = 0; round < 400; round++) {
    const words = Array.from({ length: random.below(20) }, () => random.pick(pieces));
    const command = random.pick(["info", "map", "check", "measure"]);
    const args = random.oneIn(2)
      ? [command, "--image-opts", `driver=raw,file.filename=a,${words.join("")}`]
      : [command, `json:{"driver":"qcow2","file":{"filename":"q"},${words.join("")}}`];
    assertAnswered(await runQimg(args, { cwd: dir.path }), `seed ${seed}, round ${round}: ${args}`);
  }
});
