/**
 * Opening an image (section 2 of the format's reference).
 *
 * @module
 */
import type { DriverContext } from "../../lib/block/driver.ts";
import type { DataEncryption } from "../../lib/block/encrypted_data.ts";
import type { BlockNode } from "../../lib/block/node.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { passphraseOf, requireEncryption } from "../../lib/block/passphrase.ts";
import { type QcowHeader, readBackingName, readHeader, requireTable } from "./header.ts";
import { QcowImage } from "./image.ts";
import { QcowNode } from "./node.ts";

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
  const header = await readHeader(file, context);
  requireEncryption(header.isEncrypted ? "aes" : undefined, options, context);
  const encryption = await openEncryption(header, options, context);
  try {
    requireTable(header, context);
    const name = await readBackingName(file, header, context);
    return new QcowNode(new QcowImage(file, header, context, encryption), name);
  } catch (error) {
    encryption?.[Symbol.dispose]();
    throw error;
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
