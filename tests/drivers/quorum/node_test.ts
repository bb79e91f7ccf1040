import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { QuorumNode, type QuorumSettings } from "../../../drivers/quorum/node.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import type { Errno } from "../../../lib/io/errno.ts";
import { driverContext } from "../../../lib/graph/context.ts";
import { QUIET } from "../../../lib/graph/environment.ts";
import { MemoryNode, type MemoryRequest } from "../../_memory_node.ts";

const MAJORITY: QuorumSettings = {
  threshold: 2,
  isBlkverify: false,
  rewriteCorrupted: false,
  fifo: false,
};

function disk(value: number, length = 4096): MemoryNode {
  return new MemoryNode({ bytes: new Uint8Array(length).fill(value) });
}

function fail(node: MemoryNode, kind: MemoryRequest["kind"], errno: Errno): MemoryNode {
  node.onRequest((request) => {
    if (request.kind === kind) throw ImageError.fromErrno(errno);
  });
  return node;
}

function quorum(
  members: readonly MemoryNode[],
  settings: Partial<QuorumSettings> = {},
  report: (line: string) => void = () => {},
): QuorumNode {
  const mode = { ...READ_ONLY, writable: true };
  const context = driverContext("x", mode, { ...QUIET, report });
  return new QuorumNode(members, { ...MAJORITY, ...settings }, context);
}

async function firstByte(node: QuorumNode): Promise<number> {
  const into = new Uint8Array(512);
  await node.read(0, into);
  return into[0]!;
}

async function errnoOf(request: () => Promise<unknown>): Promise<string | undefined> {
  return (await assertRejects(request, ImageError)).errno;
}

Deno.test("what most members say is read, whoever of them it is", async () => {
  for (const values of [[1, 1, 2], [1, 2, 1], [2, 1, 1]]) {
    assertEquals(await firstByte(quorum(values.map((value) => disk(value)))), 1);
  }
});

Deno.test("too few that agree are an error", async () => {
  assertEquals(await errnoOf(() => firstByte(quorum([1, 2, 3].map((v) => disk(v))))), "EIO");
  const three = quorum([1, 1, 2].map((value) => disk(value)), { threshold: 3 });
  assertEquals(await errnoOf(() => firstByte(three)), "EIO");
});

Deno.test("members that cannot be read have no vote, enough of the others count", async () => {
  const broken = () => fail(disk(2), "read", "ENXIO");
  assertEquals(await firstByte(quorum([broken(), disk(1), disk(1)])), 1);
  assertEquals(await errnoOf(() => firstByte(quorum([broken(), broken(), disk(1)]))), "ENXIO");
});

Deno.test("who is outvoted is put right if that is wanted", async () => {
  for (const rewriteCorrupted of [false, true]) {
    const wrong = disk(9);
    assertEquals(await firstByte(quorum([wrong, disk(1), disk(1)], { rewriteCorrupted })), 1);
    assertEquals(wrong.slice(0, 1)[0], rewriteCorrupted ? 1 : 9);
    assertEquals(wrong.slice(512, 1)[0], 9);
  }
});

Deno.test("a member that cannot be put right does not spoil what was read", async () => {
  const wrong = fail(disk(9), "write", "EIO");
  assertEquals(await firstByte(quorum([wrong, disk(1), disk(1)], { rewriteCorrupted: true })), 1);
});

Deno.test("in order of the members the first that can be read is believed", async () => {
  const node = quorum([fail(disk(1), "read", "EIO"), disk(2), disk(3)], { fifo: true });
  assertEquals(await firstByte(node), 2);
  const none = quorum([fail(disk(1), "read", "EIO"), fail(disk(1), "read", "ENXIO")], {
    fifo: true,
  });
  assertEquals(await errnoOf(() => firstByte(none)), "ENXIO");
});

Deno.test("two that have to be equal: the first difference is told, nothing is read afterwards", async () => {
  const lines: string[] = [];
  const other = disk(1);
  await other.write(700, new Uint8Array([2]));
  const node = quorum([disk(1), other], { isBlkverify: true }, (line) => void lines.push(line));
  assertEquals(await errnoOf(() => node.read(512, new Uint8Array(1024))), "EIO");
  assertEquals(lines, ["quorum: offset=512 bytes=1024 contents mismatch at offset 700"]);
  assertEquals(await errnoOf(() => node.read(2048, new Uint8Array(512))), "EIO");
  assertEquals(lines.length, 1);
});

Deno.test("writes reach all members and succeed if enough of them do", async () => {
  const [a, b] = [disk(0), disk(0)];
  await quorum([a, fail(disk(0), "write", "EIO"), b]).write(0, new Uint8Array([7]));
  assertEquals([a.slice(0, 1)[0], b.slice(0, 1)[0]], [7, 7]);
  const failing = quorum([a, fail(disk(0), "write", "ENOSPC"), fail(disk(0), "write", "ENOSPC")]);
  assertEquals(await errnoOf(() => failing.write(0, new Uint8Array([8]))), "ENOSPC");
});

Deno.test("a flush counts by members as well", async () => {
  await quorum([disk(0), fail(disk(0), "flush", "EIO"), disk(0)]).flush();
  const failing = [fail(disk(0), "flush", "EIO"), fail(disk(0), "flush", "EIO"), disk(0)];
  assertEquals(await errnoOf(() => quorum(failing).flush()), "EIO");
});

Deno.test("zeros are where all members have them", async () => {
  const sparse = new MemoryNode();
  await sparse.resize(65536, "off");
  const other = new MemoryNode();
  await other.resize(65536, "off");
  await other.write(8192, new Uint8Array(4096).fill(1));
  const node = quorum([sparse, other]);
  const { state, length } = await node.extent(0, 65536);
  assertEquals({ state, length }, { state: "zero", length: 8192 });
  const data = await node.extent(8192, 4096);
  assertEquals({ state: data.state, file: data.file }, { state: "data", file: undefined });
});

Deno.test("members of different lengths are no quorum", () => {
  assertThrows(
    () => quorum([disk(1), disk(1, 8192)]),
    ImageError,
    "Could not refresh total sector count: Input/output error",
  );
});
