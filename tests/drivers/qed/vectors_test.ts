/** Test vectors of the format's reference. */
import { assertEquals } from "@std/assert";
import type { BlockNode } from "../../../lib/block/node.ts";
import { MemoryNode } from "../../_memory_node.ts";
import { sha256 } from "../qcow2/_image.ts";
import { create, filled, open } from "./_image.ts";

async function made(
  options: Readonly<Record<string, string>>,
  use: (node: BlockNode) => Promise<void> = async () => {},
): Promise<[size: number, sha256: string]> {
  const file = await create(options);
  const backing = options["backing_file"] === undefined
    ? null
    : new MemoryNode({ bytes: new Uint8Array(1 << 20) });
  {
    await using node = await open(file, backing);
    await use(node);
  }
  return [file.exactLength, await sha256(file.bytes())];
}

Deno.test("test vector A: a new image", async () => {
  assertEquals(await made({ cluster_size: "65536", table_size: "4" }), [
    327680,
    "ca9c3850f729ad16236aa026dc7742b1144d787583fc9923c5f4385c7a491299",
  ]);
});

Deno.test("test vector B: the smallest clusters and tables", async () => {
  assertEquals(await made({}), [
    12288,
    "12b5df59c45fe08e3b87ad8fd9ed5750fa2df099a82f4b135d5bef2642b3556d",
  ]);
});

Deno.test("test vector C: a raw backing file", async () => {
  assertEquals(await made({ backing_file: "base.raw", backing_fmt: "raw" }), [
    12288,
    "7fd2b22005daa47bb3ffa3ee70306225e83ccbf515621a3ffe46e85d7c3f67c9",
  ]);
});

Deno.test("test vector C2: any other backing file, whose format is not stored", async () => {
  assertEquals(await made({ backing_file: "base.qcow2", backing_fmt: "qcow2" }), [
    12288,
    "400a88e7680a502148160eb448e428e2b6b7a69e1b7a506681c0d48b3e5487b4",
  ]);
});

Deno.test("test vector D: data and zeros", async () => {
  assertEquals(
    await made({}, async (node) => {
      await node.write(8192, filled(512, 0x5a));
      await node.writeZeroes(16384, 8192, { unmap: false });
    }),
    [24576, "9935bf83041f9928fc7ac6c46bc466fd924b7c55e1345fb07b227d1df5d60737"],
  );
});

Deno.test("test vector E: data in front of a backing file", async () => {
  assertEquals(
    await made(
      { backing_file: "base.raw", backing_fmt: "raw" },
      (node) => node.write(8192, filled(512, 0x5a)),
    ),
    [24576, "21a50fe9e1193b87bab79670fb2d6fa806cbcf4a12754a1c6469d230fb8a989e"],
  );
});
