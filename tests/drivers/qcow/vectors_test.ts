/** The vectors of the format's reference: what is made and written has exactly these bytes. */
import { assertEquals } from "@std/assert";
import type { MemoryNode } from "../../_memory_node.ts";
import { sha256 } from "../qcow2/_image.ts";
import { create, createEncrypted, field, filled, open } from "./_image.ts";

async function assertVector(file: MemoryNode, length: number, digest: string): Promise<void> {
  assertEquals(file.exactLength, length);
  assertEquals(await sha256(file.bytes()), digest);
}

/** An image as it is after these writes, in their order. */
async function written(
  file: MemoryNode,
  writes: readonly (readonly [offset: number, length: number, value: number])[],
  secret?: string,
): Promise<MemoryNode> {
  const kept = file.copy();
  {
    await using node = await open(kept, secret === undefined ? {} : { secret });
    for (const [offset, length, value] of writes) await node.write(offset, filled(length, value));
  }
  return kept.copy();
}

const behind = { backing_file: "base.raw", backing_fmt: "raw" };

Deno.test("A: an image of 1 MiB", async () => {
  const digest = "8b6cf50c4ce2e2bb4ed52138f66c8fa3c9d337aead7dc158f5e0ae2a34ccf923";
  await assertVector(await create(), 560, digest);
});

Deno.test("A1: an image of 1 GiB", async () => {
  const digest = "c5ffb8d8cc35a758f0afac1c4809206439894c7cb899e8ebc7314d39327b8301";
  await assertVector(await create({ size: "1G" }), 4144, digest);
});

Deno.test("B: an image in front of another", async () => {
  const digest = "d4eab029ac11317f8c1e83669591f091ca6aa75c58a1d15140a8b97277deca7f";
  await assertVector(await create(behind), 568, digest);
});

Deno.test("B2: data in front of another image", async () => {
  const digest = "cb15cb1ba8dfd18ca177e964b9688465f6e2e852e9f9dc95ef2484e0c4e98d42";
  await assertVector(await written(await create(behind), [[1024, 512, 9]]), 34304, digest);
});

Deno.test("C: two writes to one cluster", async () => {
  const digest = "276fa781bd6c1a61272c37a157acaaa5192ca00deb8aa0375b10950dc3758951";
  const file = await written(await create(), [[8192, 512, 0x5a], [8704, 512, 0x11]]);
  await assertVector(file, 12288, digest);
});

/** The two streams of vector D, as the reference's zlib packs clusters of one value. */
const STREAMS = [
  "edc1010d000000c2a09eef1fc41e0e28000000e0dd00",
  "edc1010d000000c2a00cef5fd61e0e28000000e0dd00",
].map((hex) => Uint8Array.fromHex(hex));

async function packed(): Promise<MemoryNode> {
  const file = await create();
  const kept = file.copy();
  await using node = await open(kept);
  for (const [i, stream] of STREAMS.entries()) await node.packer!.writePacked(i * 4096, stream);
  await node.packer!.finish();
  await node.flush();
  return kept.copy();
}

Deno.test("D: compressed clusters", async () => {
  const digest = "dee520279547cd4c6d8f5a6c4bfea3d66c61177222c3859ee08261118433585d";
  await assertVector(await packed(), 8726, digest);
});

Deno.test("D2: a write to a part of a compressed cluster", async () => {
  const digest = "51d1526434b339cf0d1996f725dc8fabd1397f072e8a76060d310beab677a5ee";
  await assertVector(await written(await packed(), [[512, 512, 0x22]]), 16384, digest);
});

Deno.test("E: a sector of an encrypted image", async () => {
  const digest = "f6a5a26592eec07323568c74b0e986f92336561aaf70ec1a342052fa8df2fab7";
  const file = await written(await createEncrypted(), [[4096, 512, 0x5a]], "s");
  await assertVector(file, 12288, digest);
});

Deno.test("F: the smallest image", async () => {
  const digest = "15334efff7f0611f760cd7d21514697f4315e959558e5578d000ba127bb847cf";
  await assertVector(await create({ size: "1" }), 560, digest);
});

Deno.test("a name that stands for no backing file is not stored, but clusters are small", async () => {
  const file = await create({ backing_file: "fat:" });
  assertEquals(field(file, 8), 0n);
  assertEquals(field(file, 32) >> 48n, 0x090cn);
});
