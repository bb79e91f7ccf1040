/**
 * Changing the key slots of an encrypted image (section 6 of the LUKS
 * reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { inImage, passphraseOf } from "../../lib/block/passphrase.ts";
import { amendKeySlots } from "../../lib/crypto/luks_amend.ts";
import type { Qcow2Image } from "./image.ts";

/**
 * Changes the key slots of an open, writable LUKS image as the `encrypt.*`
 * options say. Ended anywhere, every slot is as it was or as it is to be. With
 * `force` even that is done which nobody can undo: to erase the last key, or to
 * replace one.
 *
 * @throws {ImageError} with the reference's texts; nothing is changed by options that do not go together.
 */
export async function amendEncryption(
  image: Qcow2Image,
  options: OptionSet,
  force: boolean,
): Promise<void> {
  const { context } = image;
  const volume = image.encryption?.volume;
  if (volume === undefined) {
    throw new ImageError("Only LUKS encryption options can be amended", {
      errno: "EINVAL",
      file: context.filename,
      field: "encrypt",
    });
  }
  const secret = (key: string) => {
    const id = options.string(`encrypt.${key}`);
    return id === undefined ? undefined : () => passphraseOf(id, context, `encrypt.${key}`);
  };
  await inImage(context.filename, () =>
    amendKeySlots(volume, {
      state: options.string("encrypt.state"),
      keyslot: options.integer("encrypt.keyslot", "keyslot"),
      newSecret: secret("new-secret"),
      oldSecret: secret("old-secret"),
      iterTime: options.exact("encrypt.iter-time"),
      force,
    }));
}
