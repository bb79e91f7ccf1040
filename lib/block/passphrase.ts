/**
 * What drivers of encrypted images share: options that fit the encryption, the
 * passphrase that one of them names, and whose errors those of encryption are.
 *
 * @module
 */
import { CryptoError } from "../crypto/error.ts";
import type { DriverContext } from "./driver.ts";
import { ImageError } from "./error.ts";
import type { OptionSet } from "./options.ts";

const PREFIX = "encrypt.";
const FORMAT = "encrypt.format";
const KNOWN: readonly string[] = [FORMAT, "encrypt.key-secret"];

/**
 * Refuses the options of an image (`encrypt.…`) that speak of another
 * encryption than the one that it has, `undefined` for none, and those that no
 * encryption has.
 *
 * @throws {ImageError} with the reference's text.
 */
export function requireEncryption(
  stored: string | undefined,
  options: OptionSet,
  { filename }: Pick<DriverContext, "filename">,
): void {
  const refuse = (message: string, field: string) =>
    new ImageError(message, { errno: "EINVAL", file: filename, field });
  const format = options.string(FORMAT);
  if (format !== undefined && format !== stored) {
    throw refuse(
      stored === undefined
        ? `No encryption in image header, but options specified format '${format}'`
        : `Header reported '${stored}' encryption format but options specify '${format}'`,
      FORMAT,
    );
  }
  // Where there is no encryption nobody looks at its options.
  if (stored === undefined) return;
  const other = options.keys(PREFIX).find((key) => !KNOWN.includes(key));
  if (other === undefined) return;
  throw refuse(`Parameter '${other.slice(PREFIX.length)}' is unexpected`, other);
}

/**
 * The passphrase in the secret `id`, which the option `parameter` names.
 *
 * @throws {ImageError} if none is named, there is none, or it is no text.
 */
export function passphraseOf(
  id: string | undefined,
  { filename, secret }: Pick<DriverContext, "filename" | "secret">,
  parameter: string,
): Uint8Array {
  const refuse = (message: string) =>
    new ImageError(message, { errno: "EINVAL", file: filename, field: parameter });
  if (id === undefined) throw refuse(`Parameter '${parameter}' is required for cipher`);
  const bytes = secret(id);
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw refuse(`Data from secret ${id} is not valid UTF-8`);
  }
  return bytes;
}

/**
 * Runs a step whose {@linkcode CryptoError}s are of an image.
 *
 * @throws {ImageError} in their place, with the errno `EINVAL`.
 */
export function inImage<T>(filename: string, step: () => T): T {
  const inWords = (error: unknown): never => {
    if (!(error instanceof CryptoError)) throw error;
    throw new ImageError(error.message, {
      errno: "EINVAL",
      file: filename,
      field: error.field,
      hint: error.hint,
    });
  };
  let result: T;
  try {
    result = step();
  } catch (error) {
    return inWords(error);
  }
  return result instanceof Promise ? result.catch(inWords) as T : result;
}
