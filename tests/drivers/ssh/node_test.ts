import { assert, assertEquals, assertRejects } from "@std/assert";
import { SshNode } from "../../../drivers/ssh/node.ts";
import { encodePacket, PacketType, StatusCode } from "../../../drivers/ssh/packets.ts";
import { OpenFile } from "../../../drivers/ssh/remote_file.ts";
import { SftpSession } from "../../../drivers/ssh/session.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { CACHE_MODES, type OpenMode, READ_ONLY } from "../../../lib/block/mode.ts";
import { Random } from "../../_random.ts";
import { FakeServer, type Faults } from "./_fake_server.ts";

interface Opened extends AsyncDisposable {
  readonly server: FakeServer;
  readonly node: SshNode;
  readonly warnings: string[];
}

async function open(
  content: Uint8Array,
  { faults = {}, mode = {} }: {
    readonly faults?: Faults;
    readonly mode?: Partial<OpenMode>;
  } = {},
): Promise<Opened> {
  const server = new FakeServer(faults);
  server.files.set("/disk", content);
  const session = await SftpSession.start(server.connect());
  const file = await OpenFile.open(session, "/disk", "writing");
  const warnings: string[] = [];
  const node = new SshNode({
    session,
    file,
    status: await file.status(),
    filename: "ssh://me@host:22/disk",
    address: { exact: "ssh://me@host:22/disk", options: {} },
    mode: { ...READ_ONLY, writable: true, ...mode },
    warn: (text) => warnings.push(text),
    host: "host",
  });
  return {
    server,
    node,
    warnings,
    [Symbol.asyncDispose]: () => node[Symbol.asyncDispose](),
  };
}

async function readAll(node: SshNode): Promise<Uint8Array> {
  const bytes = new Uint8Array(node.length);
  await node.read(0, bytes);
  return bytes;
}

Deno.test("ssh node: the length is rounded up, what is behind the end reads as zeros", async () => {
  await using opened = await open(new Uint8Array(1000).fill(1));
  assertEquals([opened.node.length, opened.node.exactLength], [1024, 1000]);
  const into = new Uint8Array(600).fill(9);
  await opened.node.read(900, into);
  assertEquals(into, new Uint8Array(600).fill(1, 0, 100));
});

Deno.test("ssh node: a file that became shorter is an error, not zeros", async () => {
  await using opened = await open(new Uint8Array(100_000).fill(1));
  opened.server.files.set("/disk", new Uint8Array(50_000));
  await assertRejects(
    () => opened.node.read(0, new Uint8Array(80_000)),
    ImageError,
    "has shrunk from 100000 to at most 50000 bytes",
  );
});

Deno.test("ssh node: random writes, zeros and growth leave what a file would hold", async () => {
  for (let seed = 1; seed <= 10; seed++) {
    const random = new Random(seed);
    const before = random.bytes(random.below(100_000));
    const faults = { shortReads: 10_000, disorder: 3 };
    await using opened = await open(before, { faults });
    const model = new Uint8Array(400_000);
    model.set(before);
    let length = before.length;
    for (let i = 0; i < 30; i++) {
      const offset = random.below(300_000);
      const count = 1 + random.below(90_000);
      switch (random.below(4)) {
        case 0: {
          const bytes = random.bytes(count);
          await opened.node.write(offset, bytes);
          model.set(bytes, offset);
          break;
        }
        case 1:
          await opened.node.writeZeroes(offset, count, { unmap: false });
          model.fill(0, offset, offset + count);
          break;
        case 2:
          if (offset < opened.node.exactLength) continue;
          await opened.node.resize(offset, "off");
          break;
        default: {
          const into = new Uint8Array(count);
          await opened.node.read(offset, into);
          assertEquals(into, model.slice(offset, offset + count), `seed ${seed}`);
          continue;
        }
      }
      length = Math.max(length, opened.node.exactLength);
      assert(opened.node.exactLength >= length, `seed ${seed}: became shorter`);
    }
    assertEquals(await readAll(opened.node), model.slice(0, opened.node.length), `seed ${seed}`);
    const stored = opened.server.files.get("/disk")!;
    assertEquals(stored, model.slice(0, stored.length), `seed ${seed}`);
  }
});

Deno.test("ssh node: writes at a time do not cut each other off", async () => {
  await using opened = await open(new Uint8Array(0));
  const { node } = opened;
  await Promise.all([
    node.write(600_000, new Uint8Array(100_000).fill(6)),
    node.writeZeroes(100_000, 200_000, { unmap: true }),
    node.write(0, new Uint8Array(50_000).fill(1)),
  ]);
  const expected = new Uint8Array(700_416).fill(1, 0, 50_000).fill(6, 600_000, 700_000);
  assertEquals(await readAll(node), expected);
});

