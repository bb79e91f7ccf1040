/**
 * Making an image (section 5 of the format's reference).
 *
 * @module
 */
import type { CreateRequest } from "../../lib/block/driver.ts";
import { passphraseOf } from "../../lib/block/passphrase.ts";
import { newImage } from "./header.ts";
import { createParameters } from "./options.ts";

/**
 * Makes an image. Options are checked before anything is touched.
 *
 * @throws {ImageError} with the reference's texts; `EFBIG` for a size that could not be opened.
 */
export async function createImage({ options, context, createBase }: CreateRequest): Promise<void> {
  const { size, backingFile, hasBacking, secret } = createParameters(options);
  const isEncrypted = secret !== undefined;
  // The key is in nothing that is written here, but an image without one would be of no use.
  if (isEncrypted) passphraseOf(secret ?? undefined, context, "encrypt.key-secret");
  const { head, tableSize } = newImage(size, backingFile, { hasBacking, isEncrypted });
  await using file = await createBase();
  // A device is not empty only because an image is made on it.
  if (file.fixedLength) await file.writeZeroes(head.length, tableSize, { unmap: false });
  else await file.resize(head.length + tableSize, "off");
  await file.flush();
  // The header comes last: before it the file is nobody's image.
  await file.write(0, head);
  await file.flush();
}
