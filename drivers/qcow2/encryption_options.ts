import { ImageError } from "../../lib/block/error.ts";
import {
  LUKS_CREATE_OPTIONS,
  type LuksRequest,
  luksRequest,
  prefixed,
} from "../../lib/block/luks_options.ts";
import type { OptionSet, OptionSpec } from "../../lib/block/options.ts";

const PREFIX = "encrypt.";

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
  ...prefixed(LUKS_CREATE_OPTIONS, PREFIX),
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
      /** How. */
      readonly luks: LuksRequest;
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
    .filter(({ name }) => name.startsWith(PREFIX) && options.has(name))
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
  }
  const secret = options.string("encrypt.key-secret");
  if (format === "aes") return { format, secret };
  return { format, secret, luks: luksRequest(options, PREFIX) };
}
