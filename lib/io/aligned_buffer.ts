/**
 * Memory whose address is a multiple of the page size, which direct I/O (O_DIRECT) needs.
 *
 * Resizable buffers are reserved as whole pages, ordinary ones are not; and the `resizable` or `growable` mark tells it
 * from the outside, in another worker too.
 *
 * @module
 */

/** A new zeroed array of `length` bytes that begins on a page. `shared` makes its buffer a `SharedArrayBuffer`. */
export function alignedBytes(length: number, options?: { shared?: false }): Uint8Array<ArrayBuffer>;
/** A new zeroed array of `length` bytes that begins on a page, in shared memory. */
export function alignedBytes(length: number, options: { shared: true }): Uint8Array<SharedArrayBuffer>;
export function alignedBytes(length: number, options: { shared?: boolean } = {}): Uint8Array {
  const limit = { maxByteLength: length };
  return options.shared
    ? new Uint8Array(new SharedArrayBuffer(length, limit), 0, length)
    : new Uint8Array(new ArrayBuffer(length, limit), 0, length);
}

/** Whether the first byte of `bytes` is known to lie on a multiple of `unit`, a power of two up to 4096. */
export function isAlignedBytes(bytes: Uint8Array, unit: number): boolean {
  const { buffer } = bytes;
  const onPage = buffer instanceof ArrayBuffer ? buffer.resizable : buffer.growable;
  return onPage && bytes.byteOffset % unit === 0;
}
