/**
 * What a secret's definition stands for. Command-line reference, section 3.6.
 *
 * No error here says anything of a secret's bytes, beyond how many there are.
 *
 * @module
 */
import { ImageError } from "../block/error.ts";
import type { SecretStore } from "../block/secret.ts";
import { errnoOf, errnoText, HostError } from "../io/errno.ts";

/** How a secret is defined. */
export interface SecretProperties {
  /** What the data or the file holds: the bytes themselves, or base64 of them. */
  readonly format: "raw" | "base64";
  /** The id of the secret that it is encrypted with. */
  readonly keyId?: string | undefined;
  /** The first vector of the encryption, base64. */
  readonly iv?: string | undefined;
  /** The text itself. */
  readonly data?: string | undefined;
  /** The name of the file that holds it. */
  readonly file?: string | undefined;
}

/** Longer than any key, and short enough to be read at once; `/dev/zero` has no end. */
const MAX_FILE = 16 * 1024 * 1024;

const KEY_BYTES = 32;
const BLOCK = 16;

/**
 * The bytes of a secret; `secrets` holds those that it may be encrypted with.
 *
 * @throws {ImageError} in the reference's words.
 */
export function secretBytes(properties: SecretProperties, secrets: SecretStore): Uint8Array {
  const { format, keyId } = properties;
  const payload = load(properties);
  if (keyId === undefined) return format === "base64" ? decodeBase64(payload) : payload;
  const key = secrets.get(keyId);
  if (key === undefined) {
    throw new ImageError(`No secret with id '${keyId}'`, { errno: "EINVAL", field: "keyid" });
  }
  if (key.length !== KEY_BYTES) {
    throw new ImageError(`Key should be ${KEY_BYTES} bytes in length`, {
      errno: "EINVAL",
      field: "keyid",
    });
  }
  if (properties.iv === undefined) {
    throw new ImageError("IV is required to decrypt secret", { errno: "EINVAL", field: "iv" });
  }
  const iv = decodeBase64(new TextEncoder().encode(properties.iv));
  if (iv.length !== BLOCK) {
    throw new ImageError(`IV should be ${BLOCK} bytes in length not ${iv.length}`, {
      errno: "EINVAL",
      field: "iv",
    });
  }
  return decrypt(format === "base64" ? decodeBase64(payload) : payload, key, iv);
}

function load({ data, file }: SecretProperties): Uint8Array {
  if (data !== undefined && file !== undefined) {
    throw new ImageError("'file' and 'data' are mutually exclusive", { errno: "EINVAL" });
  }
  if (data !== undefined) return new TextEncoder().encode(data);
  if (file !== undefined) return readFile(file);
  throw new ImageError("Either 'file' or 'data' must be provided", { errno: "EINVAL" });
}

function readFile(path: string): Uint8Array {
  let doing = "Failed to open file";
  try {
    using file = Deno.openSync(path);
    doing = "Error reading file";
    const chunks: Uint8Array[] = [];
    let length = 0;
    for (;;) {
      const chunk = new Uint8Array(4096);
      const count = file.readSync(chunk);
      if (count === null || count === 0) break;
      chunks.push(chunk.subarray(0, count));
      length += count;
      if (length > MAX_FILE) throw new HostError("EFBIG", "read", path);
    }
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
      chunk.fill(0);
    }
    return bytes;
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    throw new ImageError(`Unable to read ${path}: ${doing} “${path}”: ${errnoText(errno)}`, {
      errno,
      file: path,
      cause: error,
    });
  }
}

/** What each character stands for; the padding counts as zero. */
const DIGITS: ReadonlyMap<number, number> = new Map(
  Array.from(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    (char, i) => [char.charCodeAt(0), i] as const,
  ),
);
const PADDING = "=".charCodeAt(0);
const NEWLINE = "\n".charCodeAt(0);

/** Base64 with newlines anywhere; characters behind the last group of four count for nothing, as there. */
function decodeBase64(text: Uint8Array): Uint8Array {
  if (text.includes(0)) {
    throw new ImageError("Base64 data contains embedded NUL characters", { errno: "EINVAL" });
  }
  if (text.some((char) => !DIGITS.has(char) && char !== PADDING && char !== NEWLINE)) {
    throw new ImageError("Base64 data contains invalid characters", { errno: "EINVAL" });
  }
  const chars = text.filter((char) => char !== NEWLINE);
  const bytes = new Uint8Array(Math.ceil(chars.length / 4) * 3);
  let length = 0;
  for (let at = 0; at + 4 <= chars.length; at += 4) {
    const group = chars.subarray(at, at + 4);
    const bits = group.reduce((bits, char) => bits << 6 | (DIGITS.get(char) ?? 0), 0);
    bytes[length++] = bits >> 16;
    if (group[2] !== PADDING) bytes[length++] = bits >> 8;
    if (group[3] !== PADDING) bytes[length++] = bits;
  }
  return bytes.slice(0, length);
}

/** AES-256-CBC; the last byte tells how many belong to the padding, which may be none. */
function decrypt(payload: Uint8Array, key: Uint8Array, iv: Uint8Array): Uint8Array {
  if (payload.length % BLOCK !== 0) {
    throw new ImageError(`Length ${payload.length} must be a multiple of block size ${BLOCK}`, {
      errno: "EINVAL",
    });
  }
  if (payload.length === 0) return payload;
  // Loaded when it is needed; a command line is read without waiting.
  const { createDecipheriv } = globalThis.process.getBuiltinModule("node:crypto");
  const decipher = createDecipheriv("aes-256-cbc", key, iv).setAutoPadding(false);
  const plain = new Uint8Array(decipher.update(payload));
  // There is nothing left, but the platform frees it only then.
  decipher.final();
  const padding = plain.at(-1)!;
  if (padding > BLOCK) {
    throw new ImageError(
      `Incorrect number of padding bytes (${padding}) found on decrypted data`,
      { errno: "EINVAL" },
    );
  }
  return plain.slice(0, plain.length - padding);
}
