import { assertEquals, assertRejects } from "@std/assert";
import { preallocate } from "../../../drivers/filters/preallocate.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { OptionSet } from "../../../lib/block/options.ts";
import { driverContext } from "../../../lib/graph/context.ts";
import { QUIET } from "../../../lib/graph/environment.ts";
import { MemoryNode } from "../../_memory_node.ts";

function open(file: BlockNode, align = "4096", size = "65536"): Promise<BlockNode> {
  const pairs = [["prealloc-align", align], ["prealloc-size", size]] as const;
  return preallocate.open(
    file,
    new OptionSet(preallocate.openOptions, pairs),
    driverContext("x", { ...READ_ONLY, writable: !file.readOnly }, QUIET),
  );
}

Deno.test("a file grows in steps, which nobody above sees, and is cut in the end", async () => {
  const file = new MemoryNode({ bytes: new Uint8Array(1000).fill(1) });
  {
    await using node = await open(file);
    await node.write(1000, new Uint8Array(500).fill(2));
    // A step begins and ends where it is told to.
    assertEquals([file.exactLength, node.length, node.exactLength], [69632, 1536, 1500]);
    file.logging = true;
    await node.write(1500, new Uint8Array(60_000).fill(3));
    assertEquals(file.log.map(({ kind }) => kind), ["write"]);
    assertEquals([file.exactLength, node.exactLength], [69632, 61500]);
    await node.writeZeroes(69632, 4096, { unmap: false });
    assertEquals([file.exactLength > 69632 + 65536, node.exactLength], [true, 73728]);
  }
  assertEquals(file.exactLength, 73728);
  const bytes = file.bytes();
  assertEquals([bytes[999], bytes[1000], bytes[1499], bytes[1500], bytes[61500]], [1, 2, 2, 3, 0]);
});

Deno.test("what is reserved reads as zeros and is nobody's data", async () => {
  const file = new MemoryNode();
  await using node = await open(file);
  await node.write(0, new Uint8Array(512).fill(1));
  assertEquals((await node.extent(0, 4096)).length, 512);
  const { state, length } = await node.extent(512, 4096);
  assertEquals([state, length], ["zero", 4096]);
});

Deno.test("a new size is the size, and nothing is left of what was reserved", async () => {
  const file = new MemoryNode();
  await using node = await open(file);
  await node.write(0, new Uint8Array(512).fill(1));
  await node.resize(1024, "off");
  assertEquals([file.exactLength, node.length], [1024, 1024]);
  await node.resize(512, "off");
  assertEquals([file.exactLength, node.length], [512, 512]);
});

Deno.test("a file that cannot reserve is written all the same", async () => {
  const file = new MemoryNode({
    before({ kind }) {
      if (kind === "zero") throw new ImageError("no", { errno: "ENOTSUP" });
    },
  });
  {
    await using node = await open(file);
    await node.write(0, new Uint8Array(512).fill(1));
    await node.write(512, new Uint8Array(512).fill(2));
  }
  assertEquals(file.exactLength, 1024);
});

Deno.test("writers at the same time reserve once", async () => {
  const file = new MemoryNode();
  file.logging = true;
  await using node = await open(file);
  await Promise.all([0, 1, 2, 3].map((i) => node.write(i * 512, new Uint8Array(512).fill(i))));
  assertEquals(file.log.filter(({ kind }) => kind === "zero").length, 1);
  assertEquals(node.length, 2048);
});

Deno.test("where steps end has to be a sector", async () => {
  for (const align of ["1", "513", "700"]) {
    await assertRejects(
      () => open(new MemoryNode(), align),
      ImageError,
      "prealloc-align parameter of preallocate filter is not aligned to 512",
    );
  }
  const file = new MemoryNode();
  await using node = await open(file, "0", "100");
  await node.write(0, new Uint8Array(512));
  assertEquals(file.exactLength, 612);
});
