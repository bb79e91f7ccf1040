import type {
  BitmapStore,
  Checker,
  ImageDetails,
  SnapshotStore,
} from "../../lib/block/capabilities.ts";
import type { Preallocation } from "../../lib/block/node.ts";
import type { Qcow2Image } from "./image.ts";

/** What the node gets from other rooms of this driver. */
export interface Qcow2Parts {
  /** What `info` shows. */
  details(): Promise<ImageDetails>;
  /** Sets the virtual size. */
  resize(length: number, how: Preallocation): Promise<void>;
  /** Rewrites backing file name and format in the header. */
  changeBacking(name: string, format: string | undefined): Promise<void>;
  /** Stores what is kept in memory until the end (bitmaps), before tables are flushed for the last time. */
  beforeClose?(): Promise<void>;
  /** Checks. */
  readonly checker?: Checker;
  /** Internal snapshots. */
  readonly snapshots?: SnapshotStore;
  /** Bitmaps. */
  readonly bitmaps?: BitmapStore;
}

/** The node of an open image: `new Qcow2Node(image, parts)`; a `BlockNode`. */
export class Qcow2Node {
  constructor(_image: Qcow2Image, _parts: Qcow2Parts) {}
}
