/**
 * Reading and writing fixed-width integers in byte arrays.
 *
 * The functions on `Uint8Array` are for headers and single fields. Loops over a table build one `DataView` with
 * {@linkcode viewOf} and use its own methods, with {@linkcode getSafeU64} and {@linkcode setSafeU64} for the 64-bit
 * fields that become numbers.
 *
 * @module
 */

/** A 64-bit field whose value is above 2^53 - 1, so that it cannot become a `number`. Callers name file and field. */
export class UnsafeIntegerError extends RangeError {
  /** Tells it from other errors where classes do not. */
  override readonly name = "UnsafeIntegerError";
  /** The value that the field holds. */
  readonly value: bigint;

  /** Makes an error for a field that holds `value`. */
  constructor(value: bigint) {
    super(`value ${value} is above 2^53 - 1`);
    this.value = value;
  }
}

const TWO_32 = 0x1_0000_0000;
const MAX_HIGH = 0x1f_ffff;

/** A `DataView` of exactly the bytes that `bytes` shows. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function outside(bytes: Uint8Array, offset: number, width: number): never {
  throw new RangeError(`offset ${offset} leaves no room for ${width} bytes in ${bytes.length}`);
}

/** The byte of `bytes` at `offset`. Throws `RangeError` outside the array. */
export function readU8(bytes: Uint8Array, offset: number): number {
  const value = bytes[offset];
  return value === undefined ? outside(bytes, offset, 1) : value;
}

/** The big-endian 16-bit unsigned integer at `offset`. Throws `RangeError` outside the array. */
export function readU16BE(bytes: Uint8Array, offset: number): number {
  if (!(offset >= 0 && offset + 2 <= bytes.length)) outside(bytes, offset, 2);
  return bytes[offset]! << 8 | bytes[offset + 1]!;
}

/** The little-endian 16-bit unsigned integer at `offset`. Throws `RangeError` outside the array. */
export function readU16LE(bytes: Uint8Array, offset: number): number {
  if (!(offset >= 0 && offset + 2 <= bytes.length)) outside(bytes, offset, 2);
  return bytes[offset + 1]! << 8 | bytes[offset]!;
}

/** The big-endian 32-bit unsigned integer at `offset`. Throws `RangeError` outside the array. */
export function readU32BE(bytes: Uint8Array, offset: number): number {
  if (!(offset >= 0 && offset + 4 <= bytes.length)) outside(bytes, offset, 4);
  return (bytes[offset]! << 24 | bytes[offset + 1]! << 16 | bytes[offset + 2]! << 8 |
    bytes[offset + 3]!) >>> 0;
}

/** The little-endian 32-bit unsigned integer at `offset`. Throws `RangeError` outside the array. */
export function readU32LE(bytes: Uint8Array, offset: number): number {
  if (!(offset >= 0 && offset + 4 <= bytes.length)) outside(bytes, offset, 4);
  return (bytes[offset + 3]! << 24 | bytes[offset + 2]! << 16 | bytes[offset + 1]! << 8 |
    bytes[offset]!) >>> 0;
}

/** The big-endian 64-bit unsigned integer at `offset`. Throws `RangeError` outside the array. */
export function readU64BE(bytes: Uint8Array, offset: number): bigint {
  return BigInt(readU32BE(bytes, offset)) << 32n | BigInt(readU32BE(bytes, offset + 4));
}

/** The little-endian 64-bit unsigned integer at `offset`. Throws `RangeError` outside the array. */
export function readU64LE(bytes: Uint8Array, offset: number): bigint {
  return BigInt(readU32LE(bytes, offset + 4)) << 32n | BigInt(readU32LE(bytes, offset));
}

function safe(high: number, low: number): number {
  if (high > MAX_HIGH) throw new UnsafeIntegerError(BigInt(high) << 32n | BigInt(low));
  return high * TWO_32 + low;
}

/**
 * The big-endian 64-bit unsigned integer at `offset` as a number. Throws {@linkcode UnsafeIntegerError} above
 * 2^53 - 1 and `RangeError` outside the array.
 */
export function readSafeU64BE(bytes: Uint8Array, offset: number): number {
  return safe(readU32BE(bytes, offset), readU32BE(bytes, offset + 4));
}

/**
 * The little-endian 64-bit unsigned integer at `offset` as a number. Throws {@linkcode UnsafeIntegerError} above
 * 2^53 - 1 and `RangeError` outside the array.
 */
