/** `--object`: secrets in both forms, encrypted ones, and what is wrong with definitions. */
import { createCipheriv } from "node:crypto";
import { folder, type Given, img, same, text } from "./_cases.ts";

const GIVEN: readonly Given[] = [
  img("create -f raw r 1M"),
  text("password", "letmein"),
  text("encoded", "bGV0\nbWVpbg==\n"),
  text("windows", "bGV0bWVpbg==\r\n"),
  text("nul", "bGV0\0"),
  folder("sub"),
];

function forEach(about: string, objects: readonly (string | readonly string[])[]): void {
  for (const list of objects) {
    const definitions = typeof list === "string" ? [list] : list;
    const options = definitions.flatMap((definition) => ["--object", definition]);
    same(`${about}: ${definitions.join(" ")}`, { given: GIVEN, run: ["map", ...options, "r"] });
  }
}

forEach("an object that is right", [
  "secret,id=a,data=x",
  "secret,id=a,data=x,",
  "secret,id=a,data=x,,y",
  "secret,id=a,data=",
  "secret,id=a.b-c_d,data=x",
  "secret,id=a,id=b,data=x,data=y",
  "qom-type=secret,id=a,data=b",
  "data=b,id=x,qom-type=secret",
  "secret,id=a,data=YQ==,format=base64",
  "secret,id=a,data=YQ,format=base64",
  "secret,id=a,data=,format=base64",
  "secret,id=a,data=x,iv=AA==",
  "secret,id=a,file=password",
  "secret,id=a,file=encoded,format=base64",
  ["secret,id=a,data=x", "secret,id=b,file=password"],
  '{"qom-type":"secret","id":"a","data":"x"}',
  "{'qom-type':'secret','id':'a','file':'password'}",
]);

forEach("an object that is wrong", [
  "",
  ",",
  "=",
  "id=x",
  "a=b=c",
  "help,secret",
  "foo,id=a",
  "foo",
  "secret",
  "secret,=x",
  "secret,id",
  "secret,id=a,nodata",
  "secret,id=,data=x",
  "secret,id=1a,data=x",
  "secret,id=a:b,data=x",
  "secret,id=a",
  "secret,id=a,data=x,file=y",
  "secret,id=a,data=,file=",
  "secret,id=a,data=x,foo=1",
  "secret,id=a,data=x,foo=1,bar=2",
  "secret,foo=1,id=1,data=x",
  "secret,id=a,format=zz",
  "secret,id=a,format=RAW,data=x",
  "secret,foo=1,format=zz,id=1",
  "secret,id=a,data=x,loaded=on",
  "secret,id=a,file=none",
  "secret,id=a,file=",
  "secret,id=a,file=sub",
  "secret,id=a,file=r/x",
  "secret,id=a,file=nul,format=base64",
  "secret,id=a,file=windows,format=base64",
  "secret,id=a,data=!!!,format=base64",
  "secret,id=a,data=YQ= =,format=base64",
  "secret,id.x=1",
  "secret,id=a,data=x,id.x=1",
  "secret,id=a,data.x=1",
  "secret,id=b,data.0=1,data.1=2",
  "secret,id=b,data.a=1,data.0=2",
  "secret,id=b,data.1=1",
  "secret,id=b,data=1,data.0=2",
  "secret,a.b=1,a.b.c=2",
  "secret,a..b=1",
  "secret,a.=1",
  "secret,1a=1",
  "secret,id=a,bb.x=1",
  `secret,${"a".repeat(128)}=1`,
  `secret,x.${"a".repeat(128)}=1`,
  `secret,${"a".repeat(127)}=1`,
  "secret,__org.example_foo=1",
  "secret,qom-type.x=1",
  "qom-type.x=1",
  ["secret,id=a,data=x", "secret,id=a,data=y"],
  ["secret,id=a,data=x", "secret,id=a"],
  "secret,id=a,data=x,keyid=m",
  "secret,id=a,data=x,keyid=",
  "{}",
  "{}x",
  '{"a":1}}',
  '{"qom-type":"secret"}',
  '{"id":"a"}',
  '{"qom-type":7,"id":"a"}',
  '{"qom-type":"nope","id":"a"}',
  '{"qom-type":"secret","id":"1","data":"x"}',
  '{"qom-type":"secret","id":{"b":1}}',
  '{"qom-type":"secret","id":"a","data":5}',
  '{"qom-type":"secret","id":"a","data":null}',
  '{"qom-type":"secret","id":"a","data":["x"]}',
  '{"qom-type":"secret","id":"a","data":"x","foo":1,"bar":2}',
  '{"qom-type":"secret","id":"a","data.x":"x"}',
  ' {"qom-type":"secret","id":"a","data":"x"}',
]);

