import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  encodePacket,
  MAX_PACKET,
  PacketFields,
  PacketReader,
  PacketType,
  SftpProtocolError,
  StatusCode,
} from "../../../drivers/ssh/packets.ts";
import { OpenFile } from "../../../drivers/ssh/remote_file.ts";
import { SftpSession } from "../../../drivers/ssh/session.ts";
import type { Patience } from "../../../drivers/ssh/transport.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { Random } from "../../_random.ts";
import { FakeServer, type Faults } from "./_fake_server.ts";

/** As little as a loaded machine can do with. */
const IMPATIENT: Patience = { connect: 300, request: 300, flush: 300 };

const encoder = new TextEncoder();

async function serve(
  faults: Faults = {},
  content: Uint8Array = new Uint8Array(0),
): Promise<{ server: FakeServer; session: SftpSession }> {
  const server = new FakeServer(faults);
  server.files.set("/disk", content);
  return { server, session: await SftpSession.start(server.connect(), IMPATIENT) };
}

Deno.test("packets: fields come back as they were written", () => {
  const packet = encodePacket(7, [1, 2n ** 60n, "grün", new Uint8Array([1, 2])]);
  assertEquals(new DataView(packet.buffer).getUint32(0), packet.length - 4);
  assertEquals(packet[4], 7);
  const fields = new PacketFields(packet.subarray(5));
  assertEquals(fields.u32(), 1);
  assertEquals(fields.u64(), 2n ** 60n);
  assertEquals(fields.text(), "grün");
  assertEquals(fields.bytes(), new Uint8Array([1, 2]));
  assert(fields.atEnd);
});

for (
  const [what, read] of [
    ["32 bits", (fields: PacketFields) => fields.u32()],
    ["64 bits", (fields: PacketFields) => fields.u64()],
    ["a string", (fields: PacketFields) => fields.bytes()],
  ] as const
) {
  Deno.test(`packets: ${what} beyond the end of a packet are refused`, () => {
    const short = new PacketFields(new Uint8Array([0, 0, 1]));
    let thrown: unknown;
    try {
      read(short);
    } catch (error) {
      thrown = error;
    }
    assertInstanceOf(thrown, SftpProtocolError);
  });
}

Deno.test("packets: a string that claims more than the packet has is refused", () => {
  const fields = new PacketFields(new Uint8Array([0xff, 0xff, 0xff, 0xff, 1, 2]));
  let thrown: unknown;
  try {
    fields.bytes();
  } catch (error) {
    thrown = error;
  }
  assertInstanceOf(thrown, SftpProtocolError);
});

Deno.test("packets: a stream may be cut anywhere", async () => {
  const packets = [encodePacket(1, [7]), encodePacket(2, ["x".repeat(500)]), encodePacket(3, [])];
  const stream = new Uint8Array(packets.flatMap((packet) => [...packet]));
  for (const step of [1, 3, 4, 5, 7, 100, stream.length]) {
    const cut = Array.from(
      { length: Math.ceil(stream.length / step) },
      (_, i) => stream.slice(i * step, (i + 1) * step),
    );
    const reader = new PacketReader(ReadableStream.from(cut));
    for (const packet of packets) assertEquals(await reader.next(), packet.subarray(4), `${step}`);
    assertEquals(await reader.next(), undefined);
  }
});

for (const length of [0, MAX_PACKET + 1, 0x7fffffff, 0xffffffff]) {
  Deno.test(`packets: one of ${length} bytes is refused before it comes`, async () => {
    const head = new Uint8Array(4);
    new DataView(head.buffer).setUint32(0, length);
    const reader = new PacketReader(ReadableStream.from([head]));
    await assertRejects(() => reader.next(), SftpProtocolError, `${length} bytes`);
  });
}

Deno.test("session: extensions are known by their names", async () => {
  const { session } = await serve({ extensions: ["a@b", "fsync@openssh.com"] });
  await using _session = session;
  assertEquals([...session.extensions.keys()], ["a@b", "fsync@openssh.com"]);
});

Deno.test("session: many requests at a time, answered in any order and in parts", async () => {
  const content = new Random(1).bytes(700_001);
  const { server, session } = await serve({ shortReads: 5000, disorder: 7 }, content);
  await using _session = session;
  const file = await OpenFile.open(session, "/disk", "reading");
  const into = new Uint8Array(content.length);
  assertEquals(await file.read(0, into), content.length);
  assertEquals(into, content);
  assert(server.count(PacketType.READ) > content.length / 5000);
});

Deno.test("session: a read behind the end tells how much there was", async () => {
  const { session } = await serve({}, new Uint8Array(40_000).fill(7));
  await using _session = session;
  const file = await OpenFile.open(session, "/disk", "reading");
  assertEquals(await file.read(10_000, new Uint8Array(100_000)), 30_000);
  assertEquals(await file.read(50_000, new Uint8Array(10)), 0);
});

