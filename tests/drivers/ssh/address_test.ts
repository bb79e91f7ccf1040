import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  describeRemoteFile,
  OPEN_OPTIONS,
  parseName,
  parseOptions,
  peerName,
  type RemoteFile,
} from "../../../drivers/ssh/address.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { OptionSet } from "../../../lib/block/options.ts";

function fail(text: string): never {
  throw new Error(`warned: ${text}`);
}

function fromName(name: string): RemoteFile {
  return parseName(name, fail);
}

function fromOptions(list: string): RemoteFile {
  const pairs = list.split(",").map((item) => item.split("=") as [string, string]);
  return parseOptions(new OptionSet(OPEN_OPTIONS, pairs));
}

/** User, host, port and path in one text. */
function place({ destination, path }: RemoteFile): string {
  return `${peerName(destination)} ${path}`;
}

const names: readonly (readonly [string, string])[] = [
  ["ssh://host/a", "host /a"],
  ["ssh://me@host:2222/a/b.img", "me@host:2222 /a/b.img"],
  ["ssh://host:/a", "host /a"],
  ["ssh://host//a", "host //a"],
  ["ssh://host/", "host /"],
  ["ssh://host/a%20b%3f%25", "host /a b?%"],
  ["ssh://host/a b ", "host /a b "],
  ["ssh://host/%C3%BC", "host /ü"],
  ["ssh://host/a/../b/./c", "host /b/c"],
  ["ssh://m%65@host/a", "me@host /a"],
  ["ssh://me@example.org@host/a", "me@example.org@host /a"],
  ["ssh://DOM\\me@host/a", "DOM\\me@host /a"],
  ["ssh://[::1]:22/a", "[::1]:22 /a"],
  ["ssh://host/a#part", "host /a"],
  ["ssh://host/a?host_key_check=no", "host /a"],
];
for (const [name, expected] of names) {
  Deno.test(`ssh names: ${name}`, () => assertEquals(place(fromName(name)), expected));
}

const evil: readonly (readonly [string, string])[] = [
  ["ssh:", "missing hostname in URI"],
  ["ssh:/x", "missing hostname in URI"],
  ["ssh:///x", "missing hostname in URI"],
  ["ssh://host", "missing remote path in URI"],
  ["ssh://host?host_key_check=no", "missing remote path in URI"],
  ["ssh://host:99999/x", "no valid ssh://"],
  ["ssh://host:abc/x", "no valid ssh://"],
  ["ssh://host/%zz", "no valid ssh://"],
  ["ssh://host/%00", "A path cannot contain a null byte"],
  ["ssh://ho\nst/x", "no valid ssh://"],
  ["http://host/x", "no valid ssh://"],
  ["ssh://-oProxyCommand=id/x", "'-oProxyCommand=id' is no host's name"],
  ["ssh://%2doProxyCommand=id/x", "'-oProxyCommand=id' is no host's name"],
  ["ssh://a`id`/x", "no host's name"],
  ["ssh://a$(id)/x", "no host's name"],
  ["ssh://a;id/x", "no host's name"],
  ["ssh://a%3bid/x", "no host's name"],
  ["ssh://a%40b/x", "'a@b' is no host's name"],
  ["ssh://ssh%3a%2f%2fb/x", "no host's name"],
  ["ssh://-lroot@host/x", "'-lroot' is no user's name"],
  ["ssh://a%20-b@host/x", "'a -b' is no user's name"],
  ["ssh://a'b@host/x", "is no user's name"],
  ["ssh://a%5c@host/x", "is no user's name"],
  ["ssh://host/x?host_key_check=maybe", "unknown host_key_check setting (maybe)"],
  ["ssh://host/x?host_key_check=", "unknown host_key_check setting ()"],
  ["ssh://host/x?host_key_check=md5:00", "Host keys are checked by OpenSSH"],
];
for (const [name, message] of evil) {
  Deno.test(`ssh names: ${JSON.stringify(name)} is refused`, () => {
    assertThrows(() => fromName(name), ImageError, message);
  });
}

Deno.test("ssh names: unknown parameters are warned of", () => {
  const warnings: string[] = [];
  const { path } = parseName("ssh://host/a?x=1&host_key_check=yes", (text) => warnings.push(text));
  assertEquals(path, "/a");
  assertEquals(warnings, ["Unsupported parameter 'x' in URI"]);
});

const options: readonly (readonly [string, string])[] = [
  ["host=h,path=/a", "h /a"],
  ["host=h,port=22,user=me,path=a", "me@h:22 a"],
  ["server.host=h,server.port=022,path=/a", "h:22 /a"],
  ["server.host=::1,server.port=22,path=/a", "[::1]:22 /a"],
  ["host=h,server.host=other,server.port=1,path=/a", "h /a"],
];
for (const [list, expected] of options) {
  Deno.test(`ssh options: ${list}`, () => assertEquals(place(fromOptions(list)), expected));
}

