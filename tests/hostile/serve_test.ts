/** Clients that send anything: the server answers, or ends the connection, and serves all others. */
import { assert, assertEquals } from "@std/assert";
import { checkImage } from "../../lib/mod.ts";
import { COMMAND, COMMAND_FLAG, MAGIC, OPTION } from "../../lib/nbd/constants.ts";
import {
  encodeContextRequest,
  encodeInfoRequest,
  encodeOption,
} from "../../lib/nbd/negotiation.ts";
import { encodeRequest } from "../../lib/nbd/transmission.ts";
import { NbdTalk } from "../_nbd_talk.ts";
import { served } from "../ops/serve/_served.ts";
import { Random } from "../_random.ts";

const MIB = 1 << 20;

/** Messages in all; more with the environment's say-so. */
const MESSAGES = Number(Deno.env.get("QIMG_NBD_MESSAGES") ?? 5000);

/** What is longer than this in a request is no data that anybody would send in a test. */
const LONGEST = 100_000;

/** The messages of a client, from its flags to its leave. */
function conversation(random: Random): Uint8Array[] {
  const extended = random.oneIn(2);
  const info = { name: "", kinds: [0, 1, 2, 3] };
  const contexts = { name: "", queries: ["base:allocation", "qemu:dirty-bitmap:b0"] };
  const options = [
    encodeOption(OPTION.list),
    encodeOption(OPTION.startTls),
    encodeOption(OPTION.info, encodeInfoRequest(info)),
    encodeOption(OPTION.listMetaContext, encodeContextRequest(contexts)),
    encodeOption(99, random.bytes(40)),
  ];
  const start = [
    ...options.filter(() => random.oneIn(3)),
    encodeOption(extended ? OPTION.extendedHeaders : OPTION.structuredReply),
    encodeOption(OPTION.setMetaContext, encodeContextRequest(contexts)),
    random.oneIn(8)
      ? encodeOption(OPTION.exportName)
      : encodeOption(OPTION.go, encodeInfoRequest(info)),
  ];
  const requests = Array.from({ length: random.between(1, 12) }, () => request(random, extended));
  const leave = { command: COMMAND.disconnect, flags: 0, cookie: 0n, offset: 0n, length: 0n };
  return [Uint8Array.of(0, 0, 0, 3), ...start, ...requests, encodeRequest(leave, extended)];
}

function request(random: Random, extended: boolean): Uint8Array {
  const command = random.below(9);
  const length = random.pick([0, 1, 511, 512, 4096, 65536]);
  const flags = random.oneIn(2) ? 0 : random.pick(Object.values(COMMAND_FLAG));
  const header = encodeRequest({
    command,
    flags,
    cookie: BigInt(random.u32()),
    offset: BigInt(random.below(4 * MIB)),
    length: BigInt(length),
  }, extended);
  const hasData = command === COMMAND.write ||
    (extended && (flags & COMMAND_FLAG.payloadLength) !== 0);
  return hasData
    ? new Uint8Array([
      ...header,
      ...random.bytes(Math.min(length, 4096)),
      ...new Uint8Array(Math.max(length - 4096, 0)),
    ])
    : header;
}

const NUMBERS = [
  0n,
  1n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n,
  2n ** 53n,
  2n ** 32n - 1n,
  33_554_433n,
];
const MAGICS = Object.values(MAGIC);

/** Damages a message, or loses it, or sends it twice. */
function mutate(message: Uint8Array, random: Random): Uint8Array {
  const bytes = message.slice();
  const view = new DataView(bytes.buffer);
  const place = (width: number) =>
    random.below(Math.max(Math.min(bytes.length, 64) - width, 0) + 1);
  switch (random.below(8)) {
    case 0:
      return bytes.subarray(0, random.below(bytes.length));
    case 1:
      return new Uint8Array([...bytes, ...random.bytes(random.between(1, 64))]);
    case 2:
      return new Uint8Array([...bytes, ...bytes]);
    case 3:
      return random.bytes(random.between(1, 64));
    case 4:
      if (bytes.length >= 8) view.setBigUint64(place(8), random.pick(NUMBERS));
      return bytes;
    case 5:
      if (bytes.length >= 4) {
        view.setUint32(place(4), random.pick([...MAGICS, 0, 1, 0xffffffff, LONGEST, random.u32()]));
      }
      return bytes;
    default:
      bytes[place(1) % bytes.length]! ^= 1 << random.below(8);
      return bytes;
  }
}

/** Sends all that a client has to say, takes whatever comes and waits for the end. */
async function attack(socket: string, messages: readonly Uint8Array[]): Promise<void> {
  using connection = await Deno.connect({ transport: "unix", path: socket });
  const into = new Uint8Array(65536);
  const reading = (async () => {
    try {
      while (await connection.read(into) !== null);
    } catch {
      // It may end in any way.
    }
  })();
  try {
    for (const message of messages) {
      for (let at = 0; at < message.length;) at += await connection.write(message.subarray(at));
    }
    await connection.closeWrite();
  } catch {
    // The server does not listen to nonsense for ever.
  }
  await reading;
}

async function isWell(socket: string): Promise<void> {
  using talk = await NbdTalk.begin(socket);
  const [chunk] = await talk.request({
    command: COMMAND.read,
    flags: COMMAND_FLAG.dontFragment,
    offset: 3 * MIB,
    length: 4096,
  });
  assertEquals(chunk!.error, 0);
  await talk.bye();
}

for (const writable of [false, true]) {
  const kind = writable ? "writable" : "read-only";
  Deno.test(`mutated messages of clients, ${kind} export`, async () => {
    await using disk = await served({ format: "qcow2", size: 4 * MIB, writable, shared: 0 });
    const seed = writable ? 2 : 1;
    const random = new Random(seed);
    let sent = 0;
    while (sent < MESSAGES / 2) {
      const clients = Array.from({ length: 4 }, () => {
        const messages = conversation(random);
        const damaged = random.between(1, 4);
        for (let i = 0; i < damaged; i++) {
          const which = random.below(messages.length);
          messages[which] = mutate(messages[which]!, random);
        }
        return messages;
      });
      sent += clients.reduce((sum, messages) => sum + messages.length, 0);
      try {
        await Promise.all(clients.map((messages) => attack(disk.socket, messages)));
        await isWell(disk.socket);
      } catch (error) {
        throw new Error(`seed ${seed}, after ${sent} messages`, { cause: error });
      }
    }
    await disk.server.stop();
    const outcome = await checkImage({ filename: disk.image, format: "qcow2" });
    assertEquals([outcome?.result.corruptions, outcome?.result.checkErrors], [0, 0]);
  });
}

Deno.test("announced data take no memory before they come", async () => {
  await using disk = await served({
    writable: true,
    shared: 0,
    size: 64 * MIB,
  });
  const before = Deno.memoryUsage().rss;
  const talks: NbdTalk[] = [];
  try {
    for (let i = 0; i < 24; i++) {
      const talk = await NbdTalk.begin(disk.socket);
      talks.push(talk);
      await talk.sendRequest({ command: COMMAND.write, length: 32 * MIB });
    }
    await isWell(disk.socket);
    const grown = Deno.memoryUsage().rss - before;
    assert(grown < 256 * MIB, `${grown} bytes for ${talks.length} clients`);
  } finally {
    for (const talk of talks) talk[Symbol.dispose]();
  }
});
