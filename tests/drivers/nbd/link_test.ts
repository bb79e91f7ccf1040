import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { Random } from "../../_random.ts";
import { ALL_FLAGS, COMMAND, type Misbehaviour } from "./_fake_server.ts";
import { EXPORT_FLAG, OPTION, REPLY } from "../../../lib/nbd/constants.ts";
import { encodeDetail, encodeOptionReply } from "../../../lib/nbd/negotiation.ts";
import { openFake } from "./_open.ts";

const SIZE = 8192;

const sleep = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Answers to `GO` for an export of this size. */
function sized(size: number): Uint8Array[] {
  const info = encodeDetail({ kind: "export", info: { size, flags: ALL_FLAGS } });
  return [
    encodeOptionReply(OPTION.go, REPLY.info, info),
    encodeOptionReply(OPTION.go, REPLY.ack),
  ];
}

/** The server never answers reads. */
const silent: Misbehaviour = ({ command }) => command === COMMAND.read;

Deno.test("nbd: without a delay a lost connection fails what is under way at once", async () => {
  const { node, pipes } = await openFake(new Uint8Array(SIZE), { misbehave: silent });
  await using _node = node;
  const reads = [0, 512, 1024].map((offset) => node.read(offset, new Uint8Array(512)));
  const results = Promise.allSettled(reads);
  await sleep(1);
  pipes[0]!.end();
  for (const result of await results) {
    assertEquals(result.status === "rejected" && result.reason.errno, "EIO");
  }
});

Deno.test("nbd: without a delay a later request finds the new connection, the first does not wait", async () => {
  const bytes = new Random(1).bytes(SIZE);
  const { node, pipes, servers } = await openFake(bytes);
  await using _node = node;
  pipes[0]!.end();
  await servers[0]!.ended;
  const into = new Uint8Array(512);
  await assertRejects(() => node.read(0, into), ImageError, "Input/output error");
  while (servers.length < 2) await sleep(1);
  await sleep(5);
  await node.read(0, into);
  assertEquals(into, bytes.slice(0, 512));
});

Deno.test("nbd: with a delay what was under way is done on the new connection", async () => {
  const bytes = new Random(2).bytes(SIZE);
  const model = bytes.slice();
  let lost = 0;
  const { node, pipes, servers } = await openFake(bytes, {
    reconnectDelay: 5000,
    // Each connection is good for a few requests, and goes without a word in the middle of the next one.
    misbehave: (_, server) => {
      if (server.seen.length % 4 !== 0 || lost >= 6) return false;
      lost++;
      pipes[servers.indexOf(server)]!.end();
      return true;
    },
  });
  const random = new Random(3);
  for (let i = 0; i < 30; i++) {
    const offset = random.below(SIZE - 600);
    const data = random.bytes(600);
    const into = new Uint8Array(600);
    await Promise.all([node.write(offset, data), node.flush(), node.extent(offset, 10)]);
    model.set(data, offset);
    await node.read(offset, into);
    assertEquals(into, data, `round ${i}`);
  }
  await node[Symbol.asyncDispose]();
  assertEquals(lost, 6);
  assertEquals(bytes, model);
});

Deno.test("nbd: what waits for a server that does not come back ends with the delay", async () => {
  const { node, pipes } = await openFake(new Uint8Array(SIZE), {
    reconnectDelay: 150,
    reconnect() {
      throw ImageError.fromErrno("ECONNREFUSED");
    },
  });
  await using _node = node;
  pipes[0]!.end();
  const waiting = [0, 512].map((offset) => node.read(offset, new Uint8Array(512)));
  for (const result of await Promise.allSettled(waiting)) {
    assertEquals(result.status === "rejected" && result.reason.errno, "EIO");
  }
  // Nobody waits for as long again.
  const begin = performance.now();
  await assertRejects(() => node.read(0, new Uint8Array(512)), ImageError);
  assert(performance.now() - begin < 150);
});

Deno.test("nbd: a server that takes connections only to lose them is not tried for ever", async () => {
  const { node, servers } = await openFake(new Uint8Array(SIZE), {
    reconnectDelay: 300,
    misbehave: () => {
      throw new Error("the server is broken");
    },
  });
  await using _node = node;
  await assertRejects(() => node.read(0, new Uint8Array(512)), ImageError, "Input/output error");
  assert(servers.length > 1);
});

for (
  const [what, other] of [
    ["of another size", { size: SIZE * 2 }],
    ["that is read-only now", { flags: ALL_FLAGS | EXPORT_FLAG.readOnly }],
  ] as const
) {
  Deno.test(`nbd: an export ${what} is not the one that was lost`, async () => {
    const { node, pipes, servers } = await openFake(new Uint8Array(SIZE), {
      reconnectDelay: 5000,
      reconnect: () => ("flags" in other ? { flags: other.flags } : {
        answers: { 7: sized(other.size) },
      }),
    });
    await using _node = node;
    pipes[0]!.end();
    await assertRejects(() => node.read(0, new Uint8Array(512)), ImageError, "Input/output error");
    assertEquals(servers.length, 2);
  });
}

Deno.test("nbd: who has had enough waits for no server", async () => {
  const controller = new AbortController();
  const { node } = await openFake(new Uint8Array(SIZE), {
    misbehave: silent,
    reconnectDelay: 60_000,
    signal: controller.signal,
  });
  await using _node = node;
  const reading = node.read(0, new Uint8Array(512));
  setTimeout(() => controller.abort(new Error("enough")), 5);
  await assertRejects(() => reading, Error, "enough");
  await assertRejects(() => node.read(0, new Uint8Array(512)), Error, "enough");
});

Deno.test("nbd: to close does not wait for a connection to come back", async () => {
  const { node, pipes, servers } = await openFake(new Uint8Array(SIZE), {
    reconnectDelay: 60_000,
    reconnect() {
      throw ImageError.fromErrno("ECONNREFUSED");
    },
  });
  pipes[0]!.end();
  await servers[0]!.ended;
  const reading = assertRejects(() => node.read(0, new Uint8Array(512)), ImageError);
  await sleep(5);
  await node[Symbol.asyncDispose]();
  await reading;
});
