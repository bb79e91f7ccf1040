/**
 * Names of ciphers, modes, IV generators and hashes, and which of them go
 * together (section 3 of the LUKS reference).
 *
 * @module
 */
import { CryptoError } from "./error.ts";

/** Hashes, with the bytes of their digests. */
export const HASHES = {
  md5: 16,
  sha1: 20,
  sha224: 28,
  sha256: 32,
  sha384: 48,
  sha512: 64,
  ripemd160: 20,
  sm3: 32,
} as const satisfies Readonly<Record<string, number>>;

/** The name of a hash. */
export type HashName = keyof typeof HASHES;

/** Ciphers by their option names, `des` and `3des` among them, which no header can have. */
export const CIPHERS = [
  "aes-128",
  "aes-192",
  "aes-256",
  "des",
  "3des",
  "cast5-128",
  "serpent-128",
  "serpent-192",
  "serpent-256",
  "twofish-128",
  "twofish-192",
  "twofish-256",
  "sm4",
] as const;

/** The name of a cipher with its key size. */
export type CipherName = typeof CIPHERS[number];

/** Modes in which ciphers work. */
export const MODES = ["ecb", "cbc", "xts", "ctr"] as const;

/** The name of a mode. */
export type ModeName = typeof MODES[number];

/** Where initialization vectors come from. */
export const IV_GENERATORS = ["plain", "plain64", "essiv"] as const;

/** The name of an IV generator. */
export type IvGeneratorName = typeof IV_GENERATORS[number];

/** How sectors are encrypted. */
export interface CipherSpec {
  /** Cipher and key size. */
  readonly cipher: CipherName;
  /** Its mode. */
  readonly mode: ModeName;
  /** Where initialization vectors come from. */
  readonly ivgen: IvGeneratorName;
  /** The hash of `essiv`; other generators do without. */
  readonly ivgenHash?: HashName | undefined;
}

/** Bytes of a cipher's key in the header names that LUKS has: `aes` with 32 bytes is `aes-256`. */
const KEY_BYTES: Readonly<Record<string, readonly number[]>> = {
  aes: [16, 24, 32],
  serpent: [16, 24, 32],
  twofish: [16, 24, 32],
  cast5: [16],
  sm4: [16],
};

/** Whether a name is one of a list. */
export function isName<T extends string>(names: readonly T[], name: string): name is T {
  return (names as readonly string[]).includes(name);
}

/** Whether a name is that of a hash. */
export function isHash(name: string): name is HashName {
  return Object.hasOwn(HASHES, name);
}

/** The cipher's name in a header (`aes`) for its option name (`aes-256`). */
export function cipherFamily(cipher: CipherName): string {
  return cipher.split("-")[0]!;
}

/** Bytes of a cipher's key; 0 for ciphers that LUKS has no name for. */
export function cipherKeyBytes(cipher: CipherName): number {
  if (cipher === "sm4") return 16;
  return Number(cipher.split("-")[1] ?? 0) / 8;
}

/** The option name of a header's cipher; `undefined` if there is no such cipher. */
export function cipherOf(family: string, keyBytes: number): CipherName | undefined {
  if (!Object.hasOwn(KEY_BYTES, family) || !KEY_BYTES[family]!.includes(keyBytes)) return undefined;
  return family === "sm4" ? "sm4" : `${family}-${keyBytes * 8}` as CipherName;
}

/** Bytes of the key that a mode takes: XTS has a second one for its masks. */
export function masterKeyBytes({ cipher, mode }: CipherSpec): number {
  return cipherKeyBytes(cipher) * (mode === "xts" ? 2 : 1);
}

/**
 * Bytes of the key of the cipher that makes ESSIV vectors, which is as long as
 * the digest.
 *
 * @throws {CryptoError} if the family has no cipher with such a key.
 */
export function essivKeyBytes({ cipher, ivgenHash }: CipherSpec): number {
  const bytes = HASHES[ivgenHash!];
  const family = cipherFamily(cipher);
  if (KEY_BYTES[family]?.includes(bytes)) return bytes;
  const names: Readonly<Record<string, string>> = {
    aes: "AES",
    serpent: "Serpent",
    twofish: "Twofish",
  };
  throw new CryptoError(
    names[family] === undefined
      ? `Cipher ${cipher} not supported with essiv`
      : `No ${names[family]} cipher with key size ${bytes} available`,
    "ivgen-hash-alg",
  );
}

/**
 * Refuses what cannot be encrypted or decrypted here: every cipher but AES.
 *
 * @throws {CryptoError} in the reference's words for algorithms that its build lacks.
 */
export function requireSupported(spec: CipherSpec): void {
  const { cipher, mode, ivgen, ivgenHash } = spec;
  // The reference's build lacks these, too.
  if (["des", "3des", "sm4"].includes(cipher)) throw unsupported(cipher);
  if (ivgen === "essiv") {
    if (ivgenHash === undefined) {
      throw new CryptoError("Missing IV generator hash specification", "ivgen-hash-alg");
    }
    essivKeyBytes(spec);
  }
  // Its blocks have 8 bytes, and XTS needs 16.
  if (cipher === "cast5-128" && mode === "xts") {
    throw new CryptoError("Unsupported cipher mode xts", "cipher-mode");
  }
  if (cipherFamily(cipher) !== "aes") {
    throw unsupported(cipher);
  }
}

function unsupported(cipher: CipherName): CryptoError {
  return new CryptoError(`Algorithm '${cipher}' not supported`, "cipher-alg");
}
