/**
 * Options of LUKS in image formats: by themselves in `luks`, with a prefix in
 * others (sections 5 and 6 of the LUKS reference).
 *
 * @module
 */
import {
  type CipherName,
  CIPHERS,
  HASHES,
  type HashName,
  IV_GENERATORS,
  type IvGeneratorName,
  type ModeName,
  MODES,
} from "../crypto/algorithms.ts";
import type { LuksParameters } from "../crypto/luks.ts";
import { ImageError } from "./error.ts";
import type { OptionSet, OptionSpec } from "./options.ts";

/** Options of how a new volume is encrypted, in the order of the "Formatting" line. */
export const LUKS_CREATE_OPTIONS: readonly OptionSpec[] = [
  { name: "cipher-alg", type: "str", help: "Cipher and key length" },
  { name: "cipher-mode", type: "str", help: "Mode in which the cipher works" },
  { name: "ivgen-alg", type: "str", help: "Where initialization vectors come from" },
  { name: "ivgen-hash-alg", type: "str", help: "Hash for initialization vectors" },
  { name: "hash-alg", type: "str", help: "Hash for the passphrase" },
  {
    name: "iter-time",
    type: "num",
    help: "Milliseconds that hashing the passphrase takes",
  },
];

/** What `amend -o` takes for key slots, in the order in which the reference looks at them. */
export const LUKS_AMEND_OPTIONS: readonly OptionSpec[] = [
  {
    name: "state",
    type: "str",
    help: "What becomes of key slots: active (a passphrase is added) or inactive",
  },
  { name: "keyslot", type: "num", help: "The one key slot to change, 0 to 7" },
  {
    name: "old-secret",
    type: "str",
    help: "Id of a secret: all key slots with that passphrase",
  },
  {
    name: "new-secret",
    type: "str",
    help: "Id of the secret with the passphrase to add",
  },
  {
    name: "iter-time",
    type: "num",
    help: "Milliseconds that hashing the new passphrase takes",
  },
];

/** Options under names that begin with `prefix`. */
export function prefixed(specs: readonly OptionSpec[], prefix: string): OptionSpec[] {
  return specs.map((spec) => ({ ...spec, name: prefix + spec.name }));
}

/** What options may be, in the order in which the reference looks at them. */
const VALUES: readonly (readonly [key: string, values: readonly string[]])[] = [
  ["cipher-alg", CIPHERS],
  ["cipher-mode", MODES],
  ["ivgen-alg", IV_GENERATORS],
  ["ivgen-hash-alg", Object.keys(HASHES)],
  ["hash-alg", Object.keys(HASHES)],
];

/** How a volume is to be encrypted; the default time is left to whoever makes it. */
export type LuksRequest =
  & Omit<LuksParameters, "iterTime">
  & {
    /** How long its passphrase is to take to try, milliseconds. */
    readonly iterTime: bigint | undefined;
  };

/**
 * How the options that begin with `prefix` want a volume to be encrypted, defaults filled in.
 *
 * @throws {ImageError} `Parameter '…' does not accept value '…'`
 */
export function luksRequest(options: OptionSet, prefix: string): LuksRequest {
  for (const [key, values] of VALUES) {
    const value = options.string(prefix + key);
    if (value === undefined || values.includes(value)) continue;
    throw new ImageError(`Parameter '${key}' does not accept value '${value}'`, {
      errno: "EINVAL",
      field: prefix + key,
    });
  }
  const iterTime = prefix + "iter-time";
  options.integer(iterTime);
  const value = <T>(key: string) => options.string(prefix + key) as T | undefined;
  const ivgen = value<IvGeneratorName>("ivgen-alg") ?? "plain64";
  return {
    cipher: value<CipherName>("cipher-alg") ?? "aes-256",
    mode: value<ModeName>("cipher-mode") ?? "xts",
    ivgen,
    ivgenHash: value<HashName>("ivgen-hash-alg") ?? (ivgen === "essiv" ? "sha256" : undefined),
    hash: value<HashName>("hash-alg") ?? "sha256",
    iterTime: options.exact(iterTime),
  };
}
