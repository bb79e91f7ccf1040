import type { Qcow2Image } from "./image.ts";

/** Stores one compressed cluster: see `PackTarget.writePacked`. */
export function writePackedAt(
  _image: Qcow2Image,
  _offset: number,
  _packed: Uint8Array,
): Promise<void> {
  throw new Error("being written");
}