Deno.test("ssh node: zeros are written where a failed write may have left something", async () => {
  let fails = true;
  await using opened = await open(new Uint8Array(0), {
    faults: {
      onAnswer: (answer, { type, id }) =>
        type === PacketType.WRITE && fails
          ? [encodePacket(PacketType.STATUS, [id, StatusCode.FAILURE, "disk full", ""])]
          : [answer],
    },
  });
  const { node } = opened;
  const error = await assertRejects(() => node.write(0, new Uint8Array(512).fill(1)), ImageError);
  assertEquals(
    error.message,
    "failed to write to remote file '/disk': SFTP server: disk full (sftp error code: 4)",
  );
  assertEquals(error.errno, "EIO");
  fails = false;
  await node.writeZeroes(0, 1024, { unmap: false });
  assertEquals(await readAll(node), new Uint8Array(1024));
});

Deno.test("ssh node: zeros that must not be written are refused", async () => {
  await using opened = await open(new Uint8Array(1024));
  const error = await assertRejects(
    () => opened.node.writeZeroes(0, 512, { unmap: false, noFallback: true }),
    ImageError,
  );
  assertEquals(error.errno, "ENOTSUP");
});

Deno.test("ssh node: nothing is allocated in advance", async () => {
  await using opened = await open(new Uint8Array(1024));
  const full = "Unsupported preallocation mode 'full'";
  await assertRejects(() => opened.node.resize(2048, "full"), ImageError, full);
});

Deno.test("ssh node: what was cut off is zeros when the file grows again", async () => {
  await using opened = await open(new Uint8Array(2048).fill(1));
  await opened.node.resize(512, "off");
  assertEquals(opened.node.length, 512);
  await opened.node.resize(1536, "off");
  assertEquals(await readAll(opened.node), new Uint8Array(1536).fill(1, 0, 512));
});

Deno.test("ssh node: a server that only says that it cut something off is not believed", async () => {
  await using opened = await open(new Uint8Array(2048), { faults: { ignoresAttributes: true } });
  await assertRejects(
    () => opened.node.resize(512, "off"),
    ImageError,
    "failed to shrink remote file '/disk'",
  );
  assertEquals(opened.node.length, 2048);
});

Deno.test("ssh node: a flush is an fsync on the server", async () => {
  await using opened = await open(new Uint8Array(1024));
  await opened.node.write(0, new Uint8Array(512));
  await opened.node.flush();
  assertEquals(opened.server.count(PacketType.EXTENDED), 1);
  assertEquals(opened.warnings, []);
});

Deno.test("ssh node: a server without fsync is warned of once", async () => {
  await using opened = await open(new Uint8Array(1024), { faults: { extensions: [] } });
  await opened.node.write(0, new Uint8Array(512));
  await opened.node.flush();
  await opened.node.flush();
  assertEquals(opened.server.count(PacketType.EXTENDED), 0);
  assertEquals(opened.warnings, ["ssh server host does not support fsync"]);
});

Deno.test("ssh node: with writethrough every write is flushed", async () => {
  await using opened = await open(new Uint8Array(1024), {
    mode: { cache: CACHE_MODES["writethrough"]! },
  });
  await opened.node.write(0, new Uint8Array(512));
  await opened.node.write(512, new Uint8Array(512));
  assertEquals(opened.server.count(PacketType.EXTENDED), 2);
});

Deno.test("ssh node: with cache=unsafe nothing is flushed", async () => {
  {
    await using opened = await open(new Uint8Array(1024), {
      mode: { cache: CACHE_MODES["unsafe"]! },
    });
    await opened.node.write(0, new Uint8Array(512));
    await opened.node.flush();
    await opened.node[Symbol.asyncDispose]();
    assertEquals(opened.server.count(PacketType.EXTENDED), 0);
  }
});

Deno.test("ssh node: what was written is flushed when it is closed", async () => {
  const opened = await open(new Uint8Array(1024));
  await opened.node.write(0, new Uint8Array(512));
  await opened[Symbol.asyncDispose]();
  assertEquals(opened.server.count(PacketType.EXTENDED), 1);
  assertEquals(opened.server.count(PacketType.CLOSE), 1);
});

Deno.test("ssh node: read-only it takes no writes", async () => {
  await using opened = await open(new Uint8Array(1024), { mode: { writable: false } });
  const { node } = opened;
  const closed = "is opened read-only";
  await assertRejects(() => node.write(0, new Uint8Array(1)), ImageError, closed);
  await assertRejects(() => node.writeZeroes(0, 1, { unmap: false }), ImageError, closed);
  await assertRejects(() => node.resize(4096, "off"), ImageError, closed);
});

for (const writable of [false, true]) {
  Deno.test(`ssh node: a server that hangs up in the end matters ${writable ? "" : "not "}to who ${writable ? "wrote" : "read"}`, async () => {
    const opened = await open(new Uint8Array(1024), {
      mode: { writable },
      faults: {
        onAnswer: (answer, { type }) => type === PacketType.CLOSE ? "hang up" : [answer],
      },
    });
    const closed = opened[Symbol.asyncDispose]();
    if (writable) await assertRejects(() => closed, ImageError, "was lost");
    else assertEquals(await closed, undefined);
  });
}

Deno.test("ssh node: all of it is data, wherever it lies", async () => {
  await using opened = await open(new Uint8Array(1000));
  const { node } = opened;
  assertEquals(await node.extent(512, 512), {
    length: 512,
    state: "data",
    compressed: false,
    file: node,
    offset: 512,
  });
});
