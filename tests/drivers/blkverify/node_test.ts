import { assertEquals, assertRejects } from "@std/assert";
import { BlkverifyNode } from "../../../drivers/blkverify/node.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import { driverContext } from "../../../lib/graph/context.ts";
import { QUIET } from "../../../lib/graph/environment.ts";
import { MemoryNode } from "../../_memory_node.ts";

function open(test: MemoryNode, raw: MemoryNode): { node: BlkverifyNode; lines: string[] } {
  const lines: string[] = [];
  const environment = { ...QUIET, report: (line: string) => void lines.push(line) };
  const context = driverContext("x", { ...READ_ONLY, writable: true }, environment);
  return { node: new BlkverifyNode(test, raw, { exact: undefined, options: {} }, context), lines };
}

const disk = (value: number) => new MemoryNode({ bytes: new Uint8Array(4096).fill(value) });

Deno.test("equal disks are read and written as one", async () => {
  const [test, raw] = [disk(1), disk(1)];
  const { node, lines } = open(test, raw);
  await node.write(512, new Uint8Array(100).fill(5));
  await node.writeZeroes(2048, 512, { unmap: true });
  const into = new Uint8Array(4096);
  await node.read(0, into);
  assertEquals(into, raw.bytes());
  assertEquals(test.bytes(), raw.bytes());
  assertEquals(lines, []);
});

Deno.test("the first byte that differs is told, and nothing works afterwards", async () => {
  const raw = disk(1);
  await raw.write(700, new Uint8Array([2]));
  const { node, lines } = open(disk(1), raw);
  await node.read(0, new Uint8Array(512));
  const error = await assertRejects(() => node.read(512, new Uint8Array(512)), ImageError);
  assertEquals(error.errno, "EIO");
  assertEquals(lines, ["blkverify: read offset=512 bytes=512 contents mismatch at offset 700"]);
  await assertRejects(() => node.write(0, new Uint8Array(512)), ImageError);
  assertEquals(lines.length, 1);
});

Deno.test("requests that end differently are a difference, those that fail alike are not", async () => {
  const failing = () =>
    new MemoryNode({
      bytes: new Uint8Array(4096),
      before: () => {
        throw ImageError.fromErrno("ENOSPC");
      },
    });
  const one = open(disk(0), failing());
  await assertRejects(() => one.node.write(0, new Uint8Array(512)), ImageError);
  assertEquals(one.lines, ["blkverify: write offset=0 bytes=512 return value mismatch 0 != -28"]);
  const both = open(failing(), failing());
  const error = await assertRejects(() => both.node.write(0, new Uint8Array(512)), ImageError);
  assertEquals([error.errno, both.lines.length], ["ENOSPC", 0]);
});

Deno.test("extents are those of the copy, and guarded", async () => {
  const raw = disk(1);
  const extent = await open(disk(1), raw).node.extent(0, 4096);
  assertEquals([extent.file, extent.guarded], [raw, true]);
});
