/**
 * The properties of `throttle-group` objects.
 *
 * @module
 */
import { CommandError } from "./_command.ts";
import { KeyValues } from "./_key_values.ts";

const WHATS = ["bps", "iops"] as const;
const DIRECTIONS = ["total", "read", "write"] as const;
const SIZE = "iops-size";
const LENGTH = "-max-length";

const LIMITS: readonly string[] = [
  ...WHATS.flatMap((what) =>
    DIRECTIONS.flatMap((direction) =>
      ["", "-max", LENGTH].map((suffix) => `${what}-${direction}${suffix}`)
    )
  ),
  SIZE,
];

/** The properties and what help says of their values: the limits, one by one or all in an object. */
export const THROTTLE_PROPERTIES: Readonly<Record<string, string>> = {
  limits: "ThrottleLimits",
  ...Object.fromEntries(LIMITS.map((name) => [`x-${name}`, "int"])),
};

const MAX_RATE = 1e15;
const MAX_SECONDS = 2 ** 32 - 1;

/** The values of a definition, by their keys. */
type Values = ReadonlyMap<string, unknown>;

/**
 * The limits of a group as texts by their names (`iops-total`), checked. `take` answers with the value
 * of a property; it comes from a list of texts if `isList`, else from JSON.
 *
 * @throws {CommandError}
 */
export function readThrottleLimits(
  take: (key: string) => unknown,
  isList: boolean,
  failing: { readonly exitCode: number },
): ReadonlyMap<string, string> {
  const refuse = (message: string) => new CommandError(message, failing);
  const read = (shown: string, value: unknown) => integer(shown, value, isList, refuse);
  const limits = new Map<string, bigint>();
  const object = take("limits");
  if (object !== undefined && !(object instanceof Map)) {
    throw refuse("Invalid parameter type for 'limits', expected: object");
  }
  for (const [key, value] of object as Values ?? []) {
    const shown = `limits.${key}`;
    if (!LIMITS.includes(key)) throw refuse(`Parameter '${shown}' is unexpected`);
    const number = read(shown, value);
    if (key.endsWith(LENGTH) && (number < 0n || number > MAX_SECONDS)) {
      throw refuse(`${key} value must be in the range [0, ${MAX_SECONDS}]`);
    }
    limits.set(key, number);
  }
  for (const name of LIMITS) {
    const key = `x-${name}`;
    const value = take(key);
    if (value === undefined) continue;
    const number = read(key, value);
    if (number < 0n) throw refuse("Property values cannot be negative");
    if (name.endsWith(LENGTH) && number > MAX_SECONDS) {
      // The missing space is the reference's.
      throw refuse(`${key} value must be in therange [0, ${MAX_SECONDS}]`);
    }
    limits.set(name, number);
  }
  const complaint = complaintAbout((name) => Number(limits.get(name) ?? 0n), (name) => {
    return limits.has(name);
  });
  if (complaint !== undefined) throw refuse(complaint);
  return new Map(Array.from(limits, ([name, value]) => [name, String(value)]));
}

function integer(
  shown: string,
  value: unknown,
  isList: boolean,
  refuse: (message: string) => CommandError,
): bigint {
  if (!isList) {
    if (typeof value === "bigint" && BigInt.asIntN(64, value) === value) return value;
    throw refuse(`Invalid parameter type for '${shown}', expected: integer`);
  }
  if (value instanceof KeyValues) throw refuse(`Parameters '${shown}.*' are unexpected`);
  const [, sign, digits] = /^\s*([+-]?)(0x[0-9a-f]+|\d+)$/i.exec(String(value)) ?? [];
  if (digits !== undefined) {
    // A zero in front means base eight; then there is no eight and no nine.
    const isOctal = /^0\d+$/.test(digits);
    if (!isOctal || /^[0-7]+$/.test(digits)) {
      const magnitude = BigInt(isOctal ? `0o${digits.slice(1)}` : digits);
      const number = sign === "-" ? -magnitude : magnitude;
      if (BigInt.asIntN(64, number) === number) return number;
    }
  }
  throw refuse(`Parameter '${shown}' expects integer`);
}

/** What is wrong with limits that are numbers each, in the order in which the reference looks at them. */
function complaintAbout(
  limit: (name: string) => number,
  isGiven: (name: string) => boolean,
): string | undefined {
  const rates = (suffix: string, ...directions: readonly string[]) =>
    WHATS.map((what) => directions.some((name) => limit(`${what}-${name}${suffix}`) !== 0));
  const [totals, others] = [rates("", "total"), rates("", "read", "write")];
  const [maxTotals, maxOthers] = [rates("-max", "total"), rates("-max", "read", "write")];
  if (limit(SIZE) !== 0 && !totals[1] && !others[1]) {
    return "iops size requires an iops value to be set";
  }
  if (WHATS.some((_, i) => (totals[i] && others[i]) || (maxTotals[i] && maxOthers[i]))) {
    return "bps/iops/max total values and read/write values cannot be used at the same time";
  }
  for (const what of WHATS) {
    for (const direction of DIRECTIONS) {
      const name = `${what}-${direction}`;
      const [rate, burst] = [limit(name), limit(`${name}-max`)];
      const seconds = isGiven(name + LENGTH) ? limit(name + LENGTH) : 1;
      if (Math.min(rate, burst) < 0 || Math.max(rate, burst) > MAX_RATE) {
        return `bps/iops/max values must be within [0, ${MAX_RATE}]`;
      }
      if (seconds === 0) return "the burst length cannot be 0";
      if (seconds > 1 && burst === 0) return "burst length set without burst rate";
      if (burst > 0 && seconds > MAX_RATE / burst) {
        return "burst length too high for this burst rate";
      }
      if (burst > 0 && rate === 0) return "bps_max/iops_max require corresponding bps/iops values";
      if (burst > 0 && burst < rate) return "bps_max/iops_max cannot be lower than bps/iops";
    }
  }
  return undefined;
}
