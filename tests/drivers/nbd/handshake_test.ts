import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import { writeU64BE } from "../../../lib/bytes/endian.ts";
import { INFO, OPTION, REPLY, REPLY_ERROR } from "../../../lib/nbd/constants.ts";
import {
  encodeDetail,
  encodeMetaContext,
  encodeOptionReply,
  encodeServerReply,
} from "../../../lib/nbd/negotiation.ts";
import { channelOver, type HandshakeRequest, shakeHands } from "../../../drivers/nbd/handshake.ts";
import { FakeServer, type FakeServerOptions } from "./_fake_server.ts";
import { pipe } from "./_pipe.ts";

const SIZE = 4096;
const REQUEST: HandshakeRequest = { name: "", context: "base:allocation" };

async function shake(options: FakeServerOptions, request = REQUEST) {
  const line = pipe();
  const server = new FakeServer(line.server, new Uint8Array(SIZE), options);
  try {
    return await shakeHands(channelOver(line.client), request);
  } finally {
    line.end();
    await server.ended;
  }
}

/** What comes of a server that says just this. */
async function shakeWith(...bytes: readonly number[]): Promise<ImageError> {
  const line = pipe();
  await line.server.write(Uint8Array.from(bytes));
  line.end();
  return await assertRejects(() => shakeHands(channelOver(line.client), REQUEST), ImageError);
}

const GREETING = Array.from("NBDMAGICIHAVEOPT", (letter) => letter.charCodeAt(0));

Deno.test("nbd: what is no server of NBD is told by its first bytes", async () => {
  const bad = new Uint8Array(16);
  writeU64BE(bad, 0, 0x4854_5450_2f31_2e31n);
  assertEquals(
    (await shakeWith(...bad)).message,
    "Bad initial magic received: 0x485454502f312e31",
  );
  assertEquals(
    (await shakeWith(...GREETING.slice(0, 8), 1, 2, 3, 4, 5, 6, 7, 8)).message,
    "Bad server magic received: 0x0102030405060708",
  );
});

Deno.test("nbd: a server that ends early is told by what it owes", async () => {
  const end = "Unexpected end-of-file before all data were read";
  const messages: string[] = [];
  for (const length of [0, 3, 8, 15, 16]) {
    messages.push((await shakeWith(...GREETING.slice(0, length))).message);
  }
  messages.push((await shakeWith(...GREETING, 0, 3)).message);
  const what = ["initial magic", "initial magic", "server magic", "server magic", "server flags"];
  assertEquals(messages, [...what, "option reply"].map((it) => `Failed to read ${it}: ${end}`));
});

const reply = encodeOptionReply;
const info = encodeDetail({ kind: "export", info: { size: SIZE, flags: 1 } });
const blocks = (minimum: number, preferred: number, maximum: number) =>
  encodeDetail({ kind: "block size", sizes: { minimum, preferred, maximum } });

/** By the option, what it is answered with and what comes of that. */
const ANSWERS: readonly (readonly [
  option: number,
  answers: readonly Uint8Array[],
  message: string,
  hint?: string,
])[] = [
  [7, [new Uint8Array(20)], "Unexpected option reply magic"],
  [
    11,
    [reply(8, REPLY.ack)],
    "Unexpected option type 8 (structured reply), expected 11 (extended headers)",
  ],
  [
    11,
    [reply(11, REPLY.ack, "x")],
    "Option 11 ('extended headers') response length is 1 (it should be zero)",
  ],
  [
    11,
    [reply(11, REPLY.info)],
    "Server answered option 11 (extended headers) with unexpected reply 3 (info)",
  ],
  [
    10,
    [reply(10, REPLY.metaContext, encodeMetaContext({ id: 1, name: "foo:bar" }))],
    "Failed to negotiate meta context 'base:allocation', server answered with different context 'foo:bar'",
  ],
  [
    10,
    Array(2).fill(
      reply(10, REPLY.metaContext, encodeMetaContext({ id: 1, name: "base:allocation" })),
    ),
    "Server answered with more than one context",
  ],
  [10, [reply(10, REPLY.metaContext, "x")], "meta context reply is too short"],
  [7, [reply(7, REPLY_ERROR.policy)], "Denied by server for option 7 (go)"],
  [7, [reply(7, REPLY_ERROR.invalid)], "Invalid parameters for option 7 (go)"],
  [7, [reply(7, REPLY_ERROR.platform)], "Server lacks support for option 7 (go)"],
  [
    7,
    [reply(7, REPLY_ERROR.tlsRequired, "no!")],
    "TLS negotiation required before option 7 (go)",
    "Did you forget a valid tls-creds?\nserver reported: no!",
  ],
  [7, [reply(7, REPLY_ERROR.shutdown)], "Server shutting down before option 7 (go)"],
  [
    7,
    [reply(7, REPLY_ERROR.blockSizeRequired)],
    "Server requires INFO_BLOCK_SIZE for option 7 (go)",
  ],
  [7, [reply(7, 0x80001234)], "Unknown error code when asking for option 7 (go)"],
  [7, [reply(7, REPLY.ack)], "broken server omitted NBD_INFO_EXPORT"],
  [7, [reply(7, REPLY.info, info), reply(7, REPLY.ack, "x")], "server sent invalid NBD_REP_ACK"],
  [7, [reply(7, REPLY.server)], "unexpected reply type 2 (server), expected 3 (info)"],
  [7, [reply(7, REPLY.info, "x")], "NBD_REP_INFO length 1 is too short"],
  [
    7,
    [reply(7, REPLY.info, new Uint8Array(4))],
    "remaining export info len 2 is unexpected size",
  ],
  ...([
    [3, 4096, 4096, "server minimum block size 3 is not a power of two"],
    [512, 256, 4096, "server preferred block size 256 is not valid"],
    [512, 512, 256, "server maximum block size 256 is not valid"],
    [8192, 8192, 8192, "export size 4096 is not multiple of minimum block size 8192"],
  ] as const).map(([minimum, preferred, maximum, message]) =>
    [
      7,
      [
        reply(7, REPLY.info, blocks(minimum, preferred, maximum)),
        reply(7, REPLY.info, info),
        reply(7, REPLY.ack),
      ],
      message,
    ] as const
  ),
];

