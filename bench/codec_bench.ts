import { loadCodec } from "../lib/codec/mod.ts";
import { ProgramBytes } from "./_disk.ts";

const CLUSTER = 64 << 10;

/** One cluster from the middle of a program, where its code is. */
function programCluster(): Uint8Array {
  using program = new ProgramBytes();
  const piece = new Uint8Array(1 << 20);
  for (let i = 0; i < 40; i++) program.fill(piece);
  return piece.slice(0, CLUSTER);
}

const cluster = programCluster();

for (const name of ["deflate", "zstd"] as const) {
  const codec = await loadCodec(name);
  const packed = new Uint8Array(CLUSTER);
  const length = codec.pack(cluster, packed);
  if (length === null) throw new Error("the cluster does not shrink");
  const scratch = new Uint8Array(CLUSTER);

  Deno.bench("a cluster of 64 KiB", { group: name }, () => {
    if (codec.pack(cluster, scratch) !== length) throw new Error("another length");
  });

  Deno.bench("a cluster of 64 KiB back", { group: name }, () => {
    codec.unpack(packed.subarray(0, length), scratch);
  });
}
