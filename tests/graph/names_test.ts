import { assertEquals, assertThrows } from "@std/assert";
import { ImageError } from "../../lib/block/error.ts";
import { protocolPrefix, resolveRelative, withoutPrefix } from "../../lib/graph/names.ts";

Deno.test("a protocol is a word before a colon that comes before any slash", () => {
  const prefixes: Record<string, string | undefined> = {
    "a.img": undefined,
    "file:a.img": "file",
    "nbd://host/export": "nbd",
    "nbd+unix:///e?socket=s": "nbd+unix",
    "./a:b": undefined,
    "dir/a:b": undefined,
    ":b": "",
    "": undefined,
    "a:": "a",
  };
  for (const [name, prefix] of Object.entries(prefixes)) {
    assertEquals(protocolPrefix(name), prefix, name);
  }
});

Deno.test("a name without its prefix has no other one", () => {
  assertEquals(withoutPrefix("file:a.img", "file"), "a.img");
  assertEquals(withoutPrefix("file:a:b.img", "file"), "./a:b.img");
  assertEquals(withoutPrefix("file:/a:b.img", "file"), "/a:b.img");
  assertEquals(withoutPrefix("file:", "file"), "");
});

Deno.test("references are relative to the image's folder, and stay as they are written", () => {
  const cases: [image: string, name: string, resolved: string][] = [
    ["a.qcow2", "b", "b"],
    ["./a.qcow2", "b", "./b"],
    ["sub/o.qcow2", "../a", "sub/../a"],
    ["sub/o.qcow2", "/a", "/a"],
    ["sub/o.qcow2", "nbd://h/e", "nbd://h/e"],
    ["sub/o.qcow2", "json:{}", "json:{}"],
    ["sub/o.qcow2", "", ""],
    ["file:o.qcow2", "b", "file:b"],
    ["file:sub/o.qcow2", "b", "file:sub/b"],
    ["http://h/x/o.qcow2", "b", "http://h/x/b"],
    ["/o.qcow2", "b", "/b"],
  ];
  for (const [image, name, resolved] of cases) {
    assertEquals(resolveRelative(image, name), resolved, `${name} of ${image}`);
  }
});

Deno.test("nothing is relative to a json: name", () => {
  assertEquals(resolveRelative("json:{}", "/a"), "/a");
  const error = assertThrows(() => resolveRelative("json:{}", "a"), ImageError);
  assertEquals(error.message, "Cannot use relative backing file names for 'json:{}'");
});
