/**
 * Opening an image (section 2 of the format's reference).
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import type { DataEncryption } from "../../lib/block/encrypted_data.ts";
import { ImageError } from "../../lib/block/error.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { passphraseOf } from "../../lib/block/passphrase.ts";
import { type QcowHeader, readHeader } from "./header.ts";
import { QcowImage } from "./image.ts";
import { QcowNode } from "./node.ts";

const PREFIX = "encrypt.";
const KEY_SECRET = "encrypt.key-secret";

/**
 * Opens the image in `file`.
 *
 * @throws {ImageError} naming file and field, with the reference's text.
 */
export async function openNode(
  file: BlockNode,
  options: OptionSet,
  context: DriverContext,
): Promise<BlockNode> {
  const { header, backingName } = await readHeader(file, context);
  checkEncryption(header, options, context);
  const encryption = await openEncryption(header, options, context);
  try {
    const name = await backingName();
    return new QcowNode(new QcowImage(file, header, context, encryption), name);
  } catch (error) {
    encryption?.[Symbol.dispose]();
    throw error;
  }
}

/** Refuses options that speak of another encryption than the header, and those that it does not have. */
function checkEncryption(
  { isEncrypted }: QcowHeader,
  options: OptionSet,
  { filename }: DriverContext,
): void {
  const refuse = (message: string, field: string) =>
    new ImageError(message, { errno: "EINVAL", file: filename, field });
  const format = options.string("encrypt.format");
  if (!isEncrypted) {
    if (format === undefined) return;
    throw refuse(
      `No encryption in image header, but options specified format '${format}'`,
      "encrypt.format",
    );
  }
  if (format !== undefined && format !== "aes") {
    throw refuse(
      `Header reported 'aes' encryption format but options specify '${format}'`,
      "encrypt.format",
    );
  }
  const other = options.keys(PREFIX)
    .find((key) => key !== "encrypt.format" && key !== KEY_SECRET);
  if (other !== undefined) {
    throw refuse(`Parameter '${other.slice(PREFIX.length)}' is unexpected`, other);
  }
}

async function openEncryption(
  { isEncrypted }: QcowHeader,
  options: OptionSet,
  context: DriverContext,
): Promise<DataEncryption | undefined> {
  if (!isEncrypted || context.mode.metadataOnly) return undefined;
  const passphrase = passphraseOf(options.string(KEY_SECRET), context, KEY_SECRET);
  const { oldEncryption } = await import("../../lib/block/encrypted_data.ts");
  return await oldEncryption(passphrase);
}
