import { assert, assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { writeU16BE, writeU32BE, writeU64BE } from "../../../lib/bytes/endian.ts";
import { encodeSimpleReply } from "../../../lib/nbd/transmission.ts";
import { CHUNK, COMMAND, type FakeServer, type Misbehaviour } from "./_fake_server.ts";
import { openFake } from "./_open.ts";

const SIZE = 4096;

type Answer = (
  server: FakeServer,
  cookie: bigint,
  request: { readonly offset: number; readonly length: number },
) => Promise<void>;

/** A payload of these fields: their widths in bytes and their values. */
function fields(...values: readonly (readonly [width: 2 | 4 | 8, value: number | bigint])[]) {
  const bytes = new Uint8Array(values.reduce((sum, [width]) => sum + width, 0));
  let at = 0;
  for (const [width, value] of values) {
    if (width === 8) writeU64BE(bytes, at, value);
    else if (width === 4) writeU32BE(bytes, at, Number(value));
    else writeU16BE(bytes, at, Number(value));
    at += width;
  }
  return bytes;
}

function dataChunk(offset: number | bigint, length: number): Uint8Array {
  const payload = new Uint8Array(8 + length).fill(1);
  payload.set(fields([8, offset]));
  return payload;
}

/** What a read of 1024 bytes at 512 is answered with: the connection is of no use after that. */
const EVIL_READS: readonly (readonly [what: string, answer: Answer])[] = [
  ["a simple reply", (server, cookie) => server.writer.send(encodeSimpleReply(cookie, 0))],
  ["a magic number of nothing", (server) => server.writer.send(new Uint8Array(64))],
  ["a cookie that nobody gave", (server) => server.chunk(4711n, 512, CHUNK.none, fields())],
  ["nothing at all", (server, cookie) => server.chunk(cookie, 512, CHUNK.none, fields())],
  ["nothing, with more to come", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.none, fields(), { done: false });
  }],
  ["nothing, with a payload", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.none, fields([8, 0]));
  }],
  ["data in front of the request", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.data, dataChunk(0, 1024));
  }],
  ["data behind the request", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.data, dataChunk(1024, 1024));
  }],
  ["data where there are no offsets", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.data, dataChunk(2n ** 64n - 512n, 1024));
  }],
  ["no data", (server, cookie) => server.chunk(cookie, 512, CHUNK.data, fields([8, 512]))],
  ["half of the data", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.data, dataChunk(512, 512));
  }],
  ["the same data twice", async (server, cookie) => {
    await server.chunk(cookie, 512, CHUNK.data, dataChunk(512, 512), { done: false });
    await server.chunk(cookie, 512, CHUNK.data, dataChunk(512, 512));
  }],
  ["data in a thousand pieces and one", async (server, cookie) => {
    for (let at = 512; at < 1536; at += 1) {
      const [offset, done] = [512 + (at - 512) * 2 % 1023, false];
      await server.chunk(cookie, 512, CHUNK.data, dataChunk(offset, 1), { done });
    }
    await server.chunk(cookie, 512, CHUNK.none, fields());
  }],
  ["a hole longer than the request", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.hole, fields([8, 512], [4, 1025]));
  }],
  ["a hole of nothing", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.hole, fields([8, 512], [4, 0]));
  }],
  ["half a hole", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.hole, fields([8, 512]));
  }],
  ["the status of blocks", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.blockStatusExtended, fields());
  }],
  ["a chunk of no known type", (server, cookie) => server.chunk(cookie, 512, 99, fields())],
  ["an error that is none", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.error, fields([4, 0], [2, 0]));
  }],
  ["an error whose text is longer than it", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.error, fields([4, 5], [2, 100]));
  }],
  ["half an error", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.error, fields([4, 5]));
  }],
  ["an error of 64 KiB", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.error, new Uint8Array(65536).fill(1));
  }],
  ["a chunk of exbibytes", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.data, dataChunk(512, 16), {
      length: Number.MAX_SAFE_INTEGER,
    });
  }],
];

/** The server answers the first request of a kind so, and then says no more. */
function answeringOnce(command: number, answer: Answer): Misbehaviour {
  return async (request, server) => {
    if (request.command !== command) return false;
    await answer(server, request.cookie, request);
    return true;
  };
}

