import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { FORMATS } from "../../drivers/mod.ts";
import { ImageError } from "../../lib/block/error.ts";
import {
  creatableFormat,
  DEFAULT_FORMAT,
  probeFile,
  probeHead,
  protocolOf,
} from "../../lib/graph/registry.ts";
import { mayOpenDevices } from "../_devices.ts";
import { MemoryNode } from "../_memory_node.ts";

Deno.test("a name selects its protocol, and loses the prefix", () => {
  const parsed = (name: string, options = {}) => {
    const { protocol, filename } = protocolOf(name, options);
    return [protocol.name, filename];
  };
  assertEquals(parsed("a.img"), ["file", "a.img"]);
  assertEquals(parsed("file:a.img"), ["file", "a.img"]);
  assertEquals(parsed("file:a:b.img"), ["file", "./a:b.img"]);
  assertEquals(parsed("host_device:x"), ["host_device", "x"]);
  assertEquals(parsed("./a:b"), ["file", "./a:b"]);
  assertEquals(parsed(""), ["file", ""]);
  // Where prefixes do not count a colon is a character like any other.
  assertEquals(parsed("nosuch:x", { prefixes: false }), ["file", "nosuch:x"]);
  assertEquals(parsed("file:x", { prefixes: false }), ["file", "file:x"]);
});

Deno.test({
  name: "a device selects its protocol by being one",
  ignore: !mayOpenDevices,
  fn: () => {
    assertEquals(protocolOf("/dev/null").protocol.name, "host_device");
    assertEquals(protocolOf("/dev/null", { prefixes: false }).protocol.name, "host_device");
    assertEquals(protocolOf("file:/dev/null").protocol.name, "file");
    assertEquals(protocolOf("/dev").protocol.name, "file");
  },
});

Deno.test("an unknown protocol is refused", () => {
  const error = assertThrows(() => protocolOf("zork:x"), ImageError);
  assertEquals(error.message, "Unknown protocol 'zork'");
});

Deno.test("what no format claims is raw", async () => {
  assertEquals(probeHead(new Uint8Array(512), "a").name, DEFAULT_FORMAT);
  assertEquals((await probeFile(new MemoryNode())).name, DEFAULT_FORMAT);
});

Deno.test("a signature decides", async () => {
  const bytes = new Uint8Array(512);
  bytes.set([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 3]);
  assertEquals((await probeFile(new MemoryNode({ bytes }))).name, "qcow2");
});

Deno.test("a short file is probed as if zeros followed", async () => {
  const bytes = new Uint8Array([0x51, 0x46, 0x49, 0xfb, 0, 0, 0, 2]);
  assertEquals((await probeFile(new MemoryNode({ bytes }))).name, "qcow2");
});

Deno.test("a file that cannot be read cannot be probed", async () => {
  const file = new MemoryNode({
    bytes: new Uint8Array(512),
    before: () => {
      throw ImageError.fromErrno("EIO");
    },
  });
  const error = await assertRejects(() => probeFile(file), ImageError);
  assertEquals(
    error.message,
    "Could not read image for determining its format: Input/output error",
  );
});

Deno.test("drivers go by the names under which they are registered", async () => {
  for (const entry of FORMATS) assertEquals((await entry.load()).name, entry.name);
});

Deno.test("a format to create in must be there", async () => {
  assertEquals((await creatableFormat(DEFAULT_FORMAT)).name, DEFAULT_FORMAT);
  const error = await assertRejects(() => creatableFormat("zork"), ImageError);
  assertEquals(error.message, "Unknown file format 'zork'");
});

Deno.test("a protocol that others speak is refused with the command that serves it as NBD", () => {
  for (const name of ["rbd:a/b", "iscsi://h/t/0", "nfs://h/a", "gluster+unix://a", "ftp://h/a"]) {
    const { message, hint } = assertThrows(() => protocolOf(name), ImageError);
    assert(message.startsWith("Unknown protocol '"), message);
    assert(/qemu-nbd|nbdkit/.test(hint ?? ""), `${name}: ${hint}`);
  }
  assertEquals(assertThrows(() => protocolOf("nope:a"), ImageError).hint, undefined);
});
