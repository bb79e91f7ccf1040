import type { ZeroFlags } from "../../lib/block/node.ts";
import type { Qcow2Image } from "./image.ts";

/** Makes a guest range read as zeros (section 7, zero write). */
export function writeZeroesAt(
  _image: Qcow2Image,
  _offset: number,
  _length: number,
  _flags: ZeroFlags,
): Promise<void> {
  throw new Error("being written");
}

/**
 * Discards the whole clusters of a guest range. `full`: the backing file shows
 * through afterwards; else the range reads as zeros (v3).
 */
export function discardAt(
  _image: Qcow2Image,
  _offset: number,
  _length: number,
  _how: "guest" | "full",
): Promise<void> {
  throw new Error("being written");
}
