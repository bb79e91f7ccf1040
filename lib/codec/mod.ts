/**
 * The compressions of clusters: packing into a bounded space, unpacking of exactly one cluster.
 *
 * Loading is asynchronous, once a thread; after that all calls are synchronous, as workers want them.
 *
 * @module
 */
import type { Codec, CodecName } from "./_codec.ts";

export { type Codec, CodecError, type CodecName } from "./_codec.ts";

const loaded = new Map<CodecName, Promise<Codec>>();

/** Loads a compression; later calls answer with the same object. */
export function loadCodec(name: CodecName): Promise<Codec> {
  let codec = loaded.get(name);
  if (codec === undefined) {
    codec = load(name);
    loaded.set(name, codec);
  }
  return codec;
}

// node:zlib costs 15 ms at the start: only those who meet compressed clusters pay.
async function load(name: CodecName): Promise<Codec> {
  const zlib = await import("node:zlib");
  switch (name) {
    case "deflate":
      return (await import("./deflate.ts")).createDeflate(zlib);
    case "zlib":
      return (await import("./deflate.ts")).createZlib(zlib);
    case "zlib-exact":
      return (await import("./deflate.ts")).createExactZlib(zlib);
    case "zstd":
      return (await import("./zstd.ts")).createZstd(zlib);
  }
}
