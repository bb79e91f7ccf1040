/**
 * The header: what cluster 0 says (sections 1 and 2 of the format's reference).
 * `header_reader.ts` reads and checks it, `header_writer.ts` stores it.
 *
 * @module
 */

/** A header extension that this driver does not know; kept and written back. */
export interface UnknownExtension {
  /** Type. */
  readonly type: number;
  /** Data without padding. */
  readonly data: Uint8Array;
}

/** Where the bitmap directory lies (qcow2.md section 2, extension 23852875). */
export interface BitmapsExtension {
  /** Number of bitmaps. */
  readonly count: number;
  /** Directory bytes. */
  readonly directorySize: number;
  /** Directory offset, bytes. */
  readonly directoryOffset: number;
}

/** The header, its extensions and the backing file name: all of cluster 0. Fields change; `writeHeader` stores them. */
export interface Qcow2Header {
  /** 2 or 3. */
  version: number;
  /** Stored backing file name, `""` for none. */
  backingFile: string;
  /** Stored backing format, `undefined` for none. */
  backingFormat: string | undefined;
  /** log2 of the cluster size. */
  clusterBits: number;
  /** Virtual size, bytes, a multiple of 512. */
  size: number;
  /** 0 none, 1 AES-CBC, 2 LUKS. */
  cryptMethod: number;
  /** Entries of the active L1 table. */
  l1Size: number;
  /** Its offset, bytes. */
  l1Offset: number;
  /** Offset of the refcount table, bytes. */
  refcountTableOffset: number;
  /** Its size in clusters. */
  refcountTableClusters: number;
  /** Number of internal snapshots. */
  snapshotCount: number;
  /** Offset of the snapshot table, bytes. */
  snapshotsOffset: number;
  /** Known bits; others are refused when the header is read. */
  incompatible: bigint;
  /** Bits; unknown ones are kept. */
  compatible: bigint;
  /** Bits; unknown ones are cleared when the image is opened for writing. */
  autoclear: bigint;
  /** log2 of refcount bits, 0 to 6. */
  refcountOrder: number;
  /** 0 deflate ("zlib"), 1 zstd. */
  compressionType: number;
  /** Header bytes from 112 on that this driver does not know. */
  unknownFields: Uint8Array;
  /** Name of the external data file as stored, `undefined` for none. */
  dataFile: string | undefined;
  /** Where the LUKS header lies, bytes. */
  cryptoHeader: { readonly offset: number; readonly length: number } | undefined;
  /** Bitmap directory. */
  bitmaps: BitmapsExtension | undefined;
  /** The file names a bitmap directory that nobody kept up to date; the next `writeHeader` drops it. */
  staleBitmaps: boolean;
  /** In the order in which they were read. */
  unknownExtensions: UnknownExtension[];
  /**
   * The stored bytes of names that are not UTF-8, by their text: a header that
   * is written back keeps every name as it was.
   */
  readonly spellings: Map<string, Uint8Array>;
}

/** Whether an incompatible feature bit (see `Incompatible`) is set. */
export function hasFeature(header: Qcow2Header, bit: number): boolean {
  return (header.incompatible & BigInt(bit)) !== 0n;
}

/** Sets or clears an incompatible feature bit in memory. */
export function setFeature(header: Qcow2Header, bit: number, on: boolean): void {
  if (on) header.incompatible |= BigInt(bit);
  else header.incompatible &= ~BigInt(bit);
}

const decoder = new TextDecoder();
const encoder = new TextEncoder();

/** The text of a stored name, up to a NUL if it has one. */
export function decodeName(header: Qcow2Header, bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  const stored = end < 0 ? bytes : bytes.subarray(0, end);
  const name = decoder.decode(stored);
  const encoded = encoder.encode(name);
  const same = encoded.length === stored.length && encoded.every((byte, i) => byte === stored[i]);
  if (!same) header.spellings.set(name, stored.slice());
  return name;
}

/** The bytes of a name as they are stored: those that were read if it is unchanged. */
export function encodeName(header: Qcow2Header, name: string): Uint8Array {
  return header.spellings.get(name) ?? encoder.encode(name);
}
