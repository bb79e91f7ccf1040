/**
 * What drivers of encrypted images share: the passphrase that an option names,
 * and whose errors those of encryption are.
 *
 * @module
 */
import { CryptoError } from "../crypto/error.ts";
import type { DriverContext } from "./driver.ts";
import { ImageError } from "./error.ts";

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
