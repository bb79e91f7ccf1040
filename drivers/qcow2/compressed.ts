/**
 * Compressed clusters (sections 5, 7 and 15).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { Codec as CodecName } from "../../lib/block/plan.ts";
import { type Codec, CodecError, loadCodec } from "../../lib/codec/mod.ts";
import { readPadded } from "./_read.ts";
import { packedEntry } from "./cluster_entry.ts";
import type { Qcow2Image } from "./image.ts";
import type { Run } from "./mapping.ts";
import { OFFSET_HIGH, OFFSET_LOW } from "./table.ts";

/** Reads compressed clusters, and remembers the last one: small requests come in rows. */
export class PackedReader {
  /** The image's method. */
  readonly codec: CodecName;
  readonly #image: Qcow2Image;
  #loaded: Promise<Codec> | undefined;
  #last:
    | { readonly offset: number; readonly length: number; readonly bytes: Uint8Array }
    | undefined;

  /** A reader for an open image. */
  constructor(image: Qcow2Image) {
    this.#image = image;
    this.codec = image.header.compressionType === 1 ? "zstd" : "deflate";
  }

  /**
   * Reads a part of a compressed cluster, from its byte `skip` on.
   *
   * @throws {ImageError} `EIO` if its stream is damaged.
   */
  async read(run: Run, skip: number, into: Uint8Array): Promise<void> {
    const bytes = await this.#cluster(run);
    into.set(bytes.subarray(skip, skip + into.length));
  }

  /** Forgets what is remembered: a stream was written or freed. */
  forget(): void {
    this.#last = undefined;
  }

  async #cluster({ packedOffset, packedLength }: Run): Promise<Uint8Array> {
    const last = this.#last;
    if (last !== undefined && last.offset === packedOffset && last.length === packedLength) {
      return last.bytes;
    }
    const codec = await (this.#loaded ??= loadCodec(this.codec));
    const packed = new Uint8Array(packedLength);
    this.#image.event("read_compressed");
    await readPadded(this.#image.file, packedOffset, packed);
    const bytes = new Uint8Array(this.#image.geometry.clusterSize);
    try {
      codec.unpack(packed, bytes);
    } catch (error) {
      if (!(error instanceof CodecError)) throw error;
      throw ImageError.fromErrno("EIO", {
        file: this.#image.context.filename,
        field: "compressed cluster",
        cause: error,
      });
    }
    this.#last = { offset: packedOffset, length: packedLength, bytes };
    return bytes;
  }
}

/**
 * Stores one compressed cluster: see `PackTarget.writePacked`. The stream is
 * in the file before the entry that points to it.
 *
 * @throws {ImageError} `EIO` where a cluster is stored already, `ENOTSUP` with a data file.
 */
export async function writePackedAt(
  image: Qcow2Image,
  offset: number,
  packed: Uint8Array,
): Promise<void> {
  image.assertUsable();
  const { clusterSize, clusterBits, entrySize, l2Entries } = image.geometry;
  const { file, l2, refcounts, lock } = image;
  if (image.hasDataFile) throw unsupported(image);
  if (offset % clusterSize !== 0 || packed.length === 0 || packed.length >= clusterSize) {
    throw ImageError.fromErrno("EINVAL", { file: image.context.filename });
  }
  const word = offset / clusterSize % l2Entries * entrySize / 8;
  const ownFree = async () => {
    const table = await l2.own(offset);
    const { entries } = table;
    if ((entries.high(word) & OFFSET_HIGH) !== 0 || (entries.low(word) & OFFSET_LOW) !== 0) {
      throw ImageError.fromErrno("EIO", {
        file: image.context.filename,
        field: "compressed cluster",
      });
    }
    return table;
  };

  await image.pending.settled(offset, clusterSize);
  const host = await lock.run(async () => {
    await ownFree();
    const place = await refcounts.allocateBytes(packed.length);
    await image.overlap.check(place, packed.length);
    return place;
  });
  try {
    image.event("write_compressed");
    await file.write(host, packed);
    await lock.run(async () => {
      await l2.cache.after(refcounts.cache);
      const table = await ownFree();
      const [high, low] = packedEntry(clusterBits, host, packed.length);
      table.entries.set(word, high, low);
      if (entrySize === 16) table.entries.set(word + 1, 0, 0);
      l2.touch(table);
      image.packed.forget();
    });
  } catch (error) {
    if (!image.broken) await lock.run(() => refcounts.free(host, packed.length, "never"));
    throw error;
  }
}

/**
 * Rounds the file up to 512 bytes after a run of compressed writes, so that it
 * ends where a reader of whole sectors expects it.
 */
export async function finishPacked(image: Qcow2Image): Promise<void> {
  const { file } = image;
  if (image.hasDataFile) throw unsupported(image);
  const { length } = file;
  if ((file.exactLength ?? length) !== length) await file.resize(length, "off");
}

function unsupported(image: Qcow2Image): ImageError {
  return ImageError.fromErrno("ENOTSUP", {
    file: image.context.filename,
    field: "compressed cluster",
  });
}
