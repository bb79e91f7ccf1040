import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import { COMMAND, COMMAND_FLAG, EXPORT_FLAG } from "../../../lib/nbd/constants.ts";
import { Random } from "../../_random.ts";
import { ALL_FLAGS, type FakeServerOptions, type Misbehaviour } from "./_fake_server.ts";
import { openFake, THROUGH, WRITABLE } from "./_open.ts";

const SIZE = 64 * 1024;

/** Data, then zeros, then data. */
function content(): Uint8Array {
  const bytes = new Random(1).bytes(SIZE);
  bytes.forEach((byte, at) => bytes[at] = at >= 16384 && at < 49152 ? 0 : byte | 1);
  return bytes;
}

const KINDS: readonly (readonly [string, FakeServerOptions])[] = [
  ["oldstyle", { style: "oldstyle" }],
  ["newstyle that is not fixed", { style: "newstyle" }],
  ["without GO", { knowsGo: false }],
  ["with simple replies", { replies: "simple" }],
  ["with structured replies", { replies: "structured" }],
  ["with extended headers", {}],
  ["of large blocks", { blockSizes: { minimum: 4096, preferred: 4096, maximum: 8192 } }],
  ["that says nothing of what it has", { hasContext: false }],
  ["that can but read and write", { flags: EXPORT_FLAG.hasFlags }],
];

for (const [kind, options] of KINDS) {
  Deno.test(`nbd: what is written to a server ${kind} is read again`, async () => {
    const bytes = content();
    const model = bytes.slice();
    const { node } = await openFake(bytes, options);
    await using _node = node;
    const random = new Random(2);
    for (let i = 0; i < 60; i++) {
      const offset = random.below(SIZE);
      const length = random.between(1, Math.min(SIZE - offset, 20000));
      const data = random.bytes(length);
      switch (i % 3) {
        case 0:
          await node.write(offset, data);
          model.set(data, offset);
          break;
        case 1:
          await node.writeZeroes(offset, length, { unmap: random.oneIn(2) });
          model.fill(0, offset, offset + length);
          break;
        default:
          await node.read(offset, data);
          assertEquals(data, model.slice(offset, offset + length), `read ${i}`);
      }
    }
    await node.flush();
    assertEquals(bytes, model);
  });
}

Deno.test("nbd: replies may come byte by byte", async () => {
  const bytes = content();
  const { node } = await openFake(bytes, { piece: 1 });
  await using _node = node;
  const into = new Uint8Array(5000);
  await node.read(14000, into);
  assertEquals(into, bytes.slice(14000, 19000));
});

Deno.test("nbd: extents are what the server says, with the place of the bytes", async () => {
  const { node } = await openFake(content());
  await using _node = node;
  assertEquals(await node.extent(0, SIZE), {
    length: 16384,
    state: "data",
    compressed: false,
    file: node,
    offset: 0,
  });
  const hole = await node.extent(20000, 100);
  assertEquals([hole.state, hole.length, hole.offset], ["zero", 100, 20000]);
});

Deno.test("nbd: without its context everything is data", async () => {
  const { node } = await openFake(content(), { hasContext: false });
  await using _node = node;
  const extent = await node.extent(20000, 100);
  assertEquals([extent.state, extent.length], ["data", 100]);
});

Deno.test("nbd: an export that ends within a sector ends with zeros", async () => {
  const bytes = new Uint8Array(1000).fill(1);
  const { node, servers } = await openFake(bytes);
  await using _node = node;
  assertEquals([node.length, node.exactLength], [1024, 1000]);
  const into = new Uint8Array(512).fill(9);
  await node.read(512, into);
  assertEquals([into[487], into[488], into[511]], [1, 0, 0]);
  const tail = await node.extent(1000, 24);
  assertEquals([tail.state, tail.length], ["zero", 24]);
  const zeroTail = new Uint8Array(512).fill(5, 0, 488);
  await node.write(512, zeroTail);
  assertEquals(servers[0]!.seen.at(-1), {
    command: COMMAND.write,
    flags: COMMAND_FLAG.payloadLength,
    offset: 512,
    length: 488,
  });
  await assertRejects(() => node.write(512, zeroTail.fill(5)), ImageError, "No space left");
});

Deno.test("nbd: requests are whole blocks, and no longer than the server takes", async () => {
  const blockSizes = { minimum: 4096, preferred: 4096, maximum: 10000 };
  const { node, servers } = await openFake(content(), { blockSizes });
  await using _node = node;
  await node.read(5000, new Uint8Array(20000));
  await node.write(100, new Uint8Array(9000));
  await node.writeZeroes(8192, 24576, { unmap: false });
  await node.discard(100, 20000);
  for (const { command, offset, length } of servers[0]!.seen) {
    assert(offset % 4096 === 0 && length % 4096 === 0, `${command}: ${offset} + ${length}`);
    assert(length <= 8192 || command === COMMAND.writeZeroes || command === COMMAND.trim);
  }
  assertEquals(servers[0]!.seen.at(-1)?.offset, 4096);
});

