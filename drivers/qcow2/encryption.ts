/**
 * Encrypted images (section 14): what their headers tell without a key, and
 * how a key opens them.
 *
 * @module
 */
import type { InfoValue } from "../../lib/block/capabilities.ts";
import type { DriverContext } from "../../lib/block/driver.ts";
import type { DataEncryption } from "../../lib/block/encrypted_data.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { inImage, passphraseOf } from "../../lib/block/passphrase.ts";
import { CryptoError } from "../../lib/crypto/error.ts";
import type { LuksStore } from "../../lib/crypto/luks.ts";
import { readPadded } from "./_read.ts";
import type { Qcow2Header } from "./header.ts";

/** What an image's encryption is opened with. */
export interface EncryptionOwner {
  /** The file with the metadata. */
  readonly file: BlockNode;
  /** Its header. */
  readonly header: Qcow2Header;
  /** Name, secrets. */
  readonly context: DriverContext;
  /** Flushes. */
  barrier(file?: BlockNode): Promise<void>;
}

/**
 * What `info` shows of an image's encryption, `undefined` if it has none.
 *
 * @throws {ImageError} row 23 of section 3, and for a damaged LUKS header (section 4 of its reference).
 */
export async function encryptionDetails(
  file: BlockNode,
  header: Qcow2Header,
  context: DriverContext,
): Promise<{ readonly [key: string]: InfoValue } | undefined> {
  if (header.cryptMethod === 0) return undefined;
  if (header.cryptMethod === 1) return { format: "aes" };
  const { offset } = cryptoHeader(header, context.filename);
  const { LUKS_HEADER_BYTES, luksDetails, parseLuksHeader } = await import(
    "../../lib/crypto/luks_header.ts"
  );
  const bytes = new Uint8Array(LUKS_HEADER_BYTES);
  await readPadded(file, offset, bytes);
  const luks = inImage(context.filename, () => parseLuksHeader(bytes));
  return luksDetails(luks, "luks") as { readonly [key: string]: InfoValue };
}

/**
 * Opens an image's encryption with the secret that the options name;
 * `undefined` if it has none.
 *
 * @throws {ImageError} without a secret, with one that does not fit, and for algorithms that are not supported.
 */
export async function openEncryption(
  image: EncryptionOwner,
  options: OptionSet,
): Promise<DataEncryption | undefined> {
  const { header, context } = image;
  if (header.cryptMethod === 0) return undefined;
  const old = header.cryptMethod === 1;
  // Damage comes before the question for a key.
  if (!old) cryptoHeader(header, context.filename);
  const passphrase = passphraseOf(
    options.string("encrypt.key-secret"),
    context,
    "encrypt.key-secret",
  );
  const { oldEncryption, luksEncryption } = await import(
    "../../lib/block/encrypted_data.ts"
  );
  return await inImage(context.filename, async () => {
    if (old) return await oldEncryption(passphrase);
    const { openLuks } = await import("../../lib/block/luks.ts");
    return await luksEncryption(await openLuks(luksStore(image), passphrase, context), "host");
  });
}

/** The LUKS header and its key slots in an image's file. */
export function luksStore(image: EncryptionOwner): LuksStore {
  const { file, header, context } = image;
  const { offset: start, length } = cryptoHeader(header, context.filename);
  return {
    read: (offset: number, into: Uint8Array) => readPadded(file, start + offset, into),
    write: async (offset: number, from: Uint8Array) => {
      // What lies behind belongs to others, whatever the header says of its slots.
      if (offset + from.length > length) {
        throw new CryptoError("Key slots reach past the encryption header", "LUKS key slots");
      }
      await file.write(start + offset, from);
    },
    barrier: () => image.barrier(file),
  };
}

/** Where the LUKS header is, which an image of that encryption has to say. */
function cryptoHeader({ cryptoHeader: place }: Qcow2Header, filename: string) {
  if (place !== undefined) return place;
  throw new ImageError("Missing CRYPTO header for crypt method 2", {
    errno: "EINVAL",
    file: filename,
    field: "crypto header",
  });
}
