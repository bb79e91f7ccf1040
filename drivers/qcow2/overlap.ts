import type { Qcow2Image } from "./image.ts";

/** Structures that the guard knows, in the order in which it looks. */
export type Structure =
  | "qcow2_header"
  | "active L1 table"
  | "refcount table"
  | "snapshot table"
  | "inactive L1 table"
  | "active L2 table"
  | "refcount block"
  | "bitmap directory";

/** Refuses writes that would hit metadata (section 7, overlap guard). */
export class OverlapGuard {
  constructor(_image: Qcow2Image) {}

  /**
   * Checks a range of `image.file` (expanded to clusters) before it is written.
   *
   * @throws {ImageError} `EIO`, and marks the image corrupt, if it hits a structure other than `own`.
   */
  check(_offset: number, _length: number, _own?: Structure): Promise<void> {
    throw new Error("being written");
  }
  /** Tells of a new L2 table or refcount block. */
  added(_offset: number): void {
    throw new Error("being written");
  }
}
