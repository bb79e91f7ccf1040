import { assertEquals, assertRejects } from "@std/assert";
import { nullAio, nullCo } from "../../../drivers/null/driver.ts";
import { ImageError } from "../../../lib/block/error.ts";
import { READ_ONLY } from "../../../lib/block/mode.ts";
import type { BlockNode } from "../../../lib/block/node.ts";
import { type OptionPair, OptionSet } from "../../../lib/block/options.ts";
import { driverContext } from "../../../lib/graph/context.ts";
import { QUIET } from "../../../lib/graph/environment.ts";

function open(pairs: readonly OptionPair[], filename = "", driver = nullCo): Promise<BlockNode> {
  const context = driverContext(filename, { ...READ_ONLY, writable: true }, QUIET);
  return driver.open(filename, context, new OptionSet(driver.openOptions!, pairs));
}

Deno.test("nothing is stored, and zeros are read", async () => {
  await using node = await open([["size", "1M"]]);
  await node.write(0, new Uint8Array(512).fill(1));
  const bytes = new Uint8Array(512).fill(9);
  await node.read(0, bytes);
  assertEquals(bytes, new Uint8Array(512));
  assertEquals([node.length, await node.allocatedSize()], [1 << 20, 0]);
});

Deno.test("sizes are whole sectors, 1 GiB unless told", async () => {
  for (
    const [pairs, length] of [[[], 2 ** 30], [[["size", "700"]], 1024], [
      [["size", "0"]],
      0,
    ]] as const
  ) {
    await using node = await open(pairs);
    assertEquals(node.length, length);
  }
});

Deno.test("a disk says that it is zeros only if told to", async () => {
  await using silent = await open([]);
  assertEquals((await silent.extent(0, 4096)).state, "data");
  await using telling = await open([["read-zeroes", "on"]], "null-aio://", nullAio);
  assertEquals((await telling.extent(0, 4096)).state, "zero");
});

Deno.test("requests take their time, all at the same time", async () => {
  await using node = await open([["latency-ns", "2000000"]]);
  let done = 0;
  const requests = [1, 2, 3].map(() => node.read(0, new Uint8Array(1)).then(() => done++));
  await Promise.resolve();
  assertEquals(done, 0);
  await Promise.all(requests);
  assertEquals(done, 3);
});

Deno.test("wrong sizes, latencies and names are refused", async () => {
  for (
    const [pairs, filename, message] of [
      [[["size", "9007199254740992"]], "", "size is invalid"],
      [[["latency-ns", "-1"]], "", "latency-ns is invalid"],
      [[], "null-co:x", "The only allowed filename for this driver is 'null-co://'"],
    ] as const
  ) {
    await assertRejects(() => open(pairs, filename), ImageError, message);
  }
});
