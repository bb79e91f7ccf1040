import { assertEquals, assertRejects } from "@std/assert";
import { readLimits } from "../../../drivers/blkdebug/limits.ts";
import { BlkdebugNode } from "../../../drivers/blkdebug/node.ts";
import { RuleBook } from "../../../drivers/blkdebug/rules.ts";
import { parseConfig } from "../../../drivers/blkdebug/config_file.ts";
import { rulesOf } from "../../../drivers/blkdebug/sections.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { LIMIT_OPTIONS } from "../../../drivers/blkdebug/limits.ts";
import { driverContext } from "../../../lib/graph/context.ts";
import { QUIET } from "../../../lib/graph/environment.ts";
import { MemoryNode, type MemoryRequest } from "../../_memory_node.ts";
import { Random } from "../../_random.ts";

const LENGTH = 1 << 20;

function open(
  limits: Record<string, number>,
  rules = "",
): { node: BlkdebugNode; image: MemoryNode; requests: MemoryRequest[] } {
  const image = new MemoryNode({ bytes: new Random(3).bytes(LENGTH) });
  const requests: MemoryRequest[] = [];
  image.onRequest((request) => void requests.push(request));
  const options = new OptionSet(LIMIT_OPTIONS);
  for (const [name, value] of Object.entries(limits)) options.setSize(name, value);
  const mode = { ...READ_ONLY, writable: true, unmap: true };
  const node = new BlkdebugNode({
    image,
    rules: new RuleBook(rulesOf(parseConfig(rules))),
    limits: readLimits(options, 1),
    address: { exact: undefined, options: {} },
  }, driverContext("x", mode, QUIET));
  return { node, image, requests };
}

const runs = (requests: readonly MemoryRequest[]) =>
  requests.map(({ kind, offset, length }) => [kind, offset, length]);

Deno.test("a read of parts of units reads whole ones, in pieces", async () => {
  const { node, image, requests } = open({ align: 4096, "max-transfer": 8192 });
  const into = new Uint8Array(10000);
  await node.read(5000, into);
  assertEquals(runs(requests), [["read", 4096, 8192], ["read", 12288, 4096]]);
  assertEquals(into, image.slice(5000, 10000));
});

Deno.test("a write of parts of units reads what is around it", async () => {
  const { node, image, requests } = open({ align: 4096 });
  const before = image.bytes();
  const from = new Uint8Array(10000).fill(9);
  await node.write(5000, from);
  assertEquals(runs(requests), [["read", 4096, 4096], ["read", 12288, 4096], [
    "write",
    4096,
    12288,
  ]]);
  before.set(from, 5000);
  assertEquals(image.bytes(), before);
});

Deno.test("zero writes keep to their unit and their length, the rest is data", async () => {
  const { node, requests } = open({ "opt-write-zero": 4096, "max-write-zero": 8192 });
  await node.writeZeroes(1000, 20000, { unmap: false });
  assertEquals(runs(requests), [
    ["write", 1000, 3096],
    ["zero", 4096, 8192],
    ["zero", 12288, 8192],
    ["write", 20480, 520],
  ]);
});

Deno.test("discards of less than a unit are left out", async () => {
  const { node, requests } = open({ "opt-discard": 4096, "max-discard": 8192 });
  await node.discard(1000, 20000);
  assertEquals(runs(requests), [["discard", 4096, 8192], ["discard", 12288, 8192]]);
});

Deno.test("writes of parts of one unit at the same time do not undo each other", async () => {
  const { node, image } = open({ align: 4096 });
  await Promise.all(
    Array.from({ length: 64 }, (_, i) => node.write(i * 64, new Uint8Array(64).fill(i + 1))),
  );
  assertEquals(image.slice(0, 4096), Uint8Array.from({ length: 4096 }, (_, at) => (at >> 6) + 1));
});

Deno.test("random requests within limits leave what a plain disk would hold", async () => {
  const seed = 11;
  const random = new Random(seed);
  const { node, image } = open({
    align: 512,
    "max-transfer": 1536,
    "opt-write-zero": 1024,
    "max-write-zero": 4096,
  });
  const model = image.bytes();
  for (let i = 0; i < 300; i++) {
    const offset = random.below(LENGTH - 1);
    const length = 1 + random.below(Math.min(LENGTH - offset, 9000));
    if (random.below(3) === 0) {
      await node.writeZeroes(offset, length, { unmap: random.below(2) === 0 });
      model.fill(0, offset, offset + length);
    } else {
      const from = random.bytes(length);
      await node.write(offset, from);
      model.set(from, offset);
    }
    const into = new Uint8Array(length);
    await node.read(offset, into);
    assertEquals(into, model.slice(offset, offset + length), `seed ${seed}, ${i}`);
  }
  assertEquals(image.bytes(), model, `seed ${seed}`);
});

Deno.test("a request that fails does not reach the node below", async () => {
  const { node, requests } = open({}, '[inject-error]\nevent = "pwritev"\nerrno = "28"\n');
  await node.read(0, new Uint8Array(512));
  requests.length = 0;
  const error = await assertRejects(() => node.write(0, new Uint8Array(512)), ImageError);
  assertEquals(error.errno, "ENOSPC");
  assertEquals(requests, []);
});

Deno.test("zero writes that are not supported are done with data", async () => {
  const { node, requests } = open(
    {},
    '[inject-error]\nevent = "none"\niotype = "write-zeroes"\nerrno = "95"\n',
  );
  await node.writeZeroes(0, 4096, { unmap: true });
  assertEquals(runs(requests), [["write", 0, 4096]]);
  const error = await assertRejects(
    () => node.writeZeroes(0, 4096, { unmap: true, noFallback: true }),
    ImageError,
  );
  assertEquals(error.errno, "ENOTSUP");
});

Deno.test("extents say that their bytes are guarded", async () => {
  const { node } = open({});
  assertEquals((await node.extent(0, 4096)).guarded, true);
});
