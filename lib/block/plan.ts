import type { CipherSpec } from "../crypto/algorithms.ts";
import type { BlockNode } from "./node.ts";

/**
 * The compression methods of image formats: `deflate` is raw, `zlib` the same in its wrapper, which with
 * `zlib-exact` has to end with its cluster and to be true to its checksum.
 */
export type Codec = "deflate" | "zlib" | "zlib-exact" | "zstd";

/** The same, and those that are only read: Apple's two, and bzip2. */
export type UnpackCodec = Codec | "adc" | "bzip2" | "lzfse";

/** One compressed cluster in a file. */
export interface PackedRun {
  /** The protocol node that holds the compressed bytes. */
  readonly file: BlockNode;
  /** Where they begin, bytes. */
  readonly offset: number;
  /** How many there are at most, bytes; the stream may end earlier. */
  readonly length: number;
  /** How they are compressed. */
  readonly codec: UnpackCodec;
  /** The size of the cluster when inflated, bytes. */
  readonly size: number;
  /** Bytes of the inflated cluster that come before the extent. */
  readonly skip: number;
}

/** Where encrypted sectors lie, for whoever decrypts them elsewhere. All in bytes but `sector`. */
export interface SealedRun {
  /** The protocol node that holds them. */
  readonly file: BlockNode;
  /** Where the first sector begins in `file`. */
  readonly offset: number;
  /** Its number, which the cipher goes by. */
  readonly sector: number;
  /** How they are encrypted. */
  readonly cipher: CipherSpec;
  /** With which key. */
  readonly key: Uint8Array;
}

/** Host space reserved for a guest range. Exactly one of `publish` and `abandon` is called, once. */
export interface Allocation {
  /** Guest bytes covered, from the offset that was asked for. */
  readonly length: number;
  /** The protocol node to fill. */
  readonly file: BlockNode;
  /** Where in `file` the first byte goes. */
  readonly offset: number;
  /** Makes the range reachable, once its bytes are in `file`. */
  publish(): Promise<void>;
  /** Gives the space back; the guest range keeps its old content. */
  abandon(): Promise<void>;
}

/**
 * Planning of bulk writes: the driver decides where bytes go and keeps the
 * tables, someone else moves the bytes.
 *
 * A range that was allocated and not yet published may be allocated again by a
 * later request (two runs in one cluster): the second gets the same host
 * space, and either order of publishing is right.
 */
export interface Allocator {
  /**
   * All of the disk has its space already, one byte behind the other: what `allocate` says of the whole
   * disk holds for ever, without being asked, and nothing has to be published.
   */
  readonly isFixed?: boolean;
  /**
   * Reserves host space for a prefix of `[offset, offset + length)`. What the
   * clusters hold beside the range (copy-on-write of head and tail, zeros) is
   * the driver's work and done on return. `null`: this range cannot be filled
   * from outside (encrypted …), use `write`.
   */
  allocate(offset: number, length: number): Promise<Allocation | null>;
}

/** Compressed writes of whole clusters. */
export interface PackTarget {
  /** The image's method. */
  readonly codec: Codec;
  /** Bytes of a cluster before compression. */
  readonly clusterSize: number;
  /**
   * Stores one cluster whose content was compressed elsewhere.
   * `offset` is a multiple of `clusterSize`; the cluster must not be stored
   * yet (`EIO` else). A cluster that does not shrink is written with `write`.
   */
  writePacked(offset: number, packed: Uint8Array): Promise<void>;
  /** Ends a run of compressed writes (rounds the file up to 512 bytes). */
  finish(): Promise<void>;
  /**
   * The image takes nothing but whole clusters in the order of the disk, all of them compressed: copies
   * do so unasked.
   */
  readonly always?: boolean;
  /** Stores a cluster that does not shrink, where `write` would try once more to compress it. */
  writeUnpacked?(offset: number, bytes: Uint8Array): Promise<void>;
}
