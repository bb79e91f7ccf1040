import { assertEquals } from "@std/assert";
import { MemoryNode } from "../../_memory_node.ts";
import { context, create, open } from "./_image.ts";

/** A file on a system that cannot make holes: what was freed keeps its bytes. */
class SolidNode extends MemoryNode {
  override discard(): Promise<void> {
    return Promise.resolve();
  }
}

const K = 1024;

for (const how of ["metadata", "falloc", "full"] as const) {
  Deno.test(`resize() with ${how} shows nothing of clusters that were in use before`, async () => {
    const made = await create({ size: "128k", cluster_size: "4096" });
    const file = new SolidNode({ bytes: made.bytes() });
    await using node = await open(file, context({ writable: true, resizing: true, unmap: true }));
    await node.write(0, new Uint8Array(128 * K).fill(1));
    await node.discard(64 * K, 64 * K);
    await node.resize(192 * K, how);

    const bytes = new Uint8Array(64 * K);
    await node.read(128 * K, bytes);
    assertEquals(bytes, new Uint8Array(64 * K));
  });
}

for (const how of ["falloc", "full"] as const) {
  Deno.test(`resize() with ${how} where the file is long enough already`, async () => {
    const made = await create({ size: "128k", cluster_size: "4096" });
    const file = new MemoryNode({ bytes: made.bytes() });
    await file.resize(file.length + 512 * K, "off");
    await file.write(file.length - 512 * K, new Uint8Array(512 * K).fill(1));
    const { length } = file;
    await using node = await open(file, context({ writable: true, resizing: true }));
    await node.resize(192 * K, how);

    assertEquals(file.length, length, "what lies behind is not cut off");
    const bytes = new Uint8Array(64 * K);
    await node.read(128 * K, bytes);
    assertEquals(bytes, new Uint8Array(64 * K));
  });
}