for (const [option, answers, message, hint] of ANSWERS) {
  Deno.test(`nbd: ${message}`, async () => {
    const failing = shake({ answers: { [option]: answers } });
    const error = await assertRejects(() => failing, ImageError);
    assertEquals([error.message, error.hint], [message, hint]);
  });
}

Deno.test("nbd: a reply longer than any is not read", async () => {
  const long = reply(OPTION.go, REPLY.info);
  new DataView(long.buffer).setUint32(16, 0xffff_ffff);
  const error = await assertRejects(() => shake({ answers: { 7: [long] } }), ImageError);
  assertEquals(error.message, "option reply length 4294967295 is too long");
});

Deno.test("nbd: an export that is not there is told with the server's words", async () => {
  const error = await assertRejects(
    () => shake({ name: "a" }, { ...REQUEST, name: "b" }),
    ImageError,
  );
  assertEquals(error.message, "Requested export not available");
  assertEquals(error.hint, "server reported: no such thing");
});

Deno.test("nbd: without GO an export is looked for in the list", async () => {
  const old = { knowsGo: false, name: "a" };
  assertEquals((await shake(old, { ...REQUEST, name: "a" })).size, SIZE);
  await assertRejects(
    () => shake(old, { ...REQUEST, name: "b" }),
    ImageError,
    "No export with name 'b' available",
  );
  const silent = { ...old, answers: { [OPTION.list]: [reply(OPTION.list, REPLY_ERROR.policy)] } };
  assertEquals((await shake(silent, { ...REQUEST, name: "b" })).size, SIZE);
  const bad = [reply(OPTION.list, REPLY.server, encodeServerReply("abc").slice(0, 5))];
  await assertRejects(
    () => shake({ ...old, answers: { [OPTION.list]: bad } }),
    ImageError,
    "incorrect option name length",
  );
});

Deno.test("nbd: an oldstyle server has one export and no encryption", async () => {
  const old = { style: "oldstyle" } as const;
  await assertRejects(
    () => shake(old, { ...REQUEST, name: "x" }),
    ImageError,
    "Server does not support non-empty export names",
  );
  for (const style of ["oldstyle", "newstyle"] as const) {
    await assertRejects(
      () => shake({ style }, { ...REQUEST, startTls: (channel) => Promise.resolve(channel) }),
      ImageError,
      "Server does not support STARTTLS",
    );
  }
});

Deno.test("nbd: encryption is what was asked for, or nothing", async () => {
  const started: string[] = [];
  const startTls: HandshakeRequest["startTls"] = (channel) => {
    started.push("now");
    return Promise.resolve(channel);
  };
  const request = { ...REQUEST, startTls };
  await assertRejects(() => shake({}, request), ImageError, "Server don't support STARTTLS option");
  const smuggled = [
    Uint8Array.from([...reply(5, REPLY.ack), ...reply(11, REPLY.ack)]),
  ];
  await assertRejects(
    () => shake({ answers: { 5: smuggled } }, request),
    ImageError,
    "in front of the TLS handshake",
  );
  assertEquals(started, []);
  assertEquals((await shake({ answers: { 5: [reply(5, REPLY.ack)] } }, request)).size, SIZE);
  assertEquals(started, ["now"]);
});

Deno.test("nbd: a size that is no number is refused", async () => {
  const huge = Uint8Array.from(info);
  huge.fill(0xff, 2, 10);
  const answers = { 7: [reply(7, REPLY.info, huge)] };
  const error = await assertRejects(() => shake({ answers }), ImageError);
  assertEquals(error.message, "export length 18446744073709551615 is too large");
});

Deno.test("nbd: what a server tells beside what counts does not matter", async () => {
  const more = encodeDetail({ kind: "unknown", number: 99 });
  const name = encodeDetail({ kind: "text", number: INFO.name, text: "x" });
  const answers = {
    7: [more, name, info].map((data) => reply(7, REPLY.info, data)).concat(reply(7, REPLY.ack)),
  };
  assertEquals((await shake({ answers })).flags, 1);
});
