/**
 * Sizes and numbers as the command line writes them. Command-line reference, section 2.
 *
 * Values are bigint, exact up to the 64 bits that the reference tool works with: callers compare them with the range
 * of the option first, and make a `number` only of what a disk can have.
 *
 * @module
 */

/**
 * What a number parser answers: the value, or why there is none. The two reasons have different messages, and the
 * second one also serves for a value outside of an option's own range.
 */
export type ParsedNumber = { value: bigint } | "malformed" | "out-of-range";

const TWO_64 = 1n << 64n;

/** What C's `isspace` skips before a number. */
const BLANKS = String.raw`[ \t\n\v\f\r]*`;

const SIZE = new RegExp(`^${BLANKS}\\+?(\\d*)(?:\\.(\\d*))?([bkmgtpe]?)$`, "i");
const HEX_SIZE = new RegExp(`^${BLANKS}\\+?(0x[\\da-f]+)$`, "i");
const NEGATIVE_SIZE = new RegExp(`^${BLANKS}-\\d+$`);
const INTEGER = new RegExp(`^${BLANKS}([+-]?)(0x[\\da-f]+|[1-9]\\d*|0[0-7]*)$`, "i");

/**
 * Parses a size, such as "64k", "1.5G", ".5k" or "0x200": from 0 to 2^64 - 1 bytes. A fraction is rounded half up to a
 * byte, in double precision as the reference does it. A minus sign before nothing but digits is "out-of-range", any
 * other one "malformed".
 */
export function parseSize(text: string): ParsedNumber {
  const hexadecimal = HEX_SIZE.exec(text)?.[1];
  if (hexadecimal !== undefined) return unsigned(BigInt(hexadecimal));
  if (NEGATIVE_SIZE.test(text)) return "out-of-range";

  const match = SIZE.exec(text);
  if (match === null) return "malformed";
  const [, whole = "", fraction = "", suffix = ""] = match;
  if (whole === "" && fraction === "") return "malformed";
  const power = suffix === "" ? 0 : "bkmgtpe".indexOf(suffix.toLowerCase());
  if (power === 0 && /[1-9]/.test(fraction)) return "malformed";
  const integer = BigInt(whole);
  // A number that alone passes the 64 bits hides its suffix from the reference.
  if (integer >= TWO_64 && suffix !== "") return "malformed";
  const scale = 1024 ** power;
  const rest = Math.floor(Number(`0.${fraction}`) * scale + 0.5);
  return unsigned(integer * BigInt(scale) + BigInt(rest));
}

/**
 * Parses a plain integer in C's base 0: decimal, hexadecimal after `0x`, octal after `0`, with an
 * optional sign. Values are from 0 to 2^64 - 1, for a minus sign wraps around as in C: "-1" is 2^64 - 1,
 * beyond the range of every option.
 */
export function parseInteger(text: string): ParsedNumber {
  const match = INTEGER.exec(text);
  if (match === null) return "malformed";
  const [, sign = "", digits = ""] = match;
  const octal = /^0[0-7]/.test(digits);
  const magnitude = BigInt(octal ? `0o${digits.slice(1)}` : digits);
  if (magnitude >= TWO_64) return "out-of-range";
  return { value: sign === "-" ? BigInt.asUintN(64, -magnitude) : magnitude };
}

function unsigned(value: bigint): ParsedNumber {
  return value < TWO_64 ? { value } : "out-of-range";
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/**
 * A size in bytes for people, with three significant digits: "196 KiB", "1.21 MiB". The unit is the largest that keeps
 * the number below 1000; rounding may then still make it "1e+03 KiB", as C's `%0.3g` prints it.
 */
export function humanSize(bytes: number | bigint): string {
  const value = Number(bytes);
  let power = 0;
  while (power < UNITS.length - 1 && value / (1000 / 1024) >= 1024 ** (power + 1)) power++;
  const divisor = 1024 ** power;
  const shown = value / divisor;
  const decimals = shown >= 100 ? 0 : shown >= 10 ? 1 : shown >= 1 ? 2 : 3;
  // Exact, because C rounds a tie to the even digit and toPrecision() rounds it up.
  const rounded = divideHalfEven(BigInt(value) * 10n ** BigInt(decimals), BigInt(divisor));
  const number = decimals === 0 && rounded === 1000n
    ? "1e+03"
    : String(Number(rounded) / 10 ** decimals);
  return `${number} ${UNITS[power]}`;
}

function divideHalfEven(numerator: bigint, denominator: bigint): bigint {
  const quotient = numerator / denominator;
  const twiceRest = (numerator % denominator) * 2n;
  const up = twiceRest > denominator || (twiceRest === denominator && quotient % 2n === 1n);
  return up ? quotient + 1n : quotient;
}