export function readSafeU64LE(bytes: Uint8Array, offset: number): number {
  return safe(readU32LE(bytes, offset + 4), readU32LE(bytes, offset));
}

/** Writes the low 16 bits of `value`, big-endian, at `offset`. Throws `RangeError` outside the array. */
export function writeU16BE(bytes: Uint8Array, offset: number, value: number): void {
  if (!(offset >= 0 && offset + 2 <= bytes.length)) outside(bytes, offset, 2);
  bytes[offset] = value >>> 8;
  bytes[offset + 1] = value;
}

/** Writes the low 16 bits of `value`, little-endian, at `offset`. Throws `RangeError` outside the array. */
export function writeU16LE(bytes: Uint8Array, offset: number, value: number): void {
  if (!(offset >= 0 && offset + 2 <= bytes.length)) outside(bytes, offset, 2);
  bytes[offset] = value;
  bytes[offset + 1] = value >>> 8;
}

/** Writes the low 32 bits of `value`, big-endian, at `offset`. Throws `RangeError` outside the array. */
export function writeU32BE(bytes: Uint8Array, offset: number, value: number): void {
  if (!(offset >= 0 && offset + 4 <= bytes.length)) outside(bytes, offset, 4);
  bytes[offset] = value >>> 24;
  bytes[offset + 1] = value >>> 16;
  bytes[offset + 2] = value >>> 8;
  bytes[offset + 3] = value;
}

/** Writes the low 32 bits of `value`, little-endian, at `offset`. Throws `RangeError` outside the array. */
export function writeU32LE(bytes: Uint8Array, offset: number, value: number): void {
  if (!(offset >= 0 && offset + 4 <= bytes.length)) outside(bytes, offset, 4);
  bytes[offset] = value;
  bytes[offset + 1] = value >>> 8;
  bytes[offset + 2] = value >>> 16;
  bytes[offset + 3] = value >>> 24;
}

function halves(value: bigint | number): [high: number, low: number] {
  if (typeof value === "bigint") {
    const wrapped = BigInt.asUintN(64, value);
    return [Number(wrapped >> 32n), Number(wrapped & 0xffff_ffffn)];
  }
  checkSafe(value);
  return [Math.floor(value / TWO_32), value % TWO_32];
}

function checkSafe(value: number): void {
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`${value} is not an unsigned integer below 2^53`);
  }
}

/**
 * Writes a 64-bit integer, big-endian, at `offset`: a bigint modulo 2^64, or a number from 0 to 2^53 - 1. Throws
 * `RangeError` outside the array, or for another number.
 */
export function writeU64BE(bytes: Uint8Array, offset: number, value: bigint | number): void {
  if (!(offset >= 0 && offset + 8 <= bytes.length)) outside(bytes, offset, 8);
  const [high, low] = halves(value);
  writeU32BE(bytes, offset, high);
  writeU32BE(bytes, offset + 4, low);
}

/**
 * Writes a 64-bit integer, little-endian, at `offset`: a bigint modulo 2^64, or a number from 0 to 2^53 - 1. Throws
 * `RangeError` outside the array, or for another number.
 */
export function writeU64LE(bytes: Uint8Array, offset: number, value: bigint | number): void {
  if (!(offset >= 0 && offset + 8 <= bytes.length)) outside(bytes, offset, 8);
  const [high, low] = halves(value);
  writeU32LE(bytes, offset, low);
  writeU32LE(bytes, offset + 4, high);
}

/**
 * The 64-bit unsigned integer of `view` at `offset` as a number, big-endian unless `littleEndian`. Throws
 * {@linkcode UnsafeIntegerError} above 2^53 - 1 and `RangeError` outside the view.
 */
export function getSafeU64(view: DataView, offset: number, littleEndian = false): number {
  const first = view.getUint32(offset, littleEndian);
  const second = view.getUint32(offset + 4, littleEndian);
  return littleEndian ? safe(second, first) : safe(first, second);
}

/**
 * Writes a number from 0 to 2^53 - 1 as a 64-bit integer of `view` at `offset`, big-endian unless `littleEndian`.
 * Throws `RangeError` for another number, or outside the view.
 */
export function setSafeU64(
  view: DataView,
  offset: number,
  value: number,
  littleEndian = false,
): void {
  checkSafe(value);
  const high = Math.floor(value / TWO_32);
  view.setUint32(offset + (littleEndian ? 4 : 0), high, littleEndian);
  view.setUint32(offset + (littleEndian ? 0 : 4), value % TWO_32, littleEndian);
}
