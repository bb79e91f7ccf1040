/**
 * Rounding of offsets and lengths. All work on non-negative integers up to 2^53 - 1, not only on 32 bits, and with any
 * positive unit, not only powers of two.
 *
 * @module
 */

/** `value` rounded down to a multiple of `unit`. */
export function alignDown(value: number, unit: number): number {
  return value - value % unit;
}

/** `value` rounded up to a multiple of `unit`. Throws `RangeError` when the result is above 2^53 - 1. */
export function alignUp(value: number, unit: number): number {
  const rest = value % unit;
  if (rest === 0) return value;
  const result = value - rest + unit;
  if (result > Number.MAX_SAFE_INTEGER) {
    throw new RangeError(`${value} rounded up to ${unit} is above 2^53 - 1`);
  }
  return result;
}

/** Whether `value` is a multiple of `unit`. */
export function isAligned(value: number, unit: number): boolean {
  return value % unit === 0;
}

/** `value / unit` rounded up: how many units hold `value` bytes. Exact, where `Math.ceil(value / unit)` is not. */
export function divideUp(value: number, unit: number): number {
  const rest = value % unit;
  return (value - rest) / unit + (rest === 0 ? 0 : 1);
}

/** `value / unit` rounded down. Exact, where `Math.floor(value / unit)` is not. */
export function divideDown(value: number, unit: number): number {
  return (value - value % unit) / unit;
}

/** Whether `value` is 2^n for an n from 0 to 52. */
export function isPowerOfTwo(value: number): boolean {
  return Number.isSafeInteger(value) && value > 0 && Number.isInteger(Math.log2(value)) &&
    2 ** Math.log2(value) === value;
}
