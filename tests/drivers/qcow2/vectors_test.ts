/** Test vectors of the format's reference that need guest writes. */
import { assertEquals } from "@std/assert";
import type { BlockNode } from "../../../lib/block/node.ts";
import { loadCodec } from "../../../lib/codec/mod.ts";
import { context, create, open, sha256 } from "./_image.ts";

/** Makes an image, lets `use` write to it, and answers with the file's size and hash. */
async function made(
  options: Readonly<Record<string, string>>,
  use: (node: BlockNode) => Promise<void>,
): Promise<[size: number, sha256: string]> {
  const file = await create({ size: "1M", ...options });
  {
    await using node = await open(file, context({ writable: true, unmap: true }));
    await use(node);
  }
  return [file.exactLength, await sha256(file.bytes())];
}

const filled = (length: number, value: number) => new Uint8Array(length).fill(value);

async function pack(node: BlockNode, offset: number, value: number): Promise<void> {
  const { codec: name, clusterSize } = node.packer!;
  const codec = await loadCodec(name);
  const out = new Uint8Array(clusterSize - 1);
  const length = codec.pack(filled(clusterSize, value), out);
  await node.packer!.writePacked(offset, out.subarray(0, length!));
}

Deno.test("test vector V4: a written cluster", async () => {
  assertEquals(
    await made({ cluster_size: "4096" }, (node) => node.write(8192, filled(4096, 0x5a))),
    [24576, "cfd91decaf6554ed4855f12e99b9412ecf75bfd4346d02723797265b5cc97eb7"],
  );
});

Deno.test("test vector V5: a written subcluster", async () => {
  assertEquals(
    await made(
      { cluster_size: "16384", extended_l2: "on" },
      (node) => node.write(1024, filled(512, 0x5a)),
    ),
    [83456, "0d05a8608ae47ef94b0facd9383f1396d523528486731ae4a19157495010d002"],
  );
});

Deno.test("test vector V6: two deflated clusters", async () => {
  assertEquals(
    await made({ cluster_size: "4096" }, async (node) => {
      await pack(node, 0, 0x5a);
      await pack(node, 4096, 0x11);
    }),
    [20524, "cd966435e4ae0207902ca81520c45697649e1f8f118058d47b5a8627f1f28f4d"],
  );
});

Deno.test("test vector V7: a cluster packed with zstd", async () => {
  assertEquals(
    await made(
      { cluster_size: "4096", compression_type: "zstd" },
      (node) => pack(node, 0, 0x5a),
    ),
    [20499, "610655d90ba2cc1fe710805c049af8b7db9072b6de43dd425ce84dbad287452b"],
  );
});

Deno.test("test vector V15: zeros over nothing, over data and in place of data", async () => {
  assertEquals(
    await made({ cluster_size: "4096" }, async (node) => {
      await node.writeZeroes(0, 8192, { unmap: false });
      await node.write(16384, filled(4096, 1));
      await node.writeZeroes(16384, 4096, { unmap: false });
      await node.writeZeroes(16384, 4096, { unmap: true });
    }),
    [24576, "8232ecda7e185ddba767103b95088d344d94de86180b5484c27ff47388b5a755"],
  );
});
