import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import {
  changeBitmap,
  createImage,
  createSnapshot,
  ImageError,
  openImage,
  serveImage,
} from "../../../lib/mod.ts";
import { COMMAND, COMMAND_FLAG, OPTION, REPLY } from "../../../lib/nbd/constants.ts";
import { decodeMetaContext, encodeContextRequest } from "../../../lib/nbd/negotiation.ts";
import { type Chunk, NbdTalk } from "../../_nbd_talk.ts";
import { readU32BE } from "../../../lib/bytes/endian.ts";
import { Budget, BufferPool } from "../../../lib/ops/serve/shares.ts";
import { StatusRuns } from "../../../lib/ops/serve/meta_contexts.ts";
import { tempDir } from "../../_temp.ts";
import { served } from "./_served.ts";

const MIB = 1 << 20;
const { read, write, trim, writeZeroes, blockStatus } = COMMAND;

/** Fills a part of an image. */
async function fill(image: string, format: string, byte: number, at: number, length: number) {
  await using disk = await openImage({ filename: image, format }, { writable: true });
  await disk.write(at, new Uint8Array(length).fill(byte));
}

/** Reads through a connection that was made with simple or structured replies. */
async function readBack(talk: NbdTalk, offset: number, length: number): Promise<Uint8Array> {
  const flags = talk.structured || talk.extended ? COMMAND_FLAG.dontFragment : 0;
  const [chunk] = await talk.request({ command: read, flags, offset, length });
  assertEquals(chunk!.error, 0);
  return chunk!.type === "simple" ? chunk!.payload : chunk!.payload.subarray(8);
}

/** The names of all contexts. */
async function listedContexts(socket: string): Promise<string[]> {
  using talk = await NbdTalk.connect(socket);
  await talk.greet();
  const all = encodeContextRequest({ name: "", queries: [] });
  const replies = await talk.option(OPTION.listMetaContext, all);
  await talk.option(OPTION.abort);
  return replies.filter(({ type }) => type === REPLY.metaContext)
    .map(({ data }) => decodeMetaContext(data).name);
}

/** The runs that a block status tells of the first context, lengths and flags in turn. */
async function statusOf(talk: NbdTalk, offset: number, length: number): Promise<number[]> {
  const [{ payload }] = await talk.request({ command: blockStatus, offset, length }) as [Chunk];
  return Array.from({ length: payload.length / 4 - 1 }, (_, i) => readU32BE(payload, 4 * i + 4));
}

Deno.test("the socket is there while the server runs, and gone afterwards", async () => {
  await using disk = await served();
  assert((await Deno.lstat(disk.socket)).isSocket);
  await disk.server.stop();
  await assertRejects(() => Deno.lstat(disk.socket), Deno.errors.NotFound);
});

Deno.test("the address tells name and socket as URIs have them", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("disk"), new Uint8Array(512));
  const socket = dir.file("a b?");
  await using server = await serveImage(dir.file("disk"), {
    address: { socket },
    exportName: "dir/ä",
  });
  assertEquals(server.uri, `nbd+unix:///dir/%C3%A4?socket=${dir.path}/a%20b%3F`);
});

Deno.test("a port is one of this machine alone unless told", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("disk"), new Uint8Array(512));
  await using server = await serveImage(dir.file("disk"), { address: { port: 0 } });
  assert(/^nbd:\/\/127\.0\.0\.1:\d+$/.test(server.uri), server.uri);
  await using six = await serveImage(dir.file("disk"), { address: { host: "::1", port: 0 } });
  assert(/^nbd:\/\/\[::1\]:\d+$/.test(six.uri), six.uri);
});

for (
  const [what, make, hint] of [
    ["a file", (path: string) => Deno.writeFile(path, new Uint8Array()), "it is no socket"],
    ["a socket without a server", async (path: string) => {
      // A server that is killed cannot remove it.
      const code =
        `Deno.listen({ transport: "unix", path: Deno.args[0] }); Deno.kill(Deno.pid, "SIGKILL")`;
      await new Deno.Command(Deno.execPath(), { args: ["eval", code, path] }).output();
    }, "remove it"],
  ] as const
) {
  Deno.test(`where ${what} is no server listens, and it stays there`, async () => {
    await using dir = await tempDir();
    await Deno.writeFile(dir.file("disk"), new Uint8Array(512));
    const socket = dir.file("sock");
    await make(socket);
    const error = await assertRejects(
      () => serveImage(dir.file("disk"), { address: { socket } }),
      ImageError,
      `Failed to listen on '${socket}': Address already in use`,
    );
    assertStringIncludes(error.hint!, hint);
    await Deno.lstat(socket);
  });
}

