import type { Qcow2Image } from "./image.ts";

/** Reads the active L1 table that the header names into `image.l1`. */
export function loadL1(_image: Qcow2Image): Promise<void> {
  throw new Error("being written");
}

/** Stores one L1 entry as it is in `image.l1`, and flushes. */
export function writeL1Entry(_image: Qcow2Image, _index: number): Promise<void> {
  throw new Error("being written");
}

/**
 * A larger active L1 table (section 10): exactly `entries` entries, or half
 * as many more at a time. Nothing happens if there are enough.
 *
 * @throws {ImageError} `EFBIG` above the format's limit.
 */
export function growL1(
  _image: Qcow2Image,
  _entries: number,
  _size: "exact" | "generous",
): Promise<void> {
  throw new Error("being written");
}
