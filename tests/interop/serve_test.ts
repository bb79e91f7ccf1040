import { assert, assertEquals } from "@std/assert";
import { serveImage, type ServeOptions } from "../../lib/mod.ts";
import { COMMAND, COMMAND_FLAG, OPTION } from "../../lib/nbd/constants.ts";
import { encodeContextRequest, encodeInfoRequest } from "../../lib/nbd/negotiation.ts";
import { NbdTalk } from "../_nbd_talk.ts";
import { reference, useReference } from "../_reference.ts";
import { tempDir } from "../_temp.ts";
import { startReference } from "./_nbd_peers.ts";

// The same conversation with both servers: every byte that they answer is the same.

const MIB = 1 << 20;
const NAME = "exp";
const { read, write, flush, trim, cache, writeZeroes, blockStatus } = COMMAND;
const { fua, noHole, dontFragment, requestOne, fastZero, payloadLength } = COMMAND_FLAG;

interface Setting {
  /** Clients can write. */
  readonly writable?: boolean;
  /** Clients at a time. */
  readonly shared?: number;
  /** Format of the image. */
  readonly format?: string;
}

type Conversation = (talk: NbdTalk) => Promise<void>;

/** Holds a conversation with both servers, each of which has a disk of 1 MiB with 64 KiB of data. */
function sameTalk(name: string, conversation: Conversation, setting: Setting = {}): void {
  Deno.test({
    name: `both servers: ${name}`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const { writable = false, shared = 1, format = "raw" } = setting;
      await Deno.writeFile(dir.file("disk"), new Uint8Array(65536).fill(7));
      await Deno.truncate(dir.file("disk"), MIB);
      for (const disk of ["ours", "theirs"]) {
        const args = ["convert", "-f", "raw", "-O", format, "disk", disk];
        await useReference(args, { cwd: dir.path });
      }
      const options: ServeOptions = {
        address: { socket: dir.file("ours.sock") },
        exportName: NAME,
        description: "desc",
        writable,
        shared,
      };
      const ours = await talkTo(
        dir.file("ours.sock"),
        conversation,
        () => serveImage({ filename: dir.file("ours"), format }, options),
      );
      const theirs = await talkTo(
        dir.file("theirs.sock"),
        conversation,
        () =>
          startReference(dir.path, [
            ...[writable ? "--discard=unmap" : "--read-only", "-f", format, "-x", NAME],
            ...["-D", "desc", "-e", `${shared}`, dir.file("theirs")],
          ], "theirs.sock"),
      );
      assertEquals(ours, theirs);
      assertEquals(
        await Deno.readFile(dir.file("ours")),
        await Deno.readFile(dir.file("theirs")),
        "the images",
      );
    },
  });
}

async function talkTo(
  socket: string,
  conversation: Conversation,
  start: () => Promise<AsyncDisposable>,
): Promise<readonly string[]> {
  await using _server = await start();
  using talk = await NbdTalk.connect(socket);
  await conversation(talk);
  assert(talk.transcript.length > 0);
  return talk.transcript;
}

const info = (name = NAME, kinds: readonly number[] = [3]) => encodeInfoRequest({ name, kinds });
const contexts = (queries: readonly string[], name = NAME) =>
  encodeContextRequest({ name, queries });

sameTalk("options of all kinds, and leaving", async (talk) => {
  await talk.greet();
  await talk.option(OPTION.list);
  await talk.option(OPTION.list, new Uint8Array(1));
  await talk.option(OPTION.startTls);
  await talk.option(77, new Uint8Array(100));
  await talk.option(OPTION.info, info());
  await talk.option(OPTION.info, info(NAME, [0, 1, 2, 3, 9]));
  await talk.option(OPTION.info, info(NAME, []));
  await talk.option(OPTION.info, info(""));
  await talk.option(OPTION.info, info("x".repeat(79)));
  await talk.option(OPTION.info, info("x".repeat(81)));
  await talk.option(OPTION.info, info("a\0b"));
  await talk.option(OPTION.info, info("x".repeat(4097)));
  await talk.option(OPTION.info, info().subarray(0, 7));
  await talk.option(OPTION.setMetaContext, contexts(["base:allocation"]));
  await talk.option(OPTION.structuredReply, new Uint8Array(4));
  await talk.option(OPTION.structuredReply);
  await talk.option(OPTION.structuredReply);
  await talk.option(OPTION.info, info());
  await talk.option(OPTION.abort);
  await talk.ended();
});