Deno.test("a socket of another server is left to it", async () => {
  await using disk = await served();
  const error = await assertRejects(
    () => serveImage(disk.image, { address: { socket: disk.socket } }),
    ImageError,
  );
  assertStringIncludes(error.hint!, "Another server");
  using talk = await NbdTalk.begin(disk.socket);
  await talk.bye();
});

Deno.test("with once the server ends with its last client, not with a look", async () => {
  await using disk = await served({ once: true });
  {
    using talk = await NbdTalk.connect(disk.socket);
    await talk.greet();
    await talk.option(OPTION.abort);
    await talk.ended();
  }
  using one = await NbdTalk.begin(disk.socket);
  using two = await NbdTalk.begin(disk.socket);
  await one.bye();
  assertEquals((await readBack(two, 0, 512)).length, 512);
  await two.bye();
  await disk.server.finished;
});

Deno.test("an aborted signal stops the server", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("disk"), new Uint8Array(512));
  const controller = new AbortController();
  const address = { socket: dir.file("sock") };
  const server = await serveImage(dir.file("disk"), { address }, {
    warn() {},
    report() {},
    untrusted: false,
    signal: controller.signal,
  });
  using talk = await NbdTalk.begin(address.socket);
  controller.abort();
  await server.finished;
  await talk.ended();
  await assertRejects(() => Deno.lstat(address.socket), Deno.errors.NotFound);
});

Deno.test("who stops the server gets what was written into the image", async () => {
  await using disk = await served({ writable: true, format: "qcow2" });
  using talk = await NbdTalk.begin(disk.socket);
  const data = new Uint8Array(300_000).fill(5);
  await talk.request({ command: write, offset: 1000, data });
  await disk.server.stop();
  await using image = await openImage({ filename: disk.image, format: "qcow2" });
  const found = new Uint8Array(data.length);
  await image.read(1000, found);
  assertEquals(found, data);
});

Deno.test("a client too many waits until another leaves", async () => {
  await using disk = await served({ writable: true });
  using first = await NbdTalk.begin(disk.socket);
  const second = NbdTalk.begin(disk.socket);
  let isServed = false;
  second.then(() => isServed = true);
  // The first one is served as long as it likes.
  for (let i = 0; i < 20; i++) await readBack(first, 0, 512);
  assert(!isServed);
  await first.bye();
  using talk = await second;
  await readBack(talk, 0, 512);
});

Deno.test("clients that take no answers hold nobody else", async () => {
  await using disk = await served({
    size: 64 * MIB,
    prepare: (image) => Deno.writeFile(image, new Uint8Array(64 * MIB).fill(1)),
  });
  using silent = await NbdTalk.begin(disk.socket);
  for (let i = 0; i < 40; i++) {
    const flags = COMMAND_FLAG.dontFragment;
    await silent.sendRequest({ command: read, flags, offset: i * MIB, length: MIB });
  }
  // Half a request, too.
  using slow = await NbdTalk.begin(disk.socket);
  await slow.send(Uint8Array.of(0x25, 0x60));
  using mute = await NbdTalk.connect(disk.socket);
  using talk = await NbdTalk.begin(disk.socket);
  assertEquals((await readBack(talk, 5 * MIB, 4096)).every((byte) => byte === 1), true);
  await disk.server.stop();
  assertEquals(mute.transcript, []);
});

Deno.test("a client that goes away in the middle of a write leaves the others alone", async () => {
  await using disk = await served({ writable: true, shared: 0 });
  {
    using talk = await NbdTalk.begin(disk.socket);
    await talk.sendRequest({ command: write, length: 32 * MIB - 1 });
    await talk.sendRequest({ command: write, length: 512 * 1024 });
    await talk.send(new Uint8Array(1000));
  }
  using talk = await NbdTalk.begin(disk.socket);
  assertEquals(await readBack(talk, 0, 512), new Uint8Array(512));
});

for (const style of ["simple", "structured", "extended"] as const) {
  Deno.test(`a failed read is an error and not the end, ${style}`, async () => {
    await using disk = await served({
      size: 4 * MIB,
      prepare: (image) => Deno.writeFile(image, new Uint8Array(4 * MIB).fill(1)),
    });
    using talk = await NbdTalk.begin(disk.socket, { style });
    await Deno.truncate(disk.image, MIB);
    const flags = style === "simple" ? 0 : COMMAND_FLAG.dontFragment;
    const failed = await talk.request({ command: read, flags, offset: 2 * MIB, length: 512 });
    assertEquals(failed.map(({ error }) => error), [5]);
    // Clients learn no names of the server's files.
    const text = new TextDecoder().decode(failed[0]!.payload.subarray(6));
    if (style !== "simple") assertEquals(text, "reading from file failed: Input/output error");
    assertEquals((await readBack(talk, 0, 4)).toHex(), "01010101");
    await talk.bye();
  });
}

