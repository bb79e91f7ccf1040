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
  /** Known and (only when opened for reading metadata) unknown bits. */
  incompatible: bigint;
  /** Bits; unknown ones are kept. */
  compatible: bigint;
  /** Bits. */
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
  /** In the order in which they were read. */
  unknownExtensions: UnknownExtension[];
}
