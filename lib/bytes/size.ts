/**
 * Sizes and numbers as the command line writes them.
 *
 * @module
 */

/** What a number parser answers: the exact value, or why there is none. */
export type ParsedNumber = { value: bigint } | "malformed" | "out-of-range";

/** Parses a size ("64k", "1.5G", "0x200"); the value is in bytes, from 0 to 2^64 - 1. Command-line reference, section 2. */
export function parseSize(_text: string): ParsedNumber {
  throw new Error("being written");
}

/** Parses a plain integer in C's base 0 (decimal, `0x` hexadecimal, `0` octal), -2^63 to 2^64 - 1. Command-line reference, section 2. */
export function parseInteger(_text: string): ParsedNumber {
  throw new Error("being written");
}

/** A size in bytes for people: "196 KiB". Command-line reference, section 2. */
export function humanSize(_bytes: number | bigint): string {
  throw new Error("being written");
}