const wrong: readonly (readonly [string, string])[] = [
  ["user=me", "Parameter 'server' is missing"],
  ["host=h", "Parameter 'path' is missing"],
  ["path=/a", "Parameter 'server' is missing"],
  ["server.host=h,path=/a", "Parameter 'server.port' is missing"],
  ["server.port=22,path=/a", "Parameter 'server.host' is missing"],
  ["port=1,server.host=h,server.port=22,path=/a", "port may not be used without host"],
  ["server.host=h,server.port=ssh,path=/a", "Use only numeric port value"],
  ["server.host=h,server.port=0,path=/a", "0 is no port"],
  ["host=h,port=65536,path=/a", "65536 is no port"],
  ["host=h,port=-1,path=/a", "Use only numeric port value"],
  ["host=,path=/a", "no hostname was specified"],
  ["host=-v,path=/a", "'-v' is no host's name"],
  ["host=ssh://h,path=/a", "'ssh://h' is no host's name"],
  ["host=h,user=-v,path=/a", "'-v' is no user's name"],
  ["host=h,user=,path=/a", "'' is no user's name"],
  ["host=h,path=/a,server.type=inet", "Parameter 'server.type' is unexpected"],
  ["host=h,path=/a,server.ipv4=maybe", "Parameter 'server.ipv4' expects 'on' or 'off'"],
  ["host=h,path=/a,server.ipv4=off,server.ipv6=off", "At least one of"],
  ["host=h,path=/a,server.numeric=on", "'server.numeric' is up to the ssh program"],
  ["host=h,path=/a,host_key_check=maybe", "unknown host_key_check setting (maybe)"],
  ["host=h,path=/a,host-key-check.mode=hash", "Host keys are checked by OpenSSH"],
  ["host=h,path=/a,host-key-check.mode=x", "Parameter 'mode' does not accept value 'x'"],
  ["host=h,path=/a,host-key-check.type=md5", "Parameter 'host-key-check.mode' is missing"],
  [
    "host=h,path=/a,host-key-check.mode=none,host-key-check.hash=00",
    "Parameter 'host-key-check.hash' is unexpected",
  ],
];
for (const [list, message] of wrong) {
  Deno.test(`ssh options: ${list} is refused`, () => {
    assertThrows(() => fromOptions(list), ImageError, message);
  });
}

const checks: readonly (readonly [string, RemoteFile["destination"]["hostKeyCheck"]])[] = [
  ["host=h,path=/a", undefined],
  ["host=h,path=/a,host_key_check=no", "none"],
  ["host=h,path=/a,host_key_check=yes", "known hosts"],
  ["host=h,path=/a,host-key-check.mode=none", "none"],
  ["host=h,path=/a,host-key-check.mode=known_hosts", "known hosts"],
  ["host=h,path=/a,host_key_check=yes,host-key-check.mode=none", "known hosts"],
];
for (const [list, expected] of checks) {
  Deno.test(`ssh options: keys are checked as ${list} says`, () => {
    assertEquals(fromOptions(list).destination.hostKeyCheck, expected);
  });
}

const families: readonly (readonly [string, string])[] = [
  ["ipv4=on", "inet"],
  ["ipv6=on", "inet6"],
  ["ipv4=off", "inet6"],
  ["ipv6=off", "inet"],
  ["ipv4=on,server.ipv6=on", "any"],
];
for (const [list, expected] of families) {
  Deno.test(`ssh options: server.${list} chooses addresses`, () => {
    assertEquals(fromOptions(`host=h,path=/a,server.${list}`).destination.family, expected);
  });
}

const DEFAULTS = { user: "me", port: 22 };

const shown: readonly (readonly [RemoteFile, string])[] = [
  [fromName("ssh://host/a"), "ssh://me@host:22/a"],
  [fromName("ssh://you@host:24/a?host_key_check=no"), "ssh://you@host:24/a?host_key_check=no"],
  [fromName("ssh://[::1]/a"), "ssh://me@[::1]:22/a"],
  [fromName("ssh://host/a b"), "ssh://me@host:22/a b"],
  [fromName("ssh://host/a%3fb%23%25"), "ssh://me@host:22/a%3Fb%23%25"],
  [fromOptions("server.host=h,server.port=1,path=/a,host-key-check.mode=none"), "ssh://me@h:1/a"],
  [fromOptions("host=h,user=a/b?c,path=/a"), "ssh://a%2Fb%3Fc@h:22/a"],
  [
    fromOptions("host=fe80::1%eth0,path=/a"),
    'json:{"host": "fe80::1%eth0", "driver": "ssh", "path": "/a"}',
  ],
  [fromOptions("host=h,path=a"), 'json:{"host": "h", "driver": "ssh", "path": "a"}'],
];
for (const [remote, expected] of shown) {
  Deno.test(`ssh names: shown as ${expected}`, () => {
    assertEquals(describeRemoteFile(remote, DEFAULTS).filename, expected);
  });
}

Deno.test("ssh names: what is shown leads to the same file", () => {
  for (const [remote] of shown) {
    const { exact } = describeRemoteFile(remote, DEFAULTS).address;
    if (exact === undefined) continue;
    assertEquals(fromName(exact).path, remote.path);
    assertEquals(fromName(exact).destination.host, remote.destination.host);
  }
});

Deno.test("ssh names: which addresses to use no name can say", () => {
  const remote = fromOptions("host=h,path=/a,server.ipv4=on");
  const { filename, address } = describeRemoteFile(remote, DEFAULTS);
  assertEquals(address.exact, undefined);
  assert(filename.startsWith("json:{"), filename);
});
