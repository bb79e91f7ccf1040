import { assertEquals, assertRejects } from "@std/assert";
import { writeAllocated } from "../../lib/block/write_allocated.ts";
import { MemoryNode } from "../_memory_node.ts";

/** Space of three bytes at a time, in reverse order. */
function allocator(log: string[]) {
  const file = new MemoryNode({ bytes: new Uint8Array(9) });
  const allocate = (offset: number, length: number) =>
    Promise.resolve({
      length: Math.min(3, length),
      file,
      offset: 6 - offset,
      publish: () => Promise.resolve(void log.push(`publish ${offset}`)),
      abandon: () => Promise.resolve(void log.push(`abandon ${offset}`)),
    });
  return { file, allocate };
}

Deno.test("what is written fills one allocation after the other", async () => {
  const log: string[] = [];
  const { file, allocate } = allocator(log);
  await writeAllocated(allocate, 0, Uint8Array.of(1, 2, 3, 4, 5, 6, 7));
  assertEquals(file.bytes(), Uint8Array.of(7, 0, 0, 4, 5, 6, 1, 2, 3));
  assertEquals(log, ["publish 0", "publish 3", "publish 6"]);
});

Deno.test("an allocation that cannot be filled is abandoned", async () => {
  const log: string[] = [];
  const { allocate } = allocator(log);
  const fill = (_: unknown, offset: number) =>
    offset === 3 ? Promise.reject(new Error("full")) : Promise.resolve();
  await assertRejects(() => writeAllocated(allocate, 0, new Uint8Array(9), fill), Error, "full");
  assertEquals(log, ["publish 0", "abandon 3"]);
});