/** Serves a disk of 4 MiB of which the sector at 3 MiB gives an error to whoever does `what` to it. */
async function servedWithError(what: "read" | "write", errno: number) {
  const dir = await tempDir();
  await Deno.writeFile(dir.file("disk"), new Uint8Array(4 * MIB).fill(1));
  const rule = `inject-error.0.event=none,inject-error.0.iotype=${what}`;
  const list = `driver=blkdebug,image.driver=file,image.filename=${dir.file("disk")},${rule},` +
    `inject-error.0.sector=${3 * MIB / 512},inject-error.0.errno=${errno}`;
  const socket = dir.file("sock");
  const server = await serveImage({ filename: list, imageOptions: true }, {
    address: { socket },
    writable: true,
  });
  return {
    socket,
    async [Symbol.asyncDispose]() {
      await server.stop();
      await dir[Symbol.asyncDispose]();
    },
  };
}

Deno.test("a read that fails in the middle ends with an error behind what was read", async () => {
  await using disk = await servedWithError("read", 5);
  using talk = await NbdTalk.begin(disk.socket);
  const chunks = await talk.request({ command: read, offset: MIB, length: 3 * MIB });
  assertEquals(chunks.map(({ error, payload }) => [error, payload.length > MIB]), [
    [0, true],
    [0, true],
    [5, false],
  ]);
  assertEquals((await readBack(talk, 2 * MIB, 4)).toHex(), "01010101");
});

for (
  const [errno, wire, reason] of [[28, 28, "No space left on device"], [
    5,
    5,
    "Input/output error",
  ]] as const
) {
  Deno.test(`a write of which a part fails says so, and the connection goes on: ${reason}`, async () => {
    await using disk = await servedWithError("write", errno);
    using talk = await NbdTalk.begin(disk.socket);
    const [failed] = await talk.request({
      command: write,
      offset: 0,
      data: new Uint8Array(4 * MIB).fill(2),
    });
    assertEquals(failed!.error, wire);
    const text = new TextDecoder().decode(failed!.payload.subarray(6));
    assertEquals(text, `writing to file failed: ${reason}`);
    const [fine] = await talk.request({ command: write, data: new Uint8Array(512).fill(3) });
    assertEquals(fine!.error, 0);
    assertEquals((await readBack(talk, 0, 4)).toHex(), "03030303");
  });
}

Deno.test("an export that cannot be written refuses every command that would", async () => {
  await using disk = await served();
  using talk = await NbdTalk.begin(disk.socket, { style: "simple" });
  for (
    const request of [{ command: write, data: new Uint8Array(512) }, { command: trim }, {
      command: writeZeroes,
    }]
  ) {
    const [{ error }] = await talk.request({ length: 512, ...request }) as [Chunk];
    assertEquals(error, 1);
  }
  await talk.bye();
});

Deno.test("what cannot be written fast is not, if that was asked for", async () => {
  await using disk = await served({ writable: true, format: "vhdx", size: 4 * MIB });
  using talk = await NbdTalk.begin(disk.socket);
  await talk.request({ command: write, data: new Uint8Array(65536).fill(3) });
  const flags = COMMAND_FLAG.fastZero;
  const [{ error }] = await talk.request({ command: writeZeroes, flags, length: 65536 }) as [Chunk];
  assertEquals(error, 95);
  await talk.request({ command: writeZeroes, length: 65536 });
  assertEquals(await readBack(talk, 0, 65536), new Uint8Array(65536));
});

Deno.test("an internal snapshot shows in place of the disk, without bitmaps", async () => {
  await using disk = await served({
    format: "qcow2",
    snapshot: "then",
    async prepare(image) {
      await fill(image, "qcow2", 1, 0, 65536);
      await createSnapshot({ filename: image }, "then");
      await fill(image, "qcow2", 2, 0, 65536);
      await changeBitmap({ filename: image }, { bitmap: "b0", actions: [{ action: "add" }] });
    },
  });
  {
    using talk = await NbdTalk.begin(disk.socket);
    assertEquals(await readBack(talk, 0, 4), Uint8Array.of(1, 1, 1, 1));
  }
  assertEquals(await listedContexts(disk.socket), ["base:allocation"]);
});

