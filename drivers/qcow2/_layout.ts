/** `QFI\xfb`, the first four bytes of every image. */
export const MAGIC = 0x514649fb;
/** Bytes of a header that this driver writes (version 3). */
export const HEADER_LENGTH_V3 = 112;
/** Bytes of a version 2 header. */
export const HEADER_LENGTH_V2 = 72;

/** Incompatible feature bits (low 32 bits; no higher one is known). */
export const Incompatible = {
  dirty: 1,
  corrupt: 2,
  dataFile: 4,
  compressionType: 8,
  extendedL2: 16,
  all: 31,
} as const;
/** Compatible feature bits. */
export const Compatible = { lazyRefcounts: 1 } as const;
/** Autoclear feature bits. */
export const Autoclear = { bitmaps: 1, dataFileRaw: 2 } as const;

/** Header extension types. */
export const Extension = {
  end: 0,
  backingFormat: 0xe2792aca,
  dataFile: 0x44415441,
  cryptoHeader: 0x0537be77,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
} as const;

/** Largest active L1 table, bytes. */
export const MAX_L1_BYTES = 32 * 1024 * 1024;
/** Largest refcount table that is opened, bytes. */
export const MAX_REFCOUNT_TABLE_BYTES = 8 * 1024 * 1024;
/** Most internal snapshots. */
export const MAX_SNAPSHOTS = 65536;
/** Most bitmaps. */
export const MAX_BITMAPS = 65535;
/** Largest bitmap directory, bytes. */
export const MAX_BITMAP_DIRECTORY_BYTES = 1024 * MAX_BITMAPS;
/** Longest backing file name, bytes. */
export const MAX_BACKING_NAME = 1023;
/**
 * Files end below this. Offsets of tables are multiples of 512, so as numbers
 * they are exact up to here, well above 2^53.
 */
export const MAX_FILE_LENGTH = 2 ** 63;
/** Host offsets lie below this. */
export const MAX_HOST_OFFSET = 2 ** 56;

/**
 * Bounds in place of the format's own for images that the user does not trust
 * (`untrusted`). Each still allows a disk of 256 TiB with 64 KiB clusters,
 * and keeps what opening an image costs below a few MiB.
 */
export const UNTRUSTED = {
  /** Largest active L1 table, bytes. */
  l1Bytes: 4 * 1024 * 1024,
  /** Largest refcount table, bytes. */
  refcountTableBytes: 1024 * 1024,
  /** Most internal snapshots. */
  snapshots: 1024,
  /** Largest snapshot table, bytes. */
  snapshotTableBytes: 1024 * 1024,
  /** Most bitmaps. */
  bitmaps: 256,
  /** Largest bitmap directory, bytes. */
  bitmapDirectoryBytes: 256 * 1024,
  /** Largest table of one bitmap, entries. */
  bitmapTableEntries: 65536,
} as const;
