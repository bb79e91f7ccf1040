/** Packing and unpacking one cluster of 64 KiB: what bounds the speed of compressed images. */

import { loadCodec } from "../lib/codec/mod.ts";
import { noise, words } from "../tests/codec/_samples.ts";

const CLUSTER = 65536;
const cluster = words(CLUSTER);
const incompressible = noise(CLUSTER);
const out = new Uint8Array(CLUSTER - 1);
const back = new Uint8Array(CLUSTER);

for (const name of ["deflate", "zstd"] as const) {
  const codec = await loadCodec(name);
  const length = codec.pack(cluster, out);
  if (length === null) throw new Error(`${name} does not pack the sample`);
  const packed = out.slice(0, length);

  Deno.bench("pack a cluster", { group: name }, () => {
    codec.pack(cluster, out);
  });
  Deno.bench("pack a cluster of noise", { group: name }, () => {
    codec.pack(incompressible, out);
  });
  Deno.bench("unpack a cluster", { group: name }, () => {
    codec.unpack(packed, back);
  });
}

const deflate = await loadCodec("deflate");
for (const level of [1, 6]) {
  Deno.bench(`pack a cluster at level ${level}`, { group: "deflate" }, () => {
    deflate.pack(cluster, out, level);
  });
}
