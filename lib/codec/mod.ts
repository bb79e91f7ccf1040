/**
 * The compressions of clusters: packing into a bounded space, unpacking of exactly one cluster.
 *
 * Loading is asynchronous, once a thread; after that all calls are synchronous, as workers want them.
 *
 * @module
 */
import type { Codec, CodecName, PackerName, Unpacker } from "./_codec.ts";

export {
  type Codec,
  CodecError,
  type CodecName,
  type PackerName,
  type Unpacker,
} from "./_codec.ts";

const loaded = new Map<PackerName, Promise<Codec>>();
const loadedForReading = new Map<CodecName, Promise<Unpacker>>();

/** Loads a compression; later calls answer with the same object. */
export function loadCodec(name: PackerName): Promise<Codec> {
  return getOrLoad(loaded, name, load);
}

/** Loads a compression for reading; later calls answer with the same object. */
export function loadUnpacker(name: CodecName): Promise<Unpacker> {
  return getOrLoad(loadedForReading, name, loadForReading);
}

function getOrLoad<N, T>(
  known: Map<N, Promise<T>>,
  name: N,
  load: (name: N) => Promise<T>,
): Promise<T> {
  let codec = known.get(name);
  if (codec === undefined) {
    codec = load(name);
    known.set(name, codec);
  }
  return codec;
}

async function loadForReading(name: CodecName): Promise<Unpacker> {
  switch (name) {
    case "adc":
      return (await import("./adc.ts")).createAdc();
    case "bzip2":
      return (await import("./bzip2.ts")).createBzip2();
    case "lzfse":
      return (await import("./lzfse.ts")).createLzfse();
    default:
      return await loadCodec(name);
  }
}

// node:zlib costs 15 ms at the start: only those who meet compressed clusters pay.
async function load(name: PackerName): Promise<Codec> {
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
