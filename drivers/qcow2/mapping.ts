import type { Extent } from "../../lib/block/node.ts";
import type { Qcow2Image } from "./image.ts";

/** What a run of guest bytes is, by the table entries alone. */
export type RunState =
  | "unallocated"
  /** Unallocated subclusters of an allocated cluster. */
  | "unallocated-reserved"
  | "zero"
  /** Reads as zeros, host cluster reserved. */
  | "zero-reserved"
  | "data"
  | "compressed";

/** A run of guest bytes with one state, and contiguous in the file where it has a place there. */
export interface Run {
  /** What it is. */
  readonly state: RunState;
  /** Bytes. */
  readonly length: number;
  /** Host offset of its first byte; -1 where it has none, and for compressed clusters. */
  readonly host: number;
  /** Compressed clusters: host offset of the stream. */
  readonly packedOffset: number;
  /** Compressed clusters: bytes of the stream at most. */
  readonly packedLength: number;
}

/** The first run at `offset`, at most `length` bytes. */
export function findRun(_image: Qcow2Image, _offset: number, _length: number): Promise<Run> {
  throw new Error("being written");
}

/** The first run at `offset` as nodes show it. */
export function extentAt(_image: Qcow2Image, _offset: number, _length: number): Promise<Extent> {
  throw new Error("being written");
}

/** Reads guest bytes, through the backing file. */
export function readAt(_image: Qcow2Image, _offset: number, _into: Uint8Array): Promise<void> {
  throw new Error("being written");
}
