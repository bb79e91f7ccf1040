import { CACHE_MODES, READ_ONLY } from "../lib/block/mode.ts";
import type { BlockNode } from "../lib/block/node.ts";
import { QUIET } from "../lib/graph/environment.ts";
import { openImage } from "../lib/graph/open.ts";
import { createImage } from "../lib/ops/create.ts";
import { RandomBytes } from "./_disk.ts";

const KiB = 1 << 10;
const MiB = 1 << 20;
const SIZE = 256 * MiB;

/** A new image of {@linkcode SIZE} bytes in a folder of its own; both are gone after `use`. */
async function withImage(
  clusterSize: number,
  use: (node: BlockNode) => Promise<void>,
): Promise<void> {
  const dir = await Deno.makeTempDir({ prefix: "qimg_bench_" });
  try {
    const filename = `${dir}/image`;
    await createImage({
      filename,
      format: "qcow2",
      size: SIZE,
      options: [["cluster_size", String(clusterSize)]],
    });
    const mode = { ...READ_ONLY, writable: true, cache: CACHE_MODES["unsafe"]! };
    await using node = await openImage({ filename, format: "qcow2" }, mode, QUIET);
    await use(node);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

/** Reserves and publishes every cluster of the image, one by one. */
async function allocateAll(node: BlockNode, clusterSize: number): Promise<void> {
  for (let offset = 0; offset < SIZE; offset += clusterSize) {
    const allocation = await node.allocator?.allocate(offset, clusterSize);
    if (!allocation) throw new Error(`nothing allocated at ${offset}`);
    await allocation.publish();
  }
}

Deno.bench("4096 clusters of 64 KiB", { group: "allocation" }, async (b) => {
  await withImage(64 * KiB, async (node) => {
    b.start();
    await allocateAll(node, 64 * KiB);
    b.end();
  });
});

Deno.bench("4096 places in 128 tables", { group: "L2 look-up" }, async (b) => {
  const words = new Uint32Array(new RandomBytes(2).fill(new Uint8Array(4096 * 4)).buffer);
  await withImage(4 * KiB, async (node) => {
    await allocateAll(node, 4 * KiB);
    b.start();
    for (const word of words) {
      const { state } = await node.extent((word % (SIZE / (4 * KiB))) * 4 * KiB, 4 * KiB);
      if (state !== "data") throw new Error(state);
    }
    b.end();
  });
});