/** A disk of 1 MiB whose second quarter is dirty. */
async function withBitmap(image: string): Promise<void> {
  const settings = { actions: [{ action: "add" }], granularity: 65536 } as const;
  await changeBitmap({ filename: image }, { bitmap: "b0", ...settings });
  await fill(image, "qcow2", 1, 256 * 1024, 256 * 1024);
  await changeBitmap({ filename: image }, { bitmap: "b1", ...settings });
}

Deno.test("dirty bitmaps are contexts, and follow what clients write", async () => {
  await using disk = await served({ format: "qcow2", writable: true, prepare: withBitmap });
  assertEquals(await listedContexts(disk.socket), [
    "base:allocation",
    "qemu:dirty-bitmap:b0",
    "qemu:dirty-bitmap:b1",
  ]);
  using talk = await NbdTalk.begin(disk.socket, { contexts: ["qemu:dirty-bitmap:b0"] });
  const quarter = 256 * 1024;
  assertEquals(await statusOf(talk, 0, MIB), [quarter, 0, quarter, 1, 2 * quarter, 0]);
  assertEquals(await statusOf(talk, quarter + 512, 512), [512, 1]);
  assertEquals(await statusOf(talk, 2 * quarter, 512), [512, 0]);
  await talk.request({ command: write, offset: MIB - 100, data: new Uint8Array(10) });
  assertEquals(await statusOf(talk, 2 * quarter, 2 * quarter), [
    2 * quarter - 65536,
    0,
    65536,
    1,
  ]);
});

Deno.test("only the bitmaps that were named are contexts", async () => {
  await using disk = await served({ format: "qcow2", bitmaps: ["b1"], prepare: withBitmap });
  assertEquals(await listedContexts(disk.socket), ["base:allocation", "qemu:dirty-bitmap:b1"]);
});

Deno.test("a bitmap that is not there is missed before anybody can connect", async () => {
  await using dir = await tempDir();
  await Deno.writeFile(dir.file("disk"), new Uint8Array(512));
  await assertRejects(
    () =>
      serveImage({ filename: dir.file("disk"), format: "raw" }, {
        address: { socket: dir.file("sock") },
        bitmaps: ["none"],
      }),
    ImageError,
    "Dirty bitmap 'none' not found",
  );
  await assertRejects(() => Deno.lstat(dir.file("sock")), Deno.errors.NotFound);
});

Deno.test("block status tells the backing chain's view", async () => {
  await using disk = await served({
    format: "qcow2",
    async prepare(image, dir) {
      await fill(image, "qcow2", 1, 0, 65536);
      await Deno.rename(image, dir.file("base"));
      await createImage({
        filename: image,
        format: "qcow2",
        backing: dir.file("base"),
        backingFormat: "qcow2",
        size: MIB,
      });
      await fill(image, "qcow2", 1, 65536, 65536);
    },
  });
  using talk = await NbdTalk.begin(disk.socket, { contexts: ["base:allocation"] });
  assertEquals(await statusOf(talk, 0, MIB), [131072, 0, MIB - 131072, 3]);
  assertEquals(await statusOf(talk, 100, 200), [200, 0]);
});

Deno.test("a reply of many runs has an end, and alike neighbours are one", () => {
  const few = new StatusRuns(2);
  assertEquals([few.add(1, 0), few.add(2, 0), few.add(3, 1), few.add(4, 1)], [
    true,
    true,
    true,
    true,
  ]);
  assertEquals([few.add(5, 0), few.list], [false, [
    { length: 3, flags: 0 },
    { length: 7, flags: 1 },
  ]]);
  const many = new StatusRuns();
  let count = 0;
  while (many.add(1, count % 2)) count++;
  assertEquals([count, many.list.length], [16384, 16384]);
});

Deno.test("memory is lent up to its limit, in the order in which it was asked for", async () => {
  const budget = new Budget(10);
  const order: number[] = [];
  const take = (amount: number) => budget.take(amount).then(() => order.push(amount));
  const all = [take(4), take(5), take(8), take(1)];
  await Promise.all(all.slice(0, 2));
  // The last one would fit, but it is not its turn.
  assertEquals(order, [4, 5]);
  budget.give(4);
  budget.give(5);
  await Promise.all(all);
  assertEquals(order, [4, 5, 8, 1]);
});

Deno.test("buffers are used again, long ones are not kept", () => {
  const pool = new BufferPool();
  const short = pool.take(100);
  assertEquals(short.data.length, 100);
  pool.give(short);
  assert(pool.take(200).whole === short.whole);
  const long = pool.take(2 * MIB);
  pool.give(long);
  assert(pool.take(2 * MIB).whole !== long.whole);
});
