/**
 * Numbers of the format that several modules need.
 *
 * @module
 */

/** Unit of offsets in the block allocation table, and bytes that a bit of a sector bitmap stands for. */
export const SECTOR = 512;

/** Bytes of a footer. */
export const FOOTER_SIZE = 512;

/** Bytes of a dynamic header. */
export const HEADER_SIZE = 1024;

/** Sectors of the largest disk: 2040 GiB. */
export const MAX_SECTORS = 0xff000000;

/**
 * The checksum of a footer or header: the complement of the sum of all bytes, those at `at` excepted,
 * which hold the checksum itself.
 */
export function checksum(bytes: Uint8Array, at: number): number {
  let sum = 0;
  bytes.forEach((byte, index) => {
    if (index < at || index >= at + 4) sum += byte;
  });
  return ~sum >>> 0;
}
