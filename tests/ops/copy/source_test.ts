import { assertEquals, assertRejects } from "@std/assert";
import { ImageError } from "../../../lib/block/error.ts";
import type { BlockNode, Extent } from "../../../lib/block/node.ts";
import { Source, type SourceOptions } from "../../../lib/ops/copy/source.ts";
import { MemoryNode } from "../../_memory_node.ts";

const KiB = 1024;

type Layout = readonly (readonly [length: number, extent: Partial<Extent>])[];

/** An image that says of itself what the layout says, over a file with the numbers 1, 2, 3 … in its KiB. */
function imageOf(
  layout: Layout,
  { clusterSize = 0, backing }: { clusterSize?: number; backing?: BlockNode } = {},
): BlockNode {
  const length = layout.reduce((sum, [length]) => sum + length, 0);
  const bytes = new Uint8Array(length).map((_, index) => 1 + Math.floor(index / KiB) % 255);
  const file = new MemoryNode({ bytes });
  const image: Partial<BlockNode> = {
    driver: "fake",
    filename: "fake.img",
    length,
    limits: { requestAlignment: 1, clusterSize, zeroAlignment: 0 },
    read: (offset, into) => file.read(offset, into),
    extent(offset, most) {
      let start = 0;
      for (const [length, extent] of layout) {
        const end = start + length;
        if (offset < end) {
          return Promise.resolve({
            length: Math.min(end - offset, most),
            state: "data",
            compressed: false,
            ...extent,
            ...(extent.offset === undefined ? {} : { offset: extent.offset + offset - start }),
          });
        }
        start = end;
      }
      return Promise.reject(ImageError.fromErrno("EIO"));
    },
    ...(backing === undefined ? {} : {
      backing: { name: "b", format: undefined, node: backing, attach() {} },
    }),
  };
  return image as BlockNode;
}

async function stretchesOf(nodes: readonly BlockNode[], options?: SourceOptions) {
  const source = new Source(nodes, options);
  const stretches: [offset: number, length: number, kind: string, place: string][] = [];
  for (let at = 0; at < source.length;) {
    const { offset, length, kind, place } = await source.stretchAt(at);
    stretches.push([offset, length, kind, place.kind]);
    at += length;
  }
  return stretches;
}

const file = new MemoryNode();

Deno.test("a stretch is data in a file, data of the node alone, or zeros", async () => {
  const image = imageOf([
    [4 * KiB, { file, offset: 0 }],
    [4 * KiB, {}],
    [4 * KiB, { state: "zero" }],
    [4 * KiB, { file, offset: 8 * KiB, hole: true }],
    [4 * KiB, { state: "unallocated" }],
  ]);
  assertEquals(await stretchesOf([image]), [
    [0, 4 * KiB, "data", "plain"],
    [4 * KiB, 4 * KiB, "data", "node"],
    [8 * KiB, 4 * KiB, "zero", "zero"],
    [12 * KiB, 4 * KiB, "zero", "zero"],
    [16 * KiB, 4 * KiB, "zero", "zero"],
  ]);
});

Deno.test("a place that is asked for from its middle on begins there", async () => {
  const run = { file, offset: 100, length: 50, codec: "deflate", size: 8 * KiB, skip: 0 } as const;
  const source = new Source([imageOf([
    [8 * KiB, { file, offset: 1000 }],
    [8 * KiB, { compressed: true, packed: run }],
  ])]);
  await source.stretchAt(0);
  assertEquals((await source.stretchAt(KiB)).place, {
    kind: "plain",
    length: 7 * KiB,
    file,
    offset: 1000 + KiB,
  });
  await source.stretchAt(8 * KiB);
  assertEquals((await source.stretchAt(10 * KiB)).place, {
    kind: "packed",
    length: 6 * KiB,
    run: { ...run, skip: 2 * KiB },
  });
});

Deno.test("what is unallocated is the backing file's, and zeros behind its end", async () => {
  const backing = imageOf([[4 * KiB, { state: "zero" }], [6 * KiB, { file, offset: 0 }]]);
  const image = imageOf([[2 * KiB, { file, offset: 0 }], [18 * KiB, { state: "unallocated" }]], {
    backing,
  });
  assertEquals(await stretchesOf([image]), [
    [0, 2 * KiB, "data", "plain"],
    [2 * KiB, 2 * KiB, "zero", "zero"],
    [4 * KiB, 6 * KiB, "data", "plain"],
    [10 * KiB, 10 * KiB, "zero", "zero"],
  ]);
});

