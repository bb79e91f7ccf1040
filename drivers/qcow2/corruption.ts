import type { ImageError } from "../../lib/block/error.ts";
import type { Qcow2Image } from "./image.ts";

/**
 * Reports a corruption (section 8) and answers with the `EIO` to throw. A
 * fatal one in a writable image marks it corrupt and makes it unusable.
 */
export function signalCorruption(
  _image: Qcow2Image,
  _text: string,
  _fatal = true,
): Promise<ImageError> {
  throw new Error("being written");
}