sameTalk("contexts", async (talk) => {
  await talk.greet();
  await talk.option(OPTION.extendedHeaders, new Uint8Array(1));
  await talk.option(OPTION.extendedHeaders);
  await talk.option(OPTION.extendedHeaders);
  await talk.option(OPTION.structuredReply);
  for (const option of [OPTION.listMetaContext, OPTION.setMetaContext]) {
    await talk.option(option, contexts([]));
    await talk.option(option, contexts(["base:"]));
    await talk.option(option, contexts(["base:allocation", "base:allocation", "foo:bar", ""]));
    await talk.option(option, contexts(["base:allocation"], "other"));
    await talk.option(option, contexts(["qemu:", "qemu:dirty-bitmap:", "qemu:dirty-bitmap:b0"]));
    await talk.option(option, contexts(["base:alloc", "base", "bas"]));
    await talk.option(option, contexts(["base:allocation"]).subarray(0, 20));
  }
  await talk.option(OPTION.info, info());
  await talk.option(OPTION.go, info("other"));
  await talk.option(OPTION.go, info());
  // Nothing was chosen in the end.
  await talk.request({ command: blockStatus, length: MIB });
  await talk.bye();
});

sameTalk("the old way to begin", async (talk) => {
  await talk.greet(1);
  await talk.exportName(NAME, { padded: true });
  await talk.request({ command: read, length: 512 });
  await talk.request({ command: read, offset: 65024, length: 1024 });
  await talk.request({ command: read, offset: MIB, length: 1 });
  await talk.request({ command: read, flags: dontFragment, length: 512 });
  await talk.request({ command: flush });
  await talk.request({ command: cache, length: 4096 });
  await talk.request({ command: blockStatus, length: 4096 });
  await talk.bye();
});

sameTalk("the old way without padding, and names that are none", async (talk) => {
  await talk.greet();
  await talk.option(OPTION.structuredReply);
  await talk.exportName(NAME);
  await talk.request({ command: read, length: 512 });
  await talk.bye();
}, { shared: 4 });

sameTalk("an export that is not there, in the old way", async (talk) => {
  await talk.greet();
  await talk.send(new Uint8Array([...new TextEncoder().encode("IHAVEOPT")]));
  await talk.send(Uint8Array.of(0, 0, 0, 1, 0, 0, 0, 2, 120, 120));
  await talk.ended();
});

sameTalk("a client with flags that nobody knows", async (talk) => {
  await talk.greet(7);
  await talk.ended();
});

for (const style of [OPTION.structuredReply, OPTION.extendedHeaders]) {
  const kind = style === OPTION.structuredReply ? "structured" : "extended";
  const begin = async (talk: NbdTalk) => {
    await talk.greet();
    await talk.option(style);
    await talk.option(OPTION.setMetaContext, contexts(["base:allocation"]));
    await talk.option(OPTION.go, info());
  };

  sameTalk(`reads, ${kind}`, async (talk) => {
    await begin(talk);
    await talk.request({ command: read, length: 512 });
    await talk.request({ command: read, offset: 65024, length: 1024 });
    await talk.request({ command: read, flags: dontFragment, offset: 65024, length: 1024 });
    await talk.request({ command: read, offset: 65536, length: MIB - 65536 });
    await talk.request({ command: read, length: 0 });
    await talk.request({ command: read, offset: MIB, length: 0 });
    await talk.request({ command: read, offset: 1, length: 1 });
    await talk.request({ command: read, offset: MIB - 1, length: 1 });
    await talk.request({ command: read, offset: MIB - 1, length: 2 });
    await talk.request({ command: read, length: (32 << 20) + 1 });
    await talk.request({ command: read, flags: requestOne, length: 512 });
    await talk.request({ command: cache, length: MIB });
    await talk.request({ command: 99, length: 512 });
    await talk.request({ command: flush });
    await talk.bye();
  });

  sameTalk(`block status, ${kind}`, async (talk) => {
    await begin(talk);
    await talk.request({ command: blockStatus, length: MIB });
    await talk.request({ command: blockStatus, flags: requestOne, length: MIB });
    await talk.request({ command: blockStatus, flags: requestOne, offset: 65536, length: 512 });
    await talk.request({ command: blockStatus, offset: 65535, length: 2 });
    await talk.request({ command: blockStatus, length: 0 });
    await talk.request({ command: blockStatus, offset: 512, length: MIB });
    await talk.request({ command: blockStatus, flags: dontFragment, length: 512 });
    await talk.bye();
  });

  sameTalk(`writes, ${kind}`, async (talk) => {
    await begin(talk);
    const data = new Uint8Array(100_000).fill(9);
    await talk.request({ command: write, offset: 200_000, data });
    await talk.request({ command: write, flags: fua, offset: 300_001, data });
    await talk.request({ command: write, offset: MIB, data: new Uint8Array() });
    await talk.request({ command: writeZeroes, length: 4096 });
    await talk.request({ command: writeZeroes, flags: noHole, offset: 8192, length: 4096 });
    await talk.request({ command: writeZeroes, flags: fastZero, offset: 200_704, length: 4096 });
    await talk.request({ command: trim, offset: 262_144, length: 65536 });
    await talk.request({ command: trim, flags: fua, offset: 524_288, length: 65536 });
    await talk.request({ command: trim, flags: noHole, length: 65536 });
    await talk.request({ command: write, flags: requestOne, data });
    await talk.request({ command: flush, flags: fua });
    await talk.request({ command: blockStatus, length: MIB });
    await talk.request({ command: read, offset: 131_072, length: 300_000 });
    await talk.bye();
  }, { writable: true });
}

