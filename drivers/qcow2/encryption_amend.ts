/**
 * Changing the key slots of an encrypted image (section 6 of the LUKS
 * reference).
 *
 * @module
 */
import { ImageError } from "../../lib/block/error.ts";
import { amendLuks } from "../../lib/block/luks.ts";
import type { OptionSet } from "../../lib/block/options.ts";
import { ENCRYPTION_PREFIX } from "./amend_options.ts";
import type { Qcow2Image } from "./image.ts";

/**
 * Changes the key slots of an open, writable LUKS image as the `encrypt.*`
 * options say: see {@linkcode amendLuks}.
 *
 * @throws {ImageError} if there is no such encryption, and as `amendLuks`.
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
  await amendLuks(volume, options, ENCRYPTION_PREFIX, { context, force });
}
