import type { Allocation } from "../../lib/block/plan.ts";
import type { Qcow2Image } from "./image.ts";
import type { HostRange } from "./image.ts";

/** Host space for a prefix of a guest range: see `Allocator`. */
export function allocateGuest(
  _image: Qcow2Image,
  _offset: number,
  _length: number,
): Promise<Allocation> {
  throw new Error("being written");
}

/** Writes guest bytes. */
export function writeAt(_image: Qcow2Image, _offset: number, _from: Uint8Array): Promise<void> {
  throw new Error("being written");
}

/**
 * Allocates and links clusters for a prefix of a guest range without writing
 * data (metadata preallocation, section 11): where the bytes of that prefix lie.
 */
export function preallocateGuest(
  _image: Qcow2Image,
  _offset: number,
  _length: number,
): Promise<HostRange> {
  throw new Error("being written");
}

/** Links guest clusters from `offset` on to host clusters that are allocated already (section 11, falloc and full). */
export function linkGuest(
  _image: Qcow2Image,
  _offset: number,
  _host: number,
  _clusters: number,
): Promise<void> {
  throw new Error("being written");
}