Deno.test("session: a refusal has the server's words, its code and the file's name", async () => {
  const { session } = await serve();
  await using _session = session;
  const error = await assertRejects(
    () => OpenFile.open(session, "/nothing", "reading"),
    ImageError,
    "failed to open remote file '/nothing': SFTP server: code 2 (sftp error code: 2)",
  );
  assertEquals(error.errno, "ENOENT");
});

Deno.test("session: a refusal without words gets the protocol's own", async () => {
  const { session } = await serve({
    onAnswer: (_, { id }) => [
      encodePacket(PacketType.STATUS, [id, StatusCode.PERMISSION_DENIED]),
    ],
  });
  await using _session = session;
  const error = await assertRejects(
    () => OpenFile.open(session, "/disk", "writing"),
    ImageError,
    "SFTP server: Permission denied (sftp error code: 3)",
  );
  assertEquals(error.errno, "EACCES");
});

Deno.test("session: a server's words cannot move the cursor or fill the screen", async () => {
  const { session } = await serve({
    onAnswer: (_, { id }) => [
      encodePacket(PacketType.STATUS, [id, 4, `\x1b[2J${"long ".repeat(1000)}`, "en"]),
    ],
  });
  await using _session = session;
  const { message } = await assertRejects(
    () => OpenFile.open(session, "/disk", "reading"),
    ImageError,
  );
  assert(!message.includes("\x1b"));
  assert(message.length < 400);
});

const greetings: readonly (readonly [string, Uint8Array, string])[] = [
  [
    "text",
    encoder.encode("Welcome to the machine!\nLast login\n"),
    "does not speak SFTP: the server sent 'Welcome to the machine!' first",
  ],
  ["binary garbage", new Uint8Array([255, 1, 2, 3, 4, 5]), "a packet claims to have 4278256131"],
  ["another version", encodePacket(PacketType.VERSION, [6]), "it speaks version 6, not 3"],
  ["an answer", encodePacket(PacketType.STATUS, [1, 0]), "a packet of type 101 came in place"],
  ["a version without number", encodePacket(PacketType.VERSION, []), "shorter than its fields"],
  [
    "half an extension",
    encodePacket(PacketType.VERSION, [3, "name"]),
    "a packet is shorter than its fields",
  ],
];
for (const [what, greeting, message] of greetings) {
  Deno.test(`session: ${what} in place of the version is one clear error`, async () => {
    const error = await assertRejects(() => serve({ greeting }), ImageError, message);
    assert(error.message.startsWith("The ssh server 'fake' does not speak SFTP"), error.message);
  });
}

Deno.test("session: a server that does not greet is given up", async () => {
  const error = await assertRejects(
    () => serve({ greeting: new Uint8Array(0) }),
    ImageError,
    "No answer from the ssh server 'fake'",
  );
  assertEquals(error.errno, "ETIMEDOUT");
});

Deno.test("session: a server that stops answering is given up, and all who wait learn it", async () => {
  const { session } = await serve({
    onAnswer: (answer, { type }) => type === PacketType.READ ? [] : [answer],
  }, new Uint8Array(1 << 20));
  await using _session = session;
  const file = await OpenFile.open(session, "/disk", "reading");
  const results = await Promise.allSettled(
    [0, 1, 2].map((i) => file.read(i << 16, new Uint8Array(200_000))),
  );
  for (const result of results) {
    assert(result.status === "rejected");
    assertEquals(result.reason.errno, "ETIMEDOUT");
  }
  // Later requests do not even begin.
  const { errno } = await assertRejects(() => file.status(), ImageError);
  assertEquals(errno, "ETIMEDOUT");
});

Deno.test("session: a server that hangs up fails what waits and what comes", async () => {
  let answered = 0;
  const { session } = await serve({
    onAnswer: (answer, { type }) =>
      type === PacketType.READ && ++answered > 3 ? "hang up" : [answer],
  }, new Uint8Array(1 << 20));
  await using _session = session;
  const file = await OpenFile.open(session, "/disk", "reading");
  const lost = "The connection to the ssh server 'fake' was lost: it was hung up";
  await assertRejects(() => file.read(0, new Uint8Array(1 << 20)), ImageError, lost);
  await assertRejects(() => file.read(0, new Uint8Array(1)), ImageError, lost);
});

const answers: readonly (readonly [string, (id: number) => Uint8Array, string])[] = [
  ["to nobody", (id) => encodePacket(PacketType.DATA, [id + 1, "x"]), "that was not made"],
  ["of another kind", (id) => encodePacket(PacketType.HANDLE, [id, "x"]), "of another kind"],
  ["of success", (id) => encodePacket(PacketType.STATUS, [id, 0, "", ""]), "of another kind"],
  ["with too much", (id) => encodePacket(PacketType.DATA, [id, "x".repeat(11)]), "11 bytes came"],
  ["with nothing", (id) => encodePacket(PacketType.DATA, [id, ""]), "0 bytes came"],
  ["cut off", (id) => encodePacket(PacketType.DATA, [id]), "shorter than its fields"],
  ["without number", () => encodePacket(PacketType.DATA, []), "shorter than its fields"],
];
for (const [what, answer, message] of answers) {
  Deno.test(`session: an answer ${what} ends the connection with one clear error`, async () => {
    const { session } = await serve({
      onAnswer: (good, { type, id }) => type === PacketType.READ ? [answer(id)] : [good],
    }, new Uint8Array(1000));
    await using _session = session;
    const file = await OpenFile.open(session, "/disk", "reading");
    await assertRejects(() => file.read(0, new Uint8Array(10)), ImageError, message);
    await assertRejects(() => file.status(), ImageError, message);
  });
}

