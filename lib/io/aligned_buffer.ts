/**
 * Memory whose address is a multiple of the page size, which direct I/O (O_DIRECT) needs.
 *
 * Memories of WebAssembly begin on a page, ordinary buffers do not. Resizable buffers would too, but
 * typed arrays on them are many times slower.
 *
 * @module
 */

const PAGE = 65536;

const aligned = new WeakSet<ArrayBufferLike>();

/**
 * A new zeroed array of `length` bytes that begins on a page. Each one reserves gigabytes of addresses
 * (not of memory): for a few buffers that live long. It cannot be transferred to another thread.
 */
export function alignedBytes(length: number): Uint8Array<ArrayBuffer> {
  const pages = Math.max(1, Math.ceil(length / PAGE));
  // Without `shared` the buffer is an ordinary one.
  const { buffer } = new WebAssembly.Memory({ initial: pages, maximum: pages });
  if (!(buffer instanceof ArrayBuffer)) throw new TypeError("the memory is shared");
  aligned.add(buffer);
  return new Uint8Array(buffer, 0, length);
}

/** Whether `bytes` lies in memory of {@linkcode alignedBytes} and begins on a multiple of `unit`. */
export function isAlignedBytes(bytes: Uint8Array, unit: number): boolean {
  return bytes.byteOffset % unit === 0 && aligned.has(bytes.buffer);
}