Deno.test("with a backing target only the top counts, and zeros behind the backing file are nothing", async () => {
  const backing = imageOf([[16 * KiB, { file, offset: 0 }]]);
  const image = imageOf([
    [4 * KiB, { state: "unallocated" }],
    [4 * KiB, { state: "zero" }],
    [4 * KiB, { file, offset: 0 }],
  ], { backing });
  assertEquals(await stretchesOf([image], { overBacking: 6 * KiB }), [
    [0, 4 * KiB, "hidden", "zero"],
    [4 * KiB, 2 * KiB, "zero", "zero"],
    [6 * KiB, 2 * KiB, "hidden", "zero"],
    [8 * KiB, 4 * KiB, "data", "plain"],
  ]);
});

Deno.test("stretches end on clusters of the image unless they are shorter, or exact ones are wanted", async () => {
  const layout: Layout = [[5 * KiB, { file, offset: 0 }], [1000, {}], [24, {}], [KiB, {}]];
  assertEquals((await stretchesOf([imageOf(layout, { clusterSize: 4 * KiB })])).map(([at]) => at), [
    0,
    4 * KiB,
    5 * KiB,
    6 * KiB,
  ]);
  assertEquals(
    (await stretchesOf([imageOf(layout, { clusterSize: 4 * KiB })], { exact: true }))
      .map(([at]) => at),
    [0, 5 * KiB, 6 * KiB],
  );
});

Deno.test("images lie one behind the other, empty ones are passed over", async () => {
  const empty = imageOf([]);
  const first = imageOf([[KiB, {}]]);
  const second = imageOf([[KiB, { state: "zero" }], [KiB, {}]]);
  const source = new Source([empty, first, empty, second]);
  assertEquals(source.length, 3 * KiB);
  assertEquals((await stretchesOf([empty, first, empty, second])).map(([, , kind]) => kind), [
    "data",
    "zero",
    "data",
  ]);
  const bytes = new Uint8Array(2 * KiB);
  await source.read(512, bytes);
  assertEquals([bytes[0], bytes[511], bytes[512], bytes[1535], bytes[1536]], [1, 1, 1, 1, 2]);
  // Back again.
  await source.read(0, bytes.subarray(0, 1));
  assertEquals(bytes[0], 1);
});

/** A node that cannot read the sector at 1024. */
function damagedNode(): MemoryNode {
  const node = new MemoryNode({ bytes: new Uint8Array(4 * KiB).fill(7) });
  node.onRequest(({ kind, offset, length }) => {
    if (kind === "read" && offset < 1536 && offset + length > 1024) {
      throw ImageError.fromErrno("EIO");
    }
  });
  return node;
}

Deno.test("a failure to read names the begin of what was to be read", async () => {
  const source = new Source([damagedNode()]);
  const error = await assertRejects(
    () => source.read(1024, new Uint8Array(KiB), 512),
    ImageError,
    "error while reading at byte 512: Input/output error",
  );
  assertEquals(error.errno, "EIO");
});

Deno.test("a salvage warns of each sector that cannot be read, and makes it zeros", async () => {
  const warnings: string[] = [];
  const source = new Source([damagedNode()], { salvage: (text) => warnings.push(text) });
  const bytes = new Uint8Array(4 * KiB);
  await source.read(0, bytes);
  assertEquals(warnings, ["error while reading offset 1024: Input/output error"]);
  assertEquals(bytes.subarray(1024, 1536), new Uint8Array(512));
  assertEquals([bytes[1023], bytes[1536]], [7, 7]);
});

Deno.test("where the state of an image cannot be learnt the copy ends, or a salvage tries to read", async () => {
  const image = imageOf([[2 * KiB, {}]]);
  const failing = { ...image, extent: () => Promise.reject(ImageError.fromErrno("EIO")) };
  await assertRejects(
    () => new Source([failing as BlockNode]).stretchAt(0),
    ImageError,
    "error while reading block status at offset 0: Input/output error",
  );
  const warnings: string[] = [];
  const source = new Source([failing as BlockNode], { salvage: (text) => warnings.push(text) });
  const { length, kind, place } = await source.stretchAt(512);
  assertEquals([length, kind, place.kind], [512, "data", "node"]);
  assertEquals(warnings, ["error while reading block status at offset 512: Input/output error"]);
});
