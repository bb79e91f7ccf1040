import { assert, assertEquals, assertThrows } from "@std/assert";
import { CommandError, HelpText } from "../../lib/commands/_command.ts";
import { readKeyValues } from "../../lib/commands/_key_values.ts";
import {
  type DefinedObject,
  OBJECT,
  objectOption,
  objectStore,
  secretStore,
} from "../../lib/commands/_objects.ts";
import { tempDir } from "../_temp.ts";

/** The objects of several definitions. */
function define(...definitions: readonly string[]): readonly DefinedObject[] {
  return definitions.reduce<readonly DefinedObject[]>(
    (objects, definition) => OBJECT.parse(definition, objects),
    [],
  );
}

function secret(...definitions: readonly string[]): string {
  const object = define(...definitions).at(-1)!;
  return new TextDecoder().decode(secretStore([object]).get(object.id));
}

function refusal(...definitions: readonly string[]): string {
  return assertThrows(() => define(...definitions), CommandError).message;
}

Deno.test("a secret is its text, or its file with all that is in it", async () => {
  await using dir = await tempDir();
  await Deno.writeTextFile(dir.file("a"), "geheim\n");
  assertEquals(secret("secret,id=a,data=x,,y=z"), "x,y=z");
  assertEquals(secret(`secret,id=a,file=${dir.file("a")}`), "geheim\n");
  assertEquals(secret('{"qom-type":"secret","id":"a","data":"ä"}'), "ä");
});

const BASE64: readonly (readonly [text: string, decoded: string])[] = [
  ["", ""],
  ["YQ==", "a"],
  ["YWI=", "ab"],
  ["YWJj", "abc"],
  ["YW\nJj\n", "abc"],
  ["YWJjZ", "abc"],
  ["YWJjZA==YQ==", "abcda"],
];

for (const [text, decoded] of BASE64) {
  Deno.test(`base64 ${JSON.stringify(text)} is ${JSON.stringify(decoded)}`, () => {
    const definition = JSON.stringify({
      "qom-type": "secret",
      id: "a",
      data: text,
      format: "base64",
    });
    assertEquals(secret(definition), decoded);
  });
}

Deno.test("an encrypted secret is decrypted with the one that it names", () => {
  // AES-256-CBC of "hello" with a key and a first vector of zeros.
  const key = btoa("\0".repeat(32));
  const iv = btoa("\0".repeat(16));
  assertEquals(
    secret(
      `secret,id=m,format=base64,data=${key}`,
      `secret,id=a,keyid=m,iv=${iv},format=base64,data=wjXeJNI54DzI43fGBPymew==`,
    ),
    "hello",
  );
});

Deno.test("secrets are found by their ids", () => {
  const store = secretStore(define("secret,id=a,data=1", "secret,id=b,data=2"));
  assertEquals(store.get("b"), new Uint8Array([0x32]));
  assertEquals(store.get("constructor"), undefined);
});

const WORDS = ["hunter2", "sesame"];
const CARELESS: readonly (readonly string[])[] = [
  ["secret,id=a,data=hunter2,sesame"],
  ["secret,id=a,data=hunter2,sesame hunter2,format=raw"],
  ['{"qom-type":"secret","id":"a","data":"hunter2'],
  ['{"qom-type":"secret","id":"a","data":hunter2}'],
  ['{"qom-type":"secret","id":"a","data":"hunter2\n"}'],
  ['{"qom-type":"secret","id":"a","data":"sesame\\udead"}'],
  ["secret,id=a,data=hunter2,format=base64,iv=sesame,keyid=x"],
  ["secret,id=a,data=hunter2!,format=base64"],
  ["secret,id=a,data=hunter2", "secret,id=a,data=sesame"],
  ["secret,id=k,data=hunter2", "secret,id=a,data=sesame,keyid=k"],
  ["secret,id=a,data=hunter2,file=none"],
];

for (const definitions of CARELESS) {
  Deno.test(`no error repeats a secret: ${definitions.at(-1)}`, () => {
    const error = assertThrows(() => define(...definitions), CommandError);
    for (let at: unknown = error; at instanceof Error; at = at.cause) {
      assert(!WORDS.some((word) => (at as Error).message.includes(word)), at.message);
    }
    assert(!WORDS.some((word) => error.hint?.includes(word)), error.hint);
  });
}

