import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";

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

const HASHES = "md5 sha1 sha224 sha256 sha384 sha512 ripemd160 sm3";
/** What LUKS options may be, in the order in which the reference looks at them. */
const VALUES: readonly (readonly [key: string, values: string])[] = [
  [
    "cipher-alg",
    "aes-128 aes-192 aes-256 des 3des cast5-128 serpent-128 serpent-192 serpent-256 " +
    "twofish-128 twofish-192 twofish-256 sm4",
  ],
  ["cipher-mode", "ecb cbc xts ctr"],
  ["ivgen-alg", "plain plain64 essiv"],
  ["ivgen-hash-alg", HASHES],
  ["hash-alg", HASHES],
];

/** An encryption that was asked for. */
export interface EncryptionRequest {
  /** `aes` or `luks`. */
  readonly format: "aes" | "luks";
  /** Id of the secret. */
  readonly secret: string | undefined;
}

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
      if (value !== undefined && !values.split(" ").includes(value)) {
        throw refuse(`encrypt.${key}`, `Parameter '${key}' does not accept value '${value}'`);
      }
    }
    options.integer("encrypt.iter-time");
  }
  return { format, secret: options.string("encrypt.key-secret") };
}

/** Encrypted images cannot be made yet: there are no secrets, so every request ends as it does without one. */
export function refuseWithoutSecret({ secret }: EncryptionRequest): never {
  throw refuse(
    "encrypt.key-secret",
    secret === undefined
      ? "Parameter 'encrypt.key-secret' is required for cipher"
      : `No secret with id '${secret}'`,
  );
}