sameTalk("block status of some contexts", async (talk) => {
  await talk.greet();
  await talk.option(OPTION.extendedHeaders);
  await talk.option(OPTION.setMetaContext, contexts(["base:allocation"]));
  await talk.option(OPTION.go, info());
  const payload = (...words: readonly number[]) =>
    new Uint8Array([0, 0, 0, 0, 0, 1, 0, 0, ...words]);
  const status = { command: blockStatus, flags: payloadLength };
  await talk.request({ ...status, data: payload(0, 0, 0, 0) });
  await talk.request({ ...status, data: payload(0, 0, 0, 1) });
  await talk.request({ ...status, data: payload(0, 0, 0, 0, 0, 0, 0, 0) });
  await talk.request({ ...status, data: payload(0, 0) });
  await talk.request({ ...status, data: new Uint8Array(3) });
  await talk.request({ command: trim, flags: payloadLength, data: new Uint8Array(64) });
  await talk.request({ command: write, flags: payloadLength, data: new Uint8Array(512).fill(3) });
  await talk.request({ command: read, length: 512 });
  await talk.bye();
}, { writable: true });

sameTalk("images with clusters", async (talk) => {
  await talk.greet();
  await talk.option(OPTION.structuredReply);
  await talk.option(OPTION.setMetaContext, contexts(["base:allocation"]));
  await talk.option(OPTION.go, info());
  await talk.request({ command: write, offset: 300_000, data: new Uint8Array(512).fill(5) });
  await talk.request({ command: writeZeroes, offset: 400_000, length: 200_000 });
  await talk.request({ command: blockStatus, length: MIB });
  // In one piece: which zeros belong together is for the server to say.
  await talk.request({ command: read, flags: dontFragment, offset: 0, length: MIB });
  await talk.bye();
}, { writable: true, format: "qcow2" });

/** Images with data, zeros and nothing, in places that formats tell apart in ways of their own. */
const MAPPED: readonly (readonly [format: string, ...options: string[]])[] = [
  ["raw"],
  ["qcow2"],
  ["qcow2", "-o", "preallocation=metadata"],
  ["qcow2", "-o", "preallocation=falloc"],
  ["qcow2", "-o", "extended_l2=on"],
  ["qcow2", "-b", "base", "-F", "raw"],
  ["qed", "-b", "base", "-F", "raw"],
  ["vmdk"],
  ["vmdk", "-o", "subformat=twoGbMaxExtentSparse"],
  ["vdi"],
  ["vdi", "-o", "static=on"],
  ["vhdx"],
  ["vpc", "-o", "force_size=on"],
  ["parallels"],
];

for (const [format, ...options] of MAPPED) {
  Deno.test({
    name: `both servers tell where ${[format, ...options].join(" ")} has data`,
    ignore: reference.ignore,
    async fn() {
      await using dir = await tempDir();
      const cwd = { cwd: dir.path };
      await useReference(["create", "-q", "-f", "raw", "base", "6M"], cwd);
      const base = ["write -q -P 1 0 1M", "write -q -P 1 5M 64k"];
      const changes = ["write -q -P 2 512k 1000k", "write -q -z 2M 1M", "write -q -P 3 4M 512"];
      await useReference(["-f", "raw", ...base.flatMap((line) => ["-c", line]), "base"], {
        ...cwd,
        tool: "qemu-io",
      });
      await useReference(["create", "-q", "-f", format, ...options, "disk", "8M"], cwd);
      await useReference(["-f", format, ...changes.flatMap((line) => ["-c", line]), "disk"], {
        ...cwd,
        tool: "qemu-io",
      });
      const conversation = async (talk: NbdTalk) => {
        await talk.goTo("", { contexts: ["base:allocation"] });
        // The smallest request that is handed on as it is may be another one.
        talk.transcript.length = 0;
        await talk.request({ command: blockStatus, length: 8 * MIB });
        for (const offset of [0, 65536, MIB, 2 * MIB, 5 * MIB - 512]) {
          const flags = requestOne;
          await talk.request({ command: blockStatus, flags, offset, length: 3 * MIB });
        }
        await talk.bye();
      };
      const filename = dir.file("disk");
      const socket = dir.file("ours");
      const ours = await talkTo(
        socket,
        conversation,
        () => serveImage({ filename, format }, { address: { socket }, shared: 1 }),
      );
      const theirs = await talkTo(
        dir.file("theirs"),
        conversation,
        () => startReference(dir.path, ["-r", "-f", format, filename], "theirs"),
      );
      assertEquals(ours, theirs);
    },
  });
}