async function failsForGood(command: number, answer: Answer): Promise<void> {
  const { node, servers } = await openFake(new Uint8Array(SIZE), {
    misbehave: answeringOnce(command, answer),
    reconnectDelay: 50,
  });
  await using _node = node;
  const read = () => node.read(512, new Uint8Array(1024));
  const request = command === COMMAND.read ? read : () => node.extent(512, 1024);
  const { errno } = await assertRejects(request, ImageError);
  assert(errno === "EIO", errno);
  await servers[0]!.ended;
}

for (const [what, answer] of EVIL_READS) {
  Deno.test(`nbd: a read that is answered with ${what} fails, and the connection ends`, async () => {
    await failsForGood(COMMAND.read, answer);
  });
}

const EVIL_STATUS: readonly (readonly [what: string, answer: Answer])[] = [
  ["another context", (server, cookie) => {
    const payload = fields([4, 8], [4, 1], [8, 512], [8, 0]);
    return server.chunk(cookie, 512, CHUNK.blockStatusExtended, payload);
  }],
  ["a run of nothing", (server, cookie) => {
    const payload = fields([4, 7], [4, 1], [8, 0], [8, 0]);
    return server.chunk(cookie, 512, CHUNK.blockStatusExtended, payload);
  }],
  ["more runs than there are", (server, cookie) => {
    const payload = fields([4, 7], [4, 2], [8, 512], [8, 0]);
    return server.chunk(cookie, 512, CHUNK.blockStatusExtended, payload);
  }],
  ["no runs", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.blockStatusExtended, fields([4, 7], [4, 0]));
  }],
  ["a piece of a run", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.blockStatus, fields([4, 7], [4, 512]));
  }],
  ["not even a context", (server, cookie) => {
    return server.chunk(cookie, 512, CHUNK.blockStatus, fields([2, 7]));
  }],
  ["a status twice", async (server, cookie) => {
    const payload = fields([4, 7], [4, 512], [4, 0]);
    await server.chunk(cookie, 512, CHUNK.blockStatus, payload, { done: false });
    await server.chunk(cookie, 512, CHUNK.blockStatus, payload);
  }],
  ["data", (server, cookie) => server.chunk(cookie, 512, CHUNK.data, dataChunk(512, 512))],
];

for (const [what, answer] of EVIL_STATUS) {
  Deno.test(`nbd: a question for the status that is answered with ${what} fails`, async () => {
    await failsForGood(COMMAND.blockStatus, answer);
  });
}

Deno.test("nbd: a status without a run is an error of the request alone", async () => {
  const { node } = await openFake(new Uint8Array(SIZE), {
    misbehave: answeringOnce(COMMAND.blockStatus, (server, cookie) => server.done(cookie, 0)),
  });
  await using _node = node;
  await assertRejects(() => node.extent(0, 512), ImageError, "did not reply with any status");
  await node.read(0, new Uint8Array(512));
});

Deno.test("nbd: runs longer than was asked for end where that ends; flags beyond 32 bits are none", async () => {
  const payload = fields([4, 7], [4, 1], [8, 2n ** 63n], [8, 3]);
  const { node } = await openFake(new Uint8Array(SIZE), {
    misbehave: answeringOnce(COMMAND.blockStatus, (server, cookie) => {
      return server.chunk(cookie, 0, CHUNK.blockStatusExtended, payload);
    }),
  });
  await using _node = node;
  const { length, state } = await node.extent(512, 1024);
  assertEquals([length, state], [1024, "zero"]);
});

Deno.test("nbd: headers of either width are understood", async () => {
  const { node } = await openFake(new Uint8Array(SIZE), {
    misbehave: answeringOnce(COMMAND.blockStatus, async (server, cookie) => {
      const header = fields([4, 0x668e33ef], [2, 1], [2, CHUNK.blockStatus], [8, cookie], [4, 12]);
      await server.writer.send(header, fields([4, 7], [4, 1024], [4, 3]));
    }),
  });
  await using _node = node;
  assertEquals((await node.extent(0, 2048)).length, 1024);
});

Deno.test("nbd: chunks where none were agreed upon end the connection", async () => {
  const { node, servers } = await openFake(new Uint8Array(SIZE), {
    replies: "simple",
    misbehave: (request, server) => {
      const header = fields([4, 0x668e33ef], [2, 1], [2, CHUNK.none], [8, request.cookie], [4, 0]);
      return server.writer.send(header).then(() => true);
    },
  });
  await using _node = node;
  await assertRejects(() => node.read(0, new Uint8Array(512)), ImageError);
  await servers[0]!.ended;
});