Deno.test("session: a handle that is too long is refused", async () => {
  const { session } = await serve({
    onAnswer: (_, { id }) => [encodePacket(PacketType.HANDLE, [id, "h".repeat(257)])],
  });
  await using _session = session;
  await assertRejects(
    () => OpenFile.open(session, "/disk", "reading"),
    ImageError,
    "a handle has 257 bytes",
  );
});

const attributes: readonly (readonly [string, readonly (number | bigint)[], string])[] = [
  ["no length", [0], "has an unknown length"],
  ["a length beyond all numbers", [1, 2n ** 63n], "has a length of 9223372036854775808 bytes"],
  ["a folder's mode", [5, 4096n, 0o40755], "Is a directory"],
];
for (const [what, fields, message] of attributes) {
  Deno.test(`session: a file with ${what} is refused`, async () => {
    const { session } = await serve({
      onAnswer: (good, { type, id }) =>
        type === PacketType.FSTAT ? [encodePacket(PacketType.ATTRS, [id, ...fields])] : [good],
    });
    await using _session = session;
    const file = await OpenFile.open(session, "/disk", "reading");
    await assertRejects(() => file.status(), ImageError, message);
  });
}

Deno.test("session: owner and times among the attributes do not matter", async () => {
  const { session } = await serve({
    onAnswer: (good, { type, id }) =>
      type === PacketType.FSTAT
        ? [encodePacket(PacketType.ATTRS, [id, 15, 512n, 0, 0, 0o100600, 1, 2])]
        : [good],
  });
  await using _session = session;
  const file = await OpenFile.open(session, "/disk", "reading");
  assertEquals(await file.status(), { size: 512, isRegular: true });
});

Deno.test("session: no more than 64 requests are on their way", async () => {
  const { server, session } = await serve({
    onAnswer: (answer, { type }) => type === PacketType.READ ? [] : [answer],
  }, new Uint8Array(1));
  await using _session = session;
  const file = await OpenFile.open(session, "/disk", "reading");
  // Nobody is answered until patience ends.
  await assertRejects(() => file.read(0, new Uint8Array(256 * 32768)), ImageError, "No answer");
  assertEquals(server.count(PacketType.READ), 64);
});

/** More by `QIMG_SSH_MUTATIONS`. */
const MUTATIONS = Number(Deno.env.get("QIMG_SSH_MUTATIONS") ?? 600);

Deno.test(`session: ${MUTATIONS} times damaged answers end in time, with bytes or with an error`, async () => {
  const content = new Random(5).bytes(100_000);
  const outcomes = { right: 0, wrong: 0, errors: 0 };
  for (let seed = 1; seed <= MUTATIONS; seed++) {
    const random = new Random(seed);
    const which = random.below(8);
    let answer = 0;
    const isHit = () => answer++ === which;
    const damage = (packet: Uint8Array) => random.oneIn(40) ? "hang up" : [damaged(packet, random)];
    const server = new FakeServer({
      onAnswer: (packet) => isHit() ? damage(packet) : [packet],
      ...which === 0 && random.oneIn(2)
        ? {
          greeting: damaged(
            encodePacket(PacketType.VERSION, [3, "fsync@openssh.com", "1"]),
            random,
          ),
        }
        : {},
    });
    server.files.set("/disk", content);
    const patience = { connect: 20, request: 20, flush: 20 };
    try {
      await using session = await SftpSession.start(server.connect(), patience);
      const file = await OpenFile.open(session, "/disk", "reading");
      const { size } = await file.status();
      const into = new Uint8Array(content.length);
      await file.read(0, into);
      await file.close();
      // Nothing protects the bytes themselves here; SSH does.
      const isRight = size === content.length && into.every((byte, i) => byte === content[i]);
      outcomes[isRight ? "right" : "wrong"]++;
    } catch (error) {
      assertInstanceOf(error, ImageError, `seed ${seed}`);
      outcomes.errors++;
    }
  }
  assert(outcomes.right > 0 && outcomes.errors > outcomes.wrong, JSON.stringify(outcomes));
});

function damaged(packet: Uint8Array, random: Random): Uint8Array {
  const bytes = packet.slice();
  switch (random.below(4)) {
    case 0:
      return bytes.subarray(0, random.below(bytes.length));
    case 1: {
      // Lengths and numbers are in front.
      const at = random.below(Math.min(bytes.length, 24));
      bytes[at] = random.pick([0, 1, 0x7f, 0x80, 0xff]);
      return bytes;
    }
    case 2:
      bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
      return bytes;
    default: {
      const longer = new Uint8Array(bytes.length + 1 + random.below(50));
      longer.set(bytes);
      return longer;
    }
  }
}