Deno.test("nbd: zeros keep their space unless they may be unmapped", async () => {
  const { node, servers } = await openFake(content());
  await using _node = node;
  await node.writeZeroes(0, 4096, { unmap: false });
  await node.writeZeroes(0, 4096, { unmap: true });
  assertEquals(servers[0]!.seen.map(({ flags }) => flags), [COMMAND_FLAG.noHole, 0]);
});

Deno.test("nbd: fast zeros are asked for, and refused, where nothing else will do", async () => {
  const flags = { unmap: true, noFallback: true };
  const { node, servers } = await openFake(content());
  await using _node = node;
  const { errno } = await assertRejects(() => node.writeZeroes(0, 4096, flags), ImageError);
  assertEquals(errno, "ENOTSUP");
  assertEquals(servers[0]!.seen.map((request) => request.flags), [COMMAND_FLAG.fastZero]);
  const slow = await openFake(content(), { flags: ALL_FLAGS & ~EXPORT_FLAG.fastZero });
  await using _slow = slow.node;
  await assertRejects(() => slow.node.writeZeroes(0, 4096, flags), ImageError);
  assertEquals(slow.servers[0]!.seen, []);
});

Deno.test("nbd: what is written through needs FUA, or a flush", async () => {
  const { node, servers } = await openFake(content(), { mode: THROUGH, replies: "simple" });
  await using _node = node;
  await node.write(0, new Uint8Array(512));
  assertEquals(servers[0]!.seen.map(({ flags }) => flags), [COMMAND_FLAG.fua]);
  const plain = await openFake(content(), {
    mode: THROUGH,
    flags: ALL_FLAGS & ~EXPORT_FLAG.fua,
  });
  await using _plain = plain.node;
  await plain.node.write(0, new Uint8Array(512));
  assertEquals(plain.servers[0]!.seen.map(({ command }) => command), [
    COMMAND.write,
    COMMAND.flush,
  ]);
});

Deno.test("nbd: what was written is flushed before the connection ends, with a goodbye", async () => {
  const { node, servers } = await openFake(content());
  await node.write(0, new Uint8Array(512));
  await node[Symbol.asyncDispose]();
  await servers[0]!.ended;
  assertEquals(servers[0]!.seen.map(({ command }) => command), [
    COMMAND.write,
    COMMAND.flush,
    COMMAND.disconnect,
  ]);
});

Deno.test("nbd: discards reach the server only where they may", async () => {
  const { node, servers } = await openFake(content(), { mode: { ...WRITABLE, unmap: false } });
  await using _node = node;
  await node.discard(0, 4096);
  assertEquals(servers[0]!.seen, []);
});

Deno.test("nbd: an export keeps its size", async () => {
  const { node } = await openFake(content());
  await using _node = node;
  await node.resize(SIZE, "off");
  for (const size of [SIZE + 512, 512]) {
    await assertRejects(() => node.resize(size, "off"), ImageError, "Cannot resize NBD nodes");
  }
});

Deno.test("nbd: nothing is written to what was opened for reading", async () => {
  const { node, servers } = await openFake(content(), { mode: READ_ONLY });
  await using _node = node;
  await assertRejects(() => node.write(0, new Uint8Array(512)), ImageError, "read-only");
  assertEquals(servers[0]!.seen, []);
});

Deno.test("nbd: sixteen requests are under way, and no more", async () => {
  const waiting: (() => void)[] = [];
  const misbehave: Misbehaviour = ({ command, cookie, offset }, server) => {
    if (command !== COMMAND.read) return false;
    waiting.push(() => server.fail(cookie, offset, 5));
    return true;
  };
  const { node } = await openFake(content(), { misbehave });
  await using _node = node;
  const reads = Array.from({ length: 20 }, (_, i) => node.read(i * 512, new Uint8Array(512)));
  const results = Promise.allSettled(reads);
  while (waiting.length < 16) await new Promise((resolve) => setTimeout(resolve));
  await new Promise((resolve) => setTimeout(resolve, 5));
  assertEquals(waiting.length, 16);
  while (waiting.length > 0) {
    waiting.shift()!();
    await new Promise((resolve) => setTimeout(resolve));
  }
  assertEquals((await results).map(({ status }) => status), Array(20).fill("rejected"));
});

const ERRORS = [[1, "EPERM"], [5, "EIO"], [28, "ENOSPC"], [95, "ENOTSUP"], [
  4711,
  "EINVAL",
]] as const;

for (const replies of ["simple", "structured", "extended"] as const) {
  Deno.test(`nbd: an error is that of its request alone, in ${replies} replies`, async () => {
    for (const [number, errno] of ERRORS) {
      const misbehave: Misbehaviour = async ({ offset, cookie }, server) => {
        if (offset !== 512) return false;
        await server.fail(cookie, offset, number);
        return true;
      };
      const { node } = await openFake(content(), { replies, misbehave });
      await using _node = node;
      const [, failed, ...others] = await Promise.allSettled(
        [0, 512, 1024].map((offset) => node.read(offset, new Uint8Array(512))),
      );
      assertEquals(failed?.status === "rejected" && failed.reason.errno, errno);
      assertEquals(others.map(({ status }) => status), ["fulfilled"]);
    }
  });
}
