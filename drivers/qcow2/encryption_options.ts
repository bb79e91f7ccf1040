import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";
import {
  type CipherName,
  CIPHERS,
  HASHES,
  type HashName,
  IV_GENERATORS,
  type IvGeneratorName,
  type ModeName,
  MODES,
} from "../../lib/crypto/algorithms.ts";
import type { LuksParameters } from "../../lib/crypto/luks.ts";

/** Create options of encrypted images, in the order of the "Formatting" line. */
export const ENCRYPTION_OPTIONS: readonly OptionSpec[] = [
  { name: "encryption", type: "bool", help: "Old name of encrypt.format=aes" },
  {
    name: "encrypt.format",
    type: "str",
    help: "How the disk is encrypted: aes or luks",
  },
  {
    name: "encrypt.key-secret",
    type: "str",
    help: "Id of the secret that holds the key (aes) or the passphrase (luks)",
  },
  { name: "encrypt.cipher-alg", type: "str", help: "Cipher and key length" },
  { name: "encrypt.cipher-mode", type: "str", help: "Mode in which the cipher works" },
  { name: "encrypt.ivgen-alg", type: "str", help: "Where initialization vectors come from" },
  { name: "encrypt.ivgen-hash-alg", type: "str", help: "Hash for initialization vectors" },
  { name: "encrypt.hash-alg", type: "str", help: "Hash for the passphrase" },
  {
    name: "encrypt.iter-time",
    type: "num",
    help: "Milliseconds that hashing the passphrase takes",
  },
];

/** What LUKS options may be, in the order in which the reference looks at them. */
const VALUES: readonly (readonly [key: string, values: readonly string[]])[] = [
  ["cipher-alg", CIPHERS],
  ["cipher-mode", MODES],
  ["ivgen-alg", IV_GENERATORS],
  ["ivgen-hash-alg", Object.keys(HASHES)],
  ["hash-alg", Object.keys(HASHES)],
];

/** An encryption that was asked for. */
export type EncryptionRequest =
  & {
    /** Id of the secret. */
    readonly secret: string | undefined;
  }
  & (
    | {
      /** The old encryption. */
      readonly format: "aes";
    }
    | {
      /** LUKS. */
      readonly format: "luks";
      /** How, defaults filled in; the default time is left to whoever makes it. */
      readonly luks: Omit<LuksParameters, "iterTime"> & { readonly iterTime: bigint | undefined };
    }
  );

function refuse(field: string, message: string): ImageError {
  return new ImageError(message, { errno: "EINVAL", field });
}

/**
 * Checks the encryption options by themselves; `undefined` if there are none.
 *
 * @throws {ImageError} with the reference's texts.
 */
export function checkEncryption(options: OptionSet): EncryptionRequest | undefined {
  const old = options.flag("encryption");
  const given = ENCRYPTION_OPTIONS
    .filter(({ name }) => name.startsWith("encrypt.") && options.has(name))
    .map(({ name }) => name);
  if (!old && given.length === 0) return undefined;
  if (old && options.has("encrypt.format")) {
    throw refuse(
      "encryption",
      "'encrypt.format' and its alias 'encryption' can't be used at the same time",
    );
  }
  const format = old ? "aes" : options.string("encrypt.format");
  if (format === undefined) {
    throw refuse("encrypt.format", "Parameter 'encrypt.format' is missing");
  }
  if (format !== "aes" && format !== "luks") {
    throw refuse("encrypt.format", `Parameter 'format' does not accept value '${format}'`);
  }
  if (format === "aes") {
    const foreign = given.find((name) => !["encrypt.format", "encrypt.key-secret"].includes(name));
    if (foreign !== undefined) throw refuse(foreign, `Parameter '${foreign}' is unexpected`);
  } else {
    for (const [key, values] of VALUES) {
      const value = options.string(`encrypt.${key}`);
      if (value !== undefined && !values.includes(value)) {
        throw refuse(`encrypt.${key}`, `Parameter '${key}' does not accept value '${value}'`);
      }
    }
    options.integer("encrypt.iter-time");
  }
  const secret = options.string("encrypt.key-secret");
  return format === "aes" ? { format, secret } : { format, secret, luks: luksOf(options) };
}

/** Section 5 of the LUKS reference; the values were looked at before. */
function luksOf(options: OptionSet): (EncryptionRequest & { format: "luks" })["luks"] {
  const value = <T>(key: string) => options.string(`encrypt.${key}`) as T | undefined;
  const ivgen = value<IvGeneratorName>("ivgen-alg") ?? "plain64";
  return {
    cipher: value<CipherName>("cipher-alg") ?? "aes-256",
    mode: value<ModeName>("cipher-mode") ?? "xts",
    ivgen,
    ivgenHash: value<HashName>("ivgen-hash-alg") ?? (ivgen === "essiv" ? "sha256" : undefined),
    hash: value<HashName>("hash-alg") ?? "sha256",
    iterTime: options.exact("encrypt.iter-time"),
  };
}
