import type { Qcow2Image } from "./image.ts";

/** Sets the dirty bit in the file (8 bytes at 72) and flushes; nothing if it is set. */
export function markDirty(_image: Qcow2Image): Promise<void> {
  throw new Error("being written");
}

/** Writes all tables, then clears the dirty bit by a header rewrite; nothing if it is clear. */
export function markClean(_image: Qcow2Image): Promise<void> {
  throw new Error("being written");
}

/** Writes changed tables in order, and flushes all files. */
export function flushImage(_image: Qcow2Image): Promise<void> {
  throw new Error("being written");
}