Deno.test("what other objects there are is told from what there is not", () => {
  assertEquals(
    refusal("tls-creds-anon,id=a"),
    "Objects of type 'tls-creds-anon' are not supported",
  );
  assertEquals(
    refusal("tls-creds-x510,id=a"),
    "Parameter 'qom-type' does not accept value 'tls-creds-x510'",
  );
});

Deno.test("an object of TLS is its properties, checked", async () => {
  await using dir = await tempDir();
  await Deno.writeTextFile(dir.file("ca-cert.pem"), "");
  await Deno.writeTextFile(dir.file("keys.psk"), "");
  const store = objectStore(
    define(
      "secret,id=s,data=1",
      `tls-creds-x509,id=a,dir=${dir.path},endpoint=client,verify-peer=off`,
    ),
  );
  assertEquals(store.get("s"), undefined);
  assertEquals(store.get("a"), {
    id: "a",
    type: "tls-creds-x509",
    properties: new Map([["dir", dir.path], ["endpoint", "client"], ["verify-peer", "off"]]),
  });
  assertEquals(
    refusal("tls-creds-x509,id=a,endpoint=foo"),
    "Parameter 'endpoint' does not accept value 'foo'",
  );
  assertEquals(
    refusal("tls-creds-psk,id=a,verify-peer=foo"),
    "Parameter 'verify-peer' expects 'on' or 'off'",
  );
  assertEquals(refusal("tls-creds-psk,id=a,x=1"), "Parameter 'x' is unexpected");
  assertEquals(refusal("tls-creds-psk,id=a"), "Missing 'dir' property value");
  assertEquals(
    refusal(`tls-creds-x509,id=a,dir=${dir.file("none")}`),
    `Unable to access credentials ${dir.file("none/ca-cert.pem")}: No such file or directory`,
  );
  const [json] = define(
    JSON.stringify({ "qom-type": "tls-creds-psk", id: "a", dir: dir.path, "verify-peer": true }),
  );
  assertEquals(objectStore([json!]).get("a")?.properties.get("verify-peer"), "on");
});

Deno.test("help lists the types, or the properties of one", () => {
  const help = (definition: string) => assertThrows(() => define(definition), HelpText).text;
  const types = help("help").split("\n");
  assertEquals(types[0], "List of user creatable objects:");
  assert(types.includes("  secret") && types.includes("  tls-creds-x509"));
  assertEquals(help("nope,?"), types.join("\n"));
  assertEquals(help("secret,id=a,help").split("\n")[0], "secret options:");
});

Deno.test("a command may end with another exit code", () => {
  const error = assertThrows(() => objectOption({ exitCode: 2 }).parse("nope", []), CommandError);
  assertEquals(error.exitCode, 2);
});

Deno.test("a file without an end is refused", { ignore: Deno.build.os === "windows" }, () => {
  assertEquals(
    refusal("secret,id=a,file=/dev/zero"),
    "Unable to read /dev/zero: Error reading file “/dev/zero”: File too large",
  );
});

Deno.test("lists nest by their dots", () => {
  const { values } = readKeyValues("t,a.b.c=1,a.b.d=2,e=,f.0=x", { implied: "i", secret: "" }, 1);
  const plain = (map: ReadonlyMap<string, unknown>): unknown =>
    Object.fromEntries(
      Array.from(map, ([key, value]) => [key, value instanceof Map ? plain(value) : value]),
    );
  assertEquals(plain(values), { i: "t", a: { b: { c: "1", d: "2" } }, e: "", f: { 0: "x" } });
});

Deno.test("a list of a hundred thousand items, and a key as deep, take no time", () => {
  const meanings = { implied: "i", secret: "" };
  const many = Array.from({ length: 100_000 }, (_, i) => `k${i}=v`).join(",");
  assertEquals(readKeyValues(many, meanings, 1).values.size, 100_000);
  const deep = `${"a.".repeat(100_000)}a=1`;
  assertEquals(
    assertThrows(() => readKeyValues(deep, meanings, 1), CommandError).message,
    "Parameters are nested too deeply",
  );
});
