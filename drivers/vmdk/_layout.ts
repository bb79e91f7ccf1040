/** The unit of all positions on disk, bytes. */
export const SECTOR = 512;

/** The first four bytes of a sparse extent of hosted products, as a little-endian number: `KDMV`. */
export const KDMV_MAGIC = 0x564d444b;
/** The same of an ESX redo log: `COWD`. */
export const COWD_MAGIC = 0x44574f43;

/** Bytes at 512 in which an embedded descriptor lies. */
export const DESCRIPTOR_AREA = 20 * SECTOR;
/** Bytes of a stand-alone descriptor that are looked at. */
export const MAX_DESCRIPTOR = 2 ** 20 - 1;
/** Longest stand-alone descriptor that is rewritten, bytes. */
export const MAX_REWRITTEN_DESCRIPTOR = 16 * 2 ** 20;

/** Header flags of a `KDMV` extent. */
export const Flag = {
  newlineCheck: 1,
  redundantDirectory: 2,
  zeroGrains: 4,
  compressed: 0x10000,
  markers: 0x20000,
} as const;

/** Types of marker sectors in a stream. */
export const Marker = { endOfStream: 0, table: 1, directory: 2, footer: 3 } as const;

/** `compressAlgorithm`: deflate in a zlib wrapper. */
export const COMPRESSION_DEFLATE = 1;

/** The directory's sector that says: see the footer. */
export const DIRECTORY_AT_END = 2n ** 64n - 1n;

/** Sectors of a grain of new images. */
export const GRAIN_SECTORS = 128;
/** Entries of a grain table of new images. */
export const TABLE_ENTRIES = 512;

/** Largest grain, sectors. */
export const MAX_GRAIN_SECTORS = 0x200000;
/** Most entries of a grain directory. */
export const MAX_DIRECTORY = 32 * 2 ** 20;
/**
 * Largest compressed grain, bytes, that is inflated: 512 times what any product writes. Half a GiB of
 * buffers for a header of 512 bytes is too much.
 */
export const MAX_PACKED_GRAIN = 32 * 2 ** 20;

/** Bytes in front of a compressed grain: its first sector (8), and how many bytes follow (4). */
export const GRAIN_MARKER = 12;

/** `parentCID` of an image without a parent. */
export const NO_PARENT = 0xffffffff;

/** Extents of a split image, sectors. */
export const SPLIT_SECTORS = 2 ** 31 / SECTOR;
/** Most extents of an image: all are open at a time. It is what VMware's largest split disk, of 8 TiB, has. */
export const MAX_EXTENTS = 4096;