const encodeBase64 = (bytes: Uint8Array) => btoa(String.fromCharCode(...bytes));

const KEY = new Uint8Array(32).map((_, i) => i * 7);
const IV = new Uint8Array(16).map((_, i) => 255 - i);
const MASTER = `secret,id=m,format=base64,data=${encodeBase64(KEY)}`;

/** A block that says of itself how many bytes of it are padding. */
function encrypted(plain: readonly number[]): string {
  const cipher = createCipheriv("aes-256-cbc", KEY, IV).setAutoPadding(false);
  return encodeBase64(cipher.update(new Uint8Array(plain)));
}

const SECRET = `secret,id=a,keyid=m,iv=${encodeBase64(IV)}`;
const block = (last: number) => [...new Array(15).fill(65), last];

forEach("an encrypted secret", [
  [MASTER, `${SECRET},format=base64,data=${encrypted(block(1))}`],
  [MASTER, `${SECRET},format=base64,data=${encrypted([...block(65), ...block(16)])}`],
  [MASTER, `${SECRET},format=base64,data=${encrypted(block(0))}`],
  [MASTER, `${SECRET},format=base64,data=${encrypted(block(17))}`],
  [MASTER, `${SECRET},format=base64,data=${encrypted(block(255))}`],
  [MASTER, `${SECRET},format=base64,data=`],
  [MASTER, `${SECRET},data=`],
  [MASTER, `${SECRET},data=x`],
  [MASTER, `${SECRET},format=base64,data=YWI=`],
  [MASTER, `${SECRET},format=base64,data=!`],
  [MASTER, "secret,id=a,keyid=m,data=x"],
  [MASTER, "secret,id=a,keyid=m,data=x,iv=AAAA"],
  [MASTER, "secret,id=a,keyid=m,data=x,iv=!!"],
  ["secret,id=m,data=short", `${SECRET},data=x`],
  [MASTER, `secret,id=a,keyid=zz,iv=${encodeBase64(IV)},data=x`],
]);

for (
  const [command, ...operands] of [
    ["info", "r"],
    ["check", "r"],
    ["compare", "r", "r"],
    ["convert", "r", "t"],
    ["create", "t", "1M"],
    ["dd", "if=r", "of=t"],
    ["measure", "r"],
    ["resize", "r", "2M"],
    ["snapshot", "r"],
    ["rebase", "-u", "-b", "", "r"],
    ["commit", "r"],
    ["amend", "-o", "size=1", "r"],
    ["bitmap", "--add", "r", "b"],
  ] as const
) {
  for (const definition of ["secret,id=1,data=x", "secret,help", "nope,id=a"]) {
    same(`an object for ${command}: ${definition}`, {
      given: GIVEN,
      run: [command, "--object", definition, ...operands],
    });
  }
}

same("an error in an option that comes before an object is found first", {
  given: GIVEN,
  run: ["map", "-s", "zz", "--object", "nope", "r"],
});
same("help that comes before an object is given", {
  given: GIVEN,
  run: ["info", "--object", "secret,?", "--zork"],
});
