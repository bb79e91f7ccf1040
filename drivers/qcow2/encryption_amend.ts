/**
 * Changing the key slots of an encrypted image (section 6 of the LUKS
 * reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { amendKeySlots } from "../../lib/crypto/luks_amend.ts";
import { inImage, passphraseOf } from "./encryption.ts";
import type { Qcow2Image } from "./image.ts";

/** How key slots are changed. */
export interface EncryptionAmendment {
  /** Allow what cannot be undone by anybody: to erase the last key, or to replace one. */
  readonly force: boolean;
  /** Called with a fraction from 0 to 1. */
  readonly progress?: ((fraction: number) => void) | undefined;
}

/**
 * Changes the key slots of an open, writable LUKS image as the `encrypt.*`
 * options say. Ended anywhere, every slot is as it was or as it is to be.
 *
 * @throws {ImageError} with the reference's texts; nothing is changed by options that do not go together.
 */
export async function amendEncryption(
  image: Qcow2Image,
  options: OptionSet,
  { force, progress }: EncryptionAmendment,
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
    return id === undefined ? undefined : () => passphraseOf(id, context);
  };
  progress?.(0);
  await inImage(context.filename, () =>
    amendKeySlots(volume, {
      state: options.string("encrypt.state"),
      keyslot: options.integer("encrypt.keyslot", "keyslot"),
      newSecret: secret("new-secret"),
      oldSecret: secret("old-secret"),
      iterTime: options.exact("encrypt.iter-time"),
      force,
    }));
  progress?.(1);
}
